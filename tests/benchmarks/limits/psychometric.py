"""The psychometric sample: posterior mean over all of the prior, from how many stimuli of each strength were seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

THRESHOLD, WIDTH, LAPSE = (0.5, 1.5), (0.3, 1.5), (0.001, 0.15)  # of samples/psychometric.py: the prior is uniform
NODES = (48, 40, 24)  # Gauss-Legendre, for each of the three
TOGETHER = 100  # datasets


def counts_of(datasets: NDArray[np.float32]) -> tuple[Array, Array]:
    """The strengths in ascending order, (strengths,), and how often each was reported, (n, strengths)."""
    strengths, place = np.unique(datasets[0, :, 0], return_inverse=True)
    places = np.searchsorted(strengths, datasets[..., 0])
    counts = np.stack([np.bincount(at, one, strengths.size) for at, one in zip(places, datasets[..., 1], strict=True)])
    if not np.array_equal(np.sort(places, axis=1), np.broadcast_to(np.sort(place.ravel()), places.shape)):
        raise ValueError("the datasets do not have the same stimuli")
    return strengths.astype(np.float64), counts


def posterior(datasets: NDArray[np.float32], nodes: tuple[int, int, int] = NODES) -> tuple[Array, Array]:
    """Mean and variance of threshold, width and lapse rate, given each dataset: two of shape (n, 3).

    Args:
        datasets: (n, trials, 2) of [stimulus, response], every strength as often as any other.
    """
    strengths, counts = counts_of(datasets)
    repeats = datasets.shape[1] / strengths.size
    rules = [np.polynomial.legendre.leggauss(count) for count in nodes]
    axes = [
        low + (x + 1) / 2 * (high - low) for (x, _), (low, high) in zip(rules, (THRESHOLD, WIDTH, LAPSE), strict=True)
    ]
    points = np.stack([part.ravel() for part in np.meshgrid(*axes, indexing="ij")], axis=1)
    share = np.einsum("i,j,k->ijk", *(weight for _, weight in rules)).ravel()
    threshold, width, lapse = points.T[..., None]
    seen = (1 + np.tanh(np.log(19) * (strengths - threshold) / width)) / 2
    yes, no = np.log((1 - lapse) * seen), np.log1p(-(1 - lapse) * seen)  # (points, strengths)
    means, variances = [], []
    for start in range(0, len(counts), TOGETHER):
        some = counts[start : start + TOGETHER]
        log_likelihood = some @ yes.T + (repeats - some) @ no.T
        mass = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True)) * share
        mass /= mass.sum(axis=1, keepdims=True)
        mean = mass @ points
        means.append(mean)
        variances.append(mass @ points**2 - mean**2)
    return np.concatenate(means), np.concatenate(variances)
