"""The diffusion sample against the small-time series, the closed-form moments and the density of each boundary.

The sample uses the large-time series; every oracle here is another formula.
"""

from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from sample_files import load_sample
from scipy import integrate, stats
from scipy.special import log_ndtr

SETTINGS = [(0.5, 0.8), (1.0, 2.0), (2.0, 1.2), (3.5, 0.8), (3.5, 2.5)]  # corners and middle of the ranges of v, a


@pytest.fixture
def sample() -> ModuleType:
    return load_sample("diffusion")


def small_time_cdf(t: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(decision time <= t), t in units of a^2: inverse Gaussian laws of the paths mirrored at both boundaries.

    From a midway start the first passage is the alternating sum over b = 1/2, 3/2, ... of 2 cosh(c/2) exp(-b c) times
    the law of the first passage of a single boundary at distance b. Source: Feller 1968, XIV; Navarro & Fuss 2009.
    """
    b = np.arange(100) + 0.5
    t, c = t[..., None], np.broadcast_to(c, t.shape)[..., None]
    towards = np.exp(-b * c + log_ndtr((c * t - b) / np.sqrt(t)))
    away = np.exp(b * c + log_ndtr(-(c * t + b) / np.sqrt(t)))
    return 2 * np.cosh(c[..., 0] / 2) * ((towards + away) * (-1.0) ** np.arange(100)).sum(-1)


def fixed(sample: ModuleType, v: float, a: float, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Decision times in seconds and choices of `count` datasets with one v, a and t0."""
    sample.DRIFT, sample.BOUNDARY, sample.NON_DECISION = (v, v), (a, a), (0.25, 0.25)
    datasets, _ = sample.simulate(count, np.random.default_rng([1, round(100 * v)]))
    return datasets[..., 0].ravel().astype(np.float64) - 0.25, datasets[..., 1].ravel()


def test_simulate_gives_200_trials_of_time_and_choice(sample: ModuleType) -> None:
    datasets, parameters = sample.simulate(3, np.random.default_rng(0))
    assert (datasets.shape, datasets.dtype) == ((3, len(datasets[0]), len(sample.COLUMNS)), np.float32)
    assert datasets.shape[1] == 200
    assert (parameters.shape, parameters.dtype) == ((3, len(sample.PARAMETERS)), np.float32)
    assert set(np.unique(datasets[..., 1])) == {0.0, 1.0}
    assert np.all(datasets[..., 0] > parameters[:, None, 2]), "a response came before the non-decision time was over"


def test_simulate_draws_each_parameter_uniformly_from_its_range(sample: ModuleType) -> None:
    _, parameters = sample.simulate(20_000, np.random.default_rng(2))
    for drawn, (low, high) in zip(parameters.T, [(0.5, 3.5), (0.8, 2.5), (0.1, 0.6)], strict=True):
        assert stats.kstest(drawn, stats.uniform(low, high - low).cdf).pvalue > 0.01
    assert np.all(np.abs(np.corrcoef(parameters.T)[np.triu_indices(3, 1)]) < 4 / np.sqrt(20_000))


def test_decision_times_invert_the_exact_distribution_function_everywhere_in_the_table(sample: ModuleType) -> None:
    rng = np.random.default_rng(3)
    c, logit = rng.uniform(0.4, 8.75, 200), rng.uniform(-23, 23, (200, 400))
    c[:2] = 0.4, 8.75
    wanted = 1 / (1 + np.exp(-logit))
    reached = small_time_cdf(sample.decision_times(c, logit), c[:, None])
    # Measured 3.4e-6, the straight lines between the nodes: it takes some 1e10 trials to notice.
    assert np.max(np.abs(reached - wanted)) < 6.8e-6
    # In the lower tail the error is relative to the probability: measured 1.64e-5.
    lower = logit < -5
    assert np.max(np.abs(reached / wanted - 1)[lower]) < 3.3e-5


@pytest.mark.parametrize("c", [0.4, 1.0, 2.7, 5.0, 8.75])
def test_decision_times_have_the_closed_form_mean_and_variance(sample: ModuleType, c: float) -> None:
    """Wagenmakers, van der Maas & Grasman 2007, Psychonomic Bulletin & Review 14:3: moments at s = 1 and a = 1."""
    mean = (1 - np.exp(-c)) / (1 + np.exp(-c)) / (2 * c)
    variance = (1 - 2 * c * np.exp(-c) - np.exp(-2 * c)) / (2 * c**3 * (1 + np.exp(-c)) ** 2)
    logit = np.linspace(-24, 37, 400_001)
    density = np.exp(-logit) / (1 + np.exp(-logit)) ** 2
    t = sample.decision_times(np.array([c]), logit[None])[0]
    # Measured at most 4.2e-6 for the mean and 1.2e-5 for the variance.
    assert integrate.trapezoid(t * density, logit) == pytest.approx(mean, rel=8.5e-6)
    assert integrate.trapezoid((t - mean) ** 2 * density, logit) == pytest.approx(variance, rel=2.4e-5)


def test_simulate_follows_the_exact_law_over_all_parameters(sample: ModuleType) -> None:
    datasets, parameters = sample.simulate(600, np.random.default_rng(4))
    v, a, t0 = parameters.T.astype(np.float64)[..., None]
    levels = small_time_cdf((datasets[..., 0] - t0) / a**2, v * a)
    assert stats.kstest(levels.ravel(), "uniform").pvalue > 0.01
    wrong = small_time_cdf(1.01 * (datasets[..., 0] - t0) / a**2, v * a)
    assert stats.kstest(wrong.ravel(), "uniform").pvalue < 0.01, "this test cannot see a simulator that is 1% too slow"


@pytest.mark.parametrize(("v", "a"), SETTINGS)
def test_simulate_matches_distribution_moments_and_choices_when_parameters_are_fixed(
    sample: ModuleType, v: float, a: float
) -> None:
    times, correct = fixed(sample, v, a, 250)
    n = times.size
    assert stats.kstest(times, lambda t: small_time_cdf(t / a**2, np.asarray(v * a))).pvalue > 0.01
    y = -v * a
    mean = a / (2 * v) * (1 - np.exp(y)) / (1 + np.exp(y))
    variance = a / (2 * v**3) * (2 * y * np.exp(y) - np.exp(2 * y) + 1) / (np.exp(y) + 1) ** 2
    fourth = np.mean((times - mean) ** 4)
    assert abs(times.mean() - mean) < 4 * np.sqrt(variance / n)
    assert abs(times.var() - variance) < 4 * np.sqrt((fourth - variance**2) / n)
    chance = 1 / (1 + np.exp(y))
    assert abs(correct.mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / n)


def test_errors_are_as_fast_and_as_frequent_as_the_density_of_the_lower_boundary_says(sample: ModuleType) -> None:
    """The joint law of choice and time, from the density at one boundary: Navarro & Fuss 2009, small-time series."""
    v, a = 1.0, 1.2

    def density(t: float) -> float:
        w = 0.5 + 2 * np.arange(-20, 21)
        series = np.sum(w * np.exp(-(w**2) * a**2 / (2 * t)))
        return float(a / np.sqrt(2 * np.pi * t**3) * series * np.exp(-v * a / 2 - v**2 * t / 2))

    times, correct = fixed(sample, v, a, 1000)
    for limit in (0.1, 0.2, 0.4, 0.8, 4.0):
        chance = integrate.quad(density, 0, limit)[0]
        seen = np.mean((correct == 0) & (times <= limit))
        assert abs(seen - chance) < 4 * np.sqrt(chance * (1 - chance) / times.size), f"errors up to {limit} s"
