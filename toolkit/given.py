"""A network trained elsewhere: how it is read, what its last layer is, and softplus put there to train it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ExportError, ModelError
from toolkit.files import sha256_of
from toolkit.model import inverse_softplus
from toolkit.spec import Spec

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

FORWARD_BATCH = 128  # datasets; a wide layer over many rows stays below a few hundred MB


@dataclass(frozen=True)
class GivenNetwork:
    """A user's .keras file, and the exporter's way of reading it, handed in because only the command line knows it.

    Attributes:
        load: the keras.Model in such a file; refuses code and unsupported layers (ExportError).
        check: refuses a model that is not one of this shape, ending in softplus, that can be exported; the path is what
            its ExportError names.
    """

    path: Path
    load: Callable[[Path], Any]
    check: Callable[[Any, Spec, Path], object]

    def describe(self) -> str:
        """Name and checksum, for the manifest."""
        return f"{self.path.name} (sha256 {sha256_of(self.path)})"


@lru_cache(maxsize=1)
def _loaded(given: GivenNetwork) -> Any:
    return given.load(given.path)


@lru_cache(maxsize=1)
def _logits_network(given: GivenNetwork, spec: Spec) -> Any:
    import keras

    network = _loaded(given)
    given.check(network, spec, given.path)
    *_, last = (layer for layer in chain(network) if hasattr(layer, "activation"))
    last.activation = keras.activations.linear
    return network


def input_shape(given: GivenNetwork) -> tuple[int | None, int]:
    """(rows, columns) of the network's input; rows are None where it takes any number."""
    shape = tuple(_loaded(given).inputs[0].shape[1:])
    if len(shape) != 2 or shape[1] is None:
        raise ExportError(
            f"{given.path}: takes inputs of shape {shape}, not (rows, columns). "
            "Build it from keras.Input((rows, columns))."
        )
    return shape


def estimates_of(given: GivenNetwork, spec: Spec, datasets: FloatArray) -> NDArray[np.float64]:
    """softplus of the network's logits. Keras's own softplus is 0 below a logit of -103; this is not."""
    logits = forward(_logits_network(given, spec), datasets)
    with np.errstate(invalid="ignore"):  # NaN stays NaN, and is refused by whoever asks
        return np.logaddexp(0.0, logits)


def input_statistics(given: GivenNetwork, spec: Spec) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Mean and deviation of the data that the first layer normalizes, to broadcast against (rows, columns)."""
    import keras

    first = next(chain(_logits_network(given, spec)))
    if isinstance(first, keras.layers.Normalization):
        mean, variance = first.mean, first.variance
    elif isinstance(first, keras.layers.BatchNormalization):
        mean, variance = first.moving_mean, first.moving_variance
    else:
        return None
    mean, deviation = np.asarray(mean, np.float64), np.sqrt(np.asarray(variance, np.float64))
    # Keras keeps the statistics of a Normalization as (1, 1, columns).
    return (mean[0], deviation[0]) if mean.ndim > 2 else (mean, deviation)


def start_network(given: GivenNetwork, spec: Spec, datasets: FloatArray, targets: FloatArray) -> Any:
    """The keras.Model to train on, from its stored weights.

    One that ends in softplus is taken as it is. In place of another last activation, none included, softplus is put,
    and the last kernel and bias are rescaled for it: each logit becomes slope * logit + offset, fitted to the true
    values. So it does not matter whether the network had learned the parameters themselves, their logarithms, or
    standardized values of either; the layers before are left alone. (Measured on a decay, the loss at the start: .18,
    .12 and .14 for the three; .33, .29 and 1.19 with the bias alone set to the mean logit.)

    Args:
        datasets, targets: float32 (n, rows, columns) and (n, parameters), of the training datasets, for the fit.
    Raises:
        ExportError: a network that could not be exported once it is trained.
        ModelError: its last layer is not Dense, or none of its weights can be trained.
    """
    import keras

    network = given.load(given.path)
    dense, last = _head(network, given.path)
    was_softplus = last.activation is keras.activations.softplus
    last.activation = keras.activations.softplus
    given.check(network, spec, given.path)
    if not network.trainable_variables:
        raise ModelError(
            f"{given.path}: no layer can be trained (trainable=False). Set it, and save the network again."
        )
    if not was_softplus:
        last.activation = keras.activations.linear
        slopes, offsets = _fit(forward(network, datasets), targets)
        dense.kernel.assign(np.asarray(dense.kernel) * slopes)
        if dense.use_bias:
            dense.bias.assign(np.asarray(dense.bias) * slopes + offsets)
        last.activation = keras.activations.softplus
    return network


def forward(network: Any, datasets: FloatArray) -> NDArray[np.float64]:
    """What the network gives at inference: (n, parameters)."""
    import keras

    pieces = [datasets[start : start + FORWARD_BATCH] for start in range(0, len(datasets), FORWARD_BATCH)]
    outputs = [keras.ops.cast(network(piece, training=False), "float32") for piece in pieces]
    return np.concatenate([np.asarray(output, np.float64) for output in outputs])


def chain(network: Any) -> Iterator[Any]:
    """The layers in the order in which they run, those of inner models in their place."""
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from chain(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def _head(network: Any, path: Path) -> tuple[Any, Any]:
    """The Dense layer that gives the logits, and the layer that has the activation behind it: the same, or the next."""
    from keras import activations, layers

    before, last = ([None, None, *chain(network)])[-2:]
    if isinstance(last, layers.Dense):
        return last, last
    linear = isinstance(before, layers.Dense) and before.activation is activations.linear
    if linear and isinstance(last, layers.Activation):
        return before, last
    raise ModelError(
        f"{path}: ends in {type(last).__name__}, so softplus cannot be put there. Let it end in Dense, with any "
        "activation, or in Dense and Activation."
    )


def _fit(logits: NDArray[np.float64], targets: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and offset of each logit, so that softplus(slope * logit + offset) comes close to the true value.

    Least squares against the true value's own logit, weighted with softplus's derivative there, squared: the error that
    counts is that of the estimate. A logit that never varies keeps the slope 1.
    """
    true = targets.astype(np.float64)
    wanted = inverse_softplus(true)
    weights = np.square(-np.expm1(-true))
    weights /= weights.sum(axis=0)
    mean, wanted_mean = (weights * logits).sum(axis=0), (weights * wanted).sum(axis=0)
    variance = (weights * np.square(logits - mean)).sum(axis=0)
    covariance = (weights * (logits - mean) * (wanted - wanted_mean)).sum(axis=0)
    slopes = np.divide(covariance, variance, out=np.ones_like(variance), where=variance > 1e-12 * (1 + mean**2))
    return slopes, wanted_mean - slopes * mean
