"""The psychometric sample against its definition, its design and the binomial law."""

from types import ModuleType

import numpy as np
import pytest
from sample_files import load_sample
from scipy import stats


@pytest.fixture
def sample() -> ModuleType:
    return load_sample("psychometric")


def test_simulate_gives_200_trials_with_every_strength_ten_times_in_a_new_order(sample: ModuleType) -> None:
    datasets, parameters = sample.simulate(50, np.random.default_rng(0))
    assert (datasets.shape, datasets.dtype) == ((50, 200, len(sample.COLUMNS)), np.float32)
    assert (parameters.shape, parameters.dtype) == ((50, len(sample.PARAMETERS)), np.float32)
    stimulus, response = np.moveaxis(datasets, 2, 0)
    design = np.repeat(np.arange(1, 21) * 0.15, 10).astype(np.float32)
    # Measured 0: the strengths are the same float32 numbers.
    assert np.array_equal(np.sort(stimulus, axis=1), np.tile(design, (50, 1)))
    assert len(np.unique(stimulus, axis=0)) == 50, "two datasets have their trials in the same order"
    assert set(np.unique(response)) == {0.0, 1.0}
    early = stimulus[:, :100].mean(axis=1) - stimulus[:, 100:].mean(axis=1)
    assert abs(early.mean()) < 4 * early.std() / np.sqrt(50), "strength changes in the course of a dataset"


def test_simulate_draws_each_parameter_uniformly_from_its_range(sample: ModuleType) -> None:
    _, parameters = sample.simulate(5000, np.random.default_rng(1))
    for drawn, (low, high) in zip(parameters.T, [(0.5, 1.5), (0.3, 1.5), (0.001, 0.15)], strict=True):
        assert stats.kstest(drawn, stats.uniform(low, high - low).cdf).pvalue > 0.01


@pytest.mark.parametrize(("threshold", "width", "lapse"), [(0.5, 0.3, 0.001), (1.0, 0.8, 0.05), (1.5, 1.5, 0.15)])
def test_response_rate_is_what_threshold_width_and_lapse_are_defined_by(
    sample: ModuleType, threshold: float, width: float, lapse: float
) -> None:
    stimulus = threshold + width * np.array([-1e3, -0.5, 0.0, 0.5, 1e2])
    without_lapse = np.array([0.0, 0.05, 0.5, 0.95, 1.0])
    with np.errstate(over="ignore"):  # 1000 widths below the threshold
        rate = sample.response_rate(stimulus, threshold, width, lapse)
    assert rate == pytest.approx((1 - lapse) * without_lapse, rel=1e-12)


def test_responses_are_as_frequent_as_the_function_says_at_every_strength(sample: ModuleType) -> None:
    datasets, parameters = sample.simulate(2000, np.random.default_rng(2))
    stimulus, response = np.moveaxis(datasets.astype(np.float64), 2, 0)
    threshold, width, lapse = parameters.T.astype(np.float64)[..., None]
    # The logistic function written as a hyperbolic tangent.
    rate = (1 - lapse) * (1 + np.tanh(np.log(19) * (stimulus - threshold) / width)) / 2
    for trials in (stimulus < 0.6, (stimulus > 0.9) & (stimulus < 1.1), stimulus > 2.5):
        deviation = np.sum((response - rate)[trials]) / np.sqrt(np.sum((rate * (1 - rate))[trials]))
        assert abs(deviation) < 4
    strong = stimulus > 2.5
    without = np.sum((response - rate / (1 - lapse))[strong]) / np.sqrt(np.sum((rate * (1 - rate))[strong]))
    assert without < -10, "this test cannot see a simulator that forgets the lapses"


def test_responses_of_equal_trials_are_independent(sample: ModuleType) -> None:
    datasets, parameters = sample.simulate(2000, np.random.default_rng(3))
    stimulus, response = np.moveaxis(datasets.astype(np.float64), 2, 0)
    rate = sample.response_rate(stimulus, *parameters.T.astype(np.float64)[..., None])
    residuals = (response - rate) / np.sqrt(rate * (1 - rate) + 1e-9)
    assert abs(np.mean(residuals[:, 1:] * residuals[:, :-1])) < 4 / np.sqrt(residuals[:, 1:].size)
