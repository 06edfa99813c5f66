"""Which networks are read, and how the others are refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import NETWORKS, example, spec_of

from export.graph import build_function
from export.keras_file import read_network
from export.network import Activation, Conv1D, Dense, Normalization, Pooling1D, Reshape, output_shape
from toolkit.errors import ExportError
from toolkit.spec import Spec

SPEC = spec_of(20, 2, 3)


def save(model: Any, directory: Path) -> Path:
    model.save(directory / "model.keras")
    return directory / "model.keras"


def network_of(
    *stack: Any, rows: int | None = 20, columns: int = 2, parameters: int = 3, last: str = "softplus"
) -> Any:
    """Sequential: the layers given, then Flatten and Dense(parameters, last)."""
    import keras

    head = [keras.layers.Flatten(), keras.layers.Dense(parameters, activation=last)]
    return keras.Sequential([keras.Input((rows, columns)), *stack, *head])


def with_config(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The .keras file with another config.json in it."""
    changed = path.with_name("changed.keras")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            target.writestr(name, content)
    return changed


def refusal(path: Path, spec: Spec = SPEC) -> str:
    with pytest.raises(ExportError) as caught:
        read_network(path, spec)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_read_network_gives_the_layers_as_plain_arrays() -> None:
    network = example("standard")
    model, read = read_network(network.keras_file, network.spec)
    assert [type(layer) for layer in read.layers] == [
        *(
            Normalization,
            Conv1D,
            Activation,
            Pooling1D,
            Conv1D,
            Activation,
            Pooling1D,
            Conv1D,
            Activation,
            Reshape,
            Dense,
        )
    ]
    kernels = [layer.kernel for layer in read.layers if isinstance(layer, Conv1D | Dense)]
    assert all(kernel.dtype == np.float32 for kernel in kernels)
    assert [kernel.shape for kernel in kernels] == [(3, 2, 32), (3, 32, 64), (3, 64, 128), (46 * 128, 3)]
    assert np.array_equal(kernels[0], model.layers[1].kernel)
    shape: tuple[int, ...] = read.shape
    for layer in read.layers:
        shape = output_shape(layer, shape)
    assert shape == (3,)


@pytest.mark.parametrize("name", NETWORKS)
def test_build_function_gives_what_keras_gives(name: str) -> None:
    network = example(name)
    model, read = read_network(network.keras_file, network.spec)
    estimates = build_function(read, 2.0**60)(datasets=network.datasets)["estimates"].numpy()
    # Measured 5.3e-7 at most, in `standard`.
    np.testing.assert_allclose(estimates, model(network.datasets), rtol=1.1e-6)


def test_read_network_takes_a_network_trained_with_a_loss_of_the_users_own(tmp_path: Path) -> None:
    import keras

    def own_loss(truth: Any, estimates: Any) -> Any:
        return keras.ops.mean(truth - estimates)

    model = network_of()
    model.compile("adam", own_loss)
    _, read = read_network(save(model, tmp_path), SPEC)
    assert len(read.layers) == 2


def test_read_network_takes_a_layer_without_weights_at_inference_for_nothing(tmp_path: Path) -> None:
    from keras import layers

    path = save(
        network_of(layers.Dropout(0.3), layers.GaussianDropout(0.2), layers.ActivityRegularization(0.1)), tmp_path
    )
    assert [type(layer) for layer in read_network(path, SPEC)[1].layers] == [Reshape, Dense]


def test_read_network_refuses_a_lambda_layer(tmp_path: Path) -> None:
    import keras

    path = save(network_of(keras.layers.Lambda(lambda x: x * 2)), tmp_path)
    assert refusal(path) == (
        "holds 'Lambda', which is code or brings code of its own. Express it as standard Keras layers."
    )


