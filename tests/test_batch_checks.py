"""Every output is looked at: what is not a finite normal positive number stops the run."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.batch.checks import SAMPLED_SHARE, Engines, FileCheck, ShardChecks, Violation, is_sampled
from toolkit.errors import NotPositive

FloatArray = NDArray[np.float32]
Predict = Callable[[FloatArray], FloatArray]
TINY = np.float32(2.0**-126)


def first_numbers(datasets: FloatArray) -> FloatArray:
    """A model whose two estimates are the first row of the dataset."""
    return datasets[:, 0, :].copy()


def checks_of(check: str, others: Mapping[str, Predict] | None = None) -> ShardChecks:
    return ShardChecks(Engines("scoring", first_numbers, others or {}), check, ("v", "w"), "a.parquet")


def datasets_of(estimates: Any) -> FloatArray:
    return np.repeat(np.asarray(estimates, np.float32)[:, np.newaxis, :], 3, axis=1)


def score(checks: ShardChecks, estimates: Any, first_row: int = 0) -> FloatArray:
    return checks.score(datasets_of(estimates), np.arange(first_row, first_row + len(estimates)))


@pytest.mark.parametrize("bad", [0.0, -0.0, -1.0, TINY / 2, math.nan, math.inf, -math.inf])
def test_score_stops_at_an_output_that_is_no_finite_normal_positive_number(bad: float) -> None:
    estimates = np.ones((9, 2), np.float32)
    estimates[4, 1] = bad
    with pytest.raises(Violation) as error:
        score(checks_of("off"), estimates, first_row=100)
    violation = error.value
    assert isinstance(violation, NotPositive)
    assert (violation.file, violation.source, violation.row) == ("scoring", "a.parquet", 104)
    np.testing.assert_array_equal(violation.dataset, datasets_of(estimates)[4])
    assert str(violation) == (
        f"a.parquet, row 104: scoring gave w = {np.float32(bad):.9g}, which is not a finite normal positive number."
    )


def test_score_accepts_the_smallest_normal_and_the_largest_number() -> None:
    estimates = np.array([[TINY, np.finfo(np.float32).max]], np.float32)
    checks = checks_of("off")
    np.testing.assert_array_equal(score(checks, estimates), estimates)
    (seen,) = checks.finish()
    assert seen.minimum == (float(TINY), float(np.finfo(np.float32).max))


def test_a_violation_survives_the_way_from_another_process() -> None:
    violation = Violation("f", "a.parquet", 7, "v = 0", np.ones((3, 2), np.float32))
    copy = pickle.loads(pickle.dumps(violation))
    assert str(copy) == str(violation) and copy.row == 7 and np.array_equal(copy.dataset, violation.dataset)


def test_check_all_compares_every_row_with_the_scoring_file() -> None:
    rng = np.random.default_rng(0)
    estimates = rng.uniform(0.1, 5, (500, 2)).astype(np.float32)
    factors = rng.uniform(0.9, 1.1, (500, 2)).astype(np.float32)
    position = 0

    def other(datasets: FloatArray) -> FloatArray:
        nonlocal position
        position += len(datasets)
        return first_numbers(datasets) * factors[position - len(datasets) : position]

    checks = checks_of("all", {"other": other})
    for begin in range(0, 500, 125):
        score(checks, estimates[begin : begin + 125], begin)
    scoring, compared = checks.finish()
    assert scoring == FileCheck("scoring", 500, tuple(estimates.min(axis=0).tolist()), 0, (0.0, 0.0))
    assert compared.rows_checked == 500
    assert compared.minimum == tuple((estimates * factors).min(axis=0).tolist())
    expected = np.abs((estimates * factors).astype(np.float64) / estimates - 1).max(axis=0)
    # The same quotient in another order of operations: measured 5.6e-17.
    np.testing.assert_allclose(compared.max_relative_difference, expected, rtol=0, atol=1.2e-16)


def test_check_off_runs_no_other_file() -> None:
    def never(datasets: FloatArray) -> FloatArray:
        raise AssertionError("was run")

    checks = checks_of("off", {"other": never})
    score(checks, np.ones((200, 2)))
    assert [check.file for check in checks.finish()] == ["scoring"]


def test_check_sample_runs_one_row_in_a_hundred_and_those_with_the_smallest_outputs() -> None:
    estimates = np.random.default_rng(1).uniform(1, 5, (8000, 2)).astype(np.float32)
    estimates[77, 0], estimates[6001, 1] = 0.25, 0.5
    assert not is_sampled(np.array([1077, 7001])).any(), "else the test would see the sample, not the smallest"
    seen: list[FloatArray] = []

    def other(datasets: FloatArray) -> FloatArray:
        seen.append(first_numbers(datasets))
        return first_numbers(datasets)

    checks = checks_of("sample", {"other": other})
    for begin in range(0, 8000, 1000):
        score(checks, estimates[begin : begin + 1000], 1000 + begin)
    scoring, compared = checks.finish()
    (ran,) = seen
    expected = np.flatnonzero(is_sampled(np.arange(1000, 9000)) | np.isin(np.arange(8000), [77, 6001]))
    np.testing.assert_array_equal(ran, estimates[expected])
    assert scoring.rows_checked == 8000 and compared.rows_checked == len(expected)
    assert scoring.minimum == compared.minimum == (0.25, 0.5)


def test_check_sample_stops_at_a_violation_in_the_sample_and_names_its_row() -> None:
    checks = checks_of("sample", {"other": lambda datasets: first_numbers(datasets) - 1})
    score(checks, np.random.default_rng(2).uniform(1.5, 2, (300, 2)), 50)
    score(checks, np.array([[3.0, 0.5]]), 350)
    with pytest.raises(Violation, match=r"row 350: other gave w = -0\.5"):
        checks.finish()


def test_check_without_rows_has_seen_nothing() -> None:
    for check in ("all", "sample", "off"):
        checks = checks_of(check, {"other": first_numbers})
        assert score(checks, np.empty((0, 2))).shape == (0, 2)
        assert checks.finish() == tuple(FileCheck(file) for file in ("scoring", "other")[: 1 if check == "off" else 2])
    nothing = FileCheck("f").to_json(["v"])
    assert nothing["minimum"] == nothing["max_relative_difference"] == {} and nothing["rows_checked"] == 0


def test_is_sampled_takes_an_even_share_of_any_run_of_rows_and_of_every_residue() -> None:
    chosen = np.flatnonzero(is_sampled(np.arange(1_000_000)))
    assert len(chosen) == pytest.approx(1_000_000 * SAMPLED_SHARE, abs=2)
    gaps = np.diff(chosen)
    assert gaps.max() < 200, "no long run of rows is left out"
    for period in (2, 3, 7, 10, 100, 128, 1000):
        assert set(np.unique(chosen % period)) == set(range(period)), "nor any place in a pattern that repeats"


def test_file_checks_merge_to_the_same_in_any_order() -> None:
    rng = np.random.default_rng(3)
    checks = [
        FileCheck("f", int(rows), tuple(rng.random(2).tolist()), 0, tuple(rng.random(2).tolist()))
        if rows
        else FileCheck("f")
        for rows in rng.integers(0, 4, 12)
    ]
    results = set()
    for _ in range(10):
        total = FileCheck("f")
        for index in rng.permutation(12):
            total = total.merged(checks[index])
        results.add(total)
    (total,) = results
    counted = [check for check in checks if check.rows_checked]
    assert total.rows_checked == sum(check.rows_checked for check in counted)
    assert total.minimum == tuple(np.min([check.minimum for check in counted], axis=0).tolist())
    assert total.max_relative_difference == tuple(np.max([c.max_relative_difference for c in counted], axis=0).tolist())
    assert FileCheck.from_json(total.to_json(["v", "w"])) == total
