"""Datasets that make a trained network's estimates as small as gradient descent can: probes for whoever judges a file.

Only Keras can differentiate the network, so they are looked for here and stored; running them takes no TensorFlow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.keras_file import NOTHING_AT_INFERENCE
from toolkit.spec import Spec

ADVERSARIAL_FILE = "adversarial.npz"

STARTS = 16  # real datasets that a parameter's descent begins from: those with its smallest estimates
LOOKED_THROUGH = 512  # datasets to choose them from
KEPT = 2  # of each parameter and kind: 19 kB for three parameters and datasets of 200 x 2
STEPS = np.geomspace(0.25, 0.005, 40)  # of the range that a column may take

Datasets = NDArray[np.float32]


def save_adversarial(model: Any, spec: Spec, real: Datasets, limit: float, path: Path, keras_file: Path) -> None:
    """Descend towards each parameter's smallest logit from real datasets, and write adversarial.npz.

    Twice for each parameter: `inside` the ranges of the real columns, where inputs look like those of practice, and
    from there on between the input limits. Signs of the gradient give the direction, so that neither its scale nor
    that of a column matters; what is kept is the best of all steps.

    Args:
        model: the keras.Model, one chain of layers that ends in softplus.
        real: float32 (datasets, rows, columns), at least one.
        limit: inputs are cut off at +-limit in every exported file.
    The file holds `datasets` float32 (probes, rows, columns), `parameters` int64 (probes,), the index of the one to be
    made small, `inside` bool (probes,), and `keras_sha256` of the file that the network is from.
    """
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()  # the same network and datasets give the same probes
    low, high = real.min(axis=(0, 1)), real.max(axis=(0, 1))
    parameters = len(spec.parameters)
    towards = np.repeat(np.arange(parameters), min(STARTS, len(real)))
    starts = _smallest(model, real, parameters)
    inside, inside_logits = _descend(model, starts, towards, low, high)
    ends = np.full_like(low, -limit), np.full_like(high, limit)
    beyond, beyond_logits = _descend(model, inside, towards, *ends)
    found, targets, kinds = [], [], []
    for parameter in range(parameters):
        (mine,) = np.nonzero(towards == parameter)
        for is_inside, datasets, logits in ((True, inside, inside_logits), (False, beyond, beyond_logits)):
            best = mine[np.argsort(logits[mine], kind="stable")[:KEPT]]
            found.append(datasets[best])
            targets += [parameter] * len(best)
            kinds += [is_inside] * len(best)
    np.savez_compressed(
        path,
        datasets=np.concatenate(found),
        parameters=np.array(targets),
        inside=np.array(kinds),
        keras_sha256=np.array(hashlib.sha256(keras_file.read_bytes()).hexdigest()),
    )


def _smallest(model: Any, real: Datasets, parameters: int) -> Datasets:
    """The real datasets with the smallest logits of the first parameter, then those of the second, and so on."""
    some = real[:: -(-len(real) // LOOKED_THROUGH)]
    logits = np.asarray(_logits(model, some))
    order = np.argsort(logits, axis=0, kind="stable")[: min(STARTS, len(real))]
    return np.concatenate([some[order[:, parameter]] for parameter in range(parameters)])


def _descend(
    model: Any, starts: Datasets, towards: NDArray[Any], low: NDArray[Any], high: NDArray[Any]
) -> tuple[Datasets, NDArray[np.float32]]:
    """The best dataset on the way from each start, and its logit.

    Args:
        towards: (starts,), index of the parameter whose logit is made small.
        low, high: float32 (columns,), never left.
    """
    import tensorflow as tf

    chosen = tf.constant(np.eye(int(towards.max()) + 1, dtype=np.float32)[towards])

    @tf.function(autograph=False)  # type: ignore[untyped-decorator,unused-ignore]
    def logit_and_slope(datasets: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(datasets)
            logits = tf.cast(_logits(model, datasets), tf.float32)
            logit = tf.reduce_sum(logits * chosen, axis=1)
        return logit, tape.gradient(logit, datasets)

    here = np.clip(starts, low, high)
    best, best_logit = here, np.full(len(here), np.inf, np.float32)
    for step in [*STEPS, 0.0]:  # the last only looks where the one before has led
        logit, slope = (value.numpy() for value in logit_and_slope(tf.constant(here)))
        better = logit < best_logit
        best = np.where(better[:, None, None], here, best)
        best_logit = np.where(better, logit, best_logit)
        move = step * (high.astype(np.float64) - low) * np.sign(np.nan_to_num(slope))
        here = np.clip(here - move, low, high).astype(np.float32)
    return best, best_logit


def _logits(model: Any, values: Any) -> Any:
    """The Keras network without its softplus, whose slope is 0 where its values are most interesting."""
    import keras

    *layers, last = _chain(model)
    for layer in layers:
        values = layer(values, training=False)
    if not isinstance(last, keras.layers.Dense):
        return values
    logits = keras.ops.matmul(values, last.kernel)
    return logits + last.bias if last.use_bias else logits


def _chain(model: Any) -> Iterator[Any]:
    """The layers that compute, in the order in which they run, those of inner models in place of these."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _chain(layer)
        elif type(layer).__name__ not in NOTHING_AT_INFERENCE:
            yield layer
