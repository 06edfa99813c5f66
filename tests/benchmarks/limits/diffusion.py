"""Drift-diffusion from a midway start, s = 1: posterior mean by the exact likelihood, maximum likelihood, EZ.

With S = sum of (rt - t0), D = correct less wrong responses and g(u) the density at u of the passage through one
boundary without drift, in units of a^2, the likelihood of n trials is

    exp(v a D / 2 - v^2 S / 2) a^(-2n) prod g((rt - t0) / a^2)

Given a and t0 it is a normal curve in v, of mean a D / (2 S) and variance 1 / S, so that v is integrated in closed
form; a and t0 by Gauss-Legendre quadrature over a box around the mass, found by zooming in.
Source: Navarro & Fuss 2009, J. Math. Psychol. 53:222, equations 5 and 6 with the Wiener measure changed for the drift.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import log_ndtr

Array = NDArray[np.float64]

DRIFT, BOUNDARY, NON_DECISION = (0.5, 3.5), (0.8, 2.5), (0.1, 0.6)  # of samples/diffusion.py: the prior is uniform

# g is tabulated less its pole: what is left is smooth. With this step straight lines miss it by less than 2e-8.
LONGEST = 32.0  # in units of a^2; beyond it g goes on as the last straight line does: below 1e-68
STEP = 2.0**-13
TERMS = 12
SWITCH = 0.3  # of the series for short and for long times; both are exact to 1e-15 there

ZOOM = (16, 16, 32)  # nodes along a and along t0 in each round; the last one is summed over
KEPT = 18.0  # a round keeps what is above exp(-18) of its greatest, and one node more on each side
TOGETHER = 8  # datasets: their nodes times trials stay in the processor's cache


def log_density(u: Array) -> Array:
    """log g(u), u > 0."""
    short, long = np.minimum(u, SWITCH), np.maximum(u, SWITCH)
    w = 0.5 + 2 * np.arange(-TERMS, TERMS + 1)
    images = np.sum(w * np.exp((0.25 - w**2) / (2 * short[..., None])), axis=-1)
    k = 2 * np.arange(TERMS) + 1
    waves = np.sum(k * (-1.0) ** np.arange(TERMS) * np.exp((1 - k**2) * np.pi**2 * long[..., None] / 2), axis=-1)
    by_images = np.log(images) - 0.125 / short - 1.5 * np.log(short) - 0.5 * np.log(2 * np.pi)
    by_waves = np.log(np.pi * waves) - np.pi**2 * long / 2
    return np.where(u < SWITCH, by_images, by_waves)


def _tabulate() -> tuple[Array, Array]:
    u = np.arange(round(LONGEST / STEP) + 1) * STEP
    values = np.empty_like(u)
    values[1:] = log_density(u[1:]) + 0.125 / u[1:] + 1.5 * np.log(u[1:])
    values[0] = -np.log(2) - 0.5 * np.log(2 * np.pi)
    return values, np.append(np.diff(values), values[-1] - values[-2])


VALUES, RISES = _tabulate()


def log_likelihood_without_drift(times: Array, a: Array) -> Array:
    """Sum over trials of log(g(t / a^2) / a^2).

    Args:
        times: (..., trials), rt - t0, all positive.
        a: broadcasts against the shape of `times` without trials.
    """
    place = times * (1 / (STEP * a**2))[..., None]
    index = np.minimum(place, VALUES.size - 1).astype(np.int32)
    place -= index
    place *= RISES[index]
    place += VALUES[index]
    poles = -1.5 * np.sum(np.log(times), axis=-1) - np.sum(0.125 / times, axis=-1) * a**2
    return np.sum(place, axis=-1) + poles + times.shape[-1] * np.log(a)


def posterior(datasets: NDArray[np.float32], nodes: tuple[int, ...] = ZOOM) -> tuple[Array, Array]:
    """Mean and variance of v, a and t0 under the prior of the sample, given each dataset.

    Args:
        datasets: (n, trials, 2) of [rt, correct].
        nodes: of the rounds of zooming in; with twice as many the means of 400 datasets move
            by at most 1e-5 of their standard deviations.
    Returns:
        two of shape (n, 3).
    """
    parts = [_posterior(datasets[i : i + TOGETHER], nodes) for i in range(0, len(datasets), TOGETHER)]
    return np.concatenate([mean for mean, _ in parts]), np.concatenate([variance for _, variance in parts])


def _posterior(datasets: NDArray[np.float32], nodes: tuple[int, ...]) -> tuple[Array, Array]:
    rts = datasets[..., 0].astype(np.float64)
    lead = np.sum(2.0 * datasets[..., 1] - 1, axis=1)
    boxes = np.empty((len(rts), 2, 2))  # of a and t0; from, to
    boxes[:, 0] = BOUNDARY
    boxes[:, 1, 0], boxes[:, 1, 1] = NON_DECISION[0], np.minimum(NON_DECISION[1], rts.min(axis=1))
    for count in nodes:
        x, share = np.polynomial.legendre.leggauss(count)
        a, t0 = (boxes[:, i, :1] + (x + 1) / 2 * (boxes[:, i, 1:] - boxes[:, i, :1]) for i in (0, 1))
        times = rts[:, None, None] - t0[:, None, :, None]  # (n, 1, t0, trials)
        log_mass = log_likelihood_without_drift(times, a[:, :, None])
        log_v, v, v_variance = drift_given(a[:, :, None], lead[:, None, None], times.sum(axis=-1))
        log_mass += log_v
        above = log_mass > log_mass.max(axis=(1, 2), keepdims=True) - KEPT
        for axis, places in ((0, a), (1, t0)):
            boxes[:, axis] = _narrowed(places, above.any(axis=2 - axis), boxes[:, axis])
    mass = np.exp(log_mass - log_mass.max(axis=(1, 2), keepdims=True)) * share[:, None] * share
    mass /= mass.sum(axis=(1, 2), keepdims=True)
    points = np.stack(np.broadcast_arrays(v, a[:, :, None], t0[:, None, :]), axis=-1)
    mean = np.einsum("nij,nijp->np", mass, points)
    variance = np.einsum("nij,nijp->np", mass, (points - mean[:, None, None]) ** 2)
    variance[:, 0] += np.einsum("nij,nij->n", mass, v_variance)
    return mean, variance


def _narrowed(places: Array, kept: NDArray[np.bool_], box: Array) -> Array:
    """The part of each box that reaches to the node beyond the kept ones on each side: (n, 2)."""
    every = np.arange(len(places))
    around = np.concatenate([box[:, :1], places, box[:, 1:]], axis=1)
    first, last = kept.argmax(axis=1), kept.shape[1] - 1 - kept[:, ::-1].argmax(axis=1)
    return np.stack([around[every, first], around[every, last + 2]], axis=1)


def drift_given(a: Array, lead: Array, total: Array) -> tuple[Array, Array, Array]:
    """log of the integral of exp(v a D / 2 - v^2 S / 2) over the prior of v, and mean and variance of v there.

    Args:
        a, lead, total: a, D and S; they broadcast.
    """
    width = 1 / np.sqrt(total)
    centre = a * lead / (2 * total)
    low, high = (DRIFT[0] - centre) / width, (DRIFT[1] - centre) / width
    flip = low > 0  # the other tail of the normal curve has the digits
    left, right = np.where(flip, -high, low), np.where(flip, -low, high)
    log_share = log_ndtr(right) + np.log(-np.expm1(log_ndtr(left) - log_ndtr(right)))
    at_low, at_high = (np.exp(-(z**2) / 2 - np.log(2 * np.pi) / 2 - log_share) for z in (low, high))
    mean = centre + width * (at_low - at_high)
    variance = width**2 * (1 + low * at_low - high * at_high - (at_low - at_high) ** 2)
    return centre**2 * total / 2 + np.log(width) + log_share, mean, variance


def maximum_likelihood(datasets: NDArray[np.float32]) -> Array:
    """The most likely v, a and t0 of each dataset, wherever they are: (n, 3).

    Given a and t0 the best v is a D / (2 S); the rest is a search in two dimensions, from the EZ estimates.
    """
    found = np.empty((len(datasets), 3))
    for row, (dataset, (_, a, _)) in enumerate(zip(datasets, ez(datasets), strict=True)):
        rt = dataset[:, 0].astype(np.float64)
        lead = float(np.sum(2 * dataset[:, 1] - 1))
        first = rt.min()

        def lacking(point: Array, rt: Array = rt, lead: float = lead, first: float = first) -> float:
            a, t0 = np.exp(point[0]), first - np.exp(point[1])
            times = rt - t0
            drift = (a * lead) ** 2 / (8 * times.sum())
            return float(-log_likelihood_without_drift(times, np.asarray(a)) - drift)

        start = np.log([np.clip(a, 0.5, 3.0), 0.1 * (np.median(rt) - first) + 1e-3])
        best = optimize.minimize(lacking, start, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-7}).x
        a, t0 = np.exp(best[0]), first - np.exp(best[1])
        found[row] = a * lead / (2 * np.sum(rt - t0)), a, t0
    return found


def ez(datasets: NDArray[np.float32]) -> Array:
    """v, a and t0 of each dataset in closed form: (n, 3)."""
    rt, correct = np.moveaxis(datasets.astype(np.float64), 2, 0)
    trials = rt.shape[1]
    share = correct.mean(axis=1)
    share = np.where(share == 1, 1 - 1 / (2 * trials), np.where(share == 0.5, 0.5 + 1 / (2 * trials), share))
    return ez_from_moments(share, rt.mean(axis=1), rt.var(axis=1, ddof=1))


def ez_from_moments(share: Array, mean: Array, variance: Array) -> Array:
    """v, a and t0 from the share of correct responses and the moments of response times: (n, 3).

    Source: Wagenmakers, van der Maas & Grasman 2007, Psychonomic Bulletin & Review 14:3, with s = 1.
    """
    logit = np.log(share / (1 - share))
    x = logit * (logit * share**2 - logit * share + share - 0.5) / variance
    v = np.sign(share - 0.5) * x**0.25
    a = logit / v
    y = -v * a
    decision = a / (2 * v) * (1 - np.exp(y)) / (1 + np.exp(y))
    return np.stack([v, a, mean - decision], axis=-1)
