"""TensorFlow Lite Micro, the engine of microcontrollers: its own C++ kernels, as PyPI's tflite-micro has them built."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.contained import run_contained
from toolkit.errors import InputError, ModelError
from toolkit.targets.host_side import around_codes, host_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from toolkit.manifest import ModelFile
    from toolkit.spec import Predict

PRECISIONS = ("float32", "integer")  # DEQUANTIZE takes no float16, in which the weights of the others are kept
SMALLEST_ARENA, LARGEST_ARENA = 1 << 16, 1 << 26  # bytes
PIECE = 4096  # datasets a process, which must end in time: 6 s of the usual network


class _Tflm:
    name = "tflm"
    description = "TensorFlow Lite Micro"

    def why_not(self) -> str:
        if find_spec("tflite_micro") is not None:
            return ""
        return (
            "tflite-micro is not installed, which PyPI has for Linux on x86-64: pip install 'softplus-toolkit[edge]'."
        )

    def runs(self, entry: ModelFile) -> str:
        if entry.format != "tflite":
            return f"TensorFlow Lite Micro runs .tflite files, not .{entry.format}"
        if entry.precision not in PRECISIONS:
            return f"TensorFlow Lite Micro reads no float16 weights, which {entry.precision} files hold"
        return ""

    def variants(self, entry: ModelFile) -> tuple[str, ...]:
        return ("reference",)

    def memory(self, path: Path, entry: ModelFile, variant: str) -> dict[str, int]:
        """The arena of an integer-only file, as its export has found it on a 64-bit machine."""
        arena = (entry.integer or {}).get("arena_bytes")
        return {"arena": arena} if arena else {}

    def load(self, path: Path, entry: ModelFile, variant: str) -> Predict:
        host = host_in(path)
        if host is not None:
            return around_codes(path, host, lambda codes: _outputs(path, codes))
        return lambda datasets: _outputs(path, datasets)


TARGET = _Tflm()


def _outputs(path: Path, inputs: NDArray[Any]) -> NDArray[Any]:
    """What the file gives, its outputs side by side; in a process of its own, which a damaged file may end."""
    pieces = [inputs[begin : begin + PIECE] for begin in range(0, len(inputs) or 1, PIECE)]
    return np.concatenate([run_contained(run_file, path, piece, where=path.name) for piece in pieces])


def run_file(path: Path, inputs: NDArray[Any]) -> NDArray[Any]:
    """Args:
        inputs: (n, rows, channels) of the type that the file takes.
    Returns:
        (n, outputs), of the type that the file gives.
    Raises:
        InputError: inputs of another shape.
        ModelError: the engine does not take the file.
    """
    interpreter = _interpreter(path)
    taken = interpreter.get_input_details(0)
    batch, *shape = (int(size) for size in taken["shape"])
    if inputs.ndim != 3 or inputs.shape[1:] != tuple(shape) or inputs.dtype != taken["dtype"]:
        raise InputError(f"{path.name}: takes {taken['dtype'].__name__} (n, {', '.join(map(str, shape))}).")
    count = len(inputs)
    padded = np.concatenate([inputs, np.zeros((-count % batch, *shape), inputs.dtype)])
    outputs = range(_count_of_outputs(path))
    details = [interpreter.get_output_details(index) for index in outputs]
    given = np.empty((len(padded), sum(int(each["shape"][-1]) for each in details)), details[0]["dtype"])
    for begin in range(0, len(padded), batch):
        interpreter.set_input(padded[begin : begin + batch], 0)
        interpreter.invoke()
        given[begin : begin + batch] = np.concatenate([interpreter.get_output(index) for index in outputs], axis=1)
    return given[:count]


def _interpreter(path: Path) -> Any:
    """With room enough: the engine says that an arena is too small, and not how large it should be."""
    from tflite_micro.python.tflite_micro import runtime

    content, arena_bytes = path.read_bytes(), SMALLEST_ARENA
    while True:
        try:
            return runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)
        except RuntimeError as error:
            arena_bytes *= 4
            if arena_bytes > LARGEST_ARENA:
                raise ModelError(f"{path.name}: TensorFlow Lite Micro does not take it ({error}).") from error


def _count_of_outputs(path: Path) -> int:
    """The engine's details of an output that is not there end the process."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    return int(model.Subgraphs(0).OutputsLength())
