"""The network: convolutions over a dataset's rows, and a Dense softplus for the strictly positive parameters."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import MissingExtra
from toolkit.spec import INPUT_NAME, OUTPUT_NAME, Spec

if TYPE_CHECKING:
    import keras

FILTERS = (32, 64, 128)
KERNEL_SIZE = 3
POOL_SIZE = 2
SHORTEST_UNPADDED_ROWS = 18  # fewer rows leave the last unpadded convolution nothing to look at


def inverse_softplus(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """z with log(1 + exp(z)) = y, for y > 0; accurate at both ends."""
    return y + np.log(-np.expm1(-y))


def import_tensorflow() -> Any:
    """TensorFlow, without the lines it writes to stderr while it loads, which no log level stops.

    It computes on the first GPU that it finds, and takes of its memory what it needs instead of all.

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow
    except ModuleNotFoundError as error:
        raise MissingExtra("train", "train", "TensorFlow") from error
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
    return tensorflow


def name_of_gpu(tensorflow: Any) -> str | None:
    """What TensorFlow trains on, if that is a GPU."""
    gpus = tensorflow.config.list_physical_devices("GPU")
    if not gpus:
        return None
    return str(tensorflow.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name))


def build_network(
    spec: Spec,
    column_means: NDArray[np.float64],
    column_variances: NDArray[np.float64],
    parameter_means: NDArray[np.float64],
    parameter_deviations: NDArray[np.float64],
    hidden: int = 0,
) -> keras.Model:
    """The untrained network, with the input normalization inside, so that it takes raw data.

    Args:
        spec: its shape and names.
        column_means, column_variances: float64 (columns,), of the training datasets; variances > 0.
        parameter_means: float64 (parameters,), > 0. The last bias starts at their inverse softplus, so that the first
            estimates are of the right size whatever the units.
        parameter_deviations: float64 (parameters,). The last kernel starts as many times larger for a parameter whose
            deviation exceeds 1: its logits must spread as far as it does, and Adam's steps know no units. (In thousands
            of the usual unit a parameter was not learned at all in 12 epochs, R2 0; with this, R2 is the same.)
        hidden: units of a Dense layer (relu) between the convolutions and the last layer; 0 for none.
    Returns:
        float32 (batch, rows, columns) -> float32 (batch, parameters). Datasets of fewer than 18 rows are padded at
        their ends ("same" in place of "valid"), since unpadded convolutions would run out of rows.
    """
    import keras
    from keras import layers

    padding = "valid" if spec.rows >= SHORTEST_UNPADDED_ROWS else "same"
    stack: list[Any] = [
        keras.Input(spec.shape, name=INPUT_NAME),
        layers.Normalization(mean=column_means, variance=column_variances, name="normalization"),
    ]
    for index, filters in enumerate(FILTERS):
        if index:
            stack.append(layers.MaxPooling1D(POOL_SIZE, padding=padding))
        stack.append(layers.Conv1D(filters, KERNEL_SIZE, activation="relu", padding=padding))
    stack.append(layers.Flatten())
    if hidden:
        stack.append(layers.Dense(hidden, activation="relu", name="hidden"))
    head = layers.Dense(len(spec.parameters), activation="softplus", name=OUTPUT_NAME)
    network = keras.Sequential([*stack, head], name="softplus_network")
    head.kernel.assign(np.asarray(head.kernel) * np.maximum(parameter_deviations, 1.0))
    head.bias.assign(inverse_softplus(parameter_means).astype(np.float32))
    return network
