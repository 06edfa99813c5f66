"""Operations that add products, as in convolutions, Dense layers, means: on floats, on codes, on floats with codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.proof import intervals, linear
from toolkit.proof.elementwise import RULES, activated
from toolkit.proof.findings import Findings, limit_of
from toolkit.proof.graph import FLOATS, INTEGER_RANGE, Operation, Tensor, Unsupported
from toolkit.proof.intervals import ARITHMETICS, Bounds
from toolkit.proof.linear import Dot
from toolkit.proof.moves import channels_back, channels_last, reduced_axes
from toolkit.proof.values import LARGEST_32, Value, any_value, hybrid, narrowed, quantized, reals

DOTS = ("conv", "matmul", "mean", "reduce_sum", "average_pool", "batch_normalization")


def dot(operation: Operation, operands: Sequence[Value | None], target: Tensor, findings: Findings) -> Value:
    """Bounds of sums of products.

    Raises:
        Unsupported: shapes that do not fit, or a form without a rule.
    """
    data = operands[0]
    assert data is not None
    others = [operand for operand in operands[1:] if operand is not None]
    if any(other.batched for other in others) or not data.batched:
        raise Unsupported("multiplies two tensors that both depend on the input, or two constants")
    known = all(operand.known for operand in [data, *others])
    real = hybrid(data) if _is_hybrid(data, others) else reals(data)
    parts = [None if operand is None else reals(operand) for operand in operands[1:]]
    if not known:  # finite stand-ins, to find the shape of the result
        real, parts = _finite(real), [None if part is None else _finite(part) for part in parts]
    try:
        sums = _sums(operation, real, parts, reduced_axes(operation, [data, *others]) if _reduces(operation) else ())
    except (ValueError, IndexError, TypeError) as error:
        raise Unsupported(f"its kernel does not fit its input ({error})") from error
    if not known:
        return any_value(sums.size.shape, target.dtype or data.dtype, target.quantization)
    if target.quantization is not None and target.dtype in INTEGER_RANGE:
        return _codes(operation, sums, [data, *others], target, findings)
    dtype = data.dtype if data.dtype in FLOATS else "float32"
    bounds = sums.rounded(ARITHMETICS[dtype])
    if not intervals.is_known(bounds).all():
        reach = float(sums.size.max())
        findings.lost.setdefault(operation.index, f"may overflow: its sums reach {reach:.4g}, {limit_of(dtype)}")
    return Value(activated(operation, bounds), dtype, True)


def _codes(operation: Operation, sums: Dot, operands: Sequence[Value], target: Tensor, findings: Findings) -> Value:
    """The result of an integer kernel: the sum is exact where its accumulator is wide enough."""
    assert target.quantization is not None
    scales = [one.quantization.scale.min() for one in operands[:2] if one.quantization is not None]
    if operands[0].dtype in ("int8", "uint8") and np.any(sums.size >= LARGEST_32 * float(np.prod(scales))):
        findings.lost.setdefault(operation.index, "its 32-bit sum may overflow")
    exact = narrowed(sums.exact, target.quantization, LARGEST_32)
    if operation.activation:
        exact = RULES[operation.activation].rule([exact], {})
    codes = quantized(exact, target.quantization, target.dtype)
    return Value(codes, target.dtype, True, target.quantization)


def _sums(operation: Operation, real: Bounds, parts: Sequence[Bounds | None], axes: tuple[int, ...]) -> Dot:
    attributes = operation.attributes
    if operation.kind in ("mean", "reduce_sum"):
        return linear.mean(real, axes, bool(attributes.get("keep")), divide=operation.kind == "mean")
    if operation.kind == "matmul":
        return _matmul(real, parts, attributes)
    order = attributes.get("order")
    real = channels_last(real, order)
    if operation.kind == "conv":
        bias = parts[1] if len(parts) > 1 else None
        sums = linear.convolution(real, _kernel(parts[0], attributes["kernel_order"]), bias, attributes)
    elif operation.kind == "average_pool":
        sums = linear.average_pool(real, attributes)
    else:
        sums = linear.batch_normalization(real, [part for part in parts if part is not None], attributes["epsilon"])
    size, divisor = (np.broadcast_to(side, sums.exact.low.shape) for side in (sums.size, sums.divisor))
    size, divisor = channels_back(Bounds(size, divisor), order)
    return Dot(channels_back(sums.exact, order), size, sums.terms, divisor)


def _matmul(real: Bounds, parts: Sequence[Bounds | None], attributes: Mapping[str, Any]) -> Dot:
    kernel, bias = parts[0], parts[1] if len(parts) > 1 else None
    if kernel is None or kernel.low.ndim != 2:
        raise Unsupported("has no rule for a kernel that is not a matrix")
    if attributes.get("transposed"):
        kernel = Bounds(kernel.low.T, kernel.high.T)
    if attributes.get("flattens"):
        batch = real.low.shape[0]
        real = Bounds(*(side.reshape(-1, kernel.low.shape[0]) for side in real))
        if real.low.shape[0] != batch:
            raise Unsupported("mixes the datasets of a batch")
    if real.low.ndim < 2:
        raise Unsupported("reduces the batch")
    # Gemm's factors, each one rounding, on the weights instead of on the sums: granted by a step on each product.
    kernel = _scaled(kernel, float(attributes.get("alpha", 1.0)))
    return linear.dot(real, kernel, None if bias is None else _scaled(bias, float(attributes.get("beta", 1.0))))


def _scaled(bounds: Bounds, factor: float) -> Bounds:
    if factor == 1:
        return bounds
    return intervals.rounded(intervals.multiply(bounds, intervals.point(factor)), ARITHMETICS["float32"], 2.0**-22)


def _kernel(kernel: Bounds | None, order: str) -> Bounds:
    """To (*window, channels / groups, filters), from TFLite's layouts (plain, depthwise) or ONNX's."""
    if kernel is None:
        raise Unsupported("has no kernel")
    rank = kernel.low.ndim
    axes = {"OHWI": (1, 2, 3, 0), "1HWO": (1, 2, 0, 3), "OI": (*range(2, rank), 1, 0)}[order]
    return Bounds(kernel.low.transpose(axes), kernel.high.transpose(axes))


def _is_hybrid(data: Value, others: Sequence[Value]) -> bool:
    return data.dtype in FLOATS and any(other.quantization is not None for other in others)


def _reduces(operation: Operation) -> bool:
    return operation.kind in ("mean", "reduce_sum")


def _finite(bounds: Bounds) -> Bounds:
    return Bounds(np.zeros_like(bounds.low), np.zeros_like(bounds.high))
