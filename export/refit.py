"""Head refit: the last Dense layer fitted anew to what a quantized trunk gives it. It takes no labels.

Quantization moves the features of every dataset a little. Part of that is the same for all datasets, or follows the
features; the head can take this part back, because its own arithmetic stays exact. What it is fitted to are the logits
of the float network on the same datasets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.network import Dense

Array = NDArray[np.float64]

# Penalties tried, in units of a dataset's mean squared distance from the mean features: from a fit that follows noise
# to one that moves nothing but the bias.
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0, np.inf)
HELD_OUT = 5  # every fifth dataset decides about the penalty

MOST_STEPS = 60  # of the conjugate gradients; stopping early is a penalty, too
CONVERGED = 1e-4  # of the first gradient's length


@dataclass(frozen=True)
class Refit:
    """A refitted head.

    Attributes:
        penalties: the one chosen for each parameter; infinite where only the bias moved.
        before, after: float64 (parameters,), root mean square of the weighted errors of the logits over datasets that
            were held out, with the head as it was and with a refitted one.
    """

    head: Dense
    penalties: tuple[float, ...]
    before: Array
    after: Array


def refit(
    head: Dense, features: NDArray[np.float32], logits: NDArray[np.float32] | Array, weights: Array | None = None
) -> Refit:
    """The head whose logits on `features` come nearest to `logits`, by ridge regression on the change of its kernel.

    There may be fewer datasets than features. The penalty of each parameter is chosen on every fifth dataset; the fit
    itself then uses all of them. In float64.

    Args:
        head: the trained head, kernel (features, parameters).
        features: float32 (datasets, features), of the quantized trunk.
        logits: (datasets, parameters), of the float network.
        weights: (datasets, parameters) of the error of each logit; all alike by default. `relative_weights` makes the
            estimates' relative errors what is fitted.
    Raises:
        ValueError: fewer than HELD_OUT datasets, or a number that is not finite.
    """
    h, z = features.astype(np.float64), logits.astype(np.float64)
    if len(h) < HELD_OUT or not (np.isfinite(h).all() and np.isfinite(z).all()):
        raise ValueError(f"{len(h)} datasets to refit the head on, or some that give no finite number")
    kernel, bias = head.kernel.astype(np.float64), head.bias.astype(np.float64)
    errors = z - (h @ kernel + bias)
    weights = np.ones_like(errors) if weights is None else weights
    unit_weight = np.sqrt(np.mean(weights**2, axis=0))
    weights = weights / unit_weight
    parameters = errors.shape[1]
    unit = float(np.mean(np.sum((h - h.mean(axis=0)) ** 2, axis=1))) or 1.0

    held_out = np.arange(len(h)) % HELD_OUT == 0
    tried, each = np.repeat(PENALTIES, parameters), np.tile(np.arange(parameters), len(PENALTIES))
    change, offset = _ridge(h[~held_out], errors[~held_out][:, each], weights[~held_out][:, each], tried * unit)
    left = errors[held_out][:, each] - h[held_out] @ change - offset
    remaining = np.sqrt(np.mean((weights[held_out][:, each] * left) ** 2, axis=0)).reshape(-1, parameters)
    best = np.argmin(remaining, axis=0)
    penalties = np.array(PENALTIES)[best]

    change, offset = _ridge(h, errors, weights, penalties * unit)
    return Refit(
        head=Dense((kernel + change).astype(np.float32), (bias + offset).astype(np.float32)),
        penalties=tuple(penalties.tolist()),
        before=unit_weight * np.sqrt(np.mean((weights * errors)[held_out] ** 2, axis=0)),
        after=unit_weight * remaining.min(axis=0),
    )


def relative_weights(logits: NDArray[np.float32] | Array) -> Array:
    """How much an estimate moves, relative to itself, with its logit z: sigmoid(z) / softplus(z), the same shape."""
    z = logits.astype(np.float64)
    return np.exp(-np.logaddexp(0.0, -z)) / np.logaddexp(0.0, z)


def _ridge(h: Array, errors: Array, weights: Array, penalties: Array) -> tuple[Array, Array]:
    """Several regressions on the same features at once, each with an offset that is not penalized.

    Minimizes, for each column, sum((weight * (error - h @ change - offset))^2) + penalty * |change|^2 by conjugate
    gradients, which need no matrix of datasets x datasets or features x features: for 4,800 datasets of 5,888 features
    seconds in place of minutes.

    Args:
        h: (datasets, features).
        errors, weights: (datasets, columns). penalties: (columns,), infinite for a change of 0.
    Returns:
        change (features, columns), offset (columns,).
    Source: Bjorck 1996, Numerical Methods for Least Squares Problems, section 7.4 (CGLS).
    """
    share = weights**2 / np.sum(weights**2, axis=0)  # of a weighted mean
    mean, mean_error = h.T @ share, np.sum(share * errors, axis=0)
    free = np.isfinite(penalties)
    penalty = np.where(free, penalties, 0.0)

    def products(change: Array) -> Array:
        return weights * (h @ change - np.sum(mean * change, axis=0))

    def transposed(left: Array) -> Array:
        weighted = weights * left
        return (h.T @ weighted - mean * np.sum(weighted, axis=0)) * free

    change = np.zeros_like(mean)
    left = weights * (errors - mean_error)
    gradient = transposed(left)
    direction, length = gradient, np.sum(gradient**2, axis=0)
    small = length * CONVERGED**2
    for _ in range(MOST_STEPS):
        if np.all(length <= small):
            break
        along = products(direction)
        curvature = np.sum(along**2, axis=0) + penalty * np.sum(direction**2, axis=0)
        step = np.divide(length, curvature, out=np.zeros_like(length), where=length > small)
        change = change + step * direction
        left = left - step * along
        gradient = transposed(left) - penalty * change
        before, length = length, np.sum(gradient**2, axis=0)
        direction = gradient + np.divide(length, before, out=np.zeros_like(length), where=before > 0) * direction
    return change, mean_error - np.sum(mean * change, axis=0)
