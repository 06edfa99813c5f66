"""The decay sample: maximum likelihood, and the Cramer-Rao bound on the relative errors of A, k and sigma."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Array = NDArray[np.float64]

RATES = np.linspace(0.02, 3.0, 300)  # where the search for k begins: the best of these
STEPS = 12  # of Newton's method, in fact of Gauss and Newton's


def deviations(x: Array, parameters: Array) -> Array:
    """The least standard deviation that an unbiased estimate of A, k and sigma can have: (n, 3).

    Source: the inverse of the Fisher information of n readings, X'X / sigma^2 for A and k with X the derivatives of the
    mean, and 2n / sigma^2 for sigma, which is independent of them.
    Args:
        x: (readings,).
        parameters: (n, 3), the true ones.
    """
    amplitude, rate, sigma = parameters.T[..., None]
    curve = np.exp(-rate * x)
    slopes = np.stack([curve, -amplitude * x * curve], axis=1) / sigma[:, None]
    covariance = np.linalg.inv(slopes @ slopes.transpose(0, 2, 1))
    of_curve = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return np.concatenate([of_curve, sigma / np.sqrt(2 * x.size)], axis=1)


def least_relative_error(x: Array, parameters: Array, level: float) -> Array:
    """That quantile, over all datasets, of the relative error of normal estimates at the Cramer-Rao bound: (3,)."""
    relative = deviations(x, parameters) / parameters
    return np.array(
        [
            optimize.brentq(lambda e, s=s: np.mean(2 * stats.norm.cdf(e / s) - 1) - level, 0, 10 * s.max())
            for s in relative.T
        ]
    )


def maximum_likelihood(datasets: NDArray[np.float32]) -> Array:
    """A, k and sigma of each dataset: least squares, A in closed form for each k, sigma from what is left: (n, 3).

    sigma is divided by n, as maximum likelihood says, and not by n - 2.
    """
    x, y = datasets[0, :, 0].astype(np.float64), datasets[..., 1].astype(np.float64)
    curves = np.exp(-RATES[:, None] * x)
    explained = (y @ curves.T) ** 2 / np.sum(curves**2, axis=1)
    rate = RATES[explained.argmax(axis=1)]
    amplitude = np.full_like(rate, np.nan)
    for _ in range(STEPS):
        curve = np.exp(-rate[:, None] * x)
        amplitude = np.sum(y * curve, axis=1) / np.sum(curve**2, axis=1)
        slope = -amplitude[:, None] * x * curve
        left = y - amplitude[:, None] * curve
        slope -= curve * (np.sum(slope * curve, axis=1) / np.sum(curve**2, axis=1))[:, None]  # A follows k
        rate = np.clip(rate + np.sum(left * slope, axis=1) / np.sum(slope**2, axis=1), RATES[0], RATES[-1])
    sigma = np.sqrt(np.mean((y - amplitude[:, None] * np.exp(-rate[:, None] * x)) ** 2, axis=1))
    return np.stack([amplitude, rate, sigma], axis=1)
