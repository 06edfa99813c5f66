"""Reading a .keras file into a `Network`, without ever running code that the file brings along.

The file's config.json is checked before Keras sees it: only Keras's own classes, only layers listed here. Lambda
layers, custom layers and pickles are refused by name.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
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
    Network,
    Normalization,
    Pooling1D,
    Reshape,
    Shape,
    Weights,
    ZeroPadding1D,
    output_shape,
)
from toolkit.errors import ExportError
from toolkit.spec import Spec

Config = dict[str, Any]

CONTAINERS = ("Sequential", "Functional", "Model")
NOTHING_AT_INFERENCE = (
    "InputLayer",
    "Dropout",
    "SpatialDropout1D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
)
MODULES = ("keras.initializers", "keras.regularizers", "keras.constraints")
MARKERS = ("__keras_tensor__", "__tuple__", "__numpy__", "__tensor__")
LAST = "The last layer must be Dense({parameters}, activation='softplus'): it is what makes every estimate positive"


def read_network(path: Path, spec: Spec) -> tuple[Any, Network]:
    """The trained network as Keras holds it, and as plain arrays.

    Returns:
        The keras.Model, loaded without its optimizer, and the `Network`, whose layers end in the logits.
    Raises:
        ExportError: not a .keras file, code inside it, an unsupported layer, more than one path, another shape than
            `spec`, or a last layer that is not Dense(parameters, softplus).
    """
    config = _read_config(path)
    _refuse_foreign_code(config, path)
    names = list(_chain(config, path))
    import keras

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever Keras raises on a damaged file, the way out is the same
        raise ExportError(f"{path}: Keras cannot load it ({_first_line(error)}). Save the network again.") from error
    shape = _check_input(model, spec, path)
    layers: list[Layer] = []
    for outer in names:
        found = model
        for name in outer:
            found = found.get_layer(name)
        try:
            shape = _add(layers, shape, _translate(found, shape))
        except _Unsupported as reason:
            raise ExportError(f"{path}: layer {found.name!r} ({type(found).__name__}) {reason}.") from reason
    return model, Network(spec.shape, len(spec.parameters), _without_softplus(layers, spec, path))


class _Unsupported(Exception):
    """Why one layer cannot be exported; becomes an ExportError with the layer's name."""


