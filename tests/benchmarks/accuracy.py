"""How close a model of one of the samples comes to the best that any estimator can do, on datasets nobody trained on.

    python -m tests.benchmarks.accuracy --model samples/model                  5,000 datasets, half a minute
    python -m tests.benchmarks.accuracy --model samples/model --count 500      wider error bars
    python -m tests.benchmarks.accuracy --model build/decay                    the problem is known by its parameters

The model is a directory or one of its files. The limit of the diffusion and psychometric problems is the posterior
mean by the exact likelihood under the prior of the simulator: no estimator has a smaller RMSE on average. That of the
decay is the Cramer-Rao bound. Classical estimators stand beside. What was computed without the model is kept in
build/accuracy. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import toolkit
import toolkit.estimator
from tests.benchmarks.limits import decay, diffusion, psychometric
from tests.sample_files import SAMPLES, load_sample
from toolkit.files import appears_whole
from toolkit.manifest import MANIFEST, read_manifest

Array = NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "accuracy"
SEED = 771_000
RESAMPLES = 400
LIMIT = "posterior mean"


@dataclass(frozen=True)
class Problem:
    """A sample, what is known to estimate its parameters, and how good a model has to be.

    Attributes:
        estimators: (datasets, true values) -> estimates, under their names; all float64 (n, parameters) but datasets.
        rmse, p90: times that of LIMIT, at most, for each parameter.
        ahead: (estimator, how many parameters): its RMSE is to be larger than the model's.
        median: largest median relative error of a parameter.
    """

    name: str
    estimators: dict[str, Callable[[NDArray[np.float32]], Array]]
    rmse: tuple[float, ...] = ()
    p90: float | None = None
    ahead: tuple[str, ...] = ()
    median: tuple[tuple[str, float], ...] = ()


PROBLEMS = (
    Problem(
        "diffusion",
        {
            LIMIT: lambda datasets: diffusion.posterior(datasets)[0],
            "EZ, closed form": diffusion.ez,
            "maximum likelihood": diffusion.maximum_likelihood,
        },
        rmse=(1.06, 1.10, 1.15),
        p90=1.15,
        ahead=("EZ, closed form", "maximum likelihood"),
    ),
    Problem(
        "psychometric",
        {LIMIT: lambda datasets: psychometric.posterior(datasets)[0]},
        rmse=(1.12, 1.20, 1.12),
    ),
    Problem("decay", {"maximum likelihood": decay.maximum_likelihood}, median=(("sigma", 0.06),)),
)


@dataclass(frozen=True)
class Bar:
    """One number that has to be small enough, and its standard error by bootstrap over datasets."""

    what: str
    value: float
    error: float
    most: float

    @property
    def met(self) -> bool:
        return self.value <= self.most

    def __str__(self) -> str:
        verdict = "met" if self.met else "MISSED"
        return f"{self.what:58}{self.value:8.4f} +- {self.error:.4f}   at most {self.most:.2f}   {verdict}"


@dataclass(frozen=True)
class Trial:
    """Fresh datasets of a problem, and what every estimator but the model makes of them."""

    parameters: tuple[str, ...]
    datasets: NDArray[np.float32]
    true: Array
    estimates: dict[str, Array]


def rmse(estimates: Array, true: Array) -> Array:
    return np.sqrt(np.mean((estimates - true) ** 2, axis=0))


def relative_error(estimates: Array, true: Array, level: float) -> Array:
    """That quantile of |estimate / true - 1| of each parameter."""
    return np.quantile(np.abs(estimates / true - 1), level, axis=0)


def median_relative_error(estimates: Array, true: Array) -> Array:
    return relative_error(estimates, true, 0.5)


def p90_relative_error(estimates: Array, true: Array) -> Array:
    return relative_error(estimates, true, 0.9)


def make_trial(problem: Problem, count: int, seed: int) -> Trial:
    """Simulate, and take the estimates from the cache where the same code has made them before."""
    sample = load_sample(problem.name)
    datasets, parameters = sample.simulate(count, np.random.default_rng(seed))
    sources = [SAMPLES / f"{problem.name}.py", Path(__file__).parent / "limits" / f"{problem.name}.py"]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + datasets.tobytes()).hexdigest()[:16]
    cached = FOLDER / f"{problem.name}.{count}.{key}.npz"
    if not cached.exists():
        found = {name: estimator(datasets) for name, estimator in problem.estimators.items()}
        FOLDER.mkdir(parents=True, exist_ok=True)
        with appears_whole(cached) as partial, partial.open("wb") as target:
            np.savez(target, **found)
    with np.load(cached) as stored:
        estimates = {name: stored[name] for name in problem.estimators}
    return Trial(sample.PARAMETERS, datasets, parameters.astype(np.float64), estimates)


def bars_of(problem: Problem, trial: Trial, estimates: Array) -> list[Bar]:
    """What the problem asks of the model's estimates, (n, parameters)."""
    chosen = np.random.default_rng(0).integers(0, len(trial.true), (RESAMPLES, len(trial.true)))

    def ratios(measure: Callable[[Array, Array], Array], other: Array | None) -> tuple[Array, Array]:
        def ratio(rows: NDArray[np.int_] | slice) -> Array:
            ours = measure(estimates[rows], trial.true[rows])
            return ours if other is None else ours / measure(other[rows], trial.true[rows])

        return ratio(slice(None)), np.std([ratio(rows) for rows in chosen], axis=0)

    found = []
    if problem.rmse:
        values, errors = ratios(rmse, trial.estimates[LIMIT])
        for name, value, error, most in zip(trial.parameters, values, errors, problem.rmse, strict=True):
            found.append(Bar(f"RMSE of {name}, times that of the {LIMIT}", value, error, most))
    if problem.p90:
        values, errors = ratios(p90_relative_error, trial.estimates[LIMIT])
        for name, value, error in zip(trial.parameters, values, errors, strict=True):
            what = f"90th percentile of relative error of {name}, likewise"
            found.append(Bar(what, value, error, problem.p90))
    for other in problem.ahead:
        values, errors = ratios(rmse, trial.estimates[other])
        for name, value, error in zip(trial.parameters, values, errors, strict=True):
            found.append(Bar(f"RMSE of {name}, times that of {other}", value, error, 1.0))
    if problem.median:
        values, errors = ratios(median_relative_error, None)
        for name, most in problem.median:
            index = trial.parameters.index(name)
            found.append(Bar(f"median relative error of {name}", values[index], errors[index], most))
    return found


