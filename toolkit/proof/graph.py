"""The small typed graph that both file formats are read into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

INTEGER_RANGE = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max))
    for name in ("int8", "uint8", "int16", "uint16", "int32", "int64")
}
FLOATS = ("float32", "float16")
LARGEST_TENSOR = 1 << 24  # numbers; a damaged size must not take all memory, or all day


class Unsupported(Exception):
    """An operation, or a form of it, whose result the proof cannot bound; the message says which."""


def check_size(shape: Sequence[int]) -> None:
    """To be asked before a tensor is made that may be far larger than those it is made from.

    Raises:
        Unsupported: it would be too large.
    """
    if math.prod(shape) > LARGEST_TENSOR:
        raise Unsupported(f"would make {math.prod(shape):,} numbers, more than {LARGEST_TENSOR:,}")


@dataclass(frozen=True)
class Quantization:
    """real = scale * (code - zero_point), along `axis` where there is more than one scale.

    Attributes:
        scale: float64 (1,) or (channels,), positive.
        zero_point: float64, same length.
    """

    scale: Reals
    zero_point: Reals
    axis: int = 0

    def equals(self, other: Quantization | None) -> bool:
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
            and (self.axis == other.axis or self.scale.size == 1)
        )


@dataclass(frozen=True)
class Tensor:
    """What the file says of a tensor.

    Attributes:
        name: for people; not unique in TFLite.
        dtype: NumPy's word for it; empty where the file does not say (ONNX intermediates: they take their operand's).
        shape: only read for the graph's input; None where a size is open.
        constant: the value stored in the file.
        quantization: TFLite attaches scales to tensors; ONNX has operations for them.
        stored: its value is in the file, also where it is of a type that no rule reads.
    """

    name: str
    dtype: str = ""
    shape: tuple[int | None, ...] = ()
    constant: NDArray[Any] | None = None
    quantization: Quantization | None = None
    stored: bool = False


@dataclass(frozen=True)
class Operation:
    """One operation of the file, in this package's words.

    Attributes:
        index: position in the file, from 0.
        code: what the format calls it: `CONV_2D`, `Conv`.
        kind: the rule it falls under: `conv`; empty when there is none.
        inputs: keys of tensors; empty where an optional input is absent.
        outputs: keys of tensors.
        attributes: what the rule needs, the same words for both formats.
        activation: the kind of elementwise operation fused behind it; empty for none.
        problem: why there is no rule, where there is none.
    """

    index: int
    code: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    activation: str = ""
    problem: str = ""


NOTHING = Operation(-1, "", "", (), ())


@dataclass(frozen=True)
class Graph:
    """One exported file.

    Attributes:
        format: `tflite` or `onnx`.
        tensors: by key: TFLite's index, ONNX's name.
        operations: in an order in which they can be run.
        input: key of the only input that is not stored in the file.
        outputs: keys of the outputs.
    """

    format: str
    tensors: Mapping[str, Tensor]
    operations: tuple[Operation, ...]
    input: str
    outputs: tuple[str, ...]

    @cached_property
    def producers(self) -> Mapping[str, Operation]:
        """The operation that makes each tensor."""
        return {key: operation for operation in self.operations for key in operation.outputs}

    def producer(self, key: str) -> Operation:
        """The operation that makes a tensor; one of no kind for an input or a constant."""
        return self.producers.get(key, NOTHING)

    def name(self, operation: Operation) -> str:
        """`operation 14 LOG (estimates)`: how messages point at it."""
        return f"operation {operation.index} {operation.code} ({self.tensors[operation.outputs[0]].name})"
