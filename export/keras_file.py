"""Reading a .keras file into a `Network`, without ever running code that the file brings along.

The file's config.json is checked before Keras sees it: only Keras's own classes, only layers listed here. Lambda
layers, custom layers and pickles are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.keras_layers import TRANSLATIONS, Unsupported, translate
from export.network import (
    Activation,
    Conv1D,
    Dense,
    GlobalPooling1D,
    Layer,
    Network,
    Pooling1D,
    Shape,
    ZeroPadding1D,
    output_shape,
)
from toolkit.errors import ExportError, ModelError
from toolkit.keras_zip import check_weights, read_keras_zip
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
LAST = "The last layer must be Dense({parameters}, activation='softplus'): it is what makes every estimate positive."
AGAIN = "Put softplus there and train on from these weights: toolkit train DATASETS --parameters {} --start-from {}"


def read_network(path: Path, spec: Spec) -> tuple[Any, Network]:
    """The trained network as Keras holds it, and as plain arrays.

    Returns:
        The keras.Model, loaded without its optimizer, and the `Network`, whose layers end in the logits.
    Raises:
        ExportError: not a .keras file, code inside it, an unsupported layer, more than one path, another shape than
            `spec`, or a last layer that is not Dense(parameters, softplus).
    """
    model = load_network(path)
    return model, translate_network(model, spec, path)


def load_network(path: Path) -> Any:
    """The keras.Model alone, whatever its shapes and its last layer are.

    Raises:
        ExportError: not a .keras file, code inside it, an unsupported layer, or more than one path.
    """
    config = _read_config(path)
    try:
        _refuse_foreign_code(config, path)
        _check_chain(config, path)
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ExportError(f"{path}: its config.json is damaged ({error!r:.80}). Save the network again.") from error
    import keras

    try:
        check_weights(path)
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except ModelError as error:
        raise ExportError(str(error)) from error
    except Exception as error:  # whatever Keras raises on a damaged file, the way out is the same
        raise ExportError(f"{path}: Keras cannot load it ({_first_line(error)}). Save the network again.") from error


def translate_network(model: Any, spec: Spec, path: Path) -> Network:
    """A network from `load_network` as plain arrays.

    Args:
        path: the file that the errors name.
    Raises:
        ExportError: an option of a layer that is not supported, another shape than `spec`, or a last layer that is not
            Dense(parameters, softplus).
    """
    shape = _check_input(model, spec, path)
    layers: list[Layer] = []
    for layer in _computing_layers(model):
        try:
            shape = _add(layers, shape, translate(layer, shape))
        except Unsupported as reason:
            raise ExportError(f"{path}: layer {layer.name!r} ({type(layer).__name__}) {reason}.") from reason
    return Network(spec.shape, len(spec.parameters), _without_softplus(layers, spec, path))


def _read_config(path: Path) -> Config:
    try:
        config = read_keras_zip(path).config
    except ModelError as error:
        raise ExportError(str(error)) from error
    if config.get("class_name") not in CONTAINERS:
        raise ExportError(
            f"{path}: a {config.get('class_name')}, which runs code of its own. "
            "Build the network as keras.Sequential or a functional keras.Model."
        )
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
    if module == "keras.layers" and kind != "Lambda" and ">" not in registered:
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


def _check_chain(config: Config, path: Path) -> None:
    """Every layer must take what the one before it gives, and nothing else."""
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
            _check_chain(entry, path)
    if config["class_name"] != "Sequential" and _names_of(config["config"]["output_layers"]) != [previous]:
        raise ExportError(
            f"{path}: the output is not that of the last layer. The network must be one chain with one output."
        )


def _computing_layers(model: Any) -> Iterator[Any]:
    """The layers that do something at inference, in the order in which they run; an inner model's in its place."""
    for layer in model.layers:
        kind = type(layer).__name__
        if kind in CONTAINERS:
            yield from _computing_layers(layer)
        elif kind not in NOTHING_AT_INFERENCE:
            yield layer


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
            raise Unsupported("needs (rows, channels) before it, but the values are flat already")
        layers.append(layer)
        shape = output_shape(layer, shape)
    return shape


def _without_softplus(layers: list[Layer], spec: Spec, path: Path) -> tuple[Layer, ...]:
    last = LAST.format(parameters=len(spec.parameters))
    if len(layers) < 2 or layers[-1] != Activation("softplus") or not isinstance(layers[-2], Dense):
        found = layers[-1] if layers else None
        what = f"{found.name} activation" if isinstance(found, Activation) else "linear layer"
        again = AGAIN.format(",".join(spec.parameters), path)
        raise ExportError(f"{path}: ends in a {what}. {last}\n{again}")
    shape: Shape = spec.shape
    for layer in layers:
        shape = output_shape(layer, shape)
    if shape != (len(spec.parameters),):
        raise ExportError(
            f"{path}: gives outputs of shape {shape} for {len(spec.parameters)} parameters {spec.parameters}. {last}"
        )
    return tuple(layers[:-1])


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