def table_of(problem: Problem, trial: Trial, estimates: Array) -> list[str]:
    """RMSE, median and 90th percentile of relative error of every estimator, one line each."""
    width = 9 * len(trial.parameters) + 3
    heads = ("RMSE", "median relative error, %", "90th percentile, %")
    lines = [f"{'':20}" + "".join(f"{head:>{width}}" for head in heads)]
    lines.append(f"{'':20}" + 3 * ("   " + "".join(f"{name:>9}" for name in trial.parameters)))

    def line(label: str, measured: list[Array]) -> str:
        groups = (
            "   " + "".join(f"{value:9.{digits}f}" for value in values)
            for values, digits in zip(measured, (4, 2, 2), strict=True)
        )
        return f"{label:20}" + "".join(groups)

    for label, each in {**trial.estimates, "model": estimates}.items():
        true = trial.true
        measured = [rmse(each, true), 100 * median_relative_error(each, true), 100 * p90_relative_error(each, true)]
        lines.append(line(label, measured))
        if problem.name == "decay" and label == "maximum likelihood":
            x = trial.datasets[0, :, 0].astype(np.float64)
            bound = np.sqrt(np.mean(decay.deviations(x, true) ** 2, axis=0))
            relative = [100 * decay.least_relative_error(x, true, level) for level in (0.5, 0.9)]
            lines.insert(-1, line("Cramer-Rao bound", [bound, *relative]))
    return lines


def problem_of(model: Path) -> Problem:
    """The sample whose parameters the model has."""
    spec = read_manifest(model if model.is_dir() else model.parent).spec
    for problem in PROBLEMS:
        if spec.parameters == load_sample(problem.name).PARAMETERS:
            return problem
    raise SystemExit(f"{model}: estimates {', '.join(spec.parameters)}, which is no sample's. Name it: --problem")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.accuracy", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", type=Path, default=ROOT / "samples" / "model")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--problem", choices=[problem.name for problem in PROBLEMS])
    options = parser.parse_args()
    named = [problem for problem in PROBLEMS if problem.name == options.problem]
    problem = named[0] if named else problem_of(options.model)
    exported = options.model / toolkit.estimator.DEFAULT_FILE
    before_export = options.model.is_dir() and (options.model / MANIFEST).exists() and not exported.exists()
    estimator = toolkit.load(options.model / "model.keras" if before_export else options.model)
    trial = make_trial(problem, options.count, options.seed)
    estimates = np.concatenate([estimator(trial.datasets[i : i + 500]) for i in range(0, options.count, 500)]).astype(
        np.float64
    )
    print(f"{problem.name}: {options.count:,} datasets of seed {options.seed}, {estimator}")
    print("\n".join(table_of(problem, trial, estimates)), end="\n\n")
    bars = bars_of(problem, trial, estimates)
    print("\n".join(map(str, bars)))
    sys.exit(not all(bar.met for bar in bars))


if __name__ == "__main__":
    main()
