"""Networks of every supported kind, with random weights on a realistic scale, and their exports, shared by the tests.

Trained networks would be no better here: these are there in seconds, and cover layers that the project's own network
does not have.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.spec import Spec

FILES = (("tflite", "float32"), ("tflite", "float16"), ("onnx", "float32"), ("onnx", "float16"))
DATASETS = 300


@dataclass(frozen=True)
class Example:
    """A trained network in a folder of its own, with datasets of the kind it was made for."""

    spec: Spec
    directory: Path
    datasets: NDArray[np.float32]

    @property
    def keras_file(self) -> Path:
        return self.directory / "model.keras"


def spec_of(rows: int, columns: int, parameters: int) -> Spec:
    return Spec(rows, tuple(f"column{i}" for i in range(columns)), tuple(f"parameter{i}" for i in range(parameters)))


def softplus_head(parameters: int) -> Any:
    from keras import layers

    return layers.Dense(parameters, activation="softplus", bias_initializer=_around(0.3))


def standard() -> Any:
    """The project's own network: 200 trials of (response time, correct), three parameters."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((200, 2)),
            layers.Normalization(mean=[0.85, 0.9], variance=[0.31, 0.09]),
            layers.Conv1D(32, 3, activation="relu", bias_initializer=_around(0)),
            layers.MaxPooling1D(2),
            layers.Conv1D(64, 3, activation="relu", bias_initializer=_around(0)),
            layers.MaxPooling1D(2),
            layers.Conv1D(128, 3, activation="relu", bias_initializer=_around(0)),
            layers.Flatten(),
            softplus_head(3),
        ]
    )


def causal() -> Any:
    """Any number of rows, 50 here; one column with an offset far larger than its spread; five parameters."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((None, 1)),
            layers.Normalization(mean=[1000.0], variance=[4.0]),
            layers.Conv1D(8, 3, padding="causal", dilation_rate=1, activation="leaky_relu"),
            layers.Conv1D(8, 3, padding="causal", dilation_rate=4),
            layers.LeakyReLU(negative_slope=0.05),
            layers.AveragePooling1D(3, padding="same"),
            layers.SpatialDropout1D(0.5),
            layers.GlobalAveragePooling1D(),
            softplus_head(5),
        ]
    )


def residue_of_strides() -> Any:
    """Rows that strides and windows do not divide; one parameter; Dense on rows; batch normalization in use."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((37, 3)),
            layers.BatchNormalization(**_statistics()),
            layers.Conv1D(6, 4, strides=3, padding="same", activation="elu", use_bias=False),
            layers.BatchNormalization(**_statistics()),
            layers.ELU(alpha=0.7),
            layers.Dense(5, activation="tanh"),
            layers.MaxPooling1D(3, strides=2, padding="same"),
            layers.ZeroPadding1D((1, 2)),
            layers.AveragePooling1D(2, strides=1),
            layers.GlobalMaxPooling1D(keepdims=True),
            layers.Flatten(),
            layers.GaussianNoise(0.1),
            softplus_head(1),
        ]
    )


def functional() -> Any:
    """A functional model with a Sequential inside, the softplus as a layer of its own."""
    import keras
    from keras import layers

    inner = keras.Sequential([layers.Conv1D(7, 2, dilation_rate=2, activation="silu"), layers.Dropout(0.5)])
    inputs = keras.Input((20, 4))
    values = layers.Rescaling(0.5, offset=-0.25)(inputs)
    values = inner(values)
    values = layers.Reshape((-1, 14))(values)
    values = layers.Dense(6, activation=layers.LeakyReLU(negative_slope=0.1))(values)
    values = layers.Reshape((54,))(values)
    values = layers.Dense(10)(values)
    values = layers.ReLU(max_value=6)(values)
    values = layers.BatchNormalization(scale=False, **_statistics())(values)
    values = layers.Dense(2, bias_initializer=_around(0.3))(values)
    return keras.Model(inputs, layers.Activation("softplus")(values))


def flat() -> Any:
    """No convolution: one row of many columns, softplus and sigmoid layers inside."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((1, 12)),
            layers.Flatten(),
            layers.Normalization(mean=np.linspace(-3, 3, 12), variance=np.linspace(1, 2, 12)),
            layers.Dense(16, activation="softplus"),
            layers.Dense(16, activation="sigmoid"),
            layers.Dense(16, activation="relu6"),
            softplus_head(4),
        ]
    )


NETWORKS: dict[str, tuple[Callable[[], Any], Spec, float, float]] = {
    # builder, shape, mean and spread of its datasets
    "standard": (standard, Spec(200, ("rt", "correct"), ("v", "a", "t0")), 0.85, 0.5),
    "causal": (causal, spec_of(50, 1, 5), 1000.0, 2.0),
    "residue_of_strides": (residue_of_strides, spec_of(37, 3, 1), 0.0, 1.0),
    "functional": (functional, spec_of(20, 4, 2), 0.5, 2.0),
    "flat": (flat, spec_of(1, 12, 4), 0.0, 2.0),
}


@functools.cache
def example(name: str) -> Example:
    """One of NETWORKS, built and saved once; the same weights every time."""
    import keras

    builder, spec, mean, spread = NETWORKS[name]
    keras.utils.set_random_seed(1)
    directory = _new_directory()
    builder().save(directory / "model.keras")
    values = np.random.default_rng(2).normal(mean, spread, (DATASETS, *spec.shape))
    return Example(spec, directory, values.astype(np.float32))


@functools.cache
def exported(name: str) -> Example:
    """The same with weights.npz and all four files beside it, written in this process."""
    from export.graph import build_function
    from export.keras_file import read_network
    from export.limit import input_limit
    from export.onnx import to_onnx
    from export.tflite import to_tflite
    from export.weights import save_weights
    from toolkit.spec import file_name

    made = example(name)
    _, network = read_network(made.keras_file, made.spec)
    function = build_function(network, input_limit(network))
    save_weights(network, made.directory / "weights.npz", made.keras_file)
    for format, precision in FILES:
        content = to_tflite(function, precision) if format == "tflite" else to_onnx(function, precision)
        (made.directory / file_name(format, precision)).write_bytes(content)
    return made


def extreme_datasets(spec: Spec) -> NDArray[np.float32]:
    """Finite datasets at the ends of float32, of one sign and of alternating signs, and with one huge value."""
    largest = float(np.finfo(np.float32).max)
    rows, columns = np.indices(spec.shape)
    patterns = [np.ones(spec.shape), 1.0 - 2 * (rows % 2), 1.0 - 2 * (columns % 2), 1.0 - 2 * ((rows + columns) % 2)]
    patterns += [(rows == spec.rows // 2) * 1.0]
    levels = (largest, 1e38, 2.0**101, 1e30, 1e20, 1e10, 1e-38, 1e-45)
    return np.array([s * level * p for level in levels for s in (1, -1) for p in patterns], np.float32)


def _around(value: float) -> Any:
    import keras

    return keras.initializers.RandomNormal(value, 0.1, seed=3)


def _statistics() -> dict[str, Any]:
    """Arguments that give a BatchNormalization statistics other than 0 and 1."""
    import keras

    positive = keras.initializers.RandomUniform(0.5, 1.5, seed=4)
    return {
        "moving_mean_initializer": _around(0.2),
        "moving_variance_initializer": positive,
        "gamma_initializer": positive,
        "beta_initializer": _around(-0.1),
    }


def _new_directory() -> Path:
    directory = tempfile.mkdtemp(prefix="toolkit-networks-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)
