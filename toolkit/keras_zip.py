"""What a .keras file holds, read without Keras and without running anything that the file brings along.

A .keras file is a zip of two JSON texts and an HDF5 file of weights. Keras looks up classes and functions by the names
in it, and has been led to run them, to read other files and to fill the memory; newer versions refuse most of that. So
a file is checked here before Keras sees it: what is not known to be harmless is refused.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import ModelError, reason_of

Config = dict[str, Any]

CONFIG, METADATA, WEIGHTS = MEMBERS = ("config.json", "metadata.json", "model.weights.h5")
EXPANSION = 50  # times the size of the file, at most: Keras stores without compression; a zip bomb reaches 1,000
ROOM = 1 << 20  # bytes allowed beside that
MOST_WEIGHTS = 10_000  # arrays and groups

CONTAINERS = ("Sequential", "Functional", "Model")
# Layers that compute with the numbers they are given. Others run code (Lambda), read files (StringLookup, TFSMLayer)
# or unpickle (TorchModuleWrapper).
LAYERS = (
    *("Normalization", "Rescaling", "BatchNormalization", "Conv1D", "Dense", "Activation", "ReLU", "LeakyReLU", "ELU"),
    *("MaxPooling1D", "AveragePooling1D", "GlobalMaxPooling1D", "GlobalAveragePooling1D", "ZeroPadding1D"),
    *("Flatten", "Reshape", "InputLayer", "Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout"),
    *("AlphaDropout", "ActivityRegularization"),
)
MODULES = ("keras.initializers", "keras.regularizers", "keras.constraints")
MARKERS = ("__keras_tensor__", "__tuple__", "__numpy__", "__tensor__")  # plain values that JSON has no form for

# Settings of a layer that are worth showing.
TOLD = ("filters", "kernel_size", "strides", "padding", "dilation_rate", "pool_size", "units", "activation", "rate")

AGAIN = "Save the network again with model.save('network.keras') in Keras 3."


@dataclass(frozen=True)
class KerasLayer:
    """One layer of the network, as the file describes it.

    Attributes:
        kind: its class.
        options: those of its settings that say what it computes.
        input_shape: with None for the batch; empty where the file does not say.
    """

    name: str
    kind: str
    options: dict[str, Any]
    input_shape: tuple[int | None, ...]


@dataclass(frozen=True)
class KerasZip:
    """The two texts: `config` of the network, and `metadata` with `keras_version` and `date_saved`."""

    config: Config
    metadata: dict[str, Any]

    @property
    def layers(self) -> tuple[KerasLayer, ...]:
        """In the order of the file; those of networks inside networks in their place."""
        return tuple(_layers(self.config))


def read_keras_zip(path: Path) -> KerasZip:
    """The two texts of a .keras file. What they say is not checked: see `check_keras_file`.

    Raises:
        ModelError: not a .keras file, a damaged one, or one with more in it than Keras writes.
    """
    if not path.is_file():
        raise ModelError(f"{path}: not found. Train a network first: toolkit train.")
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: not a .keras file (HDF5 files and pickles can hold code, and are refused). {AGAIN}")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
            config, metadata = (json.loads(archive.read(name)) for name in (CONFIG, METADATA))
    except ModelError:
        raise
    except Exception as error:  # zipfile's, json's, and whatever a decompressor raises on damaged bytes
        raise ModelError(f"{path}: a damaged .keras file ({reason_of(error)}). {AGAIN}") from error
    if not isinstance(config, dict) or not isinstance(metadata, dict) or not isinstance(config.get("config"), dict):
        raise ModelError(f"{path}: no network in it. {AGAIN}")
    return KerasZip(config, metadata)


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    strange = [name for name in names if name not in MEMBERS]
    if strange:
        raise ModelError(f"{path}: holds {strange[0]!r}, which is no part of a network. {AGAIN}")
    if sorted(names) != sorted(MEMBERS):
        raise ModelError(f"{path}: holds {', '.join(names) or 'nothing'}, not {', '.join(MEMBERS)}. {AGAIN}")
    declared = sum(member.file_size for member in archive.infolist())
    if declared > EXPANSION * path.stat().st_size + ROOM:
        raise ModelError(f"{path}: would unpack to {declared:,} bytes, more than a network stores. {AGAIN}")


def check_keras_file(path: Path) -> None:
    """Refuse a .keras file that is more than numbers and the plain layers that compute with them. Needs h5py.

    Raises:
        ModelError: as `read_keras_zip`, or a layer, a function or a link that is not known to be harmless.
    """
    check_config(path, read_keras_zip(path).config)
    check_weights(path)


def check_config(path: Path, config: Config) -> None:
    """Whatever Keras would look up by name while loading must be a plain class of its own.

    Raises:
        ModelError: it names the first that is not.
    """
    if config.get("class_name") not in CONTAINERS:
        raise ModelError(
            f"{path}: a {config.get('class_name')!s:.60}, which runs code of its own. "
            "Build the network as keras.Sequential or a functional keras.Model."
        )
    for node in _objects(config):
        kind, module = node["class_name"], node.get("module")
        plain_layer = module == "keras.layers" and kind in LAYERS
        container = kind in CONTAINERS and (module == "keras" or str(module).startswith("keras.src."))
        plain = kind in MARKERS or module in MODULES or (module, kind) == ("keras", "DTypePolicy")
        registered = ">" in str(node.get("registered_name"))  # package>Class: a class of the user's own
        if not (plain_layer or container or plain) or registered:
            named = node.get("config") if kind == "function" else kind
            raise ModelError(
                f"{path}: holds {named!r:.60}, which is none of the plain layers that are loaded: it may bring code or "
                "read other files. Express it as standard Keras layers."
            )


def _objects(config: Config) -> Iterator[Config]:
    """Every object that Keras would build. The loss and the optimizer may be anyone's: they are not loaded."""
    waiting: list[Any] = [config]  # a list, not recursion: the file decides how deep it is nested
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            if "class_name" in node:
                yield node
            waiting += [value for key, value in node.items() if key != "compile_config"]


