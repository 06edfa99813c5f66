"""Interval arithmetic against brute force: points inside the operands, all corners, a partition and its hull."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.proof import intervals, linear, pieces
from toolkit.proof.elementwise import RULES
from toolkit.proof.graph import Quantization
from toolkit.proof.intervals import FLOAT16, FLOAT32, Bounds
from toolkit.proof.values import Value, dequantized, quantized

QUICK = settings(max_examples=60, deadline=None)
FLOATS = st.floats(-1e6, 1e6, width=32)
INTERVALS = st.tuples(FLOATS, FLOATS).map(lambda pair: (min(pair), max(pair)))
POINTS = 9  # of each operand, its ends among them

# Each rule in float32 by NumPy, with the operands it is tried on. Where nothing is known, nothing is compared.
FUNCTIONS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "square": np.square,
    "div": np.divide,
    "min": np.minimum,
    "max": np.maximum,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "relu1": lambda x: np.clip(x, -1, 1),
    "clip": np.clip,
    "abs": np.abs,
    "neg": np.negative,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "pow": np.power,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(x, np.float32(0)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "leaky_relu": lambda x, slope: np.where(x > 0, x, slope * x),
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "select": lambda condition, a, b: np.where(condition > 0, a, b),
}
OPERANDS = {
    name: 1 for name in ("relu", "relu6", "relu1", "abs", "neg", "floor", "ceil", "round", "sqrt", "square", "exp")
}
OPERANDS |= {name: 1 for name in ("log", "sigmoid", "tanh", "softplus", "elu")} | {"clip": 3, "select": 3}


def test_every_rule_is_compared_below() -> None:
    assert FUNCTIONS.keys() == RULES.keys()


@QUICK
@given(operands=st.lists(INTERVALS, min_size=3, max_size=3))
@pytest.mark.parametrize("kind", RULES)
def test_a_rule_covers_every_point_of_its_operands(kind: str, operands: list[tuple[float, float]]) -> None:
    operands = operands[: OPERANDS.get(kind, 2)]
    bounds = [Bounds(np.array([low]), np.array([high])) for low, high in operands]
    rule = RULES[kind]
    with np.errstate(all="ignore"):
        exact = rule.rule(bounds, {})
        wide = intervals.rounded(exact, FLOAT32, rule.steps * FLOAT32.step + rule.relative, rule.absolute)
        if not intervals.is_known(wide).all():
            return
        for point in product(*(np.linspace(low, high, POINTS).astype(np.float32) for low, high in operands)):
            inside = [np.clip(one, *operand).astype(np.float32) for one, operand in zip(point, operands, strict=True)]
            result = float(FUNCTIONS[kind](*inside))
            assert wide.low[0] <= result <= wide.high[0], (kind, inside, result, wide)


@QUICK
@given(operands=st.lists(INTERVALS, min_size=2, max_size=2))
@pytest.mark.parametrize("kind", ["add", "sub", "mul", "min", "max", "square", "abs", "neg"])
def test_the_bounds_of_a_monotone_rule_are_attained(kind: str, operands: list[tuple[float, float]]) -> None:
    """Not only right but as narrow as can be: without this, (-inf, inf) would pass all tests."""
    operands = operands[: OPERANDS.get(kind, 2)]
    exact = RULES[kind].rule([Bounds(np.array([low]), np.array([high])) for low, high in operands], {})
    ends = [[low, high] + ([0.0] if low < 0 < high else []) for low, high in operands]
    values = [float(FUNCTIONS[kind](*map(np.float64, point))) for point in product(*ends)]
    assert exact.low[0] == min(values)
    assert exact.high[0] == max(values)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.0, 2.0, (1 - 2**-23, 2 + 2**-22)),
        (1e-39, 1e-3, (0.0, 1e-3 * (1 + 2**-23))),  # may be flushed
        (-1e-3, -1e-39, (-1e-3 * (1 + 2**-23), 0.0)),
        (0.0, 1e-40, (0.0, 1e-40 * (1 + 2**-23) + 2**-149)),
        (2**-126 * (1 + 2**-22), 1.0, (2**-126 * (1 + 2**-22) * (1 - 2**-23), 1 + 2**-23)),
        (0.0, FLOAT32.largest * (1 + 2**-26), (0.0, FLOAT32.largest)),  # rounds to the largest number
    ],
)
def test_rounded_widens_outward_and_lets_small_results_vanish(
    low: float, high: float, expected: tuple[float, float]
) -> None:
    result = intervals.rounded(Bounds(np.array([low]), np.array([high])), FLOAT32, FLOAT32.step)
    assert (result.low[0], result.high[0]) == expected


@pytest.mark.parametrize(("arithmetic", "reach"), [(FLOAT32, 3.41e38), (FLOAT16, 65521.0)])
def test_rounded_knows_nothing_of_what_may_overflow(arithmetic: intervals.Arithmetic, reach: float) -> None:
    low, high = np.array([0.0, 0.0]), np.array([reach, 1.0])
    result = intervals.rounded(Bounds(low, high), arithmetic, 0.0)
    assert intervals.is_known(result).tolist() == [False, True]


@QUICK
@given(seed=st.integers(0, 2**32 - 1))
def test_a_dot_product_is_bounded_by_its_corners(seed: int) -> None:
    """A sum is largest at a corner of the box of its inputs: with six inputs all 64 can be tried."""
    rng = np.random.default_rng(seed)
    data = Bounds(*np.sort(rng.normal(size=(2, 1, 6)), axis=0))
    kernel, bias = intervals.point(rng.normal(size=(6, 3))), intervals.point(rng.normal(size=3))
    exact = linear.dot(data, kernel, bias).exact
    corners = np.array(list(product(*zip(data.low[0], data.high[0], strict=True))))
    sums = corners @ kernel.low + bias.low
    np.testing.assert_allclose(exact.low[0], sums.min(axis=0), rtol=0, atol=1e-14)
    np.testing.assert_allclose(exact.high[0], sums.max(axis=0), rtol=0, atol=1e-14)


def test_a_dot_product_of_an_uncertain_kernel_covers_both_its_ends() -> None:
    rng = np.random.default_rng(0)
    data = Bounds(*np.sort(rng.normal(size=(2, 4, 6)), axis=0))
    kernel = Bounds(*np.sort(rng.normal(size=(2, 6, 3)), axis=0))
    exact = linear.dot(data, kernel, None).exact
    for _ in range(500):
        weights = np.where(rng.integers(2, size=(6, 3)), kernel.low, kernel.high)
        sums = rng.uniform(data.low, data.high) @ weights
        assert np.all((sums >= exact.low) & (sums <= exact.high))


def test_a_sum_whose_parts_overflow_is_unknown_although_the_whole_does_not() -> None:
    """3e38 + 3e38 - 3e38 - 3e38 is 0, and infinite on the way."""
    data = intervals.point(np.full((1, 4), 3e38))
    kernel = intervals.point(np.array([[1.0], [1.0], [-1.0], [-1.0]]))
    sums = linear.dot(data, kernel, None)
    assert sums.exact.low[0, 0] == sums.exact.high[0, 0] == 0
    assert not intervals.is_known(sums.rounded(FLOAT32)).any()


def test_rounding_of_a_sum_follows_its_terms_not_its_result() -> None:
    """1e8 - 1e8 + 1 may come out as anything between -8 and 10, by the order of the sum."""
    data = intervals.point(np.array([[1e8, 1e8, 1.0]]))
    bounds = linear.dot(data, intervals.point(np.array([[1.0], [-1.0], [1.0]])), None).rounded(FLOAT32)
    orders = {np.float32(np.float32(1e8) + np.float32(1)) - np.float32(1e8), np.float32(1)}
    assert orders == {np.float32(0), np.float32(1)}
    assert all(bounds.low[0, 0] <= one <= bounds.high[0, 0] for one in orders)
    assert bounds.high[0, 0] < 200  # 6 roundings of 2e8


@QUICK
@given(bounds=st.lists(INTERVALS, min_size=2, max_size=2), point=st.floats(0, 1))
def test_pieces_cover_the_whole_range_of_every_element(bounds: list[tuple[float, float]], point: float) -> None:
    low, high = (np.array([side], dtype=np.float64) for side in zip(*bounds, strict=True))
    cut = pieces.cut(Value(Bounds(low, high), "float32", batched=True))
    assert np.all(cut.low >= low) and np.all(cut.high <= high)
    somewhere = low + point * (high - low)
    assert np.all(((cut.low <= somewhere) & (cut.high >= somewhere)).any(axis=0))


@QUICK
@given(code=st.integers(-128, 127), zero_point=st.integers(-128, 127), scale=st.floats(1e-3, 10))
def test_codes_and_reals_come_back(code: int, zero_point: int, scale: float) -> None:
    quantization = Quantization(np.array([scale]), np.array([float(zero_point)]))
    one = intervals.point(np.array([float(code)]))
    real = dequantized(one, quantization)
    assert real.low[0] == pytest.approx(scale * (code - zero_point))
    assert quantized(real, quantization, "int8", step=0.0) == one
    wide = quantized(real, quantization, "int8")
    assert (wide.low[0], wide.high[0]) == (max(code - 1, -128), min(code + 1, 127))
