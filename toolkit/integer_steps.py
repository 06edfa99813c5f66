"""An integer-only file as the steps that a few lines of C can run: no reader of the format, no tensors, no heap.

Between input and outputs such a file holds convolutions, max pooling, padding and reshapes. Reshapes only rename what
lies in memory row by row, padding of the other two is a step of its own, so three kinds are left. In each, int8 codes
(rows, channels) of one dataset become others:

    PAD    `before` rows in front and `behind` rows behind, all of one code
    CONV   sum over taps and channels + bias, times multiplier * 2^(shift - 31), + zero point, cut to lowest..highest
    POOL   the largest code of a window

The zero point of what a convolution takes is not subtracted from each code: what that comes to is the same for every
row, and is in the bias. Whole numbers add up to the same either way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.integer import LOWEST

HIGHEST = 127
ALIGNMENT = 4  # bytes, of each tensor in memory: processors then read four codes at once
LARGEST_SUM = 2**31 - 1  # of an int32


@dataclass(frozen=True)
class Filter:
    """One output channel of a convolution. multiplier: 2^30..2^31 - 1, or 0; shift: -31..30."""

    bias: int
    multiplier: int
    shift: int


@dataclass(frozen=True)
class Step:
    """Attributes:
    kind: PAD, CONV or POOL.
    source, target: where in the scratch memory it reads and writes, in bytes; of an output that is its place among
        the parameters, and `output` is 1.
    rows, channels: of what it takes. out_rows, out_channels: of what it gives.
    width: taps, or rows of a window. stride, dilation: in rows.
    before: rows of padding in front. fill: the code they hold.
    kernel: where its int8 weights (out_channels, width, channels) begin in the file, in bytes. filters: the first of
        its filters among all.
    zero_point, lowest, highest: of the codes it gives.
    """

    kind: str
    source: int
    target: int
    rows: int
    channels: int
    out_rows: int
    out_channels: int
    width: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0
    fill: int = 0
    kernel: int = 0
    filters: int = 0
    zero_point: int = 0
    lowest: int = LOWEST
    highest: int = HIGHEST
    output: int = 0


@dataclass(frozen=True)
class Steps:
    """steps: in their order; the codes of the dataset are at 0. scratch_bytes: memory for all of them."""

    steps: tuple[Step, ...]
    filters: tuple[Filter, ...]
    scratch_bytes: int


def read_steps(path: Path) -> Steps:
    """What an exported integer-only file does with one dataset.

    Raises:
        ModelError: it holds an operation, or a form of one, that integer-only files of this toolkit do not.
    """
    try:
        return _Reader(path.read_bytes()).steps()
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: not a readable integer-only file ({error!r:.200}). Export it again.") from error


class _Reader:
    """Walks over the operations; every tensor is where the one it is a view of lies."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.content, self.schema = content, schema
        self.file = schema.Model.GetRootAs(content, 0)
        self.model = schema.ModelT.InitFromObj(self.file)
        (self.graph,) = self.model.subgraphs
        self.done: list[Step] = []
        self.filters: list[Filter] = []

    def steps(self) -> Steps:
        names = {code: name for name, code in vars(self.schema.BuiltinOperator).items() if isinstance(code, int)}
        (source,) = self.graph.inputs
        origin = {source: source}  # the tensor that a reshape's output is a view of
        for operator in self.graph.operators:
            name = names[self.model.operatorCodes[operator.opcodeIndex].builtinCode]
            taken, (given,) = origin[operator.inputs[0]], operator.outputs
            if name == "RESHAPE":
                origin[given] = taken
                continue
            origin[given] = given
            rows, channels = self._size(operator.inputs[0])
            out_rows, out_channels = self._size(given)
            size = {"rows": rows, "channels": channels, "out_rows": out_rows, "out_channels": out_channels}
            match name:
                case "CONV_2D":
                    self._conv(operator, taken, given, size)
                case "MAX_POOL_2D":
                    self._pool(operator, taken, given, size)
                case "PAD":
                    self._pad(operator, taken, given, size)
                case _:
                    raise ModelError(f"holds {name}, an operation without steps in C. Export it again.")
        return self._placed(source, [origin[index] for index in self.graph.outputs])

    def _size(self, tensor: int) -> tuple[int, int]:
        """(rows, channels) of one dataset: all tensors are (batch, 1, rows, channels)."""
        _, high, rows, channels = (int(each) for each in self.graph.tensors[tensor].shape)
        if high != 1:
            raise ModelError(f"a tensor of height {high}. Export it again.")
        return rows, channels

    def _conv(self, operator: Any, taken: int, given: int, size: dict[str, int]) -> None:
        options = operator.builtinOptions
        _, kernel, bias = operator.inputs
        stored = self.graph.tensors[kernel]
        filters, high, width, channels = (int(each) for each in stored.shape)
        if high != 1 or channels != size["channels"] or filters != size["out_channels"]:
            raise ModelError("a convolution over something else than rows. Export it again.")
        scale, zero_point = self._codes(operator.inputs[0])
        out_scale, out_zero_point = self._codes(given)
        taken, size = self._padded(options, taken, size, (width - 1) * options.dilationWFactor + 1, zero_point)
        weights, at = self._constant(kernel, np.int8)
        weights = weights.reshape(filters, -1).astype(np.int64)
        biases = self._constant(bias, np.int32)[0].astype(np.int64) - zero_point * weights.sum(axis=1)
        if np.any(np.abs(biases) + 128 * np.abs(weights).sum(axis=1) > LARGEST_SUM):
            raise ModelError("sums of a convolution that an int32 does not hold. Export it again.")
        scales = np.broadcast_to(np.asarray(stored.quantization.scale, np.float32), filters)
        lowest, highest = _cut(self.schema, options.fusedActivationFunction, out_scale, out_zero_point)
        self.done.append(
            Step(
                "CONV",
                taken,
                given,
                **size,
                width=width,
                stride=options.strideW,
                dilation=options.dilationWFactor,
                kernel=at,
                filters=len(self.filters),
                zero_point=out_zero_point,
                lowest=lowest,
                highest=highest,
            )
        )
        for value, each in zip(biases, scales, strict=True):
            self.filters.append(Filter(int(value), *fixed_point(float(scale) * float(each) / float(out_scale))))

    def _pool(self, operator: Any, taken: int, given: int, size: dict[str, int]) -> None:
        options = operator.builtinOptions
        taken, size = self._padded(options, taken, size, options.filterWidth, LOWEST)  # which is never the largest
        self.done.append(Step("POOL", taken, given, **size, width=options.filterWidth, stride=options.strideW))

    def _pad(self, operator: Any, taken: int, given: int, size: dict[str, int]) -> None:
        around = self._constant(operator.inputs[1], np.int32)[0].reshape(-1, 2)
        _, fill = self._codes(given)
        if np.any(around[[0, 1, 3]]):
            raise ModelError("padding of something else than rows. Export it again.")
        self.done.append(Step("PAD", taken, given, **size, before=int(around[2, 0]), fill=fill))

    def _padded(
        self, options: Any, taken: int, size: dict[str, int], extent: int, fill: int
    ) -> tuple[int, dict[str, int]]:
        """A step of its own in front, where an operation pads by itself; the tensor it gives, with its size."""
        missing = (size["out_rows"] - 1) * options.strideW + extent - size["rows"]
        if options.padding != self.schema.Padding.SAME or missing <= 0:
            return taken, size
        given = -len(self.done) - 1  # a tensor that the file does not name
        rows = size["rows"] + missing
        padded = {**size, "out_rows": rows, "out_channels": size["channels"]}
        self.done.append(Step("PAD", taken, given, **padded, before=missing // 2, fill=fill))
        return given, {**size, "rows": rows}

    def _codes(self, tensor: int) -> tuple[np.float32, int]:
        quantization = self.graph.tensors[tensor].quantization
        (scale,), (zero_point,) = quantization.scale, quantization.zeroPoint
        return np.float32(scale), int(zero_point)

    def _constant(self, tensor: int, dtype: Any) -> tuple[Any, int]:
        """Its numbers, and where they begin in the file."""
        buffer = self.file.Buffers(self.graph.tensors[tensor].buffer).DataAsNumpy()
        whole = np.frombuffer(self.content, np.uint8)
        return buffer.view(dtype), buffer.ctypes.data - whole.ctypes.data

    def _placed(self, source: int, outputs: list[int]) -> Steps:
        """Tensors lie at either end of the scratch memory in turn, what a step takes at one, what it gives at the
        other; outputs are elsewhere, so that several steps may take the last tensor of all."""
        sizes = {source: int(np.prod(self.graph.tensors[source].shape[1:], dtype=int))}
        begins: dict[int, bool] = {source: True}
        for step in self.done:
            if step.target in outputs and step.out_rows * step.out_channels != 1:
                raise ModelError("an output of several numbers. Export it again.")
            sizes[step.target] = step.out_rows * step.out_channels
            begins[step.target] = not begins[step.source]
        inner = [step for step in self.done if step.target not in outputs]
        if any(step.source != before.target for before, step in zip(inner, inner[1:], strict=False)):
            raise ModelError("operations that are no chain. Export it again.")
        whole = {tensor: -(-size // ALIGNMENT) * ALIGNMENT for tensor, size in sizes.items()}
        scratch = max([whole[source], *(whole[step.source] + whole[step.target] for step in inner)])
        places = {tensor: 0 if begins[tensor] else scratch - whole[tensor] for tensor in sizes}
        placed = []
        for step in self.done:
            output = int(step.target in outputs)
            target = outputs.index(step.target) if output else places[step.target]
            placed.append(Step(**{**vars(step), "source": places[step.source], "target": target, "output": output}))
        return Steps(tuple(placed), tuple(self.filters), scratch)


def _cut(schema: Any, activation: int, scale: np.float32, zero_point: int) -> tuple[int, int]:
    """The codes that an activation leaves."""
    kinds = schema.ActivationFunctionType
    if activation not in (kinds.NONE, kinds.RELU, kinds.RELU6):
        raise ModelError(f"an activation of kind {activation} inside a convolution. Export it again.")
    lowest = LOWEST if activation == kinds.NONE else max(LOWEST, zero_point)
    six = math.floor(np.float32(6.0) / scale + np.float32(0.5))
    return lowest, min(HIGHEST, zero_point + six) if activation == kinds.RELU6 else HIGHEST


def fixed_point(factor: float) -> tuple[int, int]:
    """The multiplier and the shift nearest to a positive factor: factor = multiplier * 2^(shift - 31).

    Args:
        factor: float64. One too small for a shift of -31 becomes 0, as in TensorFlow Lite.
    """
    fraction, shift = math.frexp(factor)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)
