"""The host side of an integer-only file: what surrounds a network that takes int8 codes and gives int8 codes.

Such a file computes with integers alone, so that it runs where nothing else does. What is left for the processor beside
it are one rounding for each number that goes in and one softplus for each parameter that comes out; both are described
by a few numbers, which manifest.json and the file itself hold. `samples/microcontroller` has the same in C.

In: each column is cut to `minimum..maximum` and counted in steps of 1 / multiplier from the minimum, to the nearest,
halves to even. The count, up to 256 fine - 1, is split over two channels of the input if it takes more than one:

    count = round((min(max(x, minimum), maximum) - minimum) * multiplier)
    first channel:   count // fine - 128        whole steps
    second channel:  count % fine - 128         what the division leaves; only where fine > 1

Out: logit = scale * (code - zero_point) + centre, and the strictly positive softplus of it. There are 256 codes, so
that whoever asks whether every estimate is positive looks at all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

FACT = "integer"  # the key of these numbers in manifest.json's entry and in the file's metadata

LOWEST = -128  # the first int8 code
CODES = 256
CUTOFF = 86.0  # exp(-86) = 4.47e-38 is the smallest estimate, 3.8 times the smallest normal float32

Codes = NDArray[np.int8]


@dataclass(frozen=True)
class Column:
    """How one input column becomes codes; all real numbers are float32."""

    minimum: float
    maximum: float
    multiplier: float
    fine: int

    @property
    def channels(self) -> int:
        return 2 if self.fine > 1 else 1


@dataclass(frozen=True)
class Output:
    """How the code of one parameter becomes its logit; real numbers are float32."""

    scale: float
    zero_point: int
    centre: float


@dataclass(frozen=True)
class Host:
    """Attributes:
    columns: in the order of the model's input. outputs: in the order of its parameters.
    arena_bytes: memory that TensorFlow Lite Micro needs to run the file, measured on a 64-bit machine, where its own
        structures are larger than on a microcontroller; None where it was not measured.
    """

    columns: tuple[Column, ...]
    outputs: tuple[Output, ...]
    arena_bytes: int | None = None

    @property
    def channels(self) -> int:
        """Of the file's input."""
        return sum(column.channels for column in self.columns)

    def codes(self, datasets: FloatArray) -> Codes:
        """int8 (datasets, rows, channels) for float32 (datasets, rows, columns).

        Infinities and whatever lies beyond the ranges saturate. NaN becomes the first code: whoever runs the file has
        to look for it.
        """
        made = np.empty((*datasets.shape[:-1], self.channels), np.int8)
        channel = 0
        for index, column in enumerate(self.columns):
            count = _count(datasets[..., index], column)
            made[..., channel] = count // column.fine + LOWEST
            if column.fine > 1:
                made[..., channel + 1] = count % column.fine + LOWEST
            channel += column.channels
        return made

    def logits(self) -> FloatArray:
        """float32 (256, parameters): the logit that each code stands for, the smallest code first."""
        codes = np.arange(LOWEST, LOWEST + CODES, dtype=np.float32)[:, np.newaxis]
        zero_points = np.array([output.zero_point for output in self.outputs], np.float32)
        scales = np.array([output.scale for output in self.outputs], np.float32)
        with np.errstate(over="ignore"):  # an infinite logit is for the proof to find
            return scales * (codes - zero_points) + np.array([output.centre for output in self.outputs], np.float32)

    def table(self) -> FloatArray:
        """float32 (256, parameters): the estimate that each code stands for."""
        return softplus(self.logits())

    def to_json(self) -> dict[str, Any]:
        columns, outputs = ([asdict(each) for each in numbers] for numbers in (self.columns, self.outputs))
        return {"columns": columns, "outputs": outputs, "arena_bytes": self.arena_bytes}


def _count(values: FloatArray, column: Column) -> NDArray[np.int32]:
    """Steps from the minimum, in float32: a subtraction and a multiplication, which no compiler fuses into one."""
    minimum, maximum = np.float32(column.minimum), np.float32(column.maximum)
    inside = np.where(np.isnan(values), minimum, np.clip(values, minimum, maximum))
    return np.asarray(np.rint((inside - minimum) * np.float32(column.multiplier)).astype(np.int32))


def softplus(logits: FloatArray) -> FloatArray:
    """log(1 + exp(z)), at least 4.47e-38; computed in float64, float32 to the nearest."""
    z = logits.astype(np.float64)
    return np.asarray(np.maximum(z, 0.0) + np.log1p(np.exp(-np.minimum(np.abs(z), CUTOFF))), np.float32)


def host_of(path: Path, facts: Mapping[str, Any]) -> Host | None:
    """The host side in the facts that the file carries; None where they speak of none.

    Raises:
        ModelError: numbers that are missing, not finite, or do not fit each other; the message says which.
    """
    stored = facts.get(FACT)
    if stored is None:
        return None
    try:
        columns = tuple(Column(**each) for each in stored["columns"])
        outputs = tuple(Output(**each) for each in stored["outputs"])
        host = Host(columns, outputs, stored["arena_bytes"])
        _check(host)
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ModelError(f"{path}: the numbers of its host side are damaged ({error}). Export it again.") from error
    return host


def _check(host: Host) -> None:
    """Raises:
    ValueError: it says what does not hold.
    """
    if not host.columns or not host.outputs:
        raise ValueError("no columns or no outputs")
    if not (host.arena_bytes is None or _is_whole(host.arena_bytes, 1, 1 << 30)):
        raise ValueError(f"arena_bytes {host.arena_bytes!r}")
    for column in host.columns:
        if not all(_is_float32(value) for value in (column.minimum, column.maximum, column.multiplier)):
            raise ValueError(f"{column}: not float32 numbers")
        if not _is_whole(column.fine, 1, CODES):
            raise ValueError(f"{column}: fine is not within 1..256")
        if not (column.minimum < column.maximum and column.multiplier > 0):
            raise ValueError(f"{column}: an empty range")
        steps = (np.float32(column.maximum) - np.float32(column.minimum)) * np.float32(column.multiplier)
        if not steps < CODES * column.fine - 0.5:
            raise ValueError(f"{column}: {steps:.9g} steps, more than its channels count")
    for output in host.outputs:
        if not (_is_float32(output.scale) and _is_float32(output.centre) and output.scale > 0):
            raise ValueError(f"{output}: not float32 numbers, or a scale that is not positive")
        if not _is_whole(output.zero_point, LOWEST, LOWEST + CODES - 1):
            raise ValueError(f"{output}: a zero point that is no int8")


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_float32(value: object) -> bool:
    """A finite number that float32 holds as it stands."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    with np.errstate(over="ignore"):
        return float(np.float32(value)) == value
