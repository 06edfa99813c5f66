"""Drift-diffusion model of a two-choice decision: response times and choices, drawn from the exact law.

Evidence starts midway between the boundaries 0 and a and drifts at rate v with unit noise (s = 1) until it reaches
one of them. A trial is [rt, correct]: rt = t0 + decision time in seconds, correct = 1 where it reached a.

In units of a^2 the decision time depends on c = v * a alone, and from a midway start it is independent of the choice:

    P(time > t) = 2 pi cosh(c/2) sum_k (-1)^k (2k+1) / rate_k exp(-rate_k t),  rate_k = ((2k+1)^2 pi^2 + c^2) / 2
    P(correct)  = 1 / (1 + exp(-c))

Source: Feller 1968, An Introduction to Probability Theory and Its Applications, volume 1, chapter XIV; Navarro &
Fuss 2009, J. Math. Psychol. 53:222, their large-time series at w = 1/2, summed over both boundaries and integrated.

An Euler walk in steps of 1 ms oversteps the boundary, so that a looks 0.037 larger than it is. Here times come from
the inverse of the law, tabulated once in c and in the logit of the probability: in that scale log t is smooth in both
tails, and straight lines between the nodes miss the exact distribution function by less than 4e-6.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("rt", "correct")  # seconds; 0 or 1
PARAMETERS = ("v", "a", "t0")  # drift, boundary separation, non-decision time in seconds
TRIALS = 200

DRIFT = (0.5, 3.5)
BOUNDARY = (0.8, 2.5)
NON_DECISION = (0.1, 0.6)

# The table. TERMS: at the shortest time the next term of the series is below 1e-19.
TERMS = 24
SHORTEST, LONGEST = 0.005, 8.0  # in units of a^2; outside them lies less than 1e-10 of the probability
TIMES = 4096
C = np.linspace(DRIFT[0] * BOUNDARY[0], DRIFT[1] * BOUNDARY[1], 512)
LOGIT = np.linspace(-24.0, 37.0, 61 * 64 + 1)  # a uniform float64 draw has no logit above 36.8


def simulate(count: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """float32 (count, 200, 2) of [rt, correct], and float32 (count, 3) of [v, a, t0], each uniform in its range."""
    v, a, t0 = (rng.uniform(*limits, size=count) for limits in (DRIFT, BOUNDARY, NON_DECISION))
    c = v * a
    logit = rng.logistic(size=(count, TRIALS))
    datasets = np.empty((count, TRIALS, 2), np.float32)
    datasets[..., 0] = t0[:, None] + (a**2)[:, None] * decision_times(c, logit)
    datasets[..., 1] = rng.random((count, TRIALS)) < (1 / (1 + np.exp(-c)))[:, None]
    return datasets, np.stack([v, a, t0], axis=1).astype(np.float32)


def decision_times(c: NDArray[np.float64], logit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decision times in units of a^2 at given probabilities.

    Args:
        c: (n,), v * a, within the range of C.
        logit: (n, trials), log(p / (1 - p)) of the probability p of a shorter time.
    Returns:
        (n, trials).
    """
    table = log_times()
    row, right = _between(c[:, None], C)
    column, up = _between(logit, LOGIT)
    corner = row * LOGIT.size + column
    below = table[corner] * (1 - up) + table[corner + 1] * up
    corner += LOGIT.size
    above = table[corner] * (1 - up) + table[corner + 1] * up
    return np.exp(below * (1 - right) + above * right)


def _between(values: NDArray[np.float64], nodes: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Index of the node to the left of each value, and how far the value is on its way to the next, 0 to 1."""
    place = np.clip((values - nodes[0]) / (nodes[1] - nodes[0]), 0, nodes.size - 1)
    index = np.minimum(place.astype(np.intp), nodes.size - 2)
    return index, place - index


@cache
def log_times() -> NDArray[np.float64]:
    """log(decision time / a^2) at every C and LOGIT, row after row, flat: (C.size * LOGIT.size,)."""
    log_t = np.linspace(np.log(SHORTEST), np.log(LONGEST), TIMES)
    longer = survival(np.exp(log_t), C)
    return np.concatenate([np.interp(LOGIT, row, log_t) for row in np.log((1 - longer) / longer)])


def survival(t: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(decision time > t) for t of shape (times,) in units of a^2, and c of shape (n,): (n, times)."""
    k = np.arange(TERMS)
    square = ((2 * k + 1) * np.pi) ** 2
    weight = (-1.0) ** k * (2 * k + 1) / ((square + c[:, None] ** 2) / 2)
    # einsum, not @: a matrix product may round differently with another number of threads.
    series = np.einsum("ck,kt->ct", weight, np.exp(-square[:, None] * t / 2))
    return 2 * np.pi * np.cosh(c / 2)[:, None] * np.exp(-(c[:, None] ** 2) * t / 2) * series
