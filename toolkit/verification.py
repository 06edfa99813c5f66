"""Is every output of a file positive, and right? Proof, probes and parity, for `verify` and before publishing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.datasets import read_datasets
from toolkit.errors import ModelError, ToolkitError
from toolkit.manifest import (
    CALIBRATION_FILE,
    WEIGHTS_FILE,
    Manifest,
    RelativeError,
    check_unchanged,
    read_manifest,
)
from toolkit.probes import extreme_inputs
from toolkit.proof import prove
from toolkit.reference import load_reference
from toolkit.runtime import KERNELS, load
from toolkit.spec import SMALLEST_NORMAL_FLOAT32

# The largest relative error that passes, by precision; float files are gated on their worst dataset, since nothing but
# rounding separates them from the truth.
GATES: Mapping[str, Mapping[str, float]] = {
    "float32": {"max": 1e-4},
    "float16": {"max": 2e-2},
    "int8": {"median": 1e-2, "p99": 5e-2},
    "integer": {"median": 1e-2, "p99": 5e-2},
}


@dataclass(frozen=True)
class Verdict:
    """What is known of one file; `passed` when nothing failed."""

    file: str
    format: str
    precision: str
    proved: bool
    lower_bound: dict[str, float]
    minimum_probed: dict[str, float]
    minimum_seen: dict[str, float]
    relative_error: dict[str, RelativeError]
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "failures": list(self.failures), "passed": self.passed}


class Judge:
    """Judges files of one model against the float64 forward pass of its trained weights, over the same datasets."""

    def __init__(
        self,
        manifest: Manifest,
        directory: Path,
        datasets: Sequence[Path] = (),
        *,
        column: str | None = None,
        gates: Mapping[str, Mapping[str, float]] = GATES,
    ) -> None:
        """
        Args:
            directory: where weights.npz is.
            datasets: Parquet files to compare on; the directory's calibration set by default.
        """
        self.spec, self.gates = manifest.spec, gates
        sources = list(datasets) or [directory / CALIBRATION_FILE]
        self.datasets = np.concatenate([read_datasets(source, self.spec, column=column) for source in sources])
        if not len(self.datasets):
            raise ModelError(f"{', '.join(map(str, sources))}: no datasets to compare on.")
        self.probes = extreme_inputs(self.spec, self.datasets)
        self.truth = load_reference(directory)(self.datasets)

    def __call__(self, path: Path, precision: str) -> Verdict:
        """The verdict on one file. A file that cannot even be read has failed; it raises nothing."""
        failures: list[str] = []
        names = self.spec.parameters
        lower: dict[str, float] = {}
        probed, seen = (np.full(len(names), np.inf) for _ in range(2))
        errors: dict[str, RelativeError] = {}
        proved = False
        try:
            proof = prove(path)
            proved = proof.passed
            failures += [f"not proved: {failure}" for failure in proof.failures]
            lower = dict(zip(names, map(float, proof.lower), strict=True))
            for kernels in KERNELS[path.suffix]:
                predict = load(path, kernels=kernels)
                for label, inputs, minimum in (("probe", self.probes, probed), ("dataset", self.datasets, seen)):
                    outputs = predict(inputs)
                    failures += self._not_positive(outputs, label, kernels)
                    np.minimum(minimum, outputs.min(axis=0), out=minimum)
                for name, error in self._relative_error(outputs).items():
                    known = errors.get(name)
                    errors[name] = error if known is None or not error.max <= known.max else known
            failures += self._over_gates(errors, precision)
        except ToolkitError as error:
            failures.append(str(error))
        return Verdict(
            file=path.name,
            format=path.suffix[1:],
            precision=precision,
            proved=proved,
            lower_bound=lower,
            minimum_probed=dict(zip(names, map(float, probed), strict=True)),
            minimum_seen=dict(zip(names, map(float, seen), strict=True)),
            relative_error=errors,
            failures=tuple(failures),
        )

    def _not_positive(self, outputs: NDArray[np.float32], label: str, kernels: str) -> list[str]:
        good = np.isfinite(outputs) & (outputs >= SMALLEST_NORMAL_FLOAT32)  # NaN fails both
        if good.all():
            return []
        row, index = (int(i) for i in np.argwhere(~good)[0])
        return [f"{label} {row} gives {self.spec.parameters[index]} = {outputs[row, index]:g} with {kernels} kernels."]

    def _relative_error(self, outputs: NDArray[np.float32]) -> dict[str, RelativeError]:
        relative = np.abs(outputs - self.truth) / self.truth
        return {
            name: RelativeError(float(np.median(each)), float(np.quantile(each, 0.99)), float(each.max()))
            for name, each in zip(self.spec.parameters, relative.T, strict=True)
        }

    def _over_gates(self, errors: Mapping[str, RelativeError], precision: str) -> list[str]:
        return [
            f"{kind} relative error of {name} is {getattr(error, kind):.2g}, the gate for {precision} is {gate:g}."
            for name, error in errors.items()
            for kind, gate in self.gates[precision].items()
            if not getattr(error, kind) <= gate
        ]


def verify(
    model: Path = Path("model"),
    datasets: Sequence[Path] = (),
    *,
    column: str | None = None,
    gates: Mapping[str, Mapping[str, float]] = GATES,
) -> tuple[Verdict, ...]:
    """The verdict on every exported file of a model directory, in the manifest's order. Needs no TensorFlow.

    Args:
        model: the model directory.
        datasets: Parquet files whose outputs are looked at; the model's calibration set by default.
        gates: largest relative error that passes, by precision and statistic (median, p99, max).
    Raises:
        ModelError: no model, no exported file, or weights.npz that is not of this network.
    """
    model = Path(model)
    manifest = read_manifest(model)
    if not manifest.files:
        raise ModelError(f"{model}: no exported file to verify. Export first: toolkit export --format all")
    if not (model / WEIGHTS_FILE).is_file():
        raise ModelError(f"{model / WEIGHTS_FILE}: not there, so there is no truth to compare with. Export again.")
    judge = Judge(manifest, model, [Path(path) for path in datasets], column=column, gates=gates)
    verdicts = []
    for entry in manifest.files:
        path = check_unchanged(model, entry)
        verdicts.append(judge(path, entry.precision))
    return tuple(verdicts)
