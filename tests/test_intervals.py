"""Intervals: the rank is exact, ends are positive whatever the estimate, and coverage is what was asked for."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from toolkit.errors import InputError, ModelError
from toolkit.intervals import DATASETS_A_BIN, Intervals, conformal_intervals, datasets_for, intervals_of, rank_of

SMALLEST, LARGEST = np.float32(2.0**-126), np.finfo(np.float32).max


def brute_force_quantile(scores: np.ndarray, level: Fraction) -> float:
    """The least score s of the n with #{scores <= s} / (n + 1) >= level, by counting."""
    fits = [s for s in scores if Fraction(int((scores <= s).sum()), len(scores) + 1) >= level]
    return float(min(fits))


@pytest.mark.parametrize("count", [9, 10, 99, 100, 399, 499])
@pytest.mark.parametrize("level", ["0.07", "0.5", "0.9", "0.99"])
def test_the_score_of_a_level_is_the_quantile_that_counting_finds(count: int, level: str) -> None:
    # Fewer datasets than a bin takes: no widths, a score is |log true - log estimate|.
    rng = np.random.default_rng(count)
    estimates, true = rng.lognormal(size=(2, count, 1))
    intervals = conformal_intervals(estimates, true)
    scores = np.abs(np.log(true) - np.log(estimates))[:, 0]
    if Fraction(level) * (count + 1) > count:
        with pytest.raises(InputError, match=f"level {level} take 99 calibration datasets"):
            intervals.at(float(level), "a.tflite")
        return
    expected = brute_force_quantile(scores, Fraction(level))
    (found,) = intervals.at(float(level), "a.tflite").scores
    assert expected <= found <= expected * (1 + 1e-4)  # five digits, rounded up


def test_a_level_between_two_stored_ones_has_the_next_and_never_less() -> None:
    rng = np.random.default_rng(0)
    estimates, true = rng.lognormal(size=(2, 450, 1))
    scores = np.sort(np.abs(np.log(true) - np.log(estimates))[:, 0])
    limits = conformal_intervals(estimates, true)
    for level in (0.905, 0.9123, 0.95501, 0.9917):
        (found,) = limits.at(level, "a").scores
        assert scores[rank_of(level, 450) - 1] <= found
        assert found <= scores[min(rank_of(min(level + 0.01, 0.999), 450), 450) - 1] * (1 + 1e-4)


def test_rank_takes_a_level_as_it_is_written() -> None:
    assert rank_of(0.07, 99) == 7  # 100 * .07 is 7.000000000000001 in floating point
    assert rank_of(0.9, 9) == 9 and rank_of(0.9, 8) == 9  # 8 datasets do not permit it
    for level in (0.0, 1.0, -0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            rank_of(level, 100)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99, 0.999, 0.998])
def test_as_many_datasets_as_the_error_names_permit_the_level(level: float) -> None:
    needed = datasets_for(level)
    ones = np.ones((needed + 1, 1))
    for count in (needed, needed + 1):
        assert conformal_intervals(ones[:count], ones[:count]).permits(level)
    assert needed < DATASETS_A_BIN or not conformal_intervals(ones[: needed - 1], ones[: needed - 1]).permits(level)


