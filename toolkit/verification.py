"""Every exported file of a model directory before its judge: `verify`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.datasets import read_datasets
from toolkit.errors import ModelError, TargetError
from toolkit.judge import GATES, Gates, Judge, Verdict
from toolkit.manifest import (
    CALIBRATION_FILE,
    WEIGHTS_FILE,
    Manifest,
    ModelFile,
    check_unchanged,
    read_manifest,
)
from toolkit.spec import Spec

if TYPE_CHECKING:
    from toolkit.spec import FloatArray
    from toolkit.targets.frame import Target


@dataclass(frozen=True)
class Memory:
    """Bytes that a file takes of each kind of memory on one variant of a target."""

    file: str
    variant: str
    bytes: Mapping[str, int]

    def describe(self) -> str:
        """`194,108 bytes of flash and 346,712 bytes of stack, Cortex-M7`."""
        return f"{' and '.join(f'{count:,} bytes of {kind}' for kind, count in self.bytes.items())}, {self.variant}"


@dataclass(frozen=True)
class Verification:
    """The verdicts on every exported file of a model directory, and what they were judged by.

    Attributes:
        sources: the files that the compared datasets are from.
        datasets: how many there were.
        logits: smallest and largest true logit of each parameter over them.
        logits_within_ranges: over the adversarial inputs within the ranges of real ones.
        target: what ran the files, where it was not this machine: its description.
        not_run: the files that the target does not run, and why, in the manifest's order; they have no verdict.
        memory: what files take there, where the target counts it.
    """

    model: Path
    manifest: Manifest
    gates: Gates
    sources: tuple[Path, ...]
    datasets: int
    logits: dict[str, tuple[float, float]]
    logits_within_ranges: dict[str, tuple[float, float]]
    verdicts: tuple[Verdict, ...]
    target: str | None = None
    not_run: tuple[tuple[str, str], ...] = ()
    memory: tuple[Memory, ...] = ()

    @property
    def passed(self) -> bool:
        return all(verdict.passed for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """What `verify --json` prints; `target`, `not_run` and `memory` are there where a target ran the files."""
        content = {"passed": self.passed, "files": [verdict.to_json() for verdict in self.verdicts]}
        if self.target is not None:
            not_run = [{"file": file, "reason": reason} for file, reason in self.not_run]
            memory = [{**asdict(each), "bytes": dict(each.bytes)} for each in self.memory]
            content |= {"target": self.target, "not_run": not_run, "memory": memory}
        return content

    def entry_of(self, verdict: Verdict) -> ModelFile:
        return next(entry for entry in self.manifest.files if entry.file == verdict.file)


def verify(
    model: Path | str = Path("model"),
    datasets: Sequence[Path | str] = (),
    *,
    column: str | None = None,
    gates: Gates = GATES,
    on: Target | None = None,
) -> Verification:
    """The verdict on every exported file of a model directory, in the manifest's order. Needs no TensorFlow.

    Args:
        model: the model directory.
        datasets: Parquet files whose estimates are looked at; the model's calibration set by default.
        column: the column of the datasets, where several could be.
        gates: largest relative error that passes, by precision and statistic (median, p99, max).
        on: what runs the files, in place of this machine's runtimes: toolkit.targets.find_target("arm64").
    Raises:
        ModelError: no model, no exported file, none that the target runs, or weights.npz or adversarial.npz that are
            not of this network.
        InputError: datasets that cannot be read.
        TargetError: this machine cannot run the target, or it cannot be set up.
    """
    model = Path(model)
    manifest = read_manifest(model)
    if not manifest.files:
        raise ModelError(f"{model}: no exported file to verify. Export first: toolkit export --format all")
    if not (model / WEIGHTS_FILE).is_file():
        raise ModelError(f"{model / WEIGHTS_FILE}: not there, so there is no truth to compare with. Export again.")
    not_run = _not_run(manifest, on) if on else {}
    sources = tuple(Path(path) for path in datasets) or (model / CALIBRATION_FILE,)
    compared = datasets_to_compare_on(manifest.spec, sources, column=column)
    judge = Judge(manifest.spec, model, compared, gates=gates, fitted=not datasets)
    verdicts, memory = [], list[Memory]()
    for entry in manifest.files:
        if entry.file in not_run:
            continue
        try:
            path = check_unchanged(model, entry)
            ways = {each: on.load(path, entry, each) for each in on.variants(entry)} if on else None
            if on:
                memory += _memory(on, path, entry)
            verdicts.append(judge(path, entry.precision, ways, arithmetic=entry.arithmetic))
        except ModelError as error:
            verdicts.append(
                Verdict(entry.file, entry.format, entry.precision, False, {}, {}, {}, {}, failures=(str(error),))
            )
    return Verification(
        model=model,
        manifest=manifest,
        gates=gates,
        sources=sources,
        datasets=len(compared),
        logits=judge.logits,
        logits_within_ranges=judge.logits_within_ranges,
        verdicts=tuple(verdicts),
        target=on.description if on else None,
        not_run=tuple(not_run.items()),
        memory=tuple(memory),
    )


def _not_run(manifest: Manifest, target: Target) -> dict[str, str]:
    """The files that the target does not run, with the reason.

    Raises:
        TargetError: this machine cannot run the target.
        ModelError: no file is left.
    """
    if why_not := target.why_not():
        raise TargetError(f"{target.name}: cannot be run on this machine. {why_not}")
    not_run = {entry.file: reason for entry in manifest.files if (reason := target.runs(entry))}
    if len(not_run) == len(manifest.files):
        reasons = " ".join(f"{file}: {reason}" for file, reason in not_run.items())
        raise ModelError(f"{target.name} runs no exported file of this model. {reasons}")
    return not_run


def _memory(target: Target, path: Path, entry: ModelFile) -> list[Memory]:
    counted = {variant: target.memory(path, entry, variant) for variant in target.variants(entry)}
    return [Memory(entry.file, variant, found) for variant, found in counted.items() if found]


def changed_gates(changes: Iterable[tuple[str, str, float]]) -> Gates:
    """The usual gates with some set otherwise, each (precision, statistic, largest relative error)."""
    gates = {precision: dict(each) for precision, each in GATES.items()}
    for precision, statistic, largest in changes:
        gates[precision][statistic] = largest
    return gates


def datasets_to_compare_on(spec: Spec, sources: Sequence[Path], *, column: str | None = None) -> FloatArray:
    """All datasets of Parquet files, float32 (datasets, rows, columns).

    Raises:
        InputError: a file that cannot be read, or a row that is no dataset of `spec`.
        ModelError: no dataset in any of them.
    """
    datasets = np.concatenate([read_datasets(source, spec, column=column) for source in sources])
    if not len(datasets):
        raise ModelError(f"{', '.join(map(str, sources))}: no datasets to compare on.")
    return datasets
