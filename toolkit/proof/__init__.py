"""The lower bound of each output, read off an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.proof.verdict import Proof

# What the rules run into where an operation lacks an operand, or holds sizes that no runtime would take.
MALFORMED = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, AssertionError, MemoryError)


def prove(path: Path) -> Proof:
    """Bounds of every output of a TFLite or ONNX file, for all finite inputs; the file is read, never run.

    Args:
        path: the format is told by the ending, `.tflite` or `.onnx`.
    Returns:
        The verdict: `passed` where every output is proved finite and at least the smallest normal number.
    Raises:
        ModelError: no such file, or one that cannot be read as a model with one input, or is malformed.
    """
    from toolkit.errors import ModelError, reason_of
    from toolkit.proof.verdict import judge

    if path.suffix not in (".tflite", ".onnx"):
        raise ModelError(
            f"{path}: a proof reads .tflite and .onnx files. Export the model: toolkit export --format all"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}). Export the model: toolkit export --format all"
        ) from error
    try:
        if path.suffix == ".tflite":
            from toolkit.integer import host_of
            from toolkit.metadata import read_metadata
            from toolkit.proof.tflite import read_tflite

            return judge(path, read_tflite(path, content), host_of(path, read_metadata(path)))
        from toolkit.proof.onnx import read_onnx

        return judge(path, read_onnx(path, content))
    except MALFORMED as error:
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise ModelError(
            f"{path}: damaged: its operations do not fit each other ({reason}). Export the model again."
        ) from error


__all__ = ["prove"]
