"""onnxruntime-web in Node.js: the WebAssembly engine that runs ONNX files in web pages, without a browser around it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import InputError, ModelError, TargetError
from toolkit.runtime import KERNELS
from toolkit.targets.npm import installed, why_no_node

if TYPE_CHECKING:
    from toolkit.manifest import ModelFile
    from toolkit.spec import FloatArray, Predict

PROJECT = Path(__file__).parent / "javascript"
ENGINE = Path("onnxruntime-web", "dist", "ort.node.min.mjs")
FORMATS = ("onnx", "ort")
OPTIMIZATION = {"optimized": "all", "unoptimized": "disabled", "saved": "disabled"}  # for the host's kernel sets
NOT_TAKEN, OTHER_SHAPE = 3, 4  # exit codes of estimates.mjs
TIMEOUT_SECONDS = 300.0


class _Node:
    name = "node"
    description = "onnxruntime-web (WebAssembly) in Node.js"

    def why_not(self) -> str:
        return why_no_node()

    def runs(self, entry: ModelFile) -> str:
        return "" if entry.format in FORMATS else f"onnxruntime-web runs .onnx and .ort files, not .{entry.format}"

    def variants(self, entry: ModelFile) -> tuple[str, ...]:
        return KERNELS[f".{entry.format}"]

    def memory(self, path: Path, entry: ModelFile, variant: str) -> dict[str, int]:
        return {}

    def load(self, path: Path, entry: ModelFile, variant: str) -> Predict:
        engine = installed("onnxruntime-web", PROJECT) / ENGINE
        command = ["node", PROJECT / "estimates.mjs", engine, path.resolve(), OPTIMIZATION[variant]]
        return lambda datasets: _estimates(path, [str(word) for word in command], datasets)


TARGET = _Node()


def _estimates(path: Path, command: list[str], datasets: FloatArray) -> FloatArray:
    """One process for each call: it starts in half a second, and none is left behind."""
    if datasets.ndim != 3:
        raise InputError(f"the model takes an array of shape (n, rows, columns), not {datasets.shape}.")
    command = [*command, *map(str, datasets.shape[1:])]
    content = np.ascontiguousarray(datasets, "<f4").tobytes()
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=TIMEOUT_SECONDS)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise TargetError(f"{path.name}: Node.js did not end, or did not start ({error}).") from error
    if done.returncode:
        said = next((line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()), "no message")
        if done.returncode == OTHER_SHAPE:
            raise InputError(f"the model takes an array of shape {said}, not {datasets.shape}.")
        if done.returncode == NOT_TAKEN:
            raise ModelError(f"{path.name}: onnxruntime-web does not take it ({said}). Export it again.")
        raise TargetError(f"{path.name}: onnxruntime-web failed in Node.js ({said}).")
    numbers = np.frombuffer(done.stdout, "<f4")
    if not len(numbers) or len(numbers) - 1 != len(datasets) * numbers[0]:
        raise TargetError(f"{path.name}: onnxruntime-web gave {len(numbers)} numbers for {len(datasets)} datasets.")
    return numbers[1:].reshape(len(datasets), int(numbers[0])).astype(np.float32)
