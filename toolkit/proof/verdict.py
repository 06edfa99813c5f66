"""From bounds to a verdict that people can read: the bound of each output, and what it rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.errors import ModelError
from toolkit.integer import Host
from toolkit.proof import intervals
from toolkit.proof.dots import DOTS
from toolkit.proof.elementwise import CANCELLATION, RULES, TRANSCENDENTAL
from toolkit.proof.graph import FLOATS, INTEGER_RANGE, LARGEST_TENSOR, Graph
from toolkit.proof.host import HOST_ASSUMPTIONS, host_bounds, host_reasons
from toolkit.proof.intervals import ARITHMETICS, FLOAT16, FLOAT32, Bounds
from toolkit.proof.propagate import Bounded, propagate
from toolkit.proof.reasons import reasons
from toolkit.proof.values import reals


@dataclass(frozen=True)
class Proof:
    """What an exported file can give, for every finite input.

    Attributes:
        format: `tflite` or `onnx`.
        arithmetic: that the outputs are computed in, `float32` or `float16`; `int8` where they are codes.
        operations: in the file.
        lower, upper: of each output, in the order of the file's outputs and their columns; infinite where unknown.
        passed: every output is finite and at least `required`, and nothing before it may overflow or become NaN.
        required: the smallest normal number of the arithmetic.
        failures: why not, for people; each names an operation.
        assumptions: what the bounds rest on, one sentence each.
        input_limit: largest magnitude that passes the limit the file begins with; None without one.
        logit_lower, logit_upper: of the last dot products, one for each output; empty where there is not one each.
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


def judge(path: Path, graph: Graph, host: Host | None = None) -> Proof:
    """The verdict on a file that has been read.

    Args:
        host: of a file that gives codes, what makes estimates of them; it is part of what is proved.
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
    numbers = math.prod(size or 1 for size in source.shape)
    if numbers > LARGEST_TENSOR:
        raise ModelError(f"{path}: takes {numbers:,} numbers a dataset, at most {LARGEST_TENSOR:,} are proved.")
    with np.errstate(all="ignore"):  # infinities are results here, and are looked for
        bounded = propagate(graph)
        columns = [_columns(bounded, key) for key in graph.outputs]
        logits = _logits(bounded)
    if host is not None:
        columns = host_bounds(host)
        logits = _centred(logits, host)
    lower, upper = (np.concatenate([bounds[side] for bounds in columns]) for side in (0, 1))
    arithmetic = _arithmetic(bounded)
    required = ARITHMETICS.get(arithmetic, FLOAT32).smallest_normal
    failures = reasons(bounded, columns, required) if host is None else host_reasons(bounded, host, required)
    if logits.low.size != lower.size:
        logits = Bounds(np.zeros(0), np.zeros(0))
    return Proof(
        format=graph.format,
        arithmetic=arithmetic,
        operations=len(graph.operations),
        lower=tuple(lower.tolist()),
        upper=tuple(upper.tolist()),
        passed=not failures and bool(np.all(lower >= required) and np.all(np.isfinite(upper))),
        required=required,
        failures=failures,
        assumptions=_assumptions(bounded) if host is None else HOST_ASSUMPTIONS,
        input_limit=_input_limit(bounded),
        logit_lower=tuple(logits.low.tolist()),
        logit_upper=tuple(logits.high.tolist()),
    )


def _columns(bounded: Bounded, key: str) -> Bounds:
    """Bounds of each column of a tensor (batch, columns), over the batch; of the whole of it in other shapes."""
    value = bounded.values.get(key)
    if value is None:
        declared = bounded.graph.tensors[key].shape
        return intervals.unknown(((declared[1] if len(declared) == 2 else None) or 1,))
    bounds = reals(value)
    count = bounds.low.shape[1] if bounds.low.ndim == 2 else 1
    return Bounds(bounds.low.reshape(-1, count).min(axis=0), bounds.high.reshape(-1, count).max(axis=0))


def _arithmetic(bounded: Bounded) -> str:
    """The coarsest of the outputs."""
    kinds = {bounded.values[key].dtype for key in bounded.graph.outputs if key in bounded.values}
    return next((kind for kind in ("int8", "uint8", "int16", "float16") if kind in kinds), "float32")


def _centred(logits: Bounds, host: Host) -> Bounds:
    """The logits that the outputs' codes stand for, if there is one for each."""
    centres = np.array([output.centre for output in host.outputs])
    return intervals.add(logits, Bounds(centres, centres)) if logits.low.shape == centres.shape else logits


def _logits(bounded: Bounded) -> Bounds:
    """Bounds of the dot products, with their biases, that the outputs are made from without another one between."""
    graph, found, seen = bounded.graph, list[Bounds](), set[str]()
    waiting = list(graph.outputs)
    while waiting:
        key = waiting.pop(0)
        if key in seen:
            continue
        seen.add(key)
        operation = graph.producer(key)
        behind = [one for one in operation.inputs if one in bounded.values and bounded.values[one].batched]
        adds_bias = operation.kind == "add" and len(behind) == 1 and graph.producer(behind[0]).kind in DOTS
        if (operation.kind in DOTS or adds_bias) and key in bounded.values:
            found.append(_columns(bounded, key))
        else:
            waiting = behind + waiting  # depth first: the order of the outputs
    if not found:
        return Bounds(np.zeros(0), np.zeros(0))
    return Bounds(np.concatenate([one.low for one in found]), np.concatenate([one.high for one in found]))


def _input_limit(bounded: Bounded) -> float | None:
    """Follow the input through the operations that cut it."""
    key, limit = bounded.graph.input, None
    for operation in bounded.graph.operations:
        cuts = operation.kind in ("min", "max", "clip") and key in operation.inputs
        if cuts and operation.outputs[0] in bounded.values:
            key = operation.outputs[0]
            bounds = reals(bounded.values[key])
            limit = float(max(-bounds.low.min(), bounds.high.max()))
    return limit if limit is not None and limit < FLOAT32.largest else None


def _assumptions(bounded: Bounded) -> tuple[str, ...]:
    used = bounded.findings.kinds
    arithmetic = FLOAT16 if bounded.graph.tensors[bounded.graph.input].dtype == "float16" else FLOAT32
    sentences = [
        "The input holds finite numbers only: NaN and infinity are rejected before a model sees them.",
        "Operations run as the file writes them: each tensor is computed once, and only dot products are reordered.",
        f"A sum or product is within 2^{math.log2(arithmetic.step):.0f} of the true value, relative; results below "
        f"2^{math.log2(arithmetic.smallest_normal):.0f} may become 0.",
    ]
    if arithmetic is FLOAT16:
        sentences += [
            "Inputs beyond 65504 become infinite; a minimum or maximum of infinity and a number is right.",
            "Sums of many products are rounded to nearest or towards zero.",
        ]
    transcendental = sorted(kind for kind in used if kind in RULES and RULES[kind].relative)
    if transcendental:
        error = max(TRANSCENDENTAL, 2 * arithmetic.step)
        sentences.append(f"{', '.join(transcendental)}: within 2^{math.log2(error):.0f} of the true value, relative.")
    if any(kind in RULES and RULES[kind].absolute for kind in used):
        beside = max(CANCELLATION, 4 * arithmetic.step)
        sentences.append(f"Logarithms and squashing functions: within 2^{math.log2(beside):.0f} beside that.")
    if any(value.dtype in ("int8", "uint8", "int16") and value.batched for value in bounded.values.values()):
        sentences.append("The result of an integer kernel is within one step of the true value and in its code range.")
    return tuple(sentences)
