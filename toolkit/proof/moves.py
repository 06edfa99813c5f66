"""Operations that move or choose elements, on floats or on codes: sizes are constant, batch and scale are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from toolkit.proof import intervals, linear, structure
from toolkit.proof.elementwise import activated
from toolkit.proof.graph import Operation, Quantization, Reals, Tensor, Unsupported
from toolkit.proof.intervals import Bounds
from toolkit.proof.values import Value, dequantized, quantized

MOVES = (
    *("identity", "reshape", "flatten", "transpose", "squeeze", "unsqueeze", "slice", "strided_slice", "gather"),
    *("pad", "broadcast", "concat", "pack", "split", "unpack"),
)
CHOICES = ("max_pool", "reduce_max", "reduce_min")


def move(operation: Operation, operands: Sequence[Value | None], targets: Sequence[Tensor]) -> list[Value]:
    """Bounds of the moved elements.

    Raises:
        Unsupported: sizes that are not constant, that do not fit, or that mix the datasets of a batch.
    """
    sizes: dict[str, Any] = dict(operation.attributes)
    names: Sequence[str] = sizes.pop("names", ())  # what the operands behind the moved ones are called
    count = len(operands) - len(names)
    moved = [operand for operand in operands[:count] if operand is not None]
    for name, operand in zip(names, operands[count:], strict=True):
        if operand is not None:
            sizes[name] = _constant(name, operand)
    batched = [operand for operand in moved if operand.batched]
    if len({operand.batched for operand in moved}) != 1:
        raise Unsupported("joins a constant to the datasets")
    scale = _common_scale(moved, targets)
    if operation.kind == "pad" and scale is not None:
        sizes.setdefault("fill", float(scale.zero_point[0]))
    try:
        step = structure.move_of(operation.kind, [operand.shape for operand in moved], sizes, len(operation.outputs))
        lows, highs = (step([operand.bounds[side] for operand in moved]) for side in (0, 1))
    except (ValueError, IndexError, TypeError, KeyError, OverflowError) as error:
        raise Unsupported(f"its sizes do not fit its input ({error})") from error
    if batched and not structure.keeps_batch(operation.kind, batched[0].shape, sizes, [low.shape for low in lows]):
        raise Unsupported("mixes the datasets of a batch")
    model = replace(moved[0], sizes=any(operand.sizes for operand in moved))
    return [model.with_bounds(Bounds(low, high)) for low, high in zip(lows, highs, strict=True)]


def choose(operation: Operation, operands: Sequence[Value], target: Tensor) -> Value:
    """Bounds of the largest (smallest) element of each window, or along axes."""
    source = operands[0]
    _common_scale([source], [target])
    bounds = source.bounds
    if not source.known:  # finite stand-ins, to find the shape of the result
        bounds = Bounds(np.zeros(source.shape), np.zeros(source.shape))
    if operation.kind == "max_pool":
        order = operation.attributes.get("order")
        bounds = channels_back(linear.max_pool(channels_last(bounds, order), operation.attributes), order)
    else:
        axes, keep = reduced_axes(operation, operands), bool(operation.attributes.get("keep"))
        function = np.max if operation.kind == "reduce_max" else np.min
        bounds = Bounds(*(function(side, axis=axes, keepdims=keep) for side in bounds))
    if not source.known:
        bounds = intervals.unknown(bounds.low.shape)
    return source.with_bounds(_activated(operation, bounds, source))


def sizes_of(operand: Value) -> Value:
    """A tensor's shape, -1 for the batch: a reshape reads it so too."""
    sizes: Reals = np.array(operand.shape, dtype=np.float64)
    if operand.batched:
        sizes[0] = -1
    return Value(Bounds(sizes, sizes), "int64", sizes=operand.batched)


def reduced_axes(operation: Operation, operands: Sequence[Value]) -> tuple[int, ...]:
    """Axes of a reduction, counted from 0; given as an operand, as an attribute, or as the word `spatial`."""
    rank = len(operands[0].shape)
    given = _constant("axes", operands[1]) if len(operands) > 1 else operation.attributes.get("axes")
    if isinstance(given, str):
        given = range(2, rank)
    if given is None:
        raise Unsupported("reduces the batch")
    axes = tuple(sorted({int(axis) % rank for axis in np.asarray(given).reshape(-1)}))
    if operands[0].batched and 0 in axes:
        raise Unsupported("reduces the batch")
    return axes


def channels_last(bounds: Bounds, order: str | None) -> Bounds:
    return Bounds(*(np.moveaxis(side, 1, -1) for side in bounds)) if order == "channels_first" else bounds


def channels_back(bounds: Bounds, order: str | None) -> Bounds:
    return Bounds(*(np.moveaxis(side, -1, 1) for side in bounds)) if order == "channels_first" else bounds


def _constant(name: str, operand: Value) -> Reals:
    if operand.exact is None or operand.batched:
        raise Unsupported(f"its {name} is not a constant")
    return operand.exact


def _common_scale(moved: Sequence[Value], targets: Sequence[Tensor]) -> Quantization | None:
    """The scale that operands and results share; codes that are moved keep their meaning only then."""
    first = moved[0].quantization
    others = [operand.quantization for operand in moved[1:]] + [target.quantization for target in targets]
    if first is None and any(other is not None for other in others):
        raise Unsupported("changes the scale of its codes")
    if first is not None and (first.scale.size > 1 or not all(first.equals(other) for other in others)):
        raise Unsupported("changes the scale of its codes")
    return first


def _activated(operation: Operation, bounds: Bounds, model: Value) -> Bounds:
    if not operation.activation or model.quantization is None:
        return activated(operation, bounds)
    return quantized(activated(operation, dequantized(bounds, model.quantization)), model.quantization, model.dtype)
