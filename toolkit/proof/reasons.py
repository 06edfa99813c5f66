"""Why a file is refused, in words: the operation at which the proof is lost, and what it may give there."""

from __future__ import annotations

from itertools import chain

import numpy as np

from toolkit.proof.conversions import CONVERSIONS
from toolkit.proof.elementwise import RULES
from toolkit.proof.findings import describe
from toolkit.proof.graph import FLOATS, Operation
from toolkit.proof.intervals import Bounds
from toolkit.proof.moves import MOVES
from toolkit.proof.propagate import Bounded
from toolkit.proof.values import reals


def reasons(bounded: Bounded, columns: list[Bounds], required: float) -> tuple[str, ...]:
    """What stands against the file; nothing where every output is finite and at least `required`.

    Args:
        columns: for each output tensor, bounds of its columns.
    """
    broken = unreadable(bounded)
    if broken:
        return broken
    failures = []
    first = 0
    for key, bounds in zip(bounded.graph.outputs, columns, strict=True):
        small = np.flatnonzero(~(bounds.low >= required) | ~np.isfinite(bounds.high))
        if small.size:
            which = ", ".join(str(first + column) for column in small)
            word = "output" if small.size == 1 else "outputs"
            failures.append(f"{word} {which} may be {bounds.low[small].min():.3g}: {_reason(bounded, key)}")
        first += bounds.low.size
    return tuple(failures)


def unreadable(bounded: Bounded) -> tuple[str, ...]:
    """What stands against a file whatever its outputs are: operations that no rule bounds, outputs without an input."""
    return (*_broken_constants(bounded), *_lost_operations(bounded), *_outputs_without_input(bounded))


def _broken_constants(bounded: Bounded) -> list[str]:
    graph = bounded.graph
    failures = []
    for key, tensor in graph.tensors.items():
        if tensor.constant is not None and tensor.dtype in FLOATS and not np.isfinite(tensor.constant).all():
            readers = [graph.name(operation) for operation in graph.operations if key in operation.inputs]
            failures.append(f"{', '.join(readers) or 'unused'}: its constant {tensor.name} holds NaN or infinity")
    return failures


def _lost_operations(bounded: Bounded) -> list[str]:
    """In file order, so that the first is where to look."""
    graph, findings = bounded.graph, bounded.findings
    failures = []
    for operation in graph.operations:
        problem = findings.unsupported.get(operation.index)
        if problem is not None:
            failures.append(f"{graph.name(operation)}: {problem}; its result is unknown")
        if operation.index in findings.lost:
            failures.append(f"{graph.name(operation)}: {findings.lost[operation.index]}")
    return failures


def _outputs_without_input(bounded: Bounded) -> list[str]:
    tensors, values = bounded.graph.tensors, bounded.values
    return [
        f"output {tensors[key].name}: does not depend on the input"
        for key in bounded.graph.outputs
        if key in values and not values[key].batched
    ]


def _reason(bounded: Bounded, output: str) -> str:
    """The operation behind an output that is too small at which it stops being positive.

    Walks back through operands that may be 0 or less, to a positive result that may vanish, else to the last operation
    that is not elementwise.
    """
    graph = bounded.graph
    waiting, seen = [output], set[str]()
    last = graph.producer(output)
    if output not in bounded.values:
        return "nothing is known of it"
    while waiting:
        key = waiting.pop(0)
        operation = graph.producer(key)
        if key in seen or operation.index < 0:
            continue
        seen.add(key)
        if operation.index in bounded.findings.vanished:
            return f"{graph.name(operation)}: {bounded.findings.vanished[operation.index]}"
        if _passes_on(operation):
            waiting += [source for source in operation.inputs if _may_vanish(bounded, source)]
        else:
            last = operation
    return f"{graph.name(last)}: its result lies in {describe(reals(bounded.values[last.outputs[0]]))}"


def _passes_on(operation: Operation) -> bool:
    return operation.kind in RULES or operation.kind in chain(MOVES, CONVERSIONS)


def _may_vanish(bounded: Bounded, key: str) -> bool:
    value = bounded.values.get(key)
    return value is not None and value.batched and bool((reals(value).low <= 0).any())
