"""The decay sample against the law it is said to draw from."""

from types import ModuleType

import numpy as np
import pytest
from sample_files import load_sample
from scipy import optimize, stats


@pytest.fixture
def sample() -> ModuleType:
    return load_sample("decay")


def test_simulate_gives_200_readings_at_even_times(sample: ModuleType) -> None:
    datasets, parameters = sample.simulate(3, np.random.default_rng(0))
    assert (datasets.shape, datasets.dtype) == ((3, 200, len(sample.COLUMNS)), np.float32)
    assert (parameters.shape, parameters.dtype) == ((3, len(sample.PARAMETERS)), np.float32)
    assert np.array_equal(datasets[..., 0], np.tile((np.arange(200) * 5 / 199).astype(np.float32), (3, 1)))


def test_simulate_draws_amplitude_and_rate_uniformly_and_sigma_uniformly_in_its_logarithm(sample: ModuleType) -> None:
    _, parameters = sample.simulate(20_000, np.random.default_rng(1))
    amplitude, rate, sigma = parameters.T
    assert stats.kstest(amplitude, stats.uniform(0.5, 4.5).cdf).pvalue > 0.01
    assert stats.kstest(rate, stats.uniform(0.1, 1.9).cdf).pvalue > 0.01
    assert stats.kstest(sigma, stats.loguniform(0.001, 0.1).cdf).pvalue > 0.01


def test_residuals_are_independent_standard_normal_when_divided_by_sigma(sample: ModuleType) -> None:
    datasets, parameters = sample.simulate(1000, np.random.default_rng(2))
    x, y = np.moveaxis(datasets.astype(np.float64), 2, 0)
    amplitude, rate, sigma = parameters.T.astype(np.float64)[..., None]
    residuals = (y - amplitude / np.exp(x) ** rate) / sigma
    assert stats.kstest(residuals.ravel(), "norm").pvalue > 0.01
    assert stats.kstest(1.02 * residuals.ravel(), "norm").pvalue < 0.01, "this test cannot see a sigma that is 2% wrong"
    neighbours = np.mean(residuals[:, 1:] * residuals[:, :-1])
    assert abs(neighbours) < 4 / np.sqrt(residuals[:, 1:].size)


def test_a_least_squares_fit_recovers_the_parameters(sample: ModuleType) -> None:
    datasets, parameters = sample.simulate(20, np.random.default_rng(3))
    for dataset, (amplitude, rate, sigma) in zip(datasets.astype(np.float64), parameters, strict=True):
        x, y = dataset.T
        fit, covariance = optimize.curve_fit(lambda x, a, k: a * np.exp(-k * x), x, y, p0=(1, 1))
        assert np.all(np.abs(fit - (amplitude, rate)) < 4 * np.sqrt(np.diag(covariance)))
        # 198 degrees of freedom leave a standard error of 5% on sigma.
        assert np.std(y - fit[0] * np.exp(-fit[1] * x), ddof=2) == pytest.approx(sigma, rel=0.2)
