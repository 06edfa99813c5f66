"""Bounds of every tensor of a graph, from the input to the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from toolkit.proof import pieces
from toolkit.proof.apply import apply
from toolkit.proof.elementwise import RULES
from toolkit.proof.findings import Findings
from toolkit.proof.graph import INTEGER_RANGE, Graph, Operation, Tensor, Unsupported
from toolkit.proof.intervals import ARITHMETICS, Bounds
from toolkit.proof.relations import related, same_operand
from toolkit.proof.values import Value, any_value, constant_value

# Sizes are worked out for two datasets, so that an axis of length 1 is never taken for the batch.
OPEN_BATCH = 2


@dataclass(frozen=True)
class Bounded:
    """What is known of a graph's tensors.

    Attributes:
        values: by key; tensors behind an operation without a rule are missing.
        findings: where the proof is lost, where small numbers may become 0, what has no rule.
        open_batch: the file takes any number of datasets at once.
    """

    graph: Graph
    values: Mapping[str, Value]
    findings: Findings
    open_batch: bool


def propagate(graph: Graph, datasets: Bounds | None = None) -> Bounded:
    """Bounds of every tensor.

    Args:
        datasets: bounds of the input (batch, rows, columns); all finite numbers by default.
    """
    source = graph.tensors[graph.input]
    open_batch = source.shape[0] is None
    shape = (OPEN_BATCH if open_batch else source.shape[0] or 1, *(size or 1 for size in source.shape[1:]))
    values = {key: constant_value(tensor) for key, tensor in graph.tensors.items() if tensor.constant is not None}
    values[graph.input] = _all_finite(source, shape)
    if datasets is not None:
        values[graph.input] = values[graph.input].with_bounds(datasets)
    batched = _batched(graph)
    programs = pieces.find_programs(graph, batched)
    program_of = {operation.index: source for source, program in programs.items() for operation in program}
    findings = Findings()
    # Constants first: a program may read one that the file computes after the program's source.
    for operation in sorted(graph.operations, key=lambda operation: any(batched[key] for key in operation.outputs)):
        if operation.index in program_of:
            root = program_of[operation.index]
            program = programs.pop(root, ())  # the whole program at its first operation
            if root in values:
                values |= pieces.evaluate(graph, program, root, values, findings)
        elif all(key in values for key in operation.inputs if key):
            try:
                values |= zip(operation.outputs, _results(graph, operation, values, findings), strict=False)
            except Unsupported as problem:
                findings.unsupported[operation.index] = str(problem)
        for key in operation.inputs:
            if key and graph.tensors[key].stored and key not in values:
                findings.unsupported[operation.index] = f"its constant {graph.tensors[key].name} is of another type"
    return Bounded(graph, values, findings, open_batch)


def _results(graph: Graph, operation: Operation, values: Mapping[str, Value], findings: Findings) -> list[Value]:
    if operation.kind in RULES:
        result = related(graph, operation, values)
        if result is not None:
            return [result]
        operation = same_operand(operation)
    targets = [graph.tensors[key] for key in operation.outputs]
    return apply(operation, [values[key] if key else None for key in operation.inputs], targets, findings)


def _batched(graph: Graph) -> dict[str, bool]:
    """Does a tensor depend on the input?"""
    batched = {key: tensor.constant is None and key == graph.input for key, tensor in graph.tensors.items()}
    for operation in graph.operations:
        for key in operation.outputs:
            batched[key] = any(batched.get(source, False) for source in operation.inputs)
    return batched


def _all_finite(source: Tensor, shape: tuple[int, ...]) -> Value:
    if source.dtype in INTEGER_RANGE:
        return any_value(shape, source.dtype, source.quantization)
    largest = np.full(shape, ARITHMETICS[source.dtype].largest)
    return Value(Bounds(-largest, largest), source.dtype, batched=True)
