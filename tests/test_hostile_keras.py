"""Malicious .keras files, each made as an attacker would, and refused before Keras sees them."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import networks
import numpy as np
import pytest

from export.keras_file import NOTHING_AT_INFERENCE, read_network
from export.keras_layers import TRANSLATIONS
from toolkit.errors import ExportError, ModelError
from toolkit.keras_zip import LAYERS, check_keras_file, read_keras_zip
from toolkit.runtime import load

Members = dict[str, bytes]
CONFIG, WEIGHTS = "config.json", "model.weights.h5"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A .keras file that nothing is wrong with, to be spoiled."""
    return Path(shutil.copy(networks.example("functional").keras_file, tmp_path / "model.keras"))


def rewritten(path: Path, change: Callable[[Members], object], **options: Any) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def with_config(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    def changed(members: Members) -> None:
        config = json.loads(members[CONFIG])
        change(config)
        members[CONFIG] = json.dumps(config).encode()

    return rewritten(path, changed)


def with_weights(path: Path, change: Callable[[h5py.File], object]) -> Path:
    def changed(members: Members) -> None:
        content = io.BytesIO(members[WEIGHTS])
        with h5py.File(content, "r+") as weights:
            change(weights)
        members[WEIGHTS] = content.getvalue()

    return rewritten(path, changed)


def refusal(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The message, the same from the runtime and from the exporter, Keras not having been asked."""
    import keras

    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("Keras saw it"))
    with pytest.raises(ModelError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    with pytest.raises(ExportError):
        read_network(path, networks.example("functional").spec)
    return message


def test_a_sound_file_passes(sound: Path) -> None:
    check_keras_file(sound)
    assert rewritten(sound, lambda members: None, compression=zipfile.ZIP_DEFLATED)
    check_keras_file(sound)  # compressed, as other tools write it
    assert load(sound)(np.zeros((3, 20, 4), np.float32)).shape == (3, 2)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_network_of_ours_passes(name: str) -> None:
    check_keras_file(networks.example(name).keras_file)


def test_the_layers_that_are_loaded_are_those_that_can_be_exported() -> None:
    assert set(LAYERS) == {*TRANSLATIONS, *NOTHING_AT_INFERENCE}


PLANTED = {
    "a Lambda layer": {"class_name": "Lambda", "module": "keras.layers", "config": {"name": "l"}},
    "a marshalled function": {"class_name": "__lambda__", "config": {"value": "4wEAAAAA"}},
    "a custom layer": {"class_name": "Mine", "module": None, "registered_name": "mine>Mine", "config": {}},
    "a registered name": {"class_name": "Dense", "module": "keras.layers", "registered_name": "a>Dense", "config": {}},
    "os.system": {"class_name": "system", "module": "os", "config": {}},
    "a download": {"class_name": "function", "module": "keras.utils", "config": "get_file"},
    "a module on the path": {"class_name": "Payload", "module": "evil.module", "config": {}},
    "a container elsewhere": {"class_name": "Sequential", "module": "evil", "config": {}},
    "a module below Keras": {"class_name": "Conv1D", "module": "keras.src.layers", "config": {}},
    "a saved model": {"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "/tmp/x"}},
    "a pickled torch module": {"class_name": "TorchModuleWrapper", "module": "keras.layers", "config": {}},
    "a vocabulary file": {"class_name": "StringLookup", "module": "keras.layers", "config": {"vocabulary": "/etc/x"}},
    "a class that is no name": {"class_name": ["Dense"], "module": {"a": 1}, "config": {}},
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("place", ["kernel_initializer", "activation", "layer"])
def test_what_is_not_known_to_be_harmless_is_refused(
    sound: Path, monkeypatch: pytest.MonkeyPatch, planted: dict[str, Any], place: str
) -> None:
    def plant(config: dict[str, Any]) -> None:
        if place == "layer":
            config["config"]["layers"].append(planted)
        else:
            config["config"]["layers"][-2]["config"][place] = planted

    assert "which is none of the plain layers that are loaded" in refusal(with_config(sound, plant), monkeypatch)


def test_a_model_class_of_its_own_is_refused(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_config(sound, lambda config: config.update(class_name="Mine", registered_name="mine>Mine"))
    assert "a Mine, which runs code of its own" in refusal(path, monkeypatch)


def test_a_loss_of_the_users_own_does_no_harm(sound: Path) -> None:
    planted = {"loss": PLANTED["os.system"]}
    check_keras_file(with_config(sound, lambda config: config.update(compile_config=planted)))


def test_a_config_nested_beyond_pythons_depth_is_refused(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rewritten(sound, lambda members: members.update({CONFIG: b"[" * 100_000}))
    assert "a damaged .keras file (maximum recursion depth" in refusal(path, monkeypatch)


def test_code_is_found_at_any_depth(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bury(config: dict[str, Any]) -> None:
        inner: dict[str, Any] = PLANTED["os.system"]
        for _ in range(300):
            inner = {"a": [inner]}
        config["config"]["layers"][-2]["config"]["bias_initializer"] = inner

    assert "holds 'system'" in refusal(with_config(sound, bury), monkeypatch)


@pytest.mark.parametrize(
    "name", ["../escaped", "/tmp/escaped", "assets/vocabulary.txt", "a\\..\\b", "model.weights.npz"]
)
def test_a_member_that_is_no_part_of_a_network_is_refused_and_nothing_is_unpacked(
    sound: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = rewritten(sound, lambda members: members.update({name: b"escaped"}))
    assert "which is no part of a network" in refusal(path, monkeypatch)
    assert [entry.name for entry in path.parent.iterdir()] == ["model.keras"]
    assert not (path.parent.parent / "escaped").exists() and not Path("/tmp/escaped").exists()


def test_a_member_that_is_there_twice_is_refused(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(sound, "a") as archive:
        archive.writestr(CONFIG, "{}")
    assert "holds" in refusal(sound, monkeypatch)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = rewritten(
        sound, lambda members: members.update({WEIGHTS: bytes(200 << 20)}), compression=zipfile.ZIP_DEFLATED
    )
    assert bomb.stat().st_size < 1 << 20
    assert "would unpack to 209,7" in refusal(bomb, monkeypatch)


def external_dataset(weights: h5py.File) -> None:
    group = weights["layers/dense/vars"]
    del group["0"]
    group.create_dataset("0", (2,), "f4", external=[("/etc/hostname", 0, 8)])


def external_link(weights: h5py.File) -> None:
    weights["layers/dense/vars/9"] = h5py.ExternalLink("/etc/passwd", "/x")


def soft_link(weights: h5py.File) -> None:
    weights["layers/dense/vars/9"] = h5py.SoftLink("/layers")


def virtual_dataset(weights: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (4,))
    weights["layers/dense/vars"].create_virtual_dataset("9", layout)


def shape_bomb(weights: h5py.File) -> None:
    weights["layers/dense/vars"].create_dataset("9", (1 << 40,), "f4", chunks=(1 << 20,))


def objects(weights: h5py.File) -> None:
    weights["layers/dense/vars"].create_dataset("9", (1,), h5py.string_dtype())


def endless_groups(weights: h5py.File) -> None:
    weights["layers/dense/again"] = weights["layers"]


LINKS = {
    external_dataset: "stored in another file",
    external_link: "a link to somewhere else",
    soft_link: "a link to somewhere else",
    virtual_dataset: "stored in another file",
    shape_bomb: "would unpack to 4,398,046,511,104 bytes",
    objects: "no numbers",
    endless_groups: "more than 10,000 weights",
}


@pytest.mark.parametrize(("change", "said"), LINKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_weights_that_are_not_numbers_in_the_file_are_refused(
    sound: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[h5py.File], None], said: str
) -> None:
    assert said in refusal(with_weights(sound, change), monkeypatch)


class Executed:
    """Unpickled, it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("inside", [None, CONFIG, WEIGHTS])
def test_a_pickle_is_refused_and_not_executed(sound: Path, monkeypatch: pytest.MonkeyPatch, inside: str | None) -> None:
    pickled = pickle.dumps(Executed(sound.parent / "executed"))
    if inside is None:
        sound.write_bytes(pickled)
    else:
        rewritten(sound, lambda members: members.update({inside: pickled}))
    assert "not a .keras file" in refusal(sound, monkeypatch) or "damaged" in refusal(sound, monkeypatch)
    assert not (sound.parent / "executed").exists()


def test_an_hdf5_file_under_the_name_is_refused(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(sound, "w") as old:
        old.attrs["model_config"] = "{}"
    assert "not a .keras file (HDF5 files and pickles can hold code, and are refused)" in refusal(sound, monkeypatch)


def test_read_keras_zip_gives_the_layers_with_their_shapes(sound: Path) -> None:
    content = read_keras_zip(sound)
    first, *_, last = content.layers
    assert (first.kind, first.input_shape) == ("InputLayer", (None, 20, 4))
    assert (last.kind, last.options) == ("Activation", {"activation": "softplus"})
    convolution = next(layer for layer in content.layers if layer.kind == "Conv1D")  # inside the inner network
    assert (convolution.options["filters"], convolution.input_shape) == (7, (None, 20, 4))
    assert content.metadata["keras_version"]
