"""Operations that move numbers without changing them: the same move on both bounds.

Every dataset must be computed by itself: axis 0 of whatever depends on the input is the batch, and stays the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.proof.graph import Unsupported, check_size

Move = Callable[[Sequence[np.ndarray]], list[np.ndarray]]  # arrays of the moved operands -> arrays of the outputs


def move_of(kind: str, shapes: Sequence[tuple[int, ...]], sizes: Mapping[str, Any], outputs: int) -> Move:
    """The move that an operation makes, as a function of arrays.

    Args:
        shapes: of the moved operands.
        sizes: attributes, and the values of constant operands under the names the readers give them.
        outputs: number of results.
    Raises:
        Unsupported: no such move, or it does not fit the shapes.
    """
    if kind == "concat":
        return lambda arrays: [np.concatenate(arrays, axis=int(sizes["axis"]))]
    if kind == "pack":
        return lambda arrays: [np.stack(arrays, axis=int(sizes["axis"]))]
    if kind in ("split", "unpack"):
        return lambda arrays: _split(kind, arrays[0], sizes, outputs)
    single = _single(kind, shapes[0], sizes)
    return lambda arrays: [single(arrays[0])]


def _single(kind: str, shape: tuple[int, ...], sizes: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    rank = len(shape)
    if kind == "identity":
        return lambda array: array
    if kind == "reshape":
        target = reshape_target(shape, _integers(sizes["shape"]), bool(sizes.get("zero_copies")))
        return lambda array: array.reshape(target)
    if kind == "flatten":
        axis = int(sizes.get("axis", 1)) % (rank + 1)
        return lambda array: array.reshape(int(np.prod(shape[:axis])), -1)
    if kind == "transpose":
        order = _integers(sizes["order"]) if sizes.get("order") is not None else list(range(rank))[::-1]
        return lambda array: array.transpose(order)
    if kind == "squeeze":
        chosen = sizes.get("axes")
        axes = [axis % rank for axis in _integers(chosen)] if chosen is not None else []
        return lambda array: array.squeeze(tuple(axes) or tuple(axis for axis in range(rank) if shape[axis] == 1))
    if kind == "unsqueeze":
        return lambda array: np.expand_dims(array, tuple(_integers(sizes["axes"])))
    if kind == "slice":
        cut = _slices(rank, sizes)
        return lambda array: array[cut]
    if kind == "strided_slice":
        return _strided_slice(rank, sizes)
    if kind == "gather":
        indices, axis = np.asarray(sizes["indices"]).astype(np.int64), int(sizes.get("axis", 0))
        return lambda array: np.take(array, indices, axis=axis)
    if kind == "pad":
        pairs, fill = _pairs(sizes["padding"], rank, bool(sizes.get("onnx_order"))), float(sizes.get("fill", 0.0))
        check_size([size + before + after for size, (before, after) in zip(shape, pairs, strict=True)])
        return lambda array: np.pad(array, pairs, constant_values=fill)
    if kind == "broadcast":
        target_shape = np.broadcast_shapes(shape, tuple(_integers(sizes["shape"])))
        check_size(target_shape)
        return lambda array: np.broadcast_to(array, target_shape)
    raise Unsupported("no rule for it")


def reshape_target(shape: Sequence[int], target: Sequence[int], zero_copies: bool) -> tuple[int, ...]:
    """The sizes a reshape asks for, -1 resolved.

    Raises:
        Unsupported: they hold another number of elements.
    """
    wanted = [shape[place] if zero_copies and size == 0 else size for place, size in enumerate(target)]
    count = int(np.prod(shape))
    open_places = [place for place, size in enumerate(wanted) if size == -1]
    known = int(np.prod([size for size in wanted if size != -1]))
    if len(open_places) == 1 and known > 0 and count % known == 0:
        wanted[open_places[0]] = count // known
    if any(size < 0 for size in wanted) or int(np.prod(wanted)) != count:
        raise Unsupported(f"cannot reshape {tuple(shape)} to {tuple(target)}")
    return tuple(wanted)


def _integers(value: Any) -> list[int]:
    return [int(number) for number in np.asarray(value).reshape(-1)]


def _pairs(value: Any, rank: int, onnx_order: bool) -> list[tuple[int, int]]:
    """TFLite writes a pair an axis, ONNX all beginnings and then all ends."""
    numbers = np.asarray(value).astype(np.int64)
    pairs = numbers.reshape(2, -1).T if onnx_order else numbers.reshape(-1, 2)
    if len(pairs) != rank or np.any(pairs < 0):
        raise Unsupported(f"cannot pad {rank} axes by {pairs.tolist()}")
    return [(int(before), int(after)) for before, after in pairs]


def _slices(rank: int, sizes: Mapping[str, Any]) -> tuple[slice, ...]:
    starts, ends = _integers(sizes["starts"]), _ends(sizes)
    axes = _integers(sizes["axes"]) if sizes.get("axes") is not None else list(range(len(starts)))
    steps = _integers(sizes["steps"]) if sizes.get("steps") is not None else [1] * len(starts)
    cut = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise Unsupported("slices backwards")
        cut[axis % rank] = slice(start, end, step)
    return tuple(cut)


def _ends(sizes: Mapping[str, Any]) -> list[int | None]:
    """ONNX says where a slice ends, TFLite's SLICE how long it is, -1 for the rest."""
    if "ends" in sizes:
        return [*_integers(sizes["ends"])]
    pairs = zip(_integers(sizes["starts"]), _integers(sizes["lengths"]), strict=True)
    return [None if length < 0 else start + length for start, length in pairs]


