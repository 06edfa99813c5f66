"""A float32 file as hardware reads it that computes in float16: the same graph, every number in half precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from toolkit.errors import ModelError
from toolkit.proof.graph import Graph, Operation, Tensor
from toolkit.proof.verdict import Proof

CUTS = ("min", "max", "clip")


def in_half(path: Path, graph: Graph) -> Graph:
    """The graph with float16 in place of float32; constants beyond 65504 are infinite in it.

    Raises:
        ModelError: a dataset's number beyond 65504, which is infinite in float16, would be computed with.
    """
    _check_cut(path, graph)
    tensors = {key: _tensor_in_half(tensor) for key, tensor in graph.tensors.items()}
    operations = tuple(_operation_in_half(operation) for operation in graph.operations)
    return replace(graph, tensors=tensors, operations=operations)


def _check_cut(path: Path, graph: Graph) -> None:
    """Minimum and maximum, which are all that infinity may go through, on both sides, first of all."""
    key, open_sides = graph.input, {"min", "max"}
    while open_sides:
        readers = [operation for operation in graph.operations if key in operation.inputs]
        if len(readers) != 1 or readers[0].kind not in CUTS or key in graph.outputs:
            names = ", ".join(graph.name(operation) for operation in readers) or "nothing"
            raise ModelError(
                f"{path}: not for float16 arithmetic: numbers beyond 65504 are infinite there, and {names} computes "
                "with them. Export it so: toolkit export --arithmetic float16"
            )
        open_sides -= {"min", "max"} if readers[0].kind == "clip" else {readers[0].kind}
        key = readers[0].outputs[0]


def _tensor_in_half(tensor: Tensor) -> Tensor:
    if tensor.dtype != "float32":
        return tensor
    with np.errstate(over="ignore"):
        constant = None if tensor.constant is None else tensor.constant.astype(np.float16)
    return replace(tensor, dtype="float16", constant=constant)


def _operation_in_half(operation: Operation) -> Operation:
    if operation.attributes.get("dtype") != "float32":
        return operation
    return replace(operation, attributes={**operation.attributes, "dtype": "float16"})


def worse_of(float32: Proof, float16: Proof) -> Proof:
    """What holds in either arithmetic; what is asked is the smallest normal float16."""
    worst = replace(
        float16,
        lower=tuple(map(min, float32.lower, float16.lower)),
        upper=tuple(map(max, float32.upper, float16.upper)),
        failures=(*float32.failures, *(f"in float16 arithmetic, {failure}" for failure in float16.failures)),
    )
    passed = float32.passed and float16.passed and min(worst.lower) >= worst.required
    return replace(worst, passed=passed)
