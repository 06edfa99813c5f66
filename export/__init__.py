"""Keras model -> TFLite and ONNX files whose estimates are positive for every finite input."""

from export.conversion import Converted, convert
from export.plain import convert_plainly

__all__ = ["Converted", "convert", "convert_plainly"]
