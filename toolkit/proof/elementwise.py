"""Operations that work on each element by itself: their bounds in real arithmetic, and the error a kernel may add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.proof import intervals
from toolkit.proof.graph import Operation, Reals
from toolkit.proof.intervals import Bounds, increasing

# XNNPACK's EXP loses 0.7 units in the last place for each unit of its argument: 62 at -86, 7.4e-6 relative. This is 4
# times that.
TRANSCENDENTAL = 2.0**-15
# LOG, sigmoid and the like are built from EXP and sums in some runtimes (OpenVINO's softplus gives -1.9e-6 at -20), so
# an absolute error is granted too.
CANCELLATION = 2.0**-16
# Measured over 4 million float32 patterns in LiteRT 2.3 on x86: XNNPACK's EXP is infinite above 88.376 (the true one
# above 88.72), LOG infinite below 2^-126 and above 2.4e38, the sigmoid NaN beyond +-8.6e26, SQRT wrong near 3.4e38.
EXP_DOMAIN = (-np.inf, 88.0)
LOG_DOMAIN = (2.0**-126, 2.0**127)
SIGMOID_DOMAIN = (-(2.0**80), 2.0**80)
SQRT_DOMAIN = (0.0, 2.0**126)

Rule = Callable[[Sequence[Bounds], Mapping[str, Any]], Bounds]


@dataclass(frozen=True)
class Elementwise:
    """A rule and its error.

    Attributes:
        rule: bounds in real arithmetic.
        steps: roundings, each of one relative step of the arithmetic; 0 for operations that only choose or flip a sign.
        relative, absolute: granted beside those.
        domain: where kernels are right; beyond, XNNPACK's give infinity, NaN or worse for arguments that have a result.
        positive: meant to be positive whatever the argument, so that a result of 0 has vanished.
    """

    rule: Rule
    steps: int = 0
    relative: float = 0.0
    absolute: float = 0.0
    domain: tuple[float, float] = (-np.inf, np.inf)
    positive: bool = False


def _unary(function: Callable[[Bounds], Bounds]) -> Rule:
    return lambda operands, attributes: function(operands[0])


def _binary(function: Callable[[Bounds, Bounds], Bounds]) -> Rule:
    return lambda operands, attributes: function(operands[0], operands[1])


def _fold(function: Callable[[Bounds, Bounds], Bounds]) -> Rule:
    """ONNX's Min and Max take any number of operands."""

    def rule(operands: Sequence[Bounds], attributes: Mapping[str, Any]) -> Bounds:
        result = operands[0]
        for operand in operands[1:]:
            result = function(result, operand)
        return result

    return rule


def _clip(operands: Sequence[Bounds], attributes: Mapping[str, Any]) -> Bounds:
    """Limits come as attributes, or as operands two and three."""
    result = operands[0]
    low = operands[1] if len(operands) > 1 else intervals.point(attributes.get("low", -np.inf))
    high = operands[2] if len(operands) > 2 else intervals.point(attributes.get("high", np.inf))
    return intervals.minimum(intervals.maximum(result, low), high)


def _sigmoid(x: Reals) -> Reals:
    tail = np.exp(-np.abs(x))
    return np.where(x < 0, tail, 1.0) / (1 + tail)


def _softplus(x: Reals) -> Reals:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _elu(operands: Sequence[Bounds], attributes: Mapping[str, Any]) -> Bounds:
    alpha = float(attributes.get("alpha", 1.0))
    if not 0 <= alpha <= 1:
        return intervals.unknown(operands[0].low.shape)
    return increasing(lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))))(operands[0])


def _leaky_relu(operands: Sequence[Bounds], attributes: Mapping[str, Any]) -> Bounds:
    slope = intervals.point(float(attributes["alpha"])) if "alpha" in attributes else operands[1]
    x = operands[0]
    below = intervals.multiply(intervals.minimum(x, intervals.point(0.0)), slope)
    above = intervals.maximum(x, intervals.point(0.0))
    # One of the two terms is 0 for every single x, but both may be needed to cover the interval.
    low = np.where(x.low >= 0, above.low, np.minimum(below.low, np.where(x.high > 0, 0.0, below.low)))
    high = np.where(x.high <= 0, below.high, np.maximum(above.high, np.where(x.low < 0, below.high, above.high)))
    return Bounds(low, high)


