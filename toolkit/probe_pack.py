"""A folder to take to a real device: the exported files, inputs for them, what they must give, and a program to check.

Nothing of this toolkit is needed there. What the folder holds are .npy files without objects, JSON and model files.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.datasets import sort_rows
from toolkit.errors import ModelError, OutputError
from toolkit.integer import host_of
from toolkit.judge import GATES
from toolkit.manifest import CALIBRATION_FILE, ModelFile, check_unchanged, read_manifest
from toolkit.metadata import read_metadata
from toolkit.probes import extreme_inputs, stored_adversarial
from toolkit.reference import load_reference
from toolkit.spec import FP16_MATH, held_back
from toolkit.verification import datasets_to_compare_on

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Spec

RUNNER = Path(__file__).with_name("probe_runner.py")
COMPARED = 64  # real datasets, whose estimates are compared with the truth
EXTREME, ADVERSARIAL = 64, 32  # of each kind, whose estimates must be finite and positive
SLACK = 2.0  # other kernels than those of the machine that exported round otherwise

README = """# Does {name} keep its promise on this device?

    python check.py

Copy this folder to the device. It needs Python 3.9 or newer, NumPy, and ai-edge-litert (`.tflite`) or onnxruntime
(`.onnx`, `.ort`); a file whose runtime is missing is not run. `python check.py {first}` runs one file.

Each file gives {parameters} for {inputs} datasets of {rows} rows x {columns}: {compared} like real data, then
inputs from the ends of what a float32 can be, and inputs made so that estimates become small. A file passes when all
of its estimates are finite and at least the bound that was proved for it, and those of the first {compared} are as
close to the trained network, computed in float64 (`truth.npy`), as `pack.json` states: {slack:g} times the largest
error seen when the file was exported, or the largest with which it would have been published. Exit code 1 when a file
fails, or none can be run.

Columns of the table: the smallest estimate, the largest relative error, how many estimates are below their bound or
not finite. Files with `{math}` in their names keep their bound also where the hardware computes in float16; others
need not.

In another language: the inputs are in `inputs.npy` (float32, row-major, little-endian), for an integer-only file as
int8 codes in a file of its own; such a file gives codes, and `pack.json` names the table of what they stand for.
"""


@dataclass(frozen=True)
class ProbePack:
    """What was written. datasets: inputs in all; files: names of the model files."""

    folder: Path
    datasets: int
    files: tuple[str, ...]


def write_probe_pack(model: Path, folder: Path) -> ProbePack:
    """Write the folder, whole or not at all.

    Raises:
        OutputError: it is there already, or cannot be written.
        ModelError: no model, no exported file, or one that is not the manifest's.
    """
    manifest = read_manifest(model)
    if not manifest.files:
        raise ModelError(f"{model}: no exported file to take along. Export first: toolkit export --format all")
    if folder.exists():
        raise OutputError(f"{folder}: is there already. Name another folder, or remove it.")
    inputs, truth = _probes(model, manifest.spec)
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.partial")
    try:
        partial.mkdir(parents=True)
        np.save(partial / "inputs.npy", inputs)
        np.save(partial / "truth.npy", truth)
        entries = [_take(model, entry, partial, inputs, manifest.spec) for entry in manifest.files]
        pack = {"parameters": list(manifest.spec.parameters), "compared": len(truth), "files": entries}
        (partial / "pack.json").write_text(json.dumps(pack, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(RUNNER, partial / "check.py")
        (partial / "README.md").write_text(_readme(model, manifest.spec, pack, len(inputs)), encoding="utf-8")
        partial.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}). Name another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ProbePack(folder, len(inputs), tuple(entry.file for entry in manifest.files))


def _probes(model: Path, spec: Spec) -> tuple[FloatArray, Any]:
    """float32 (n, rows, columns), the compared ones first, and float64 (compared, parameters)."""
    known = datasets_to_compare_on(spec, [model / CALIBRATION_FILE])
    real = known[held_back(len(known))][:COMPARED]
    ways = [extreme_inputs(spec, real).datasets, *(probes.datasets for probes in stored_adversarial(model, spec))]
    counts = [EXTREME, ADVERSARIAL, ADVERSARIAL]
    further = [way[:: max(1, len(way) // count)][:count] for way, count in zip(ways, counts, strict=True)]
    arrange: Callable[[FloatArray], FloatArray] = sort_rows if spec.sorted_rows else lambda datasets: datasets
    return arrange(np.concatenate([real, *further])), load_reference(model)(arrange(real))


def _take(model: Path, entry: ModelFile, folder: Path, inputs: FloatArray, spec: Spec) -> dict[str, Any]:
    """Copy a file, and what it alone needs; its part of pack.json."""
    path = check_unchanged(model, entry)
    shutil.copyfile(path, folder / entry.file)
    host = host_of(path, read_metadata(path))
    names = {"inputs": "inputs.npy", "table": None}
    if host is not None:
        stem = entry.file.removesuffix(".tflite")
        names = {"inputs": f"{stem}.inputs.npy", "table": f"{stem}.table.npy"}
        np.save(folder / f"{stem}.inputs.npy", host.codes(inputs))
        np.save(folder / f"{stem}.table.npy", host.table())
    gate = GATES[FP16_MATH if entry.arithmetic == "float16" else entry.precision].get("max", 0.0)
    return {
        "file": entry.file,
        "arithmetic": entry.arithmetic,
        "sha256": entry.sha256,
        **names,
        "lower_bound": [entry.lower_bound[name] for name in spec.parameters],
        "largest_relative_error": [max(gate, SLACK * entry.relative_error[name].max) for name in spec.parameters],
    }


def _readme(model: Path, spec: Spec, pack: dict[str, Any], inputs: int) -> str:
    return README.format(
        name=model.resolve().name,
        first=pack["files"][0]["file"],
        parameters=", ".join(spec.parameters),
        inputs=inputs,
        rows=spec.rows,
        columns=f"({', '.join(spec.columns)})",
        compared=pack["compared"],
        slack=SLACK,
        math=FP16_MATH,
    )
