"""float16 arithmetic on paper: a float32 file as hardware computes it that works in half precision.

Plain NumPy over the operations of the file, each number rounded to float16 as soon as it is made: the products of a
sum are added one after the other into a float16, as XNNPACK does on ARM, and what is below 2^-14 becomes 0, as on many
GPUs. Slow, and for judging alone. It shares the reader of files with the proof, and arithmetic with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError
from toolkit.proof import read_graph
from toolkit.proof.graph import FLOATS, Graph, Operation
from toolkit.proof.linear import patches
from toolkit.proof.structure import move_of
from toolkit.runtime.batches import in_batches
from toolkit.spec import SMALLEST_NORMAL_FLOAT16

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Predict

Half = NDArray[np.float16]
EMULATED_BATCH = 16  # the products of a convolution stay in cache
MOVES = (
    *("identity", "reshape", "flatten", "transpose", "squeeze", "unsqueeze"),
    *("slice", "strided_slice", "pad", "concat"),
)


def load_float16(path: Path, batch: int) -> Predict:
    """The file as a function, with estimates that are float16 numbers.

    Raises:
        ModelError: it cannot be read, or holds an operation that is not emulated.
    """
    graph = read_graph(path)
    source = graph.tensors[graph.input]
    (output,) = graph.outputs
    for operation in graph.operations:
        if operation.kind not in EMULATED:
            raise ModelError(f"{path}: {graph.name(operation)} is not emulated in float16.")
    rows, columns = (size or 0 for size in source.shape[1:])
    constants = {key: _constant(each.constant) for key, each in graph.tensors.items() if each.constant is not None}
    parameters = graph.tensors[output].shape[-1] or 0

    def run(datasets: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):  # infinity and NaN are results here
            values = {**constants, graph.input: flushed(datasets.astype(np.float16))}
            for operation in graph.operations:
                results = _apply(graph, operation, [values[key] for key in operation.inputs if key])
                values |= zip(operation.outputs, results, strict=True)
            return np.asarray(values[output], np.float32)

    return in_batches(path, run, source.shape[0] or EMULATED_BATCH, (rows, columns), parameters)


def flushed(values: NDArray[Any]) -> NDArray[Any]:
    """Subnormal numbers become 0, of either sign."""
    if values.dtype != np.float16:
        return values
    values[np.abs(values) < np.float16(SMALLEST_NORMAL_FLOAT16)] = 0
    return values


def _constant(value: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return flushed(value.astype(np.float16)) if value.dtype.name in FLOATS else value


def _apply(graph: Graph, operation: Operation, operands: list[NDArray[Any]]) -> list[NDArray[Any]]:
    results = EMULATED[operation.kind](operation, operands)
    if operation.activation:
        results = [ELEMENTWISE[operation.activation](operation, result) for result in results]
    return [flushed(result) for result in results]


def _move(operation: Operation, operands: list[NDArray[Any]]) -> list[NDArray[Any]]:
    sizes: dict[str, Any] = dict(operation.attributes)
    names: Sequence[str] = sizes.pop("names", ())
    count = len(operands) - len(names)
    sizes |= dict(zip(names, operands[count:], strict=True))
    moved = operands[:count]
    move = move_of(operation.kind, [each.shape for each in moved], sizes, len(operation.outputs))
    return [np.array(each) for each in move(moved)]


def _elementwise(
    function: Callable[..., NDArray[Any]], operation: Operation, operands: list[NDArray[Any]]
) -> list[NDArray[Any]]:
    return [np.asarray(function(operation, *operands), operands[0].dtype)]


def _sums(data: NDArray[Any], kernel: NDArray[Any], bias: NDArray[Any] | None) -> Half:
    """float16 (..., terms) times float16 (terms, filters): one product after the other into a float16 sum that begins
    with the bias, each added with one rounding (fused)."""
    wide, weights = data.astype(np.float32), kernel.astype(np.float32)
    sums = np.zeros((*data.shape[:-1], kernel.shape[1]), np.float16)
    if bias is not None:
        sums += bias
    product = np.empty(sums.shape, np.float32)
    for term in range(len(kernel)):
        np.multiply(wide[..., term, np.newaxis], weights[term], out=product)
        np.add(product, sums, out=product)
        sums[...] = product
    return sums


def _conv(operation: Operation, operands: list[NDArray[Any]]) -> list[NDArray[Any]]:
    attributes = operation.attributes
    data, kernel, *rest = operands
    first = attributes.get("order") == "channels_first"
    data = np.moveaxis(data, 1, -1) if first else data
    rank = kernel.ndim
    axes = {"OHWI": (1, 2, 3, 0), "1HWO": (1, 2, 0, 3), "OI": (*range(2, rank), 1, 0)}[attributes["kernel_order"]]
    kernel = kernel.transpose(axes)  # (*window, channels, filters)
    window, (channels, filters) = kernel.shape[:-2], kernel.shape[-2:]
    groups = data.shape[-1] // channels
    cut = patches(data, window, attributes, 0.0)  # (batch, *positions, channels, *window)
    cut = np.moveaxis(cut, data.ndim - 1, -1)  # taps first, as XNNPACK walks
    each = filters // groups
    results = []
    for group in range(groups):
        part = cut[..., group * channels : (group + 1) * channels]
        part = part.reshape(*part.shape[: data.ndim - 1], -1)
        weights = kernel[..., group * each : (group + 1) * each].reshape(-1, each)
        bias = rest[0][group * each : (group + 1) * each] if rest else None
        results.append(_sums(part, weights, bias))
    whole = np.concatenate(results, axis=-1)
    return [np.moveaxis(whole, -1, 1) if first else whole]


def _matmul(operation: Operation, operands: list[NDArray[Any]]) -> list[NDArray[Any]]:
    data, kernel, *rest = operands
    attributes = operation.attributes
    if attributes.get("alpha", 1.0) != 1 or attributes.get("beta", 1.0) != 1:
        raise ValueError("factors of a Gemm")
    kernel = kernel.T if attributes.get("transposed") else kernel
    data = data.reshape(-1, len(kernel)) if attributes.get("flattens") else data
    return [_sums(data, kernel, rest[0] if rest else None)]


def _pool(operation: Operation, operands: list[NDArray[Any]]) -> list[NDArray[Any]]:
    attributes, (data,) = operation.attributes, operands[:1]
    window = attributes["window"]
    first = attributes.get("order") == "channels_first"
    data = np.moveaxis(data, 1, -1) if first else data
    axes = tuple(range(-len(window), 0))
    if operation.kind == "max_pool":
        pooled = patches(data, window, attributes, -np.inf).max(axis=axes)
    else:
        inside = patches(np.ones_like(data), window, attributes, float(bool(attributes.get("count_padding"))))
        terms = patches(data, window, attributes, 0.0)
        terms = terms.reshape(*terms.shape[: -len(window)], -1)
        total = _sums(terms, np.ones((terms.shape[-1], 1), np.float16), None)[..., 0]
        pooled = total / inside.astype(np.float32).sum(axis=axes).astype(np.float16)
    return [np.moveaxis(pooled, -1, 1) if first else pooled]


def _reduce(operation: Operation, operands: list[NDArray[Any]]) -> list[NDArray[Any]]:
    data = operands[0]
    given = operands[1] if len(operands) > 1 else operation.attributes["axes"]
    axes = tuple(range(2, data.ndim)) if isinstance(given, str) else tuple(int(axis) for axis in np.ravel(given))
    keep = bool(operation.attributes.get("keep"))
    if operation.kind == "reduce_max":
        return [data.max(axis=axes, keepdims=keep)]
    axes = tuple(axis % data.ndim for axis in axes)
    terms = np.moveaxis(data, axes, range(-len(axes), 0))
    terms = terms.reshape(*terms.shape[: data.ndim - len(axes)], -1)
    total = _sums(terms, np.ones((terms.shape[-1], 1), np.float16), None)[..., 0]
    if operation.kind == "mean":
        total = total / np.float16(terms.shape[-1])
    return [np.expand_dims(total, axes) if keep else total]


def _clip(operation: Operation, x: NDArray[Any], *limits: NDArray[Any]) -> NDArray[Any]:
    given = operation.attributes
    low, high = [*limits, None, None][:2] if limits else (given.get("low"), given.get("high"))
    x = x if low is None else np.maximum(x, np.float16(low))
    return x if high is None else np.minimum(x, np.float16(high))


def _elu(operation: Operation, x: NDArray[Any]) -> NDArray[Any]:
    alpha = np.float16(operation.attributes.get("alpha", 1.0))
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, np.float16(0))))


def _leaky(operation: Operation, x: NDArray[Any], *slope: NDArray[Any]) -> NDArray[Any]:
    below = slope[0] if slope else np.float16(operation.attributes["alpha"])
    return np.where(x > 0, x, x * below)


def _sigmoid(operation: Operation, x: NDArray[Any]) -> NDArray[Any]:
    return 1 / (1 + np.exp(-x))


# NumPy computes each of these on float16 in float32 and rounds once.
ELEMENTWISE: Mapping[str, Callable[..., NDArray[Any]]] = {
    "add": lambda operation, a, b: a + b,
    "sub": lambda operation, a, b: a - b,
    "mul": lambda operation, a, b: a * b,
    "div": lambda operation, a, b: a / b,
    "min": lambda operation, *each: np.minimum(*each),
    "max": lambda operation, *each: np.maximum(*each),
    "clip": _clip,
    "relu": lambda operation, x: np.maximum(x, 0),
    "relu6": lambda operation, x: np.clip(x, 0, 6),
    "leaky_relu": _leaky,
    "elu": _elu,
    "abs": lambda operation, x: np.abs(x),
    "neg": lambda operation, x: -x,
    "floor": lambda operation, x: np.floor(x),
    "exp": lambda operation, x: np.exp(x),
    "sigmoid": _sigmoid,
    "tanh": lambda operation, x: np.tanh(x),
}
Emulate = Callable[[Operation, list[NDArray[Any]]], list[NDArray[Any]]]
EMULATED: Mapping[str, Emulate] = {
    **{kind: partial(_elementwise, function) for kind, function in ELEMENTWISE.items()},
    **dict.fromkeys(MOVES, _move),
    **dict.fromkeys(("mean", "reduce_sum", "reduce_max"), _reduce),
    **dict.fromkeys(("max_pool", "average_pool"), _pool),
    **dict.fromkeys(("cast", "dequantize"), lambda operation, operands: operands[:1]),
    "conv": _conv,
    "matmul": _matmul,
}
