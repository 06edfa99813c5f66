"""The network as one TensorFlow function: what both converters take.

Conv2D-shaped, on (batch, 1, rows, channels): Keras's Conv1D brings EXPAND_DIMS and RESHAPE around every convolution
into a TFLite file, and ONNX Runtime's fast layout skips 1-D convolutions (43,700 instead of 32,500 datasets/s).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from export.head import positive_softplus, positive_softplus_in_half
from export.network import (
    Activation,
    Affine,
    BatchNormalization,
    Conv1D,
    Dense,
    GlobalPooling1D,
    Layer,
    Network,
    Normalization,
    Pooling1D,
    Reshape,
    Weights,
    ZeroPadding1D,
)
from toolkit.spec import INPUT_NAME, OUTPUT_NAME

SIGMOID_CUTOFF = 80.0  # sigmoid(-80) = 2e-35. XNNPACK's sigmoid (LiteRT 2.3) gives NaN beyond 2^88


def build_function(network: Network, limit: float, cuts: Mapping[int, float] | None = None) -> Any:
    """tf.function of the whole network, weights as constants.

    Args:
        limit: inputs are cut off at +-limit, so that no finite input overflows (`limit.input_limit`).
        cuts: for a file that is computed in float16: what enters a layer, named by its index, is cut off at +-this
            (`half_limits.limits_in_half`).
    Returns:
        Concrete function: `datasets` float32 (batch, rows, columns) -> {`estimates`: float32 (batch, parameters)}.
    """
    import tensorflow as tf

    softplus = positive_softplus if cuts is None else positive_softplus_in_half

    def estimates(datasets: Any) -> dict[str, Any]:
        values = tf.maximum(tf.minimum(datasets, limit), -limit)
        values = tf.reshape(values, (-1, 1, *network.shape))
        for index, layer in enumerate(network.layers):
            if cuts and index in cuts:
                values = tf.maximum(tf.minimum(values, cuts[index]), -cuts[index])
            values = apply_layer(layer, values, softplus)
        return {OUTPUT_NAME: tf.identity(softplus(values), name=OUTPUT_NAME)}

    signature = tf.TensorSpec((None, *network.shape), tf.float32, name=INPUT_NAME)
    return tf.function(estimates, input_signature=[signature], autograph=False).get_concrete_function()


def apply_layer(layer: Layer, values: Any, softplus: Callable[[Any], Any] = positive_softplus) -> Any:
    """One layer on (batch, 1, rows, channels), or on (batch, features) once flat."""
    import tensorflow as tf

    match layer:
        case Normalization():
            # Two ops, not folded into the first kernel: an offset much larger than the spread would cancel there
            # instead of here, and half-precision weights cannot hold it.
            centred = values - _tile(layer.mean, values)
            if np.all(layer.deviation == 1):
                return centred
            return centred * _tile((1 / layer.deviation).astype(np.float32), values)
        case Affine():
            return values * _tile(layer.scale, values) + _tile(layer.offset, values)
        case BatchNormalization():
            return values * layer.scale.astype(np.float32) + layer.offset.astype(np.float32)
        case Conv1D():
            padding = layer.padding.upper()
            if padding == "CAUSAL":
                padding = "VALID"
                values = _pad(values, (len(layer.kernel) - 1) * layer.dilation, 0)
            kernel = layer.kernel[np.newaxis]
            return tf.nn.conv2d(values, kernel, (1, layer.strides), padding, dilations=(1, layer.dilation)) + layer.bias
        case Dense() if len(values.shape) == 4:
            return tf.nn.conv2d(values, layer.kernel[np.newaxis, np.newaxis], 1, "VALID") + layer.bias
        case Dense():
            return tf.matmul(values, layer.kernel) + layer.bias
        case Activation():
            return _activate(layer, values, softplus)
        case Pooling1D():
            pool = tf.nn.max_pool2d if layer.reduce == "max" else tf.nn.avg_pool2d
            return pool(values, (1, layer.size), (1, layer.strides), layer.padding.upper())
        case GlobalPooling1D():
            pool = tf.nn.max_pool2d if layer.reduce == "max" else tf.nn.avg_pool2d
            pooled = pool(values, (1, values.shape[2]), 1, "VALID")
            return pooled if layer.keep_rows else tf.reshape(pooled, (-1, values.shape[3]))
        case ZeroPadding1D():
            return _pad(values, layer.before, layer.behind)
        case Reshape():
            return tf.reshape(values, (-1, 1, *layer.shape) if len(layer.shape) == 2 else (-1, *layer.shape))


def _tile(weights: Weights, values: Any) -> Weights:
    """One weight for each value of a dataset. Broadcasting over two columns took ONNX Runtime 12% and XNNPACK 9% of the
    whole network's time, because they run a loop of two for every row; broadcasting over the batch takes nothing."""
    return np.ascontiguousarray(np.broadcast_to(weights, values.shape[1:]))


def _pad(values: Any, before: int, behind: int) -> Any:
    import tensorflow as tf

    return tf.pad(values, ((0, 0), (0, 0), (before, behind), (0, 0))) if before or behind else values


def _activate(activation: Activation, values: Any, softplus: Callable[[Any], Any]) -> Any:
    import tensorflow as tf

    match activation.name:
        case "leaky_relu":
            return tf.nn.leaky_relu(values, activation.alpha)
        case "elu" if activation.alpha != 1:
            return tf.nn.relu(values) + activation.alpha * tf.nn.elu(tf.minimum(values, 0.0))
        case "silu":
            return tf.maximum(values, -SIGMOID_CUTOFF) * _sigmoid(values)
        case "sigmoid":
            return _sigmoid(values)
        case "softplus":
            return softplus(values)
        case name:
            plain = {"relu": tf.nn.relu, "relu6": tf.nn.relu6, "elu": tf.nn.elu, "tanh": tf.nn.tanh}
            return plain[name](values)


def _sigmoid(values: Any) -> Any:
    import tensorflow as tf

    return tf.nn.sigmoid(tf.maximum(tf.minimum(values, SIGMOID_CUTOFF), -SIGMOID_CUTOFF))
