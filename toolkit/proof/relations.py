"""What intervals cannot see: two operands that are the same number, or one made from the other.

x - min(x, y) is never negative: where the minimum is x it is exactly 0, elsewhere x is larger than y. Plain intervals
only know that x and min(x, y) lie in the same range, and would give half of it a negative sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from toolkit.proof import intervals
from toolkit.proof.graph import FLOATS, Graph, Operation
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
    if operation.kind == "sub" and graph.producer(b).kind == "sub" and graph.producer(b).inputs[0] == a:
        return _given_back(bounds_of[a], bounds_of[b], bounds_of[graph.producer(b).inputs[1]])
    differences = _differences(graph, operation.kind, a, b, bounds_of)
    if differences is None or not (bounds_of[a].known and bounds_of[b].known):
        return None
    arithmetic = ARITHMETICS[bounds_of[a].dtype]
    shape = bounds_of[a].shape
    result = intervals.point(np.zeros(shape))
    for difference in differences:
        result = intervals.maximum(result, intervals.rounded(difference, arithmetic, arithmetic.step))
    result = Bounds(*(np.broadcast_to(side, shape) for side in result))
    return replace(bounds_of[a], bounds=result) if intervals.is_known(result).all() else None


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

    def bounds(key: str) -> Bounds:
        return bounds_of[key].bounds

    above, below = graph.producer(a), graph.producer(b)
    if kind == "sub" and a == b:
        return []
    if kind == "sub" and below.kind == "min" and a in below.inputs:
        return [intervals.subtract(bounds(a), bounds(key)) for key in below.inputs if key != a]
    if kind == "sub" and above.kind == "max" and b in above.inputs:
        return [intervals.subtract(bounds(key), bounds(b)) for key in above.inputs if key != b]
    if kind == "sub" and above.kind == "relu" and above.inputs == (b,):
        return [intervals.negate(bounds(b))]
    if kind == "sub" and above.kind == "abs" and above.inputs == (b,):
        return [intervals.negate(intervals.add(bounds(b), bounds(b)))]
    for size, number in ((above, b), (below, a)):
        if kind == "add" and size.kind == "abs" and size.inputs == (number,):
            return [intervals.add(bounds(number), bounds(number))]
    return None
