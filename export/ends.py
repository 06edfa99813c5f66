"""The float ends of a quantized network as TensorFlow functions: what comes before the codes, and what behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from export.graph import apply_layer
from export.head import positive_softplus
from export.network import Layer, Pooling1D
from export.quantize import FINE, HIGHEST, Trunk
from toolkit.spec import INPUT_NAME, OUTPUT_NAME

NUMBERS = "numbers"  # what becomes codes
FEATURES = "features"  # what codes stand for, behind the last of them


def build_front(trunk: Trunk, shape: tuple[int, int], limit: float, *, channels_first: bool = False) -> Any:
    """Concrete function from `datasets`, float32 (batch, rows, columns), to `numbers`.

    Args:
        limit: inputs are cut off at +-limit.
        channels_first: (batch, channels, 1, rows), as ONNX has it, in place of (batch, 1, rows, channels). A fine
            trunk's whole steps and rests are channels there, one below the other here.
    """
    import tensorflow as tf

    def numbers(datasets: Any) -> dict[str, Any]:
        values = tf.maximum(tf.minimum(datasets, limit), -limit)
        values = tf.reshape(values, (-1, 1, *shape))
        for layer in trunk.before:
            values = apply_layer(layer, values)
        if trunk.fine:
            whole = tf.round(values)
            values = tf.concat([whole, (values - whole) * float(FINE)], axis=1)
        if channels_first and len(values.shape) == 4:
            if trunk.before and isinstance(trunk.before[-1], Pooling1D):
                # Codes saturate here anyway. It keeps ONNX Runtime (1.32) from quantizing before it pools: its integer
                # pooling takes 440 us a batch where it cannot have the channels last, the float one 17.
                values = tf.minimum(values, trunk.input.scale * (HIGHEST - trunk.input.zero_point))
            _, high, rows, channels = values.shape
            values = tf.reshape(tf.transpose(values, (0, 1, 3, 2)), (-1, high * channels, 1, rows))
        return {NUMBERS: tf.identity(values, name=NUMBERS)}

    return _concrete(numbers, shape, INPUT_NAME)


def build_end(behind: Sequence[Layer], shape: Sequence[int]) -> Any:
    """Concrete function from `features`, float32 (batch, *shape), to `estimates`."""
    import tensorflow as tf

    def estimates(features: Any) -> dict[str, Any]:
        values = features
        for layer in behind:
            values = apply_layer(layer, values)
        return {OUTPUT_NAME: tf.identity(positive_softplus(values), name=OUTPUT_NAME)}

    return _concrete(estimates, shape, FEATURES)


def _concrete(function: Any, shape: Sequence[int], name: str) -> Any:
    import tensorflow as tf

    signature = tf.TensorSpec((None, *shape), tf.float32, name=name)
    return tf.function(function, input_signature=[signature], autograph=False).get_concrete_function()
