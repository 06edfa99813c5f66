"""Elementwise programs of one tensor, evaluated over a fine partition of its range.

Plain intervals forget that two numbers come from the same logit: in a range reduction, r = a - n * log(2) with n =
floor(a / log(2) + 1/2), they give r the range of a. Here the range of the logit is cut into pieces; on each piece both
are nearly constant. Where n may jump inside a piece, the piece is taken twice, once with each n. The union of the
pieces is the whole range, so the hull of their results bounds the program: the partition decides how tight the bounds
are, never whether they hold.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.proof import intervals
from toolkit.proof.apply import apply_elementwise
from toolkit.proof.elementwise import RULES
from toolkit.proof.findings import Findings
from toolkit.proof.graph import FLOATS, Graph, Operation, Reals, Unsupported
from toolkit.proof.intervals import Bounds
from toolkit.proof.relations import related, same_operand
from toolkit.proof.values import Value

FINE_UNTIL = 128.0  # exp and tanh are constant, 0 or infinite in float32 beyond
FINEST_STEP = 2.0**-6
BUDGET = 100_000  # pieces times elements of one tensor


def find_programs(graph: Graph, batched: Mapping[str, bool]) -> dict[str, tuple[Operation, ...]]:
    """Elementwise programs by the tensor they are functions of, where that tensor is read more than once.

    A tensor read once needs no partition: nothing rejoins.
    """
    readers: dict[str, int] = {}
    for operation in graph.operations:
        for key in operation.inputs:
            readers[key] = readers.get(key, 0) + 1
    root: dict[str, str] = {}
    programs: dict[str, list[Operation]] = {}
    for operation in graph.operations:
        sources = {key for key in operation.inputs if batched.get(key, False)}
        roots = {root.get(key, key) for key in sources}
        if operation.kind not in RULES or len(roots) != 1:
            continue
        (source,) = roots
        if readers[source] == 1:
            continue  # the result may be a root itself
        root[operation.outputs[0]] = source
        programs.setdefault(source, []).append(operation)
    return {source: tuple(operations) for source, operations in programs.items() if len(operations) > 1}


def evaluate(
    graph: Graph, program: Sequence[Operation], source: str, values: Mapping[str, Value], findings: Findings
) -> dict[str, Value]:
    """Bounds of every result of an elementwise program, over all values of its source."""
    root = values[source]
    alike, back = _distinct(program, source, values)
    local = {source: alike.with_bounds(cut(alike))}
    for operation in program:
        if any(key and key not in local and key not in values for key in operation.inputs):
            continue
        if operation.kind == "floor":
            local = _distinguish(local, operation.inputs[0])
        known: Mapping[str, Value] = ChainMap(local, dict(values))
        result = related(graph, operation, known)
        if result is None:
            operation = same_operand(operation)
            target = graph.tensors[operation.outputs[0]]
            operands = [known[key] for key in operation.inputs if key]
            try:
                if any(len(operand.shape) > len(root.shape) for operand in operands if not operand.batched):
                    raise Unsupported("its constant has more axes than the datasets")
                result = apply_elementwise(operation, operands, target, findings)
            except Unsupported as problem:
                findings.unsupported[operation.index] = str(problem)
                continue
        local[operation.outputs[0]] = result
    del local[source]
    return {key: _everywhere(value, back, root.shape) for key, value in local.items()}


def _distinct(
    program: Sequence[Operation], source: str, values: Mapping[str, Value]
) -> tuple[Value, NDArray[np.intp] | None]:
    """The source with each pair of bounds once, (pairs, 1, ...), and which pair each element has.

    Only where all constants of the program are single numbers, so that equal bounds have equal results.
    """
    root = values[source]
    made = {operation.outputs[0] for operation in program} | {source}
    constants = [values[key] for operation in program for key in operation.inputs if key in values and key not in made]
    if any(constant.bounds.low.size > 1 for constant in constants):
        return root, None
    both = np.empty(root.bounds.low.size, dtype=np.complex128)  # NumPy sorts these pairs in C
    both.real, both.imag = (side.reshape(-1) for side in root.bounds)
    pairs, back = np.unique(both, return_inverse=True)
    shape = (-1, *[1] * (len(root.shape) - 1))
    return root.with_bounds(Bounds(pairs.real.reshape(shape), pairs.imag.reshape(shape))), back.reshape(-1)


def _everywhere(value: Value, back: NDArray[np.intp] | None, shape: tuple[int, ...]) -> Value:
    """The hull of the pieces, at every element of the source."""
    bounds = intervals.hull(value.bounds)
    if back is not None:
        bounds = Bounds(*(side.reshape(-1)[back].reshape(shape) for side in bounds))
    return value.with_bounds(bounds)


def cut(root: Value) -> Bounds:
    """(pieces, *shape): pieces whose union is the range of every element.

    A piece outside an element's range shrinks to an end point of it; an element of which nothing is known stays
    unknown.
    """
    low, high = root.bounds
    known = intervals.is_known(root.bounds)
    if not known.any() or low.size > BUDGET // 4:  # some hundred pieces are the fewest that help
        return Bounds(low[None], high[None])
    limit = max(16, BUDGET // low.size)
    edges = _edges(float(low[known].min()), float(high[known].max()), root.dtype in FLOATS, limit).reshape(
        -1, *[1] * low.ndim
    )
    starts, ends = (edges[:-1], edges[1:]) if len(edges) > 1 else (edges, edges)
    pieces = Bounds(np.clip(starts, low, high), np.clip(ends, low, high))
    return intervals.forget(pieces, np.broadcast_to(~known, pieces.low.shape))


def _edges(first: float, last: float, is_float: bool, limit: int) -> Reals:
    """Where to cut [first, last] into at most about `limit` pieces."""
    if not is_float:  # codes are whole numbers: halfway between them, as far as they are few
        count = min(limit, int(last - first) + 1)
        return np.linspace(first - 0.5, last + 0.5, count + 1)
    step = FINEST_STEP
    while True:
        even = np.arange(0, FINE_UNTIL, step)
        edges = np.concatenate(
            [2.0 ** np.arange(-126, np.log2(step)), even[1:], 2.0 ** np.arange(np.log2(FINE_UNTIL), 128, step * 8)]
        )
        both = np.concatenate([-edges[::-1], [0.0], edges])
        inside = both[(both > first) & (both < last)]
        if len(inside) < limit or step >= FINE_UNTIL / 2:
            return np.unique(np.concatenate([[first], inside, [last]]))
        step *= 2


def _distinguish(local: dict[str, Value], key: str) -> dict[str, Value]:
    """Take each piece in which a step function jumps by one twice: once below the jump, once above it.

    Only the argument of the step function is narrowed, to where its floor is one number; the
    tensors it came from keep the whole piece, which is wider than needed and therefore sound.
    """
    if key not in local:
        return local
    bounds = local[key].bounds
    jumps = np.floor(bounds.high) - np.floor(bounds.low) == 1
    axes = tuple(range(1, bounds.low.ndim))
    (twice,) = np.nonzero(jumps.any(axis=axes))
    if not len(twice) or len(twice) + len(bounds.low) > 4 * BUDGET // max(1, bounds.low[0].size):
        return local
    taken = np.concatenate([np.arange(len(bounds.low)), twice])
    copies = {
        name: value.with_bounds(Bounds(value.bounds.low[taken], value.bounds.high[taken]))
        for name, value in local.items()
    }
    edge = np.where(jumps, np.floor(bounds.high), np.inf)[taken]
    narrowed = copies[key].bounds
    first = np.arange(len(taken)).reshape(-1, *[1] * len(axes)) < len(bounds.low)
    below = np.nextafter(edge, -np.inf)
    narrowed = Bounds(
        np.where(np.isfinite(edge) & ~first, edge, narrowed.low),
        np.where(np.isfinite(edge) & first, below, narrowed.high),
    )
    copies[key] = copies[key].with_bounds(narrowed)
    return copies
