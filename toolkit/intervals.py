"""Positive intervals around estimates: split-conformal prediction on the log scale.

An interval of level .9 holds the true value of at least 90% of all datasets that are like the calibration datasets,
however wrong the network is, and whatever is distributed how. What it takes are n calibration datasets with true values
that neither the network nor the file was fitted to. The error of each is put on a common scale, its score:

    d = log true - log estimate
    score = d / above(estimate) where d > 0, else -d / below(estimate)

If a new dataset is exchangeable with these, its score is among the k smallest of n + 1 with probability k / (n + 1). So
the k-th smallest of the n, k = ceil((n + 1) level), is no less than the new one's with probability level or more, and
at most 1 / (n + 1) more where no scores are equal. Solved for the true value, positive because all is on the log scale:

    low = estimate * exp(-score_k * below(estimate)), high = estimate * exp(score_k * above(estimate))

`above` and `below` say how far up and down true values lie from estimates of that size. They may be anything that is
fixed before the scores are looked at; every fifth calibration dataset decides about them and has no score. Without them
(below = above = 1) intervals are as wide for small values as for large ones, which is true of neither: of the third of
datasets with the smallest t0 of the response-time sample they would hold 77%, and with them 90%; those of a noise
scale of .001 to .1 are shorter (the mean of high / low is 1.6 in place of 2.8).

The promise is one over calibration datasets as well: intervals from one set of them hold a share of all new datasets
that scatters around the level with a standard deviation of sqrt(level (1 - level) / (n + 2)), .5% for n = 4,000. It is
none for datasets of another kind, and none for each single size of the true value.

Source: Papadopoulos, Proedrou, Vovk & Gammerman 2002, Inductive confidence machines for regression (ECML, LNCS 2430);
Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random World (rank and coverage); Papadopoulos, Gammerman &
Vovk 2008, Normalized nonconformity measures for regression conformal prediction; Lei, G'Sell, Rinaldo, Tibshirani &
Wasserman 2018, Distribution-free predictive inference for regression, arXiv:1604.04173 (split conformal, its upper
bound, local weights); Romano, Patterson & Candes 2019, Conformalized quantile regression, arXiv:1905.03222 (a distance
of its own on either side); Vovk 2012, Conditional validity of inductive conformal predictors, arXiv:1209.2673 (how
much scatter).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, ModelError
from toolkit.spec import SMALLEST_NORMAL_FLOAT32

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

DEFAULT_LEVEL = 0.9
FACT = "interval"  # the key in manifest.json and in a file's metadata

SCALED_EVERY = 5  # of the calibration datasets one in five decides about `below` and `above`
DATASETS_A_BIN = 500  # a hundred of which decide about one bin; with fewer than that in all, below = above = 1
MOST_BINS = 8  # twice as many made intervals no shorter
TAIL = 0.95  # quantile of d in a bin that `above` is, and of -d that `below` is: equal tails at level .9
LEAST_SHARE = 0.1  # of below + above that each has at least: where all estimates of a size are too small, say

# Stored are the scores for levels of whole percent, from .99 on of tenths, and the largest. A level between two has
# the next one's. All 4,000 scores of seven files and three parameters would be larger than the files.
LEVELS = tuple(Fraction(each, 1000) for each in (*range(10, 990, 10), *range(990, 1000)))
DIGITS = 5  # of a stored number; scores are rounded up

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """How far true values lie from the estimates of one parameter.

    Attributes:
        estimates: ascending; between two of them `below` and `above` are linear in the logarithm, beyond constant.
        below, above: on the log scale, for each of `estimates`.
        scores: ascending, one for each of the ranks.
    """

    estimates: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]
    scores: tuple[float, ...]

    def widths(self, logs: Array) -> tuple[Array, Array]:
        """`below` and `above` at estimates, given as logarithms."""
        at = np.log(self.estimates)
        return np.interp(logs, at, self.below), np.interp(logs, at, self.above)


@dataclass(frozen=True)
class Limits:
    """The intervals of one level: for each parameter its spread and the score that decides."""

    level: float
    spreads: tuple[Spread, ...]
    scores: tuple[float, ...]

    def __call__(self, estimates: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Both ends of each interval.

        Args:
            estimates: float32 (n, parameters), finite and normal.
        Returns:
            low, high: float32 (n, parameters), 2^-126 <= low <= estimate <= high, finite.
        """
        low, high = np.empty(estimates.shape, np.float32), np.empty(estimates.shape, np.float32)
        for index, (spread, score) in enumerate(zip(self.spreads, self.scores, strict=True)):
            estimate = estimates[:, index].astype(np.float64)
            logs = np.log(estimate)
            below, above = spread.widths(logs)
            smallest, largest = math.log(SMALLEST_NORMAL_FLOAT32), math.log(LARGEST_FLOAT32)
            # Cut off as logarithms, where nothing overflows, and again behind the rounding of exp.
            down, up = (
                np.exp(np.maximum(logs - score * below, smallest)),
                np.exp(np.minimum(logs + score * above, largest)),
            )
            low[:, index] = np.clip(down, SMALLEST_NORMAL_FLOAT32, estimate)
            high[:, index] = np.clip(up, estimate, LARGEST_FLOAT32)
        return low, high

    def examples(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """An estimate of middling size of each parameter, and both ends of the interval around it."""
        middle = np.array([[spread.estimates[len(spread.estimates) // 2] for spread in self.spreads]], np.float32)
        low, high = self(middle)
        return middle[0], low[0], high[0]


@dataclass(frozen=True)
class Intervals:
    """What intervals of any level are made of.

    Attributes:
        datasets: calibration datasets that have a score, n.
        ranks: ascending, 1 to n, those whose scores are stored.
        spreads: one for each parameter, in the order of the outputs.
    """

    datasets: int
    ranks: tuple[int, ...]
    spreads: tuple[Spread, ...]

    def permits(self, level: float) -> bool:
        return rank_of(level, self.datasets) <= self.datasets

    def at(self, level: float, where: Path | str) -> Limits:
        """The intervals of a level.

        Args:
            where: the file that the estimates are from: how an error begins.
        Raises:
            InputError: the level is not between 0 and 1, or more than n datasets permit.
        """
        if not self.permits(level):
            raise InputError(
                f"{where}: intervals of level {level:g} take {datasets_for(level):,} calibration datasets with true "
                f"values. Here {self.datasets:,} scores permit {self.datasets / (self.datasets + 1):.4g}. Export again "
                "with more: toolkit export --calibration FILE"
            )
        stored = bisect_left(self.ranks, rank_of(level, self.datasets))
        return Limits(level, self.spreads, tuple(spread.scores[stored] for spread in self.spreads))

    def to_json(self, parameters: Sequence[str]) -> dict[str, Any]:
        """The form that manifest.json and the metadata of exported files hold."""
        spreads = {
            name: {key: list(values) for key, values in vars(spread).items()}
            for name, spread in zip(parameters, self.spreads, strict=True)
        }
        return {"datasets": self.datasets, "ranks": list(self.ranks), "parameters": spreads}


def rank_of(level: float, count: int) -> int:
    """ceil((count + 1) level), the level taken as the decimal that it is written as: .07 of 100 is 7, not a bit more.

    Raises:
        InputError: the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"a level of {level:g}: intervals have one between 0 and 1, say .9.")
    return math.ceil((count + 1) * Fraction(str(float(level))))


def datasets_for(level: float) -> int:
    """So many calibration datasets, or more, permit a level."""
    exact = Fraction(str(float(level)))
    scores = math.ceil(exact / (1 - exact))
    return scores if scores <= _scored(DATASETS_A_BIN) else math.ceil(scores * Fraction(SCALED_EVERY, SCALED_EVERY - 1))


def _scored(count: int) -> int:
    """Of so many calibration datasets those that have a score."""
    return count - len(range(0, count, SCALED_EVERY)) if count >= DATASETS_A_BIN else count


def conformal_intervals(estimates: NDArray[np.floating[Any]], true: NDArray[np.floating[Any]]) -> Intervals:
    """Intervals from calibration datasets.

    Args:
        estimates: (n, parameters), of the file that the intervals are for, n >= 1.
        true: (n, parameters), positive.
    """
    logs = np.log(np.maximum(estimates.astype(np.float64), SMALLEST_NORMAL_FLOAT32))
    distances = np.log(true.astype(np.float64)) - logs
    total = len(logs)
    scaling = np.zeros(total, np.bool_)
    if total >= DATASETS_A_BIN:
        scaling[::SCALED_EVERY] = True
    count = int(total - scaling.sum())
    ranks = sorted({rank for level in LEVELS if (rank := math.ceil((count + 1) * level)) <= count} | {count})
    bins = min(MOST_BINS, total // DATASETS_A_BIN)
    spreads = []
    for log, distance in zip(logs.T, distances.T, strict=True):
        spread = _spread(log[scaling], distance[scaling], bins)
        below, above = spread.widths(log[~scaling])
        left = distance[~scaling]
        scores = np.sort(np.where(left > 0, left / above, -left / below))
        stored = tuple(_rounded_up(float(scores[rank - 1])) for rank in ranks)
        spreads.append(Spread(spread.estimates, spread.below, spread.above, stored))
    return Intervals(count, tuple(ranks), tuple(spreads))


def _spread(logs: Array, distances: Array, bins: int) -> Spread:
    """`below` and `above` in bins of equally many estimates, at the median of each."""
    at, below, above = list[float](), list[float](), list[float]()
    order = np.argsort(logs, kind="stable")
    for members in np.array_split(order, bins) if bins else ():
        middle = _rounded_up(float(np.exp(np.median(logs[members]))))
        tails = [max(float(np.quantile(sign * distances[members], TAIL)), 0.0) for sign in (-1, 1)]
        down, up = (max(tail, LEAST_SHARE * sum(tails)) for tail in tails)
        if not (down > 0 and up > 0):  # all of them exact
            return Spread((1.0,), (1.0,), (1.0,), ())
        if not at or middle > at[-1]:
            at.append(middle)
            below.append(_rounded_up(down))
            above.append(_rounded_up(up))
    return Spread(tuple(at), tuple(below), tuple(above), ()) if at else Spread((1.0,), (1.0,), (1.0,), ())


_UPWARDS = Context(prec=DIGITS, rounding=ROUND_CEILING)


def _rounded_up(value: float) -> float:
    """The next number of so many digits that is not smaller."""
    return float(_UPWARDS.create_decimal_from_float(value))


def intervals_of(where: Path | str, stored: Mapping[str, Any] | None, parameters: Sequence[str]) -> Intervals | None:
    """Intervals from their JSON, which may be anyone's; None where there is none.

    Raises:
        ModelError: numbers that are missing or do not fit each other.
    """
    if stored is None:
        return None
    try:
        spreads = tuple(
            Spread(*(tuple(stored["parameters"][name][key]) for key in ("estimates", "below", "above", "scores")))
            for name in parameters
        )
        intervals = Intervals(stored["datasets"], tuple(stored["ranks"]), spreads)
        _check(intervals)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{where}: the numbers of its intervals are damaged ({error}). Export it again.") from error
    return intervals


def _check(intervals: Intervals) -> None:
    """Raises:
    ValueError: it says what does not hold.
    """
    ranks = intervals.ranks
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in (intervals.datasets, *ranks))
    if not (whole and ranks and ranks[0] >= 1 and ranks[-1] == intervals.datasets and _ascending(ranks)):
        raise ValueError("ranks that are none")
    for spread in intervals.spreads:
        numbers = (*spread.estimates, *spread.below, *spread.above, *spread.scores)
        if not all(isinstance(each, int | float) and math.isfinite(each) and each >= 0 for each in numbers):
            raise ValueError("a number that is negative or not finite")
        if not (min(numbers[: -len(ranks)]) > 0 and _ascending(spread.estimates)):
            raise ValueError("estimates that do not ascend, or a width of 0")
        if not (len(spread.estimates) == len(spread.below) == len(spread.above) and len(spread.scores) == len(ranks)):
            raise ValueError("lists of different lengths")
        if any(later < earlier for earlier, later in zip(spread.scores, spread.scores[1:], strict=False)):
            raise ValueError("scores that do not ascend")


def _ascending(numbers: Sequence[float]) -> bool:
    return all(earlier < later for earlier, later in zip(numbers, numbers[1:], strict=False))