def spread_out(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Estimates whose errors grow as they fall, lean to one side, and are different for two parameters."""
    true = np.exp(rng.uniform(np.log(0.001), np.log(0.1), (count, 2)))
    error = rng.gumbel(size=(count, 2)) * np.array([0.02, 0.1]) * (0.1 / true) ** 0.4
    return (true * np.exp(error)).astype(np.float32), true.astype(np.float32)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_coverage_is_the_level_and_does_not_depend_on_the_size_of_the_estimate(level: float) -> None:
    rng = np.random.default_rng(3)
    intervals = conformal_intervals(*spread_out(5000, rng))
    estimates, true = spread_out(20_000, rng)
    low, high = intervals.at(level, "a")(estimates)
    inside = (low <= true) & (true <= high)
    # sd sqrt(level (1 - level) (1 / 4,002 + 1 / 20,000)), .5% at .9: four of them.
    allowed = 4 * np.sqrt(level * (1 - level) * (1 / 4002 + 1 / 20_000))
    np.testing.assert_allclose(inside.mean(axis=0), level, atol=allowed)
    order = np.argsort(estimates, axis=0)
    for third in np.array_split(order, 3):
        # At .9, for which the widths are made; measured .89 to .91, one width for all gives .77 and .98.
        if level == 0.9:
            assert np.all(np.abs(np.take_along_axis(inside, third, axis=0).mean(axis=0) - level) < 0.03)


def test_intervals_lean_to_the_side_on_which_true_values_are() -> None:
    rng = np.random.default_rng(5)
    estimates = np.exp(rng.uniform(-2, 2, (4000, 1)))
    true = estimates * np.exp(rng.exponential(0.5, (4000, 1)))  # always above
    low, high = conformal_intervals(estimates, true).at(0.9, "a")(np.ones((1, 1), np.float32))
    # 90% of an exponential of mean .5 are below 1.151, 95% below 1.498. The other side has a tenth of both at least.
    assert np.log(high[0, 0]) == pytest.approx(1.151, abs=0.14)  # measured 1.085
    assert np.log(low[0, 0]) == pytest.approx(-0.1 * 1.151, abs=0.03)


any_estimates = arrays(np.float32, (6, 1), elements=st.floats(float(SMALLEST), float(LARGEST), width=32))


@settings(max_examples=200, deadline=None)
@given(
    estimates=any_estimates,
    calibrating=arrays(np.float32, (40, 1), elements=st.floats(float(SMALLEST), float(LARGEST), width=32)),
    true=arrays(np.float32, (40, 1), elements=st.floats(float(SMALLEST), float(LARGEST), width=32)),
    level=st.floats(0.01, 0.97),
)
def test_ends_are_finite_positive_and_around_the_estimate_whatever_it_is(
    estimates: np.ndarray, calibrating: np.ndarray, true: np.ndarray, level: float
) -> None:
    low, high = conformal_intervals(calibrating, true).at(level, "a")(estimates)
    assert low.dtype == high.dtype == np.float32
    assert np.all(low >= SMALLEST) and np.all(np.isfinite(high))
    assert np.all(low <= estimates) and np.all(estimates <= high)


def test_ends_at_the_extremes_are_cut_off_at_the_smallest_and_the_largest_float() -> None:
    ones = np.ones((20, 1))
    limits = conformal_intervals(ones, 50 * ones).at(0.9, "a")
    low, high = limits(np.array([[SMALLEST], [2 * SMALLEST], [1.0], [LARGEST]], np.float32))
    assert low[0, 0] == low[1, 0] == SMALLEST and high[-1, 0] == LARGEST
    np.testing.assert_allclose([low[2, 0], high[2, 0]], [1 / 50, 50], rtol=1e-4)


def test_exact_estimates_have_intervals_of_no_width() -> None:
    values = np.linspace(1, 2, 1500)[:, None]
    low, high = conformal_intervals(values, values).at(0.9, "a")(np.array([[1.5]], np.float32))
    assert low[0, 0] == high[0, 0] == 1.5


def test_intervals_survive_json_and_what_is_damaged_is_refused() -> None:
    intervals = conformal_intervals(*spread_out(2000, np.random.default_rng(1)))
    stored = json.loads(json.dumps(intervals.to_json(["a", "b"])))
    assert intervals_of("f", stored, ["a", "b"]) == intervals
    assert intervals_of("f", None, ["a", "b"]) is None
    assert len(json.dumps(stored)) < 4000  # of each of seven files, twice

    def damaged(key: str, change: object) -> dict[str, object]:
        content = json.loads(json.dumps(stored))
        content["parameters"]["a"][key] = change
        return content

    bad: list[dict[str, object]] = [
        {},
        {**stored, "ranks": stored["ranks"][:-1]},
        {**stored, "datasets": "many"},
        damaged("scores", stored["parameters"]["a"]["scores"][::-1]),
        damaged("scores", [float("nan")] * len(stored["ranks"])),
        damaged("below", [0.0] * len(stored["parameters"]["a"]["below"])),
        damaged("estimates", "1"),
    ]
    for content in bad:
        with pytest.raises(ModelError, match="f: the numbers of its intervals are damaged"):
            intervals_of("f", content, ["a", "b"])
    assert isinstance(intervals, Intervals)