def _strided_slice(rank: int, sizes: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """TensorFlow's form, with bit masks for open ends and for axes that are taken out."""
    starts, ends, steps = (_integers(sizes[name]) for name in ("starts", "ends", "steps"))
    if sizes.get("ellipsis_mask") or sizes.get("new_axis_mask") or len(starts) > rank or min(steps) < 1:
        raise Unsupported("no rule for this form of it")
    cut: list[slice | int] = []
    for place, (start, end, step) in enumerate(zip(starts, ends, steps, strict=True)):
        bit = 1 << place
        if sizes.get("shrink_mask", 0) & bit:
            cut.append(start)
        else:
            first = None if sizes.get("begin_mask", 0) & bit else start
            cut.append(slice(first, None if sizes.get("end_mask", 0) & bit else end, step))
    chosen = tuple(cut)
    return lambda array: np.asarray(array[chosen])


def _split(kind: str, array: np.ndarray, sizes: Mapping[str, Any], outputs: int) -> list[np.ndarray]:
    axis = int(sizes.get("axis", 0))
    if kind == "unpack":
        return [np.take(array, place, axis=axis) for place in range(outputs)]
    if sizes.get("lengths") is None:
        return np.split(array, outputs, axis=axis)
    lengths = _integers(sizes["lengths"])
    if -1 in lengths:
        lengths[lengths.index(-1)] = array.shape[axis] - (sum(lengths) + 1)
    return np.split(array, np.cumsum(lengths)[:-1], axis=axis)


def keeps_batch(
    kind: str, shape: tuple[int, ...], sizes: Mapping[str, Any], results: Sequence[tuple[int, ...]]
) -> bool:
    """Does axis 0 of every result hold the same datasets, each apart, as axis 0 of the operand?"""
    rank = len(shape)
    if any(not result or result[0] != shape[0] for result in results):
        return False
    if kind == "transpose":
        return sizes.get("order") is not None and _integers(sizes["order"])[0] == 0
    if kind in ("squeeze", "unsqueeze"):
        chosen = sizes.get("axes")
        return chosen is not None and all(
            axis % (rank + (kind == "unsqueeze") * len(_integers(chosen))) for axis in _integers(chosen)
        )
    if kind in ("concat", "pack", "split", "unpack", "gather"):
        return int(sizes.get("axis", 0)) % rank != 0 if kind != "pack" else int(sizes["axis"]) % (rank + 1) != 0
    if kind in ("slice", "strided_slice", "pad", "broadcast"):
        return True  # the batch has kept its length, checked above; with one dataset, slices are checked by the caller
    return kind in ("identity", "reshape", "flatten")
