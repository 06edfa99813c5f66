"""What a model's accuracy is held against: the exact likelihoods, posterior means and classical estimators.

The limits integrate by quadrature, from likelihoods simplified on paper. Every oracle here is another formula, another
way to integrate, or what follows from theory for numbers that are right.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sample_files import load_sample
from scipy import optimize

from tests.benchmarks import accuracy
from tests.benchmarks.accuracy import LIMIT, PROBLEMS, Bar, Trial, bars_of, make_trial, rmse
from tests.benchmarks.limits import decay, diffusion, psychometric

DIFFUSION = PROBLEMS[0]
Array = NDArray[np.float64]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "FOLDER", tmp_path_factory.getbasetemp() / "accuracy")


@pytest.fixture(scope="module")
def responses() -> tuple[NDArray[np.float32], Array]:
    """400 datasets of response times, and v, a, t0."""
    datasets, true = load_sample("diffusion").simulate(400, np.random.default_rng(11))
    return datasets, true.astype(np.float64)


def log_likelihood(dataset: NDArray[np.float32], points: Array) -> Array:
    """Of each row [v, a, t0] of `points`, from the passage of a drifting walk through each boundary.

    The upper boundary is the lower one of the mirrored walk. Source: Navarro & Fuss 2009, J. Math. Psychol. 53:222,
    equation 6, the series for short times.
    """
    rt, correct = dataset.T.astype(np.float64)
    v, a, t0 = points.T[..., None]
    passed = rt > t0
    t = np.where(passed, rt - t0, 1.0)
    drift = np.where(correct == 1, -v, v)
    scaled = (t / a**2)[..., None]
    w = 0.5 + 2.0 * np.arange(-8, 9)
    series = np.sum(w * np.exp((0.25 - w**2) / (2 * scaled)), axis=-1) / np.sqrt(2 * np.pi * scaled[..., 0] ** 3)
    found = np.log(series / a**2) - 0.125 / scaled[..., 0] - drift * a / 2 - drift**2 * t / 2
    return np.where(passed.all(axis=1), found.sum(axis=1), -np.inf)


@pytest.mark.parametrize("c", [0.4, 1.0, 2.7, 8.75])
def test_density_integrates_to_the_choices_and_has_the_closed_form_moments(c: float) -> None:
    """Wagenmakers, van der Maas & Grasman 2007: probability of a correct response, mean and variance of its time."""
    log_u = np.linspace(np.log(1e-3), np.log(diffusion.LONGEST), 20_001)
    u = np.exp(log_u)
    for log_g in (diffusion.log_density(u), diffusion.log_likelihood_without_drift(u[:, None], np.ones(u.size))):
        density = np.exp(log_g + c / 2 - c**2 * u / 2) * u  # of the upper boundary, on a logarithmic scale
        chance = np.trapezoid(density, log_u)
        mean = np.trapezoid(density * u, log_u) / chance
        variance = np.trapezoid(density * (u - mean) ** 2, log_u) / chance
        # Measured at most 5.4e-9, the table's straight lines; the series themselves 5e-15.
        assert chance == pytest.approx(1 / (1 + np.exp(-c)), rel=1.1e-8)
        assert mean == pytest.approx((1 - np.exp(-c)) / (1 + np.exp(-c)) / (2 * c), rel=1.1e-8)
        expected = (1 - 2 * c * np.exp(-c) - np.exp(-2 * c)) / (2 * c**3 * (1 + np.exp(-c)) ** 2)
        assert variance == pytest.approx(expected, rel=1.1e-8)


def test_likelihood_is_that_of_a_drifting_walk_at_both_boundaries(responses: tuple[NDArray[np.float32], Array]) -> None:
    datasets, true = responses
    for dataset, point in zip(datasets[:20], true[:20], strict=True):
        points = point * [[1, 1, 1], [1.3, 1, 1], [1, 1.1, 1], [1, 1, 0.9], [0.8, 0.9, 0.7]]
        v, a, t0 = points.T
        times = dataset[:, 0].astype(np.float64) - t0[:, None]
        lead, total = np.sum(2 * dataset[:, 1] - 1), times.sum(axis=1)
        found = diffusion.log_likelihood_without_drift(times, a) + v * a * lead / 2 - v**2 * total / 2
        # Measured 1.6e-6: 200 trials, each within the table's 1.6e-8.
        np.testing.assert_allclose(found, log_likelihood(dataset, points), rtol=0, atol=3.2e-6)


def test_posterior_of_diffusion_agrees_with_importance_sampling(responses: tuple[NDArray[np.float32], Array]) -> None:
    datasets = responses[0][:6]
    means, variances = diffusion.posterior(datasets)
    rng = np.random.default_rng(5)
    low, high = np.array([diffusion.DRIFT, diffusion.BOUNDARY, diffusion.NON_DECISION]).T
    for dataset, mean, variance in zip(datasets, means, variances, strict=True):
        # Wide enough a proposal in every direction: t with 4 degrees of freedom, half as wide again as the posterior.
        stretch = 1.5 / np.sqrt(rng.chisquare(4, 4000) / 4)
        z = rng.standard_normal((4000, 3)) * stretch[:, None]
        points = mean + np.sqrt(variance) * z
        inside = np.all((points > low) & (points < high), axis=1)
        log_weight = np.where(inside, log_likelihood(dataset, points) + 3.5 * np.log1p(np.sum(z**2, 1) / 9), -np.inf)
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        sampled = weight @ points
        error = np.sqrt(weight**2 @ (points - sampled) ** 2)
        assert 1 / np.sum(weight**2) > 300, "too few of the samples count to tell anything"
        assert np.all(np.abs(sampled - mean) < 4 * error)
        spread = weight @ (points - sampled) ** 2
        # Of some 1,000 effective samples: 4 times the standard error of a variance, 2 / sqrt(1000) with heavy tails.
        np.testing.assert_allclose(spread, variance, rtol=0.25)


def test_posterior_of_diffusion_does_not_depend_on_the_nodes(responses: tuple[NDArray[np.float32], Array]) -> None:
    datasets = responses[0][:100]
    means, variances = diffusion.posterior(datasets)
    finer, _ = diffusion.posterior(datasets, (24, 32, 48))
    # Measured 1.2e-6.
    assert np.max(np.abs(finer - means) / np.sqrt(variances)) < 2.4e-6


def test_posterior_of_diffusion_is_as_far_off_as_it_says(responses: tuple[NDArray[np.float32], Array]) -> None:
    datasets, true = responses
    mean, variance = diffusion.posterior(datasets)
    z = (mean - true) / np.sqrt(variance)
    assert np.all(np.abs(z.mean(axis=0)) < 4 / np.sqrt(len(z)))
    assert np.all(np.abs(np.mean(z**2, axis=0) - 1) < 4 * np.std(z**2, axis=0) / np.sqrt(len(z)))


def test_ez_recovers_parameters_exactly_from_the_moments_of_the_law() -> None:
    v, a, t0 = np.random.default_rng(0).uniform([0.5, 0.8, 0.1], [3.5, 2.5, 0.6], (50, 3)).T
    c = v * a
    share = 1 / (1 + np.exp(-c))
    mean = t0 + a**2 * (1 - np.exp(-c)) / (1 + np.exp(-c)) / (2 * c)
    variance = a**4 * (1 - 2 * c * np.exp(-c) - np.exp(-2 * c)) / (2 * c**3 * (1 + np.exp(-c)) ** 2)
    # Measured 7e-14: the logit of a share near 1 loses digits.
    np.testing.assert_allclose(
        diffusion.ez_from_moments(share, mean, variance), np.stack([v, a, t0], axis=1), rtol=1.5e-13
    )


def test_ez_takes_datasets_without_an_error_or_with_as_many_errors_as_hits() -> None:
    datasets = np.random.default_rng(0).uniform(0.3, 0.9, (2, 200, 2)).astype(np.float32)
    datasets[0, :, 1] = 1
    datasets[1, :, 1] = np.arange(200) % 2
    assert np.isfinite(diffusion.ez(datasets)).all()


def test_maximum_likelihood_finds_what_a_search_in_all_three_parameters_finds(
    responses: tuple[NDArray[np.float32], Array],
) -> None:
    datasets, true = responses[0][:5], responses[1][:5]
    for dataset, point, found in zip(datasets, true, diffusion.maximum_likelihood(datasets), strict=True):
        search = optimize.minimize(
            lambda x, d=dataset: -float(log_likelihood(d, x[None])[0]),
            point,
            method="Nelder-Mead",
            options={"maxiter": 2000, "xatol": 1e-7, "fatol": 1e-9},
        )
        # Measured 3.7e-6 in a parameter, where the likelihood is flat, and 4e-9 in its logarithm.
        np.testing.assert_allclose(found, search.x, rtol=7.5e-6)
        assert float(log_likelihood(dataset, found[None])[0]) > -search.fun - 8e-9


def test_posterior_of_psychometric_agrees_with_draws_from_the_prior() -> None:
    sample = load_sample("psychometric")
    datasets, _ = sample.simulate(3, np.random.default_rng(1))
    means, variances = psychometric.posterior(datasets)
    rng = np.random.default_rng(2)
    points = rng.uniform(*np.array([sample.THRESHOLD, sample.WIDTH, sample.LAPSE]).T, (100_000, 3))
    for dataset, mean, variance in zip(datasets.astype(np.float64), means, variances, strict=True):
        log_weight = np.zeros(len(points))
        for stimulus, response in dataset:
            rate = sample.response_rate(stimulus, *points.T)
            log_weight += np.log(rate if response else 1 - rate)
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        sampled = weight @ points
        assert 1 / np.sum(weight**2) > 300, "too few of the samples count to tell anything"
        assert np.all(np.abs(sampled - mean) < 4 * np.sqrt(weight**2 @ (points - sampled) ** 2))
        np.testing.assert_allclose(weight @ (points - sampled) ** 2, variance, rtol=0.25)


def test_posterior_of_psychometric_does_not_depend_on_the_nodes_and_refuses_another_design() -> None:
    datasets, _ = load_sample("psychometric").simulate(50, np.random.default_rng(1))
    means, variances = psychometric.posterior(datasets)
    finer, _ = psychometric.posterior(datasets, (64, 56, 32))
    # Measured 2.5e-6.
    assert np.max(np.abs(finer - means) / np.sqrt(variances)) < 5e-6
    datasets[3, 0, 0] = datasets[3, 1, 0] = datasets[3, 2, 0]
    with pytest.raises(ValueError, match="do not have the same stimuli"):
        psychometric.posterior(datasets)


def test_decay_by_maximum_likelihood_is_least_squares_and_reaches_its_bound() -> None:
    datasets, true = load_sample("decay").simulate(2000, np.random.default_rng(4))
    true = true.astype(np.float64)
    found = decay.maximum_likelihood(datasets)
    x = datasets[0, :, 0].astype(np.float64)
    bound = decay.deviations(x, true)
    for dataset, estimate, deviation in zip(datasets[:10].astype(np.float64), found, bound, strict=False):
        fit, covariance = optimize.curve_fit(lambda x, a, k: a * np.exp(-k * x), x, dataset[:, 1], p0=estimate[:2])
        np.testing.assert_allclose(estimate[:2], fit, rtol=1e-10)  # measured 5e-11
        # curve_fit takes sigma from the residuals: 5% standard error, and the bound from the truth.
        np.testing.assert_allclose(np.sqrt(np.diag(covariance)), deviation[:2], rtol=0.2)
    z = (found - true) / bound
    assert np.all(np.abs(np.mean(z**2, axis=0) - 1) < 4 * np.std(z**2, axis=0) / np.sqrt(len(z)))
    # |z| has its median at .6745, sigma a relative deviation of 1 / sqrt(400): 3.37%. Measured 4e-7: .67449 is rounded.
    assert decay.least_relative_error(x, true, 0.5)[2] == pytest.approx(0.67449 / 20, rel=1e-6)


def test_limits_of_diffusion_are_those_that_are_known() -> None:
    trial = make_trial(DIFFUSION, 400, 1)
    limit, ez, likelihood = (rmse(estimates, trial.true) for estimates in trial.estimates.values())
    # Of 5,000 datasets .147, .104, .0129; of 400 the standard error is some 5%, of t0 8%.
    np.testing.assert_allclose(limit, [0.147, 0.104, 0.0129], rtol=0.25)
    assert np.all(limit < ez) and np.all(limit < likelihood)
    again = make_trial(DIFFUSION, 400, 1)
    assert all(np.array_equal(again.estimates[name], trial.estimates[name]) for name in trial.estimates)


def test_bars_are_met_by_the_limit_itself_and_missed_by_the_classical_estimators() -> None:
    trial = make_trial(DIFFUSION, 400, 1)
    perfect = bars_of(DIFFUSION, trial, trial.estimates[LIMIT])
    assert [bar.most for bar in perfect] == [1.06, 1.10, 1.15, 1.15, 1.15, 1.15, *6 * [1.0]]
    assert all(bar.met for bar in perfect)
    assert [(bar.value, bar.error) for bar in perfect[:6]] == 6 * [(1.0, 0.0)]
    for name in DIFFUSION.ahead:
        assert not any(bar.met for bar in bars_of(DIFFUSION, trial, trial.estimates[name])[:3])
    assert not Bar("a model that gave NaN", float("nan"), 0.0, 1.0).met


def test_error_bars_are_as_wide_as_ratios_scatter() -> None:
    """Normal errors: the ratio of two independent RMSE of n has a relative standard error of 1 / sqrt(n)."""
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 900, 3))
    trial = Trial(("v", "a", "t0"), np.zeros((900, 1, 1), np.float32), np.full((900, 3), 10.0), {})
    trial.estimates.update(dict.fromkeys(DIFFUSION.estimators, 10 + one))
    errors = [bar.error for bar in bars_of(DIFFUSION, trial, 10 + other)[:3]]
    # 400 resamples: 4% standard error.
    np.testing.assert_allclose(errors, 1 / 30, rtol=0.2)
