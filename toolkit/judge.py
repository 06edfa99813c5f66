"""The verdict on one exported file: is every estimate positive, and right?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.contained import open_child
from toolkit.errors import ModelError, ToolkitError
from toolkit.json_values import jsonable
from toolkit.manifest import RelativeError
from toolkit.probes import WITHIN_RANGES, Probes, extreme_inputs, stored_adversarial
from toolkit.proof import prove
from toolkit.reference import load_logits
from toolkit.runtime import FLOAT16, kernels_to_judge
from toolkit.spec import FP16_MATH, QUANTIZED, SMALLEST_NORMAL_FLOAT32, Spec, held_back
from toolkit.trials import Trial, run_in_child, try_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from toolkit.proof.verdict import Proof
    from toolkit.spec import FloatArray, Predict

Gates = Mapping[str, Mapping[str, float]]

# The largest relative error that passes, by precision and statistic. Float files are gated on their worst dataset:
# nothing but rounding separates them from the truth.
GATES: Gates = {
    "float32": {"max": 1e-4},
    "float16": {"max": 2e-2},
    "int8": {"median": 1e-2, "p99": 5e-2},
    "integer": {"median": 1e-2, "p99": 5e-2},
    FP16_MATH: {"median": 1e-2, "p99": 5e-2},  # float files that are computed in float16, whatever their weights
}
EMULATED_DATASETS = 500  # compared in float16 arithmetic, which is emulated: 7 ms each
STATISTICS = ("median", "p99", "max")

MOST_UNSEEN = 500  # about; integer-only files also run in kernels that take milliseconds for each

DATASETS = "datasets"  # the kind of those whose estimates are compared


@dataclass(frozen=True)
class Verdict:
    """What is known of one file; `passed` when nothing failed.

    Attributes:
        lower_bound, minimum_probed, minimum_seen, relative_error: by parameter; empty where it did not come to that.
        relative_error: the largest of each statistic over the kernel sets.
        proof: None where the file could not be read.
        trials: one for each kernel set, or way of a target, that could be run to the end.
        arithmetic: that the bound is proved for: float32, float16, or int8 where the file gives codes.
    """

    file: str
    format: str
    precision: str
    proved: bool
    lower_bound: dict[str, float]
    minimum_probed: dict[str, float]
    minimum_seen: dict[str, float]
    relative_error: dict[str, RelativeError]
    failures: tuple[str, ...]
    proof: Proof | None = None
    trials: tuple[Trial, ...] = ()
    arithmetic: str = "float32"

    @property
    def gate(self) -> str:
        """What its errors are held to: a key of GATES."""
        return FP16_MATH if self.arithmetic == "float16" else self.precision

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """The object that `verify --json` prints; a number that is NaN or infinite is null."""
        return {
            "file": self.file,
            "format": self.format,
            "precision": self.precision,
            "arithmetic": self.arithmetic,
            "passed": self.passed,
            "proved": self.proved,
            "lower_bound": jsonable(self.lower_bound),
            "minimum_probed": jsonable(self.minimum_probed),
            "minimum_seen": jsonable(self.minimum_seen),
            "relative_error": {name: jsonable(asdict(error)) for name, error in self.relative_error.items()},
            "failures": list(self.failures),
        }


class Judge:
    """Judges files of one model against the float64 forward pass of its trained weights, over the same datasets."""

    def __init__(
        self,
        spec: Spec,
        directory: Path,
        datasets: FloatArray,
        *,
        gates: Gates = GATES,
        fitted: bool = False,
    ) -> None:
        """
        Args:
            directory: where weights.npz and adversarial.npz are.
            datasets: float32 (datasets, rows, columns), at least one.
            fitted: quantized files were fitted to some of these datasets; they are compared on the others.
        Raises:
            ModelError: either is absent, or not of this network.
        """
        self.spec, self.gates = spec, gates
        true_logits = load_logits(directory)
        self.datasets = Probes(DATASETS, datasets, tuple(f"dataset {index}" for index in range(len(datasets))))
        self.probes = (extreme_inputs(spec, datasets), *stored_adversarial(directory, spec))
        logits = true_logits(datasets)
        self.truth = np.logaddexp(0.0, logits)
        kept = slice(None)
        if fitted:
            apart = held_back(len(datasets)).step
            kept = slice(None, None, apart * max(1, len(datasets) // apart // MOST_UNSEEN))
        self.unseen = Probes(DATASETS, datasets[kept], self.datasets.names[kept])
        self.unseen_truth = self.truth[kept]
        self.logits = _ranges(spec, logits)
        within = next(probes for probes in self.probes if probes.kind == WITHIN_RANGES)
        self.logits_within_ranges = _ranges(spec, true_logits(within.datasets))

    def __call__(
        self, path: Path, precision: str, ways: Mapping[str, Predict] | None = None, *, arithmetic: str = "float32"
    ) -> Verdict:
        """The verdict on one file. One that cannot be read, or that crashes a runtime, has failed; nothing is raised.

        The file is proved in a child process of its own, which it shares with no file before it.

        Args:
            ways: what runs it, by name; the kernel sets of this machine's runtime by default, in the same child.
            arithmetic: float16 for a file that hardware may compute so: proved, run, and held to what that allows.
        """
        failures: list[str] = []
        proof: Proof | None = None
        trials: list[Trial] = []
        names = self.spec.parameters
        try:
            with open_child() as child:
                proof = child.call(prove, path, arithmetic, where=path.name)
                if len(proof.lower) != len(names):
                    raise ModelError(f"gives {len(proof.lower)} estimates for {len(names)} parameters.")
                failures += [f"not proved: {failure}" for failure in proof.failures]
                required = max(proof.required, SMALLEST_NORMAL_FLOAT32)
                datasets, truth = self.datasets, self.truth
                if precision in QUANTIZED:
                    datasets, truth = self.unseen, self.unseen_truth
                kernels = kernels_to_judge(path, precision, arithmetic)
                here = {each: run_in_child(child, path, each) for each in kernels}
                for way, run in (ways or here).items():
                    compared, true = (datasets, truth) if way != FLOAT16 else self._fewer()
                    trials.append(try_file(path.name, way, run, names, self.probes, compared, true, required))
        except ToolkitError as error:
            failures.append(str(error))
        lower = dict(zip(names, proof.lower, strict=False)) if proof else {}
        probed = self._smallest(trials, [probes.kind for probes in self.probes])
        seen = self._smallest(trials, [DATASETS])
        errors = _worst(names, trials)
        failures += _said_once(trials, "" if ways else " kernels")
        failures += _below_the_bound(lower, probed, seen)
        failures += self._over_gates(errors, FP16_MATH if arithmetic == "float16" else precision)
        return Verdict(
            file=path.name,
            format=path.suffix[1:],
            precision=precision,
            proved=proof is not None and proof.passed,
            lower_bound=lower,
            minimum_probed=probed,
            minimum_seen=seen,
            relative_error=errors,
            failures=tuple(failures),
            proof=proof,
            trials=tuple(trials),
            arithmetic=proof.arithmetic if proof else arithmetic,
        )

    def _smallest(self, trials: Sequence[Trial], kinds: Sequence[str]) -> dict[str, float]:
        minima = [trial.minimum[kind] for trial in trials for kind in kinds if kind in trial.minimum]
        return dict(zip(self.spec.parameters, np.min(minima, axis=0).tolist(), strict=True)) if minima else {}

    def _fewer(self) -> tuple[Probes, NDArray[np.float64]]:
        """Some of the datasets from all over them, and their truth."""
        some = slice(None, None, -(-len(self.truth) // EMULATED_DATASETS))
        return Probes(DATASETS, self.datasets.datasets[some], self.datasets.names[some]), self.truth[some]

    def _over_gates(self, errors: Mapping[str, RelativeError], key: str) -> list[str]:
        return [
            f"{statistic} relative error of {name} is {getattr(error, statistic):.2g}, the gate for {key} is {gate:g}."
            for name, error in errors.items()
            for statistic, gate in self.gates[key].items()
            if not getattr(error, statistic) <= gate
        ]


def _said_once(trials: Sequence[Trial], noun: str) -> list[str]:
    """What went wrong in the trials, with the ways to run the file in which it did."""
    kernels: dict[str, list[str]] = {}
    for trial in trials:
        for failure in trial.failures:
            kernels.setdefault(failure, []).append(trial.kernels)
    return [f"{failure}, {' and '.join(where)}{noun}." for failure, where in kernels.items()]


def _worst(names: Sequence[str], trials: Sequence[Trial]) -> dict[str, RelativeError]:
    """The largest of each statistic over kernel sets; NaN wins."""
    if not trials:
        return {}
    each = np.array(
        [[[getattr(error, one) for one in STATISTICS] for error in trial.relative_error] for trial in trials]
    )
    return {name: RelativeError(*row) for name, row in zip(names, each.max(axis=0).tolist(), strict=True)}


def _below_the_bound(lower: Mapping[str, float], *minima: Mapping[str, float]) -> list[str]:
    """What a runtime gave below what was proved: then the proof, or what it assumes of the runtime, is wrong."""
    return [
        f"{name} = {minimum[name]:.3g} is below the proved bound {lower[name]:.3g}: the proof is wrong; report it."
        for minimum in minima
        for name in minimum
        if minimum[name] < lower[name]
    ]


def _ranges(spec: Spec, values: np.ndarray) -> dict[str, tuple[float, float]]:
    return {
        name: (float(each.min()), float(each.max()))
        for name, each in zip(spec.parameters, values.T, strict=True)
        if each.size
    }
