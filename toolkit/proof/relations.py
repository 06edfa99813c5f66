"""What intervals cannot see: two operands that are the same number, or one made from the other.

x - min(x, y) is never negative: where the minimum is x it is exactly 0, elsewhere x is larger than y. Plain intervals
only know that x and min(x, y) lie in the same range, and would give half of it a negative sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from toolkit.proof import intervals
from toolkit.proof.graph import FLOATS, NOTHING, Graph, Operation
from toolkit.proof.intervals import ARITHMETICS, Bounds
from toolkit.proof.values import Value


def same_operand(operation: Operation) -> Operation:
    """x * x is a square: never negative."""
    if operation.kind == "mul" and operation.inputs[0] == operation.inputs[1]:
        return replace(operation, kind="square", inputs=operation.inputs[:1])
    return operation


def related(graph: Graph, operation: Operation, bounds_of: Mapping[str, Value]) -> Value | None:
    """The result of a difference whose operands share a tensor; None where no such relation is seen.

    Seen, on floats: x - min(x, y, ...), max(x, y, ...) - x, relu(x) - x, |x| - x, |x| + x, x - x, none of which can be
    negative, and x - (x - y), which is y but for rounding.
    """
    if operation.kind not in ("sub", "add") or operation.activation:
        return None
    a, b = operation.inputs
    if bounds_of[a].dtype not in FLOATS or bounds_of[a].shape != bounds_of[b].shape:
        return None
    below = _maker(graph, b)
    if operation.kind == "sub" and below.kind == "sub" and below.inputs[0] == a:
        return _given_back(bounds_of[a], bounds_of[b], bounds_of[below.inputs[1]])
    differences = _differences(graph, operation.kind, a, b, bounds_of)
    if differences is None or not (bounds_of[a].known and bounds_of[b].known):
        return None
    shape, tiny = bounds_of[a].shape, ARITHMETICS[bounds_of[a].dtype].smallest_normal
    # One of two kernels may flush a subnormal x to 0, the other not: then x - x is x, not 0.
    both = np.minimum(*(intervals.absolute(bounds_of[key].bounds).low for key in (a, b)))
    zero = np.where(both < tiny, tiny, 0.0)
    result = Bounds(-zero, zero)
    for difference in differences:
        result = intervals.maximum(result, difference)
    result = Bounds(*(np.broadcast_to(side, shape) for side in result))
    return replace(bounds_of[a], bounds=result) if intervals.is_known(result).all() else None


def _maker(graph: Graph, key: str) -> Operation:
    """The operation whose plain result a tensor is; one of no kind where an activation is fused behind it."""
    operation = graph.producer(key)
    return NOTHING if operation.activation else operation


def _minus(a: Value, b: Value) -> Bounds:
    """Bounds of the rounded difference; it is exact where b is 0."""
    exact = intervals.subtract(a.bounds, b.bounds)
    if not b.bounds.low.any() and not b.bounds.high.any():
        return exact
    return intervals.rounded(exact, ARITHMETICS[a.dtype], ARITHMETICS[a.dtype].step)


def _given_back(x: Value, difference: Value, y: Value) -> Value | None:
    """x - (x - y): y, and the rounding of both differences. Veltkamp's splitting takes the leading bits of y so."""
    if not (x.known and y.known) or y.shape != x.shape or not difference.known:
        return None
    arithmetic = ARITHMETICS[x.dtype]
    tiny = intervals.absolute(difference.bounds).low < arithmetic.smallest_normal  # flushed, it would give back nothing
    error = arithmetic.step * intervals.magnitude(difference.bounds) + np.where(tiny, arithmetic.smallest_normal, 0.0)
    near = Bounds(y.bounds.low - error, y.bounds.high + error)
    result = intervals.rounded(near, arithmetic, arithmetic.step)
    return replace(x, bounds=result) if intervals.is_known(result).all() else None


def _differences(graph: Graph, kind: str, a: str, b: str, bounds_of: Mapping[str, Value]) -> list[Bounds] | None:
    """The result is the largest of 0 and these."""
    above, below = _maker(graph, a), _maker(graph, b)
    x, y = bounds_of[a], bounds_of[b]
    if kind == "sub" and a == b:
        return []
    if kind == "sub" and below.kind == "min" and a in below.inputs:
        return [_minus(x, bounds_of[key]) for key in below.inputs if key != a]
    if kind == "sub" and above.kind == "max" and b in above.inputs:
        return [_minus(bounds_of[key], y) for key in above.inputs if key != b]
    if kind == "sub" and above.kind == "relu" and above.inputs == (b,):
        return [intervals.negate(y.bounds)]
    if kind == "sub" and above.kind == "abs" and above.inputs == (b,):
        return [_minus(_negative(y), y)]
    for size, number in ((above, y), (below, x)):
        if kind == "add" and size.kind == "abs" and bounds_of[size.inputs[0]] is number:
            return [_minus(number, _negative(number))]
    return None


def _negative(value: Value) -> Value:
    return value.with_bounds(intervals.negate(value.bounds))
