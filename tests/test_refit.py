"""Head refit against the normal equations, and what it must not do."""

from __future__ import annotations

import numpy as np
import pytest

from export.network import Dense
from export.refit import _ridge, refit, relative_weights

RNG = np.random.default_rng


def normal_equations(h: np.ndarray, e: np.ndarray, w: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Weighted ridge regression with a free offset, solved as one dense system."""
    extended = np.hstack([h, np.ones((len(h), 1))]) * w[:, None]
    penalized = np.diag([*np.full(h.shape[1], penalty), 0.0])
    *change, offset = np.linalg.solve(extended.T @ extended + penalized, extended.T @ (w * e))
    return np.array(change), offset


@pytest.mark.parametrize("datasets", [40, 15], ids=["more datasets than features", "fewer"])
def test_ridge_solves_the_normal_equations(datasets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.refit.CONVERGED", 1e-9)  # an export stops where more is of no use
    rng = RNG(1)
    h, e = rng.normal(3.0, 1.0, (datasets, 20)), rng.normal(size=(datasets, 3))
    w, penalties = rng.uniform(0.5, 2.0, (datasets, 3)), np.array([0.1, 5.0, np.inf])
    change, offset = _ridge(h, e, w, penalties)
    for column in (0, 1):
        expected, expected_offset = normal_equations(h, e[:, column], w[:, column], penalties[column])
        np.testing.assert_allclose(change[:, column], expected, atol=2e-6)  # measured 9e-7: conjugate gradients stop
        np.testing.assert_allclose(offset[column], expected_offset, atol=1e-5)
    assert not change[:, 2].any()
    assert offset[2] == pytest.approx(np.average(e[:, 2], weights=w[:, 2] ** 2))


def quantized_problem(datasets: int) -> tuple[Dense, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A head on features that were scaled, shifted and rounded, with unseen ones beside them."""
    rng = RNG(2)
    kernel = rng.normal(size=(200, 2)) / 14
    head = Dense(kernel.astype(np.float32), np.float32([0.1, -0.2]))
    mixing = rng.normal(size=(30, 200))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        h = np.maximum(rng.normal(size=(count, 30)) @ mixing, 0)
        return np.round(h * 1.02 + 0.3).astype(np.float32), h @ kernel + head.bias

    features, logits = draw(datasets)
    unseen, true = draw(1000)
    return head, features, logits, unseen, true


@pytest.mark.parametrize("datasets", [60, 150, 2000])
def test_refit_takes_back_most_of_a_systematic_error_on_unseen_features(datasets: int) -> None:
    head, features, logits, unseen, true = quantized_problem(datasets)
    found = refit(head, features, logits)
    before = np.sqrt(np.mean((unseen @ head.kernel + head.bias - true) ** 2))
    after = np.sqrt(np.mean((unseen @ found.head.kernel + found.head.bias - true) ** 2))
    # Measured .73, .65 and .60 of it; what is left at last is the rounding, which nothing can take back.
    assert after < 0.8 * before
    assert np.all(found.after < found.before)


def test_refit_leaves_a_head_alone_that_is_right() -> None:
    head, features, _, _, _ = quantized_problem(300)
    logits = features.astype(np.float64) @ head.kernel.astype(np.float64) + head.bias
    found = refit(head, features, logits)
    np.testing.assert_allclose(found.head.kernel, head.kernel, atol=1e-6)
    np.testing.assert_allclose(found.head.bias, head.bias, atol=1e-6)


def test_refit_moves_nothing_but_the_bias_when_errors_are_noise() -> None:
    rng = RNG(3)
    features = rng.normal(size=(100, 300)).astype(np.float32)
    head = Dense(np.zeros((300, 1), np.float32), np.zeros(1, np.float32))
    found = refit(head, features, 5.0 + rng.normal(size=(100, 1)))
    # The largest finite penalty shrinks the change to nothing as well: 1e-3 of what a fit of the noise would take.
    assert np.abs(found.head.kernel).max() < 5e-3
    assert found.head.bias[0] == pytest.approx(5.0, abs=0.3)


def test_refit_gives_the_same_head_again() -> None:
    head, features, logits, _, _ = quantized_problem(150)
    one, other = refit(head, features, logits), refit(head, features, logits)
    assert np.array_equal(one.head.kernel, other.head.kernel)


def test_refit_takes_features_that_never_vary() -> None:
    head, features, logits, _, _ = quantized_problem(150)
    features[:] = features[0]
    found = refit(head, features, logits)
    assert np.isfinite(found.head.kernel).all() and np.isfinite(found.head.bias).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refit_refuses_numbers_that_are_not_finite(value: float) -> None:
    head, features, logits, _, _ = quantized_problem(60)
    features[3, 5] = value
    with pytest.raises(ValueError, match="no finite number"):
        refit(head, features, logits)


def test_relative_weights_are_the_slope_of_the_logarithm_of_softplus() -> None:
    z = np.linspace(-40, 40, 17)
    step = 1e-5
    slope = (np.log(np.logaddexp(0, z + step)) - np.log(np.logaddexp(0, z - step))) / (2 * step)
    np.testing.assert_allclose(relative_weights(z), slope, rtol=1e-5)  # measured 4e-7: of the difference quotient
