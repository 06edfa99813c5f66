"""The verb: every file judged once, then timed in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.benchmark.accuracy import Accuracy, Compared, accuracy_of, read_compared
from toolkit.benchmark.machine import this_machine
from toolkit.benchmark.result import Benchmark, FileResult
from toolkit.benchmark.rounds import ROUNDS, STARTS, Speed, measure_speeds
from toolkit.contained import open_child
from toolkit.cores import usable_cores
from toolkit.errors import ModelError, ToolkitError
from toolkit.manifest import CALIBRATION_FILE, KERAS_FILE, check_unchanged, read_manifest
from toolkit.progress import Report, silent
from toolkit.proof import prove
from toolkit.reference import load_reference
from toolkit.runtime import BATCH
from toolkit.spec import Spec
from toolkit.verification import datasets_to_compare_on

if TYPE_CHECKING:
    from toolkit.proof.verdict import Proof

SECONDS = 4.0  # of timed scoring for each file


class Recipe(Protocol):
    """How a plain conversion is made."""

    @property
    def format(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def words(self) -> str: ...


class Attempt(Protocol):
    """What became of it: a file, or why there is none."""

    @property
    def recipe(self) -> Recipe: ...
    @property
    def path(self) -> Path: ...
    @property
    def failure(self) -> str: ...


ConvertPlainly = Callable[[Path, Spec, Path, Path], Sequence[Attempt]]


@dataclass(frozen=True)
class _Contender:
    """A file to be measured, or the reason why it cannot be."""

    path: Path
    format: str
    precision: str
    recipe: str = ""
    failure: str = ""


@dataclass(frozen=True)
class _Judged:
    proof: Proof | None
    accuracy: Accuracy | None
    failures: tuple[str, ...]


def benchmark(
    model: Path | str = Path("model"),
    datasets: Sequence[Path | str] = (),
    *,
    column: str | None = None,
    seconds: float = SECONDS,
    convert_plainly: ConvertPlainly | None = None,
    report: Report = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Benchmark:
    """Measure every exported file of a model directory on this machine. A file that is wrong, or takes its process
    down, is a result with failures; the others go on.

    Args:
        datasets: Parquet files whose estimates are compared; the model's calibration set by default.
        seconds: of timed scoring for each file.
        convert_plainly: makes plain conversions to measure beside; they never come near the model directory. It is
            handed in because a judge does not import the one it judges.
        report: told of turns done and of all turns.
    Raises:
        ModelError: no model, no exported file, no weights.npz of this network, no datasets; no model.keras, where
            plain conversions are asked for.
        InputError: datasets that cannot be read.
    """
    model = Path(model)
    manifest = read_manifest(model)
    if not manifest.files:
        raise ModelError(f"{model}: no exported file to measure. Export first: toolkit export --format all")
    reference = load_reference(model)
    sources = tuple(map(Path, datasets)) or (model / CALIBRATION_FILE,)
    compared = read_compared(manifest.spec, sources, column)
    truth = reference(compared.datasets)
    contenders = []
    for entry in manifest.files:
        try:
            contenders.append(_Contender(check_unchanged(model, entry), entry.format, entry.precision))
        except ModelError as error:
            contenders.append(_Contender(model / entry.file, entry.format, entry.precision, failure=str(error)))
    with _plain_contenders(model, manifest.spec, convert_plainly, say) as others:
        files = _measure([*contenders, *others], manifest.spec, compared, truth, seconds, report)
    return Benchmark(
        model=model,
        parameters=manifest.spec.parameters,
        machine=this_machine(),
        sources=sources,
        datasets=len(compared.datasets),
        batch=BATCH,
        workers=usable_cores(),
        rounds=ROUNDS,
        seconds=seconds,
        files=tuple(files),
    )


@contextmanager
def _plain_contenders(
    model: Path, spec: Spec, convert_plainly: ConvertPlainly | None, say: Callable[[str], None]
) -> Iterator[list[_Contender]]:
    """They exist while the context does."""
    if convert_plainly is None:
        yield []
        return
    keras_file = model / KERAS_FILE
    if not keras_file.is_file():
        raise ModelError(f"{keras_file}: not there, so there is nothing to convert. Leave --vs out.")
    with tempfile.TemporaryDirectory(prefix="toolkit-benchmark-") as name:
        folder = Path(name)
        calibration = folder / "datasets.npy"
        np.save(calibration, datasets_to_compare_on(spec, [model / CALIBRATION_FILE]))
        say("Converting the network by the book, about 20 s.")
        yield [
            _Contender(
                attempt.path, attempt.recipe.format, attempt.recipe.precision, attempt.recipe.words, attempt.failure
            )
            for attempt in convert_plainly(keras_file, spec, folder, calibration)
        ]


def _measure(
    contenders: Sequence[_Contender],
    spec: Spec,
    compared: Compared,
    truth: NDArray[np.float64],
    seconds: float,
    report: Report,
) -> list[FileResult]:
    turns = 0

    def step() -> None:
        nonlocal turns
        turns += 1
        report(turns, len(contenders) + len(runnable) * (STARTS + ROUNDS))

    runnable = [contender.path for contender in contenders if not contender.failure]
    judged: dict[Path, _Judged] = {}
    for contender in contenders:
        judged[contender.path] = _judge(contender, spec, compared, truth)
        step()
    runnable = [path for path in runnable if judged[path].accuracy]
    speeds = measure_speeds(runnable, compared.datasets, usable_cores(), seconds, step)
    return [_result(contender, spec, judged[contender.path], speeds.get(contender.path)) for contender in contenders]


def _judge(contender: _Contender, spec: Spec, compared: Compared, truth: NDArray[np.float64]) -> _Judged:
    """Proof and accuracy, in a process of the file's own."""
    if contender.failure:
        return _Judged(None, None, (contender.failure,))
    failures: list[str] = []
    proof: Proof | None = None
    accuracy: Accuracy | None = None
    with open_child() as child:
        try:
            proof = child.call(prove, contender.path, where=contender.path.name)
            failures += [f"not proved: {failure}" for failure in proof.failures]
        except ToolkitError as error:
            failures.append(str(error))
        try:
            accuracy = accuracy_of(child, contender.path, spec.parameters, compared, truth)
        except ToolkitError as error:
            failures.append(str(error))
    if accuracy and accuracy.not_positive:
        failures.append(f"{accuracy.not_positive} of {len(truth)} datasets have an estimate that is 0 or below.")
    if accuracy and accuracy.not_finite:
        failures.append(f"{accuracy.not_finite} of {len(truth)} datasets have an estimate that is NaN or infinite.")
    return _Judged(proof, accuracy, tuple(failures))


def _result(contender: _Contender, spec: Spec, judged: _Judged, speed: Speed | ToolkitError | None) -> FileResult:
    proof, failures = judged.proof, judged.failures
    if isinstance(speed, ToolkitError):
        failures, speed = (*failures, str(speed)), None
    return FileResult(
        file=contender.path.name,
        format=contender.format,
        precision=contender.precision,
        recipe=contender.recipe,
        bytes=contender.path.stat().st_size if contender.path.is_file() else 0,
        speed=speed,
        accuracy=judged.accuracy,
        proved=proof is not None and proof.passed,
        lower_bound=dict(zip(spec.parameters, proof.lower, strict=False)) if proof else {},
        failures=failures,
    )
