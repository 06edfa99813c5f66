"""Small random networks, each written as a TFLite and as an ONNX file, for tests that compare bounds with what runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny_files import OnnxFile, TfliteFile

ROWS, COLUMNS = 9, 2
SAME, VALID = 0, 1  # TFLite's Padding
RELU = 1  # TFLite's ActivationFunctionType

# (our word, TFLite, its options table, ONNX, operands)
ELEMENTWISE = (
    ("add", "ADD", "AddOptions", "Add", 2),
    ("sub", "SUB", "SubOptions", "Sub", 2),
    ("mul", "MUL", "MulOptions", "Mul", 2),
    ("min", "MINIMUM", "MaximumMinimumOptions", "Min", 2),
    ("max", "MAXIMUM", "MaximumMinimumOptions", "Max", 2),
    ("abs", "ABS", "AbsOptions", "Abs", 1),
    ("neg", "NEG", "NegOptions", "Neg", 1),
    ("floor", "FLOOR", None, "Floor", 1),
    ("relu", "RELU", None, "Relu", 1),
    ("tanh", "TANH", None, "Tanh", 1),
    ("sigmoid", "LOGISTIC", None, "Sigmoid", 1),
)


@dataclass
class Program:
    """Layers, then elementwise steps on the logits.

    Attributes:
        limit: inputs are cut off here; infinite for no limit.
        layers: (word, weights...), see `random_program`.
        fused: sums and products among the steps end in a ReLU.
        steps: (word, operands); an operand is the place of an earlier result, 0 being the logits, or a float constant.
    """

    limit: float
    fused: bool = False
    layers: list[tuple[Any, ...]] = field(default_factory=list)
    steps: list[tuple[str, tuple[int | float, ...]]] = field(default_factory=list)


def random_program(rng: np.random.Generator) -> Program:
    """Convolutions, pooling, Dense, and up to eight elementwise steps that reuse each other's results."""
    limit = float(rng.choice([1.0, 30.0, 1e4, 1e20, np.inf], p=[0.3, 0.3, 0.2, 0.1, 0.1]))
    program = Program(limit, fused=rng.integers(4) == 0)
    rows, channels = ROWS, COLUMNS
    for _ in range(rng.integers(0, 3)):
        filters = int(rng.integers(1, 4))
        kernel = rng.normal(size=(2, channels, filters)) * rng.choice([0.1, 1.0, 10.0])
        same, relu, stride = bool(rng.integers(2)), bool(rng.integers(2)), int(rng.integers(1, 3))
        program.layers.append(("conv", kernel, rng.normal(size=filters), same, relu, stride))
        rows, channels = (-(-rows // stride) if same else -(-(rows - 1) // stride)), filters
        if rows >= 2 and rng.integers(2):
            program.layers.append((str(rng.choice(["max_pool", "average_pool"])),))
            rows //= 2
        if rows < 2:
            break
    if rng.integers(4) == 0:
        program.layers.append(("mean",))
        rows = 1
    parameters = int(rng.integers(1, 4))
    program.layers.append(("dense", rng.normal(size=(rows * channels, parameters)), rng.normal(size=parameters)))
    for place in range(int(rng.integers(1, 9))):
        program.steps.append(_random_step(rng, place))
    return program


def _random_step(rng: np.random.Generator, place: int) -> tuple[str, tuple[int | float, ...]]:
    def earlier() -> int:
        return int(rng.integers(0, place + 1)) if rng.integers(2) else place

    if rng.integers(5) == 0:  # exp of something below a limit, so that it is finite more often than not
        return "exp", (earlier(), float(rng.choice([0.0, 5.0, 60.0])))
    word, *_, operands = ELEMENTWISE[rng.integers(len(ELEMENTWISE))]
    if operands == 1:
        return word, (earlier(),)
    other: int | float = earlier() if rng.integers(3) else float(rng.choice([-86.0, -1.5, -0.0, 0.3, 1.4427, 4097.0]))
    return word, (earlier(), other)


def write_tflite(program: Program, path: Path) -> Path:
    """The program as a TFLite file."""
    file = TfliteFile((None, ROWS, COLUMNS))
    key = file.input
    if np.isfinite(program.limit):
        for code, number in (("MAXIMUM", -program.limit), ("MINIMUM", program.limit)):
            constant = file.constant(number)
            key = file.add(code, [key, constant], file.tensor((None, ROWS, COLUMNS)), kind="MaximumMinimumOptions")
    rows, channels = ROWS, COLUMNS
    key = _tflite_reshape(file, key, (rows, 1, channels))
    for word, *weights in program.layers:
        if word == "conv":
            kernel, bias, same, relu, stride = weights
            rows, channels = (-(-rows // stride) if same else -(-(rows - 1) // stride)), len(bias)
            inputs = [key, file.constant(kernel.transpose(2, 0, 1)[:, :, None, :]), file.constant(bias)]
            options = {"padding": SAME if same else VALID, "strideH": stride, "strideW": 1}
            options |= {"dilationHFactor": 1, "dilationWFactor": 1, "fusedActivationFunction": RELU if relu else 0}
            output = file.tensor((None, rows, 1, channels))
            key = file.add("CONV_2D", inputs, output, kind="Conv2DOptions", **options)
        elif word in ("max_pool", "average_pool"):
            rows //= 2
            options = {"padding": VALID, "strideH": 2, "strideW": 1, "filterHeight": 2, "filterWidth": 1}
            code = f"{word.upper()}_2D"
            key = file.add(code, [key], file.tensor((None, rows, 1, channels)), kind="Pool2DOptions", **options)
        elif word == "mean":
            axes = file.constant([1, 2], "int32")
            key = file.add("MEAN", [key, axes], file.tensor((None, channels)), kind="ReducerOptions", keepDims=False)
            rows = 1
        else:
            kernel, bias = weights
            key = _tflite_reshape(file, key, (rows * channels,))
            inputs = [key, file.constant(kernel.T), file.constant(bias)]
            channels = len(bias)
            key = file.add("FULLY_CONNECTED", inputs, file.tensor((None, channels)), kind="FullyConnectedOptions")
    results = [key]
    for word, operands in program.steps:
        keys = [results[one] if isinstance(one, int) else file.constant(one) for one in operands]
        if word == "exp":
            shape = (None, channels)
            cut = file.add("MINIMUM", keys, file.tensor(shape), kind="MaximumMinimumOptions")
            results.append(file.add("EXP", [cut], file.tensor(shape), kind="ExpOptions"))
        else:
            (_, code, table, _, _) = next(entry for entry in ELEMENTWISE if entry[0] == word)
            fuses = code in ("ADD", "SUB", "MUL") and len(keys) == 2 and program.fused
            options = {"fusedActivationFunction": RELU} if fuses else {}
            results.append(file.add(code, keys, file.tensor((None, channels)), kind=table, **options))
    return file.save(path, results[-1:])


def _tflite_reshape(file: TfliteFile, key: int, shape: Sequence[int]) -> int:
    target = file.constant([-1, *shape], "int32")
    return file.add("RESHAPE", [key, target], file.tensor((None, *shape)), kind="ReshapeOptions")


def write_onnx(program: Program, path: Path) -> Path:
    """The same program as an ONNX file, with one-dimensional convolutions."""
    file = OnnxFile(["batch", ROWS, COLUMNS])
    key = file.input
    if np.isfinite(program.limit):
        key = file.add("Clip", [key, file.constant(-program.limit), file.constant(program.limit)])
    rows, channels = ROWS, COLUMNS
    key = file.add("Transpose", [key], perm=[0, 2, 1])
    flat = False
    for word, *weights in program.layers:
        if word == "conv":
            kernel, bias, same, relu, stride = weights
            rows, channels = (-(-rows // stride) if same else -(-(rows - 1) // stride)), len(bias)
            padding = "SAME_UPPER" if same else "VALID"
            inputs = [key, file.constant(kernel.transpose(2, 1, 0)), file.constant(bias)]
            key = file.add("Conv", inputs, strides=[stride], kernel_shape=[2], auto_pad=padding)
            key = file.add("Relu", [key]) if relu else key
        elif word in ("max_pool", "average_pool"):
            rows //= 2
            code = "MaxPool" if word == "max_pool" else "AveragePool"
            key = file.add(code, [key], kernel_shape=[2], strides=[2])
        elif word == "mean":
            key = file.add("ReduceMean", [key, file.constant([2], "int64")], keepdims=0)
            flat = True
        else:
            kernel, bias = weights
            if not flat:
                key = file.add("Transpose", [key], perm=[0, 2, 1])
                key = file.add("Reshape", [key, file.constant([0, -1], "int64")])
            key = file.add("Gemm", [key, file.constant(kernel), file.constant(bias)])
            channels = len(bias)
    results = [key]
    for word, operands in program.steps:
        keys = [results[one] if isinstance(one, int) else file.constant(one) for one in operands]
        if word == "exp":
            results.append(file.add("Exp", [file.add("Min", keys)]))
        else:
            (_, _, _, code, _) = next(entry for entry in ELEMENTWISE if entry[0] == word)
            result = file.add(code, keys)
            fuses = code in ("Add", "Sub", "Mul") and program.fused
            results.append(file.add("Relu", [result]) if fuses else result)
    return file.save(path, results[-1:], channels)


def extreme_datasets(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Finite datasets: ordinary numbers, zeros, subnormal numbers, the largest ones, single spikes."""
    scales = 10.0 ** rng.uniform(-3, 6, (count, 1, 1))
    datasets = (rng.normal(size=(count, ROWS, COLUMNS)) * scales).astype(np.float32)
    largest = np.finfo(np.float32).max
    datasets[0], datasets[1], datasets[2], datasets[3] = 0, largest, -largest, 1e-42
    datasets[4] = largest * rng.choice([-1, 1], (ROWS, COLUMNS))
    datasets[5] = 0
    datasets[5, rng.integers(ROWS), rng.integers(COLUMNS)] = largest
    return datasets
