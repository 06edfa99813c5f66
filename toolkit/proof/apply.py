"""One operation on bounded tensors: which rule, which rounding, what it means for the proof."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.proof import elementwise, intervals
from toolkit.proof.conversions import CONVERSIONS, convert
from toolkit.proof.dots import DOTS, dot
from toolkit.proof.elementwise import RULES, Elementwise, activated
from toolkit.proof.findings import Findings, why_lost, why_outside, why_vanished
from toolkit.proof.graph import FLOATS, INTEGER_RANGE, Operation, Tensor, Unsupported, check_size
from toolkit.proof.intervals import ARITHMETICS, Bounds
from toolkit.proof.moves import CHOICES, MOVES, choose, move, sizes_of
from toolkit.proof.values import LARGEST_16, Value, narrowed, quantized, reals


def apply(
    operation: Operation, operands: Sequence[Value | None], targets: Sequence[Tensor], findings: Findings
) -> list[Value]:
    """Bounds of an operation's results.

    Args:
        operands: one per input, None where an optional one is absent.
        targets: what the file says of the results.
    Raises:
        Unsupported: nothing is known of the results, so nothing behind them is.
    """
    present = [operand for operand in operands if operand is not None]
    if operation.kind in RULES:
        return [apply_elementwise(operation, present, targets[0], findings)]
    findings.kinds.add(operation.kind)
    if operation.kind in MOVES:
        return move(operation, operands, targets)
    if operation.kind in CHOICES:
        return [choose(operation, present, targets[0])]
    if operation.kind in CONVERSIONS:
        return [convert(operation, present, targets[0], findings)]
    if operation.kind in DOTS:
        return [dot(operation, operands, targets[0], findings)]
    if operation.kind == "shape":
        return [sizes_of(present[0])]
    raise Unsupported(operation.problem or "no rule for it")


def apply_elementwise(operation: Operation, operands: Sequence[Value], target: Tensor, findings: Findings) -> Value:
    """Bounds of the result of an elementwise operation; operands may have a leading axis of pieces (see `pieces`).

    Raises:
        Unsupported: the operands do not align, or are of a type without a rule.
    """
    findings.kinds.add(operation.kind)
    shape = _common_shape(operands)
    batched = any(operand.batched for operand in operands)
    dtype = _result_type(operation, operands, target)
    rule = RULES[operation.kind]
    known = np.ones(shape, dtype=bool)
    for operand in operands:
        known &= intervals.is_known(operand.bounds)
    exact = rule.rule([reals(operand) for operand in operands], operation.attributes)
    exact = Bounds(*(np.broadcast_to(side, shape) for side in exact))
    exact = intervals.forget(exact, ~known)
    if target.quantization is not None and target.dtype in INTEGER_RANGE:
        return _codes(operation, operands, exact, target)
    exact = activated(operation, exact)
    if dtype not in FLOATS:
        return Value(exact, dtype, batched)  # truth values and whole numbers, computed exactly
    result = _rounded(exact, rule, dtype)
    outside = known & _outside(operands[0].bounds, rule)
    if outside.any() and operation.index not in findings.lost:
        findings.lost[operation.index] = why_outside(operation.kind, operands[0], rule.domain)
    lost = known & (outside | ~intervals.is_known(result))
    if lost.any() and operation.index not in findings.lost:
        findings.lost[operation.index] = why_lost(operation.kind, operands, exact, lost, dtype)
    vanished = known & ~lost & (result.low <= 0) & (rule.positive | (exact.low > 0))
    if vanished.any() and operation.index not in findings.vanished:
        findings.vanished[operation.index] = why_vanished(operation.kind, operands[0], exact, vanished)
    return Value(intervals.forget(result, lost), dtype, batched)


def _codes(operation: Operation, operands: Sequence[Value], exact: Bounds, target: Tensor) -> Value:
    """The result of an integer kernel; codes are numbers whatever happened before, so that an activation cuts them."""
    assert target.quantization is not None
    chooses = operation.kind in elementwise.CHOOSES
    keeps = chooses and all(target.quantization.equals(operand.quantization) for operand in operands)
    if not keeps:
        exact = narrowed(exact, target.quantization, LARGEST_16)
    if operation.activation:
        exact = RULES[operation.activation].rule([exact], {})
    codes = quantized(exact, target.quantization, target.dtype, step=0.0 if keeps else 1.0)
    return Value(codes, target.dtype, any(operand.batched for operand in operands), target.quantization)


def _outside(operand: Bounds, rule: Elementwise) -> np.ndarray:
    low, high = rule.domain
    return np.asarray((operand.low < low) | (operand.high > high))


def _common_shape(operands: Sequence[Value]) -> tuple[int, ...]:
    shapes = [operand.shape for operand in operands]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise Unsupported(f"its operands {shapes} do not fit each other") from error
    check_size(shape)
    for operand in operands:
        if operand.batched and (len(operand.shape) != len(shape) or operand.shape[0] != shape[0]):
            raise Unsupported(f"aligns the batch of {operand.shape} with another axis of {shape}")
    return shape


def _result_type(operation: Operation, operands: Sequence[Value], target: Tensor) -> str:
    if any(operand.sizes for operand in operands):
        raise Unsupported("computes with the batch size")
    if operation.kind in elementwise.COMPARISONS:
        return "bool"
    dtype = operands[-1].dtype
    if dtype in FLOATS or target.quantization is not None:
        return dtype
    if dtype not in INTEGER_RANGE or any(operand.batched for operand in operands):
        raise Unsupported(f"computes with {dtype}")
    return dtype


def _rounded(exact: Bounds, rule: Elementwise, dtype: str) -> Bounds:
    if not (rule.steps or rule.relative or rule.absolute):
        return exact
    arithmetic = ARITHMETICS[dtype]
    relative = rule.steps * arithmetic.step + (max(rule.relative, 2 * arithmetic.step) if rule.relative else 0.0)
    absolute = max(rule.absolute, 4 * arithmetic.step) if rule.absolute else 0.0
    return intervals.rounded(exact, arithmetic, relative, absolute)
