"""One Keras layer as plain layers of `export.network`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from export.network import (
    Activation,
    Affine,
    BatchNormalization,
    Conv1D,
    Dense,
    GlobalPooling1D,
    Layer,
    Normalization,
    Pooling1D,
    Reshape,
    Shape,
    Weights,
    ZeroPadding1D,
)


class Unsupported(Exception):
    """Why one layer cannot be exported; becomes an ExportError with the layer's name."""


def translate(layer: Any, shape: Shape) -> list[Layer]:
    """One Keras layer as plain layers; its activation becomes a layer of its own."""
    translated = TRANSLATIONS[type(layer).__name__](layer, shape)
    return translated + (_activation(layer.activation) if type(layer).__name__ in WITH_ACTIVATION else [])


def _activation(activation: Any) -> list[Layer]:
    import keras

    plain = {
        keras.activations.relu: "relu",
        keras.activations.relu6: "relu6",
        keras.activations.silu: "silu",
        keras.activations.softplus: "softplus",
        keras.activations.tanh: "tanh",
        keras.activations.sigmoid: "sigmoid",
    }
    if isinstance(activation, keras.layers.Layer):
        kind = type(activation).__name__
        if kind not in ACTIVATION_LAYERS:
            raise Unsupported(f"has the activation {kind}, which is not supported")
        return TRANSLATIONS[kind](activation, ()) + (_activation(activation.activation) if kind == "Activation" else [])
    if activation is None or activation is keras.activations.linear:
        return []
    if activation is keras.activations.leaky_relu:
        return [Activation("leaky_relu", 0.2)]
    if activation is keras.activations.elu:
        return [Activation("elu", 1.0)]
    if activation not in plain:
        known = ", ".join(sorted([*plain.values(), "elu", "leaky_relu", "linear"]))
        name = getattr(activation, "__name__", repr(activation))
        raise Unsupported(f"has the activation {name}, which is not supported. Supported: {known}")
    return [Activation(plain[activation])]


def _array(value: Any, size: int | None = None, default: float = 0.0) -> Weights:
    """float32 copy of a Keras weight; `default` repeated where the layer has none."""
    if value is None:
        assert size is not None
        return np.full(size, default, np.float32)
    return np.array(value, np.float32)


def _one(value: Any) -> int:
    return int(value[0] if isinstance(value, list | tuple) else value)


def _normalization(layer: Any, shape: Shape) -> list[Layer]:
    import keras

    if layer.invert:
        raise Unsupported("inverts (invert=True), which is not supported")
    without_batch = [
        np.asarray(value)[0] if np.ndim(value) > len(shape) else value for value in (layer.mean, layer.variance)
    ]
    mean, variance = (_array(value) for value in without_batch)
    return [Normalization(mean, variance, float(keras.config.epsilon()))]


def _rescaling(layer: Any, shape: Shape) -> list[Layer]:
    return [Affine(_array(layer.scale), _array(layer.offset))]


def _batch_normalization(layer: Any, shape: Shape) -> list[Layer]:
    if layer.axis not in (-1, len(shape)):
        raise Unsupported(f"normalizes axis {layer.axis}; only the last axis is supported")
    size = shape[-1]
    gamma, beta = _array(layer.gamma, size, 1.0), _array(layer.beta, size)
    return [
        BatchNormalization(gamma, beta, _array(layer.moving_mean), _array(layer.moving_variance), float(layer.epsilon))
    ]


def _conv(layer: Any, shape: Shape) -> list[Layer]:
    _need_channels_last(layer)
    if layer.groups != 1:
        raise Unsupported(f"has groups={layer.groups}; only groups=1 is supported")
    bias = _array(layer.bias if layer.use_bias else None, layer.filters)
    return [Conv1D(_array(layer.kernel), bias, _one(layer.strides), layer.padding, _one(layer.dilation_rate))]


def _dense(layer: Any, shape: Shape) -> list[Layer]:
    return [Dense(_array(layer.kernel), _array(layer.bias if layer.use_bias else None, layer.units))]


def _pooling(kind: str) -> Callable[[Any, Shape], list[Layer]]:
    def translated(layer: Any, shape: Shape) -> list[Layer]:
        _need_channels_last(layer)
        return [Pooling1D(kind, _one(layer.pool_size), _one(layer.strides), layer.padding)]

    return translated


def _global_pooling(kind: str) -> Callable[[Any, Shape], list[Layer]]:
    def translated(layer: Any, shape: Shape) -> list[Layer]:
        _need_channels_last(layer)
        return [GlobalPooling1D(kind, bool(layer.keepdims))]

    return translated


def _zero_padding(layer: Any, shape: Shape) -> list[Layer]:
    _need_channels_last(layer)
    before, behind = layer.padding
    return [ZeroPadding1D(int(before), int(behind))]


def _flatten(layer: Any, shape: Shape) -> list[Layer]:
    _need_channels_last(layer)
    return [Reshape((int(np.prod(shape)),))]


def _reshape(layer: Any, shape: Shape) -> list[Layer]:
    target = np.empty(shape, np.bool_).reshape(layer.target_shape).shape
    if len(target) not in (1, 2):
        raise Unsupported(f"has the target shape {target}; only (rows, channels) and (features,) are supported")
    return [Reshape(target)]


def _relu(layer: Any, shape: Shape) -> list[Layer]:
    negative_slope, threshold = float(layer.negative_slope), float(layer.threshold)
    if threshold == 0 and layer.max_value is None:
        return [Activation("leaky_relu", negative_slope) if negative_slope else Activation("relu")]
    if threshold == 0 and float(layer.max_value) == 6 and not negative_slope:
        return [Activation("relu6")]
    raise Unsupported("has a threshold or a max_value other than 6, which is not supported")


def _leaky_relu(layer: Any, shape: Shape) -> list[Layer]:
    return [Activation("leaky_relu", float(layer.negative_slope))]


def _elu(layer: Any, shape: Shape) -> list[Layer]:
    return [Activation("elu", float(layer.alpha))]


def _activation_layer(layer: Any, shape: Shape) -> list[Layer]:
    return []  # the activation itself is added by `translate`


def _need_channels_last(layer: Any) -> None:
    if layer.data_format != "channels_last":
        raise Unsupported("is channels_first; only channels_last is supported")


WITH_ACTIVATION = ("Conv1D", "Dense", "Activation")
ACTIVATION_LAYERS = ("Activation", "ReLU", "LeakyReLU", "ELU")
TRANSLATIONS: dict[str, Callable[[Any, Shape], list[Layer]]] = {
    "Normalization": _normalization,
    "Rescaling": _rescaling,
    "BatchNormalization": _batch_normalization,
    "Conv1D": _conv,
    "Dense": _dense,
    "Activation": _activation_layer,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "MaxPooling1D": _pooling("max"),
    "AveragePooling1D": _pooling("average"),
    "GlobalMaxPooling1D": _global_pooling("max"),
    "GlobalAveragePooling1D": _global_pooling("average"),
    "ZeroPadding1D": _zero_padding,
    "Flatten": _flatten,
    "Reshape": _reshape,
}
