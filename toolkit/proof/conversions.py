"""Operations that turn floats into codes, codes into floats, and one type into another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from toolkit.proof import intervals
from toolkit.proof.findings import Findings, why_lost
from toolkit.proof.graph import FLOATS, INTEGER_RANGE, Operation, Quantization, Tensor, Unsupported
from toolkit.proof.intervals import ARITHMETICS, Bounds
from toolkit.proof.values import LARGEST_32, Value, dequantized, narrowed, quantized, reals

CONVERSIONS = ("quantize", "dequantize", "cast", "quantize_linear", "dequantize_linear")


def convert(operation: Operation, operands: Sequence[Value], target: Tensor, findings: Findings) -> Value:
    """Bounds of the converted tensor. TFLite's scales belong to tensors, ONNX's come as operands.

    Raises:
        Unsupported: a pair of types without a rule, or a scale that is not a constant.
    """
    source = operands[0]
    dtype = str(target.dtype or operation.attributes.get("dtype", ""))
    if source.sizes and dtype in FLOATS:
        raise Unsupported("computes with the batch size")
    if operation.kind == "cast":
        return _cast(operation, source, dtype, findings)
    if operation.kind.startswith("dequantize"):
        dtype = dtype or operands[1].dtype
        if source.dtype in FLOATS:  # TFLite's way to store weights in half precision
            return _cast(operation, source, dtype, findings)
        quantization = _linear_scale(operation, operands) or source.quantization
        if quantization is None or dtype not in FLOATS:
            raise Unsupported("has no scale")
        arithmetic = ARITHMETICS[dtype]
        exact = dequantized(source.bounds, quantization)
        # LiteRT's own kernel computes scale * code - scale * zero_point: the error is that of the larger products.
        products = intervals.magnitude(exact) + 2 * float(np.abs(quantization.scale * quantization.zero_point).max())
        error = arithmetic.step * products
        bounds = intervals.rounded(Bounds(exact.low - error, exact.high + error), arithmetic, arithmetic.step)
        return Value(bounds, dtype, source.batched)
    quantization = _linear_scale(operation, operands) or target.quantization
    dtype = dtype or (operands[2].dtype if len(operands) > 2 else "uint8")
    if quantization is None or dtype not in INTEGER_RANGE:
        raise Unsupported("has no scale")
    exact = narrowed(reals(source), quantization, LARGEST_32)
    return Value(quantized(exact, quantization, dtype), dtype, source.batched, target.quantization)


def _linear_scale(operation: Operation, operands: Sequence[Value]) -> Quantization | None:
    if not operation.kind.endswith("_linear"):
        return None
    scale = operands[1].exact
    zero_point = operands[2].exact if len(operands) > 2 else np.zeros(1)
    if scale is None or zero_point is None or not np.all(np.isfinite(scale) & (scale > 0)):
        raise Unsupported("its scale is not a positive constant")
    scale = scale.reshape(-1)
    return Quantization(scale, np.broadcast_to(zero_point.reshape(-1), scale.shape), int(operation.attributes["axis"]))


def _cast(operation: Operation, source: Value, dtype: str, findings: Findings) -> Value:
    if source.quantization is not None:
        raise Unsupported("casts codes")
    if dtype in INTEGER_RANGE and source.dtype in INTEGER_RANGE and not source.batched:
        return replace(source, dtype=dtype)
    if dtype not in FLOATS or source.dtype not in (*FLOATS, *INTEGER_RANGE, "bool"):
        raise Unsupported(f"casts {source.dtype} to {dtype}")
    if source.dtype in (dtype, "float16"):
        return replace(source, dtype=dtype)  # exact: float32 holds every float16
    bounds = intervals.rounded(source.bounds, ARITHMETICS[dtype], ARITHMETICS[dtype].step)
    lost = intervals.is_known(source.bounds) & ~intervals.is_known(bounds)
    if lost.any():
        findings.lost.setdefault(operation.index, why_lost("cast", [source], source.bounds, lost, dtype))
    return Value(bounds, dtype, source.batched)