def test_read_network_refuses_a_custom_layer(tmp_path: Path) -> None:
    import keras

    @keras.saving.register_keras_serializable(package="mine")
    class Double(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    path = save(network_of(Double()), tmp_path)
    assert "holds 'Double', which is code" in refusal(path)


@pytest.mark.parametrize(
    ("planted", "named"),
    [
        (
            {"class_name": "function", "config": "get_file", "module": "keras.utils", "registered_name": "x"},
            "'get_file'",
        ),
        ({"class_name": "system", "config": {}, "module": "os", "registered_name": None}, "'system'"),
        ({"class_name": "__lambda__", "config": {"value": "4wEAAAAA"}}, "'__lambda__'"),
        ({"class_name": "Sequential", "config": {}, "module": "evil"}, "'Sequential'"),
        ({"class_name": "TFSMLayer", "config": {"name": "t"}, "module": "keras.layers"}, "layer 't' is a TFSMLayer"),
    ],
)
def test_read_network_refuses_code_planted_in_a_config_before_keras_sees_it(
    planted: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][-1]["config"]["kernel_initializer"] = planted

    path = with_config(save(network_of(), tmp_path), change)
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("Keras saw it"))
    assert named in refusal(path)


def test_read_network_refuses_a_model_class_of_its_own(tmp_path: Path) -> None:
    import keras

    class Mine(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.last = keras.layers.Dense(3, activation="softplus")

        def call(self, x: Any) -> Any:
            return self.last(keras.ops.reshape(x, (-1, 40)))

    model = Mine()
    model(np.zeros((1, 20, 2), np.float32))
    assert "a Mine, which runs code of its own. Build the network as keras.Sequential" in refusal(save(model, tmp_path))


def test_read_network_refuses_a_pickle(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    assert "not a .keras file (HDF5 files and pickles can hold code, and are refused)" in refusal(path)


def test_read_network_refuses_another_zip_file(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no network")
    assert "holds 'readme.txt', which is no part of a network" in refusal(path)


def test_read_network_refuses_a_damaged_file(tmp_path: Path) -> None:
    import h5py

    empty = io.BytesIO()
    h5py.File(empty, "w").close()
    path = save(network_of(), tmp_path)
    for weights, said in ((None, "holds config.json, metadata.json, not"), (empty.getvalue(), "Keras cannot load it")):
        damaged = tmp_path / "damaged.keras"
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(damaged, "w") as target:
            for name in ("config.json", "metadata.json"):
                target.writestr(name, source.read(name))
            if weights is not None:
                target.writestr("model.weights.h5", weights)
        assert said in refusal(damaged)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["config"].pop("layers"),
        lambda config: config["config"]["layers"].append(None),
        lambda config: config["config"]["layers"][1].pop("config"),
        lambda config: config["config"].update(layers={"a": 1}),
    ],
)
def test_read_network_refuses_a_config_that_keras_did_not_write(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    path = with_config(save(network_of(), tmp_path), change)
    assert "its config.json is damaged" in refusal(path)


def test_read_network_refuses_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent.keras") == "not found. Train a network first: toolkit train."


@pytest.mark.parametrize(
    ("last", "ends"), [("linear", "a linear layer"), ("sigmoid", "a sigmoid activation"), ("relu", "a relu activation")]
)
def test_read_network_refuses_a_last_layer_that_is_not_softplus(last: str, ends: str, tmp_path: Path) -> None:
    path = save(network_of(last=last), tmp_path)
    assert refusal(path) == (
        f"ends in {ends}. The last layer must be Dense(3, activation='softplus'): "
        "it is what makes every estimate positive.\nPut softplus there and train on from these weights: "
        f"toolkit train DATASETS --parameters parameter0,parameter1,parameter2 --start-from {path}"
    )


def test_read_network_refuses_another_number_of_parameters(tmp_path: Path) -> None:
    message = refusal(save(network_of(parameters=4), tmp_path))
    assert message.startswith(
        "gives outputs of shape (4,) for 3 parameters ('parameter0', 'parameter1', 'parameter2')."
    )


def test_read_network_refuses_inputs_of_another_shape(tmp_path: Path) -> None:
    path = save(network_of(rows=30), tmp_path)
    assert refusal(path) == "takes inputs of shape (30, 2), the datasets have (rows, columns) = (20, 2)."


def test_read_network_refuses_inputs_of_another_rank(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(3, activation="softplus")])
    assert "takes inputs of shape (40,), the datasets have (rows, columns) = (20, 2)" in refusal(save(model, tmp_path))


def test_read_network_refuses_a_second_input(tmp_path: Path) -> None:
    import keras
    from keras import layers

    first, second = keras.Input((20, 2)), keras.Input((20, 2), name="second")
    values = layers.Dense(3, activation="softplus")(layers.Flatten()(first))
    message = refusal(save(keras.Model([first, second], values), tmp_path))
    assert message.startswith("layer 'second' (InputLayer) does not follow the layer before it alone.")


def test_read_network_refuses_a_second_output(tmp_path: Path) -> None:
    import keras
    from keras import layers

    inputs = keras.Input((20, 2))
    features = layers.Flatten()(inputs)
    values = layers.Dense(3, activation="softplus")(features)
    message = refusal(save(keras.Model(inputs, [features, values]), tmp_path))
    assert message == "the output is not that of the last layer. The network must be one chain with one output."


def test_read_network_refuses_a_layer_used_twice(tmp_path: Path) -> None:
    import keras
    from keras import layers

    inputs = keras.Input((20, 2))
    twice = layers.Dense(2, name="twice")
    values = layers.Dense(3, activation="softplus")(layers.Flatten()(twice(twice(inputs))))
    message = refusal(save(keras.Model(inputs, values), tmp_path))
    assert message.startswith("layer 'twice' (Dense) does not follow the layer before it alone.")


def test_read_network_refuses_a_skip_connection(tmp_path: Path) -> None:
    import keras
    from keras import layers

    inputs = keras.Input((20, 2))
    values = layers.Add(name="skip")([inputs, layers.Conv1D(2, 3, padding="same")(inputs)])
    values = layers.Dense(3, activation="softplus")(layers.Flatten()(values))
    assert refusal(save(keras.Model(inputs, values), tmp_path)).startswith(
        "layer 'skip' is a Add, which is not supported."
    )


@pytest.mark.parametrize("kind", ["LSTM", "LayerNormalization", "Conv1DTranspose"])
def test_read_network_names_a_layer_that_is_not_supported(kind: str, tmp_path: Path) -> None:
    import keras

    arguments = {"LSTM": (4,), "LayerNormalization": (), "Conv1DTranspose": (4, 3)}[kind]
    options = {"return_sequences": True} if kind == "LSTM" else {}
    layer = getattr(keras.layers, kind)(*arguments, name="odd_one", **options)
    message = refusal(save(network_of(layer), tmp_path))
    assert message.startswith(f"layer 'odd_one' is a {kind}, which is not supported. Supported: Activation, ")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda layers: layers.Conv1D(4, 3, groups=2, name="odd_one"), "has groups=2; only groups=1 is supported"),
        (
            lambda layers: layers.Conv1D(4, 3, activation="gelu", name="odd_one"),
            "has the activation gelu, which is not",
        ),
        (lambda layers: layers.ReLU(threshold=1.0, name="odd_one"), "has a threshold or a max_value other than 6"),
        (lambda layers: layers.BatchNormalization(axis=1, name="odd_one"), "normalizes axis 1; only the last axis"),
        (lambda layers: layers.Reshape((2, 2, 10), name="odd_one"), "has the target shape (2, 2, 10); only"),
        (
            lambda layers: layers.GlobalMaxPooling1D(data_format="channels_first", name="odd_one"),
            "is channels_first; only channels_last is supported",
        ),
        (
            lambda layers: layers.Normalization(mean=0.0, variance=1.0, invert=True, name="odd_one"),
            "inverts (invert=True), which is not supported",
        ),
    ],
)
def test_read_network_names_an_option_that_is_not_supported(
    make: Callable[[Any], Any], reason: str, tmp_path: Path
) -> None:
    from keras import layers

    message = refusal(save(network_of(make(layers)), tmp_path))
    assert message.startswith("layer 'odd_one' (")
    assert reason in message
