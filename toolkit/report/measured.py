"""What the report measures itself: where along the logit estimates stop being positive, plain and as exported."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from toolkit import __version__
from toolkit.cliffs import Curve, measure_head, measure_plain
from toolkit.contained import run_contained
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from toolkit.verification import Verification

RUNTIMES = {".tflite": "LiteRT", ".onnx": "ONNX Runtime", ".ort": "ONNX Runtime"}
ALIKE = {".ort": ".onnx"}  # the last step of either is measured as that of the latter
PACKAGES = ("ai-edge-litert", "onnxruntime", "numpy", "pyarrow")


@dataclass(frozen=True)
class Cliffs:
    """Of one format, in kernel sets that give the same.

    Attributes:
        plain: of a plain softplus.
        exported: of the last step of exported files; files that give the same are together.
    """

    ending: str
    kernels: tuple[str, ...]
    plain: Curve
    exported: dict[tuple[str, ...], Curve]


@dataclass(frozen=True)
class Measured:
    """skipped: why the last step of a file was not measured, by file."""

    cliffs: tuple[Cliffs, ...]
    skipped: dict[str, str]


def measure_cliffs(verification: Verification) -> Measured:
    """Run plain softplus and the files' last steps over all logits, each file in a process of its own."""
    parameters = len(verification.manifest.parameters)
    curves: dict[str, dict[str, Curve]] = {}
    skipped: dict[str, str] = {}
    for verdict in verification.verdicts:
        path = verification.model / verdict.file
        if not verdict.trials:
            skipped[verdict.file] = "it could not be judged."
            continue
        try:
            curves[verdict.file] = run_contained(measure_head, path, parameters, where=verdict.file)
        except ToolkitError as error:
            skipped[verdict.file] = str(error)
    cliffs = []
    endings = {verdict.file: f".{verdict.format}" for verdict in verification.verdicts}
    endings = {file: ALIKE.get(ending, ending) for file, ending in endings.items()}
    for ending in dict.fromkeys(endings.values()):
        plain = run_contained(measure_plain, ending, where=f"plain softplus in {RUNTIMES[ending]}")
        exported = {file: measured for file, measured in curves.items() if endings[file] == ending}
        same: dict[tuple[Curve, ...], list[str]] = {}
        for kernels in plain:
            same.setdefault((plain[kernels], *(each[kernels] for each in exported.values())), []).append(kernels)
        for (curve, *others), together in same.items():
            cliffs.append(Cliffs(ending, tuple(together), curve, _grouped(dict(zip(exported, others, strict=True)))))
    return Measured(tuple(cliffs), skipped)


def _grouped(curves: dict[str, Curve]) -> dict[tuple[str, ...], Curve]:
    files: dict[Curve, list[str]] = {}
    for file, curve in curves.items():
        files.setdefault(curve, []).append(file)
    return {tuple(together): curve for curve, together in files.items()}


def machine() -> dict[str, str]:
    """What the verification ran on: versions of packages, Python, operating system and processor."""
    return {
        "softplus-toolkit": __version__,
        **{package: version(package) for package in PACKAGES},
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