def _read_config(path: Path) -> Config:
    if not path.is_file():
        raise ExportError(f"{path}: not found. Train a network first: toolkit train.")
    if not zipfile.is_zipfile(path):
        raise ExportError(
            f"{path}: not a .keras file (HDF5 files and pickles can hold code, and are refused). "
            "Save the network with model.save('network.keras') in Keras 3."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            config: Config = json.loads(archive.read("config.json"))
        if config["class_name"] not in CONTAINERS:
            raise ExportError(
                f"{path}: a {config['class_name']}, which runs code of its own. "
                "Build the network as keras.Sequential or a functional keras.Model."
            )
    except (KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ExportError(f"{path}: no network in it ({error}). Save the network again.") from error
    return config


def _refuse_foreign_code(node: Any, path: Path) -> None:
    """Whatever Keras would look up by name while loading must be a plain class of its own.

    `safe_mode` alone has let files call any function inside Keras (CVE-2025-8747: keras.utils.get_file).
    """
    if isinstance(node, list):
        for item in node:
            _refuse_foreign_code(item, path)
    elif isinstance(node, dict):
        if "class_name" in node:
            _check_class(node, path)
        for key, value in node.items():
            if key != "compile_config":  # loss and optimizer, which may be anyone's: they are not loaded
                _refuse_foreign_code(value, path)


def _check_class(node: Config, path: Path) -> None:
    kind, module, registered = str(node["class_name"]), str(node.get("module")), str(node.get("registered_name"))
    if module == "keras.layers" and kind != "Lambda":
        if kind not in TRANSLATIONS and kind not in NOTHING_AT_INFERENCE:
            name = node["config"].get("name")
            known = ", ".join(sorted([*TRANSLATIONS, *NOTHING_AT_INFERENCE]))
            raise ExportError(f"{path}: layer {name!r} is a {kind}, which is not supported. Supported: {known}.")
        return
    container = kind in CONTAINERS and (module == "keras" or module.startswith("keras.src."))
    plain = kind in MARKERS or module in MODULES or (module, kind) == ("keras", "DTypePolicy")
    if not container and not plain or ">" in registered:
        name = node["config"] if kind == "function" else kind
        raise ExportError(
            f"{path}: holds {name!r}, which is code or brings code of its own. Express it as standard Keras layers."
        )


def _chain(config: Config, path: Path) -> Iterator[tuple[str, ...]]:
    """Names of the layers, each as the path from the outermost model to it, in the order in which they run."""
    previous = None
    for entry in config["config"]["layers"]:
        kind, name = entry["class_name"], entry["config"].get("name", entry.get("name"))
        if config["class_name"] != "Sequential":
            sources = list(_sources(entry.get("inbound_nodes", [])))
            if sources != ([] if previous is None else [previous]):
                raise ExportError(
                    f"{path}: layer {name!r} ({kind}) does not follow the layer before it alone. "
                    "Branches, skips and shared layers are not supported: the network must be one chain."
                )
        previous = name
        if kind in CONTAINERS:
            for inner in _chain(entry, path):
                yield (name, *inner)
        elif kind not in NOTHING_AT_INFERENCE:
            yield (name,)
    if config["class_name"] != "Sequential" and _names_of(config["config"]["output_layers"]) != [previous]:
        raise ExportError(
            f"{path}: the output is not that of the last layer. The network must be one chain with one output."
        )


def _names_of(layers: list[Any]) -> list[str]:
    return [layers[0]] if layers and isinstance(layers[0], str) else [layer[0] for layer in layers]


def _sources(node: Any) -> Iterator[str]:
    """Names of the layers whose outputs a functional layer takes."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            yield node["config"]["keras_history"][0]
        else:
            for value in node.values():
                yield from _sources(value)
    elif isinstance(node, list):
        for item in node:
            yield from _sources(item)


def _check_input(model: Any, spec: Spec, path: Path) -> Shape:
    found = tuple(model.inputs[0].shape[1:])
    fits = len(found) == 2 and all(size in (None, wanted) for size, wanted in zip(found, spec.shape, strict=True))
    if not fits:
        raise ExportError(f"{path}: takes inputs of shape {found}, the datasets have (rows, columns) = {spec.shape}.")
    if model.inputs[0].dtype != "float32":
        raise ExportError(f"{path}: takes {model.inputs[0].dtype} inputs. Build the network with a float32 input.")
    return spec.shape


def _add(layers: list[Layer], shape: Shape, translated: list[Layer]) -> Shape:
    for layer in translated:
        if isinstance(layer, Conv1D | Pooling1D | GlobalPooling1D | ZeroPadding1D) and len(shape) != 2:
            raise _Unsupported("needs (rows, channels) before it, but the values are flat already")
        layers.append(layer)
        shape = output_shape(layer, shape)
    return shape


def _without_softplus(layers: list[Layer], spec: Spec, path: Path) -> tuple[Layer, ...]:
    last = LAST.format(parameters=len(spec.parameters))
    if len(layers) < 2 or layers[-1] != Activation("softplus") or not isinstance(layers[-2], Dense):
        found = layers[-1] if layers else None
        what = f"{found.name} activation" if isinstance(found, Activation) else "linear layer"
        raise ExportError(f"{path}: ends in a {what}. {last}.")
    shape: Shape = spec.shape
    for layer in layers:
        shape = output_shape(layer, shape)
    if shape != (len(spec.parameters),):
        raise ExportError(
            f"{path}: gives outputs of shape {shape} for {len(spec.parameters)} parameters {spec.parameters}. {last}."
        )
    return tuple(layers[:-1])


def _translate(layer: Any, shape: Shape) -> list[Layer]:
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
            raise _Unsupported(f"has the activation {kind}, which is not supported")
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
        raise _Unsupported(f"has the activation {name}, which is not supported. Supported: {known}")
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
        raise _Unsupported("inverts (invert=True), which is not supported")
    without_batch = [
        np.asarray(value)[0] if np.ndim(value) > len(shape) else value for value in (layer.mean, layer.variance)
    ]
    mean, variance = (_array(value) for value in without_batch)
    return [Normalization(mean, variance, float(keras.config.epsilon()))]


def _rescaling(layer: Any, shape: Shape) -> list[Layer]:
    return [Affine(_array(layer.scale), _array(layer.offset))]


def _batch_normalization(layer: Any, shape: Shape) -> list[Layer]:
    if layer.axis not in (-1, len(shape)):
        raise _Unsupported(f"normalizes axis {layer.axis}; only the last axis is supported")
    size = shape[-1]
    gamma, beta = _array(layer.gamma, size, 1.0), _array(layer.beta, size)
    return [
        BatchNormalization(gamma, beta, _array(layer.moving_mean), _array(layer.moving_variance), float(layer.epsilon))
    ]


def _conv(layer: Any, shape: Shape) -> list[Layer]:
    _need_channels_last(layer)
    if layer.groups != 1:
        raise _Unsupported(f"has groups={layer.groups}; only groups=1 is supported")
    bias = _array(layer.bias if layer.use_bias else None, layer.filters)
    return [Conv1D(_array(layer.kernel), bias, _one(layer.strides), layer.padding, _one(layer.dilation_rate))]


def _dense(layer: Any, shape: Shape) -> list[Layer]:
    return [Dense(_array(layer.kernel), _array(layer.bias if layer.use_bias else None, layer.units))]


def _pooling(kind: str) -> Callable[[Any, Shape], list[Layer]]:
    def translate(layer: Any, shape: Shape) -> list[Layer]:
        _need_channels_last(layer)
        return [Pooling1D(kind, _one(layer.pool_size), _one(layer.strides), layer.padding)]

    return translate


def _global_pooling(kind: str) -> Callable[[Any, Shape], list[Layer]]:
    def translate(layer: Any, shape: Shape) -> list[Layer]:
        _need_channels_last(layer)
        return [GlobalPooling1D(kind, bool(layer.keepdims))]

    return translate


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
        raise _Unsupported(f"has the target shape {target}; only (rows, channels) and (features,) are supported")
    return [Reshape(target)]


def _relu(layer: Any, shape: Shape) -> list[Layer]:
    negative_slope, threshold = float(layer.negative_slope), float(layer.threshold)
    if threshold == 0 and layer.max_value is None:
        return [Activation("leaky_relu", negative_slope) if negative_slope else Activation("relu")]
    if threshold == 0 and float(layer.max_value) == 6 and not negative_slope:
        return [Activation("relu6")]
    raise _Unsupported("has a threshold or a max_value other than 6, which is not supported")


def _leaky_relu(layer: Any, shape: Shape) -> list[Layer]:
    return [Activation("leaky_relu", float(layer.negative_slope))]


def _elu(layer: Any, shape: Shape) -> list[Layer]:
    return [Activation("elu", float(layer.alpha))]


def _activation_layer(layer: Any, shape: Shape) -> list[Layer]:
    return []  # the activation itself is added by `_translate`


def _need_channels_last(layer: Any) -> None:
    if layer.data_format != "channels_last":
        raise _Unsupported("is channels_first; only channels_last is supported")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


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
