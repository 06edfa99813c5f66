"""From bounds to a verdict that people can read: the bound of each output, and where a proof fails, why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.errors import ModelError
from toolkit.proof.dots import DOTS
from toolkit.proof.elementwise import RULES
from toolkit.proof.graph import FLOATS, INTEGER_RANGE, Graph, Operation
from toolkit.proof.intervals import ARITHMETICS, Bounds
from toolkit.proof.moves import MOVES
from toolkit.proof.propagate import Bounded, propagate
from toolkit.proof.values import reals


@dataclass(frozen=True)
class Proof:
    """What an exported file can give, for every finite input.

    Attributes: format: `tflite` or `onnx`. arithmetic: of the outputs, `float32` or `float16`; `int8` where they are
        codes. operations: in the file. lower, upper: of each output, in the order of the file's outputs and their
        columns; infinite where nothing is known. passed: every output is finite and at least `required`, and no
        operation may overflow or give NaN. required: the smallest normal number of the arithmetic. failures: why not,
        for people; each names an operation. assumptions: what the bounds rest on, one sentence each. input_limit:
        largest magnitude that passes the limit the file begins with; None without one. logit_lower, logit_upper: of
        each last dot product; empty where the outputs are not made from one each.
    """

    format: str
    arithmetic: str
    operations: int
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    passed: bool
    required: float
    failures: tuple[str, ...]
    assumptions: tuple[str, ...]
    input_limit: float | None
    logit_lower: tuple[float, ...]
    logit_upper: tuple[float, ...]


def judge(path: Path, graph: Graph) -> Proof:
    """The verdict on a file that has been read.

    Raises:
        ModelError: the input is not one floating-point or quantized tensor (batch, rows, columns).
    """
    source = graph.tensors[graph.input]
    if len(source.shape) < 2 or None in source.shape[1:] or source.dtype not in (*FLOATS, *INTEGER_RANGE):
        sizes = ", ".join("?" if size is None else str(size) for size in source.shape)
        raise ModelError(
            f"{path}: its input {source.name} is {source.dtype or 'of another type'} ({sizes}); "
            "a proof needs numbers (batch, rows, columns) with fixed rows and columns. Export the model again."
        )
    with np.errstate(all="ignore"):  # infinities are results here, and are looked for
        bounded = propagate(graph)
        lower, upper = (np.concatenate([_columns(bounded, key)[side] for key in graph.outputs]) for side in (0, 1))
        logits = [_logits(bounded, key) for key in graph.outputs]
    arithmetic = _arithmetic(bounded)
    required = ARITHMETICS.get(arithmetic, ARITHMETICS["float32"]).smallest_normal
    failures = _failures(bounded, lower, upper, required)
    known = [bounds for bounds in logits if bounds is not None]
    return Proof(
        format=graph.format,
        arithmetic=arithmetic,
        operations=len(graph.operations),
        lower=tuple(lower.tolist()),
        upper=tuple(upper.tolist()),
        passed=not failures and bool(np.all(lower >= required) and np.all(np.isfinite(upper))),
        required=required,
        failures=failures,
        assumptions=_assumptions(bounded, arithmetic),
        input_limit=_input_limit(bounded),
        logit_lower=tuple(number for bounds in known for number in bounds.low.tolist()),
        logit_upper=tuple(number for bounds in known for number in bounds.high.tolist()),
    )


def _columns(bounded: Bounded, key: str) -> Bounds:
    """Bounds of each column of an output, over the datasets of a batch."""
    value = bounded.values.get(key)
    if value is None:
        return Bounds(np.array([-np.inf]), np.array([np.inf]))
    bounds = reals(value)
    return Bounds(
        bounds.low.reshape(-1, bounds.low.shape[-1]).min(axis=0),
        bounds.high.reshape(-1, bounds.low.shape[-1]).max(axis=0),
    )


def _arithmetic(bounded: Bounded) -> str:
    kinds = {bounded.values[key].dtype for key in bounded.graph.outputs if key in bounded.values}
    return "float16" if "float16" in kinds else next(iter(sorted(kinds)), "float32")


def _failures(bounded: Bounded, lower: np.ndarray, upper: np.ndarray, required: float) -> tuple[str, ...]:
    """First what loses a proof outright, in file order; then what each output that is too small comes from."""
    graph, findings = bounded.graph, bounded.findings
    failures = []
    for key, tensor in graph.tensors.items():
        if tensor.constant is not None and tensor.dtype in FLOATS and not np.isfinite(tensor.constant).all():
            readers = [operation for operation in graph.operations if key in operation.inputs]
            reader = f", read by {graph.name(readers[0])}" if readers else ""
            failures.append(f"constant {tensor.name}{reader}: holds NaN or infinity")
    for operation in graph.operations:
        if operation.index in findings.unsupported:
            failures.append(f"{graph.name(operation)}: {findings.unsupported[operation.index]}; its result is unknown")
        if operation.index in findings.lost:
            failures.append(f"{graph.name(operation)}: {findings.lost[operation.index]}")
    for key in graph.outputs:
        value = bounded.values.get(key)
        if value is None and not failures:
            failures.append(f"output {graph.tensors[key].name}: nothing is known of it")
        elif value is not None and not value.batched:
            failures.append(f"output {graph.tensors[key].name}: does not depend on the input")
    small = ~(lower >= required) | ~np.isfinite(upper)
    if small.any() and not failures:
        which = ", ".join(str(column) for column in np.flatnonzero(small))
        bound = float(lower[small].min())
        column = 0
        for key in graph.outputs:
            count = _columns(bounded, key).low.size
            if small[column : column + count].any():
                failures.append(f"output {which} may be {bound:.3g}: {_reason(bounded, key)}")
                break
            column += count
    return tuple(failures)


def _reason(bounded: Bounded, output: str) -> str:
    """The operation, behind an output that is too small, at which positivity was lost.

    Walks back through operands that may be 0 or less; an underflow found there is the reason, else the last operation
    that is not elementwise.
    """
    graph = bounded.graph
    waiting, seen, last = [output], set[str](), graph.producer(output)
    while waiting:
        key = waiting.pop(0)
        operation = graph.producer(key)
        if key in seen or operation.index < 0:
            continue
        seen.add(key)
        if operation.index in bounded.findings.vanished:
            return f"{graph.name(operation)}: {bounded.findings.vanished[operation.index]}"
        if operation.kind in RULES or operation.kind in MOVES or operation.kind in ("quantize", "dequantize"):
            waiting += [key for key in operation.inputs if _may_vanish(bounded, key)]
        else:
            last = operation
    return f"{graph.name(last)}: its result lies in {_range(bounded, last)}"


def _may_vanish(bounded: Bounded, key: str) -> bool:
    value = bounded.values.get(key)
    return value is not None and value.batched and bool((value.bounds.low <= 0).any())


def _range(bounded: Bounded, operation: Operation) -> str:
    bounds = reals(bounded.values[operation.outputs[0]])
    return f"[{bounds.low.min():.4g}, {bounds.high.max():.4g}]"


def _logits(bounded: Bounded, output: str) -> Bounds | None:
    """Bounds of the dot product that an output is made from, elementwise; None where it is not."""
    graph = bounded.graph
    key = output
    while (operation := graph.producer(key)).kind not in DOTS:
        behind = {one for one in operation.inputs if one in bounded.values and bounded.values[one].batched}
        if operation.kind in RULES or operation.kind in (*MOVES, "quantize", "dequantize", "cast"):
            ends = {_dot_behind(bounded, one) for one in behind}
            if len(ends) == 1 and None not in ends:
                (end,) = ends
                assert end is not None
                return _columns(bounded, end) if end in bounded.values else None
        return None
    return _columns(bounded, key) if key in bounded.values else None


def _dot_behind(bounded: Bounded, key: str) -> str | None:
    """The last tensor, going back, that is a dot product (with its bias added)."""
    graph = bounded.graph
    seen: dict[str, str | None] = {}

    def find(key: str) -> str | None:
        if key not in seen:
            operation = graph.producer(key)
            behind = [one for one in operation.inputs if one in bounded.values and bounded.values[one].batched]
            if operation.kind in DOTS or _is_bias(graph, operation, behind):
                seen[key] = key
            else:
                ends = {find(one) for one in behind}
                seen[key] = ends.pop() if len(ends) == 1 else None
        return seen[key]

    return find(key)


def _is_bias(graph: Graph, operation: Operation, behind: list[str]) -> bool:
    return operation.kind == "add" and len(behind) == 1 and graph.producer(behind[0]).kind in DOTS


def _input_limit(bounded: Bounded) -> float | None:
    """Follow the input through the operations that only cut it."""
    graph = bounded.graph
    key, limit = graph.input, None
    for operation in graph.operations:
        if (
            key in operation.inputs
            and operation.kind in ("min", "max", "clip")
            and operation.outputs[0] in bounded.values
        ):
            key = operation.outputs[0]
            bounds = reals(bounded.values[key])
            limit = float(max(-bounds.low.min(), bounds.high.max()))
    largest = ARITHMETICS["float32"].largest
    return limit if limit is not None and limit < largest else None


def _assumptions(bounded: Bounded, arithmetic: str) -> tuple[str, ...]:
    used = bounded.findings.kinds
    sentences = [
        "The input holds finite numbers; NaN and infinity are rejected before a model sees them.",
        "Operations run as the file writes them: each tensor is computed once, and none but dot products is reordered.",
        "Sums and products round to nearest or fuse (granted: 2^-23 relative each); results below 2^-126 may become 0.",
    ]
    if used & set(DOTS):
        sentences.append("Dot products add the products of the file's own weights, in any order.")
    transcendental = sorted(kind for kind in used if kind in RULES and RULES[kind].relative)
    if transcendental:
        sentences.append(f"{', '.join(transcendental)}: within 2^-15 of the true value, relative.")
    if any(value.dtype in ("int8", "uint8", "int16") for value in bounded.values.values()):
        sentences.append("Integer results lie within one step of the true value, inside their code range.")
    return tuple(sentences)