def check_weights(path: Path) -> None:
    """The weights must be numbers that are in the file itself. Needs h5py, which comes with Keras.

    Raises:
        ModelError: they are links to somewhere else, or more than the file can hold.
    """
    import h5py  # type: ignore[import-untyped]

    with zipfile.ZipFile(path) as archive:
        content = archive.read(WEIGHTS)
    try:
        with h5py.File(io.BytesIO(content), "r") as weights:
            _check_groups(path, weights, len(content), h5py)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:  # h5py's own
        raise ModelError(f"{path}: {WEIGHTS} in it is damaged ({reason_of(error)}). {AGAIN}") from error


def _check_groups(path: Path, weights: Any, size: int, h5py: Any) -> None:
    waiting, seen = [weights], 0
    while waiting:
        group = waiting.pop()
        for name in group:
            where, seen = f"{path}: weights {group.name.rstrip('/')}/{name}", seen + 1
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ModelError(f"{where}: a link to somewhere else. {AGAIN}")
            member = group[name]
            if isinstance(member, h5py.Group):
                waiting.append(member)
            elif not isinstance(member, h5py.Dataset) or member.external or member.is_virtual:
                raise ModelError(f"{where}: stored in another file. {AGAIN}")
            elif member.dtype.kind not in "fiub":
                raise ModelError(f"{where}: no numbers. {AGAIN}")
            elif member.nbytes > size:
                raise ModelError(f"{where}: would unpack to {member.nbytes:,} bytes, more than are stored. {AGAIN}")
            if seen > MOST_WEIGHTS:  # groups may hold each other
                raise ModelError(f"{path}: more than {MOST_WEIGHTS:,} weights. {AGAIN}")


def _layers(network: Config) -> Iterator[KerasLayer]:
    entries = network["config"].get("layers", []) if isinstance(network.get("config"), dict) else []
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict):
            continue
        settings = entry["config"]
        if entry.get("class_name") in CONTAINERS:
            yield from _layers(entry)
            continue
        built = entry.get("build_config")
        shape = settings.get("batch_shape") or (built.get("input_shape") if isinstance(built, dict) else None)
        shape = shape if isinstance(shape, list) else ()
        yield KerasLayer(
            name=str(settings.get("name", "")),
            kind=str(entry.get("class_name")),
            options={key: _plain(settings[key]) for key in TOLD if settings.get(key) is not None},
            input_shape=tuple(size if isinstance(size, int) else None for size in shape),
        )


def _plain(value: Any) -> Any:
    return value.get("class_name") if isinstance(value, dict) else value
