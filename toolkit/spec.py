"""What a model takes and gives, and the numbers that every room agrees on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]
    Predict = Callable[[FloatArray], FloatArray]  # float32 (datasets, rows, columns) -> float32 (datasets, parameters)

FORMATS = ("tflite", "onnx")
PRECISIONS = ("float32", "float16", "int8", "integer")
QUANTIZED = ("int8", "integer")  # files that are fitted to calibration datasets
ARITHMETICS = ("float32", "float16")  # of hardware that runs a file of float operations
FP16_MATH = "fp16math"  # in names of files for float16 arithmetic, and of the gate they are held to
FURTHER_FORMATS = ("ort",)  # made when asked for by name: `all` stands for FORMATS
HEADER = "c"  # asked for like a format: a .tflite file as a C header beside it, no file of the manifest
# Integer files' consumers read TFLite; how int8 operations are fused in ort files differs between processors.
NOT_MADE = (("onnx", "integer"), ("ort", "int8"), ("ort", "integer"))

# The names inside every exported file.
INPUT_NAME = "datasets"
OUTPUT_NAME = "estimates"
BATCH_NAME = "batch"
LARGEST_BATCH = 1024  # of files that take a fixed number of datasets; beyond, nothing is gained
METADATA_NAME = "softplus_toolkit"  # TFLite metadata buffer and ONNX metadata_props key; the value is JSON

# The smallest normal number: hardware may flush anything smaller to 0.
SMALLEST_NORMAL_FLOAT32 = 2.0**-126  # 1.17549435e-38
SMALLEST_NORMAL_FLOAT16 = 2.0**-14  # 6.1035e-5


@dataclass(frozen=True)
class Spec:
    """Shape and names of a model's input and output.

    Attributes:
        rows: observations in one dataset (200 in the sample model).
        columns: name of each real number of an observation.
        parameters: name of each strictly positive output.
        sorted_rows: whoever runs the network sorts the rows of a dataset first, see toolkit/datasets/order.py.
    """

    rows: int
    columns: tuple[str, ...]
    parameters: tuple[str, ...]
    sorted_rows: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of one dataset."""
        return self.rows, len(self.columns)

    def describe(self) -> str:
        """One line for people: `200 sorted rows x (rt, correct) -> v, a, t0`."""
        rows = f"{self.rows} sorted rows" if self.sorted_rows else f"{self.rows} rows"
        return f"{rows} x ({', '.join(self.columns)}) -> {', '.join(self.parameters)}"

    def to_json(self) -> dict[str, Any]:
        """The form that manifest.json and the metadata of exported files hold."""
        taken = {"rows": self.rows, "columns": list(self.columns), "sorted_rows": self.sorted_rows}
        return {"input": taken, "parameters": list(self.parameters)}


def held_back(count: int) -> slice:
    """Of `count` calibration datasets those that no file is fitted to: what is said of quantized files is measured on
    them. Every fifth, and of thousands every other one: intervals take as many."""
    return slice(None, None, 5 if count < 2000 else 2)


def combinations(formats: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    """The (format, precision) of every file that there is of these, formats first."""
    pairs = [
        (format, precision) for format in (*FORMATS, *FURTHER_FORMATS) if format in formats for precision in precisions
    ]
    return [pair for pair in pairs if pair not in NOT_MADE]


def file_name(format: str, precision: str, *, arithmetic: str = "float32", batch: int | None = None) -> str:
    """The name an exported file has in its model directory: `model.float32.tflite`, `model.float32.batch1.tflite`.

    Args:
        arithmetic: of the hardware that the file is meant for: with float16 `model.float32.fp16math.tflite`.
        batch: the number of datasets in each call, of a file that takes no other.
    """
    math = "" if arithmetic == "float32" else f".{FP16_MATH}"
    return f"model.{precision}{math}{f'.batch{batch}' if batch else ''}.{format}"
