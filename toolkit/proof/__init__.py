"""The lower bound of each output, read off an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.proof.graph import Graph
    from toolkit.proof.verdict import Proof

# What the rules run into where an operation lacks an operand, or holds sizes that no runtime would take.
MALFORMED = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, AssertionError, MemoryError)


def prove(path: Path, arithmetic: str = "float32") -> Proof:
    """Bounds of every output of a TFLite or ONNX file, for all finite inputs; the file is read, never run.

    Args:
        path: the format is told by the ending, `.tflite`, `.onnx` or `.ort`.
        arithmetic: float32, as the file is written; or float16, for hardware that computes float32 files in half
            precision: then both are proved, and the bounds are the worse of the two.
    Returns:
        The verdict: `passed` where every output is proved finite and at least the smallest normal number.
    Raises:
        ModelError: no such file, or one that cannot be read as a model with one input, or is malformed.
    """
    from toolkit.errors import ModelError, reason_of
    from toolkit.proof.verdict import judge

    graph = read_graph(path)
    try:
        if path.suffix == ".tflite":
            from toolkit.integer import host_of
            from toolkit.metadata import read_metadata

            proof = judge(path, graph, host_of(path, read_metadata(path)))
        else:
            proof = judge(path, graph)
        if arithmetic == "float16":
            from toolkit.proof.half import in_half, worse_of

            proof = worse_of(proof, judge(path, in_half(path, graph)))
        return proof
    except MALFORMED as error:
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise ModelError(
            f"{path}: damaged: its operations do not fit each other ({reason}). Export the model again."
        ) from error


def read_graph(path: Path) -> Graph:
    """The operations of a file, in the words of this package.

    Raises:
        ModelError: no such file, or one that cannot be read as a model with one input, or is malformed.
    """
    from toolkit.errors import ModelError, reason_of

    if path.suffix not in (".tflite", ".onnx", ".ort"):
        raise ModelError(
            f"{path}: a proof reads .tflite, .onnx and .ort files. Export the model: toolkit export --format all"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}). Export the model: toolkit export --format all"
        ) from error
    try:
        if path.suffix == ".tflite":
            from toolkit.proof.tflite import read_tflite

            return read_tflite(path, content)
        from toolkit.proof.onnx import read_onnx

        if path.suffix == ".ort":
            from toolkit.ort_file import as_onnx

            content = as_onnx(path, content).SerializeToString()
        return read_onnx(path, content)
    except MALFORMED as error:
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise ModelError(
            f"{path}: damaged: its operations do not fit each other ({reason}). Export the model again."
        ) from error


__all__ = ["prove", "read_graph"]
