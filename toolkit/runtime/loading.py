"""Which runtime runs a file, and the one function that loads it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import MissingExtra, ModelError
from toolkit.runtime.batches import BATCH, unusable
from toolkit.runtime.float16 import EMULATED_BATCH, load_float16
from toolkit.runtime.keras import load_keras
from toolkit.runtime.litert import load_litert
from toolkit.runtime.onnxruntime import load_onnxruntime
from toolkit.runtime.openvino import load_openvino

if TYPE_CHECKING:
    from toolkit.spec import Predict

# The ways to run a file, the one used for scoring first. The others answer whether another build of the engine, or one
# without its optimizer, gives the same.
KERNELS = {
    ".tflite": ("xnnpack", "builtin"),
    ".onnx": ("optimized", "unoptimized"),
    ".ort": ("saved",),  # its optimizations are in the file
    ".keras": ("default",),
}

# LiteRT's plain C++ kernels: on integers they give, bit for bit, what TensorFlow Lite Micro gives. Slow.
REFERENCE = "reference"

# float16 arithmetic, emulated in NumPy: as hardware in half precision computes the file. Slower still.
FLOAT16 = "float16"

# What each runtime reads. The first to read an ending is the one that runs it unless another is asked for.
RUNTIMES = {
    "litert": (".tflite",),
    "onnxruntime": (".onnx", ".ort"),
    "openvino": (".tflite", ".onnx"),
    "keras": (".keras",),
}


def kernels_to_judge(path: Path, precision: str, arithmetic: str = "float32") -> tuple[str, ...]:
    """The ways in which a file is run before it is trusted: an integer-only one also as microcontrollers do, one for
    float16 arithmetic also in that."""
    further = (REFERENCE,) if precision == "integer" else (FLOAT16,) if arithmetic == "float16" else ()
    return (*KERNELS[path.suffix], *further)


def runtime_for(path: Path | str, runtime: str | None = None) -> str:
    """The name of the runtime that runs a file: the one asked for, or the one of its ending.

    Raises:
        ModelError: the ending is that of no model file, or the runtime asked for does not read such files.
        MissingExtra: it is OpenVINO, and that is not installed.
    """
    path = Path(path)
    reading = [name for name, endings in RUNTIMES.items() if path.suffix in endings]
    if not reading:
        raise ModelError(f"{path}: not a model file. It should end in {', '.join(KERNELS)}.")
    if runtime is None:
        return reading[0]
    if runtime not in reading:
        raise ModelError(f"{path}: {runtime} does not run {path.suffix} files. These do: {', '.join(reading)}.")
    if runtime == "openvino" and find_spec("openvino") is None:
        raise MissingExtra("batch-predict --runtime openvino", "openvino", "OpenVINO")
    return runtime


def load(
    path: Path | str,
    *,
    threads: int = 1,
    kernels: str = "default",
    runtime: str | None = None,
    batch: int = BATCH,
) -> Predict:
    """The model file as a function: float32 (n, rows, columns) -> float32 (n, parameters), for any n.

    Not for several threads at once: load the file once in each. While it computes, other Python threads run.

    Args:
        path: an exported .tflite or .onnx file, or a .keras file.
        threads: what the engine may use inside one call.
        kernels: one of KERNELS for the file's ending, or 'default' for its first; OpenVINO has but one kind, LiteRT
            'reference' beside those. 'float16' is no engine: the operations of a float file, each rounded to float16.
        runtime: one of RUNTIMES that reads such files; None takes the one of the file's ending.
        batch: datasets a call of the engine, where the file leaves that open.
    Raises:
        MissingExtra: the runtime is not installed.
        ModelError: no such file, another ending, or content that is damaged or no such model. The function itself
            raises InputError for an array of another shape, and ModelError where the engine fails or gives anything
            but one float32 estimate per dataset and parameter.
    """
    path = Path(path)
    chosen_runtime = runtime_for(path, runtime)
    if not path.is_file():
        raise ModelError(f"{path}: no such file. `toolkit export --format all` writes the exported files.")
    if kernels == FLOAT16:
        return load_float16(path, EMULATED_BATCH)
    known = KERNELS[path.suffix] if chosen_runtime != "openvino" else ("default",)
    if chosen_runtime == "litert":
        known = (*known, REFERENCE)
    if kernels not in ("default", *known):
        raise ModelError(f"{path}: no kernels {kernels!r}. There are {', '.join(known)}.")
    chosen = known[0] if kernels == "default" else kernels
    try:
        if chosen_runtime == "litert":
            return load_litert(path, threads, chosen, batch)
        if chosen_runtime == "onnxruntime":
            return load_onnxruntime(path, threads, chosen, batch)
        if chosen_runtime == "openvino":
            return load_openvino(path, threads, batch)
        return load_keras(path)
    except (ModelError, MissingExtra):
        raise
    except Exception as error:  # each engine has exceptions of its own, some derive from nothing narrower
        raise unusable(path, error) from error
