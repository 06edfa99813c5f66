"""Keras model -> TFLite and ONNX files whose estimates are positive for every finite input."""

from export.conversion import Converted, convert

__all__ = ["Converted", "convert"]