def _compare(decided_true: Callable[[Bounds, Bounds], Any], decided_false: Callable[[Bounds, Bounds], Any]) -> Rule:
    """1 where the comparison holds, 0 where it does not, [0, 1] where it depends."""

    def rule(operands: Sequence[Bounds], attributes: Mapping[str, Any]) -> Bounds:
        a, b = operands
        low = np.where(decided_true(a, b), 1.0, 0.0)
        return Bounds(low, np.where(decided_false(a, b), 0.0, 1.0))

    return rule


def _select(operands: Sequence[Bounds], attributes: Mapping[str, Any]) -> Bounds:
    condition, a, b = operands
    low = np.where(condition.low > 0, a.low, np.where(condition.high <= 0, b.low, np.minimum(a.low, b.low)))
    high = np.where(condition.low > 0, a.high, np.where(condition.high <= 0, b.high, np.maximum(a.high, b.high)))
    return Bounds(low, high)


def _log(x: Reals) -> Reals:
    return np.log(np.where(x > 0, x, np.nan))  # NaN: no finite value, forgotten by the rounding


def _root(x: Reals) -> Reals:
    return np.sqrt(np.where(x >= 0, x, np.nan))


def _squashing(function: Callable[[Bounds], Bounds], **more: Any) -> Elementwise:
    return Elementwise(_unary(function), relative=TRANSCENDENTAL, absolute=CANCELLATION, **more)


RULES: Mapping[str, Elementwise] = {
    "add": Elementwise(_binary(intervals.add), steps=1),
    "sub": Elementwise(_binary(intervals.subtract), steps=1),
    "mul": Elementwise(_binary(intervals.multiply), steps=1),
    "square": Elementwise(_unary(intervals.square), steps=1),
    "div": Elementwise(_binary(intervals.divide), steps=2),
    "min": Elementwise(_fold(intervals.minimum)),
    "max": Elementwise(_fold(intervals.maximum)),
    "clip": Elementwise(_clip),
    "relu": Elementwise(lambda operands, attributes: _clip(operands, {"low": 0.0})),
    "relu6": Elementwise(lambda operands, attributes: _clip(operands, {"low": 0.0, "high": 6.0})),
    "relu1": Elementwise(lambda operands, attributes: _clip(operands, {"low": -1.0, "high": 1.0})),
    "leaky_relu": Elementwise(_leaky_relu, steps=1),
    "abs": Elementwise(_unary(intervals.absolute)),
    "neg": Elementwise(_unary(intervals.negate)),
    "floor": Elementwise(_unary(increasing(np.floor))),
    "ceil": Elementwise(_unary(increasing(np.ceil))),
    "round": Elementwise(_unary(increasing(np.round))),
    "sqrt": Elementwise(_unary(increasing(_root)), steps=2, domain=SQRT_DOMAIN),
    "exp": Elementwise(_unary(increasing(np.exp)), relative=TRANSCENDENTAL, domain=EXP_DOMAIN, positive=True),
    "log": _squashing(increasing(_log), domain=LOG_DOMAIN, positive=True),
    "pow": Elementwise(_binary(intervals.power), relative=TRANSCENDENTAL),
    "sigmoid": _squashing(increasing(_sigmoid), domain=SIGMOID_DOMAIN, positive=True),
    "tanh": _squashing(increasing(np.tanh)),
    "softplus": _squashing(increasing(_softplus), positive=True),
    "elu": Elementwise(_elu, steps=2, relative=TRANSCENDENTAL, absolute=CANCELLATION),
    "less": Elementwise(_compare(lambda a, b: a.high < b.low, lambda a, b: a.low >= b.high)),
    "less_equal": Elementwise(_compare(lambda a, b: a.high <= b.low, lambda a, b: a.low > b.high)),
    "greater": Elementwise(_compare(lambda a, b: a.low > b.high, lambda a, b: a.high <= b.low)),
    "greater_equal": Elementwise(_compare(lambda a, b: a.low >= b.high, lambda a, b: a.high < b.low)),
    "select": Elementwise(_select),
}
COMPARISONS = ("less", "less_equal", "greater", "greater_equal")
CHOOSES = ("min", "max", "clip")  # on codes of equal scale these choose, they do not compute


def activated(operation: Operation, exact: Bounds) -> Bounds:
    """Bounds behind the fused activation. Those with a rule only cut: exact, before or after the rounding."""
    if not operation.activation:
        return exact
    return intervals.forget(RULES[operation.activation].rule([exact], {}), ~intervals.is_known(exact))
