"""Small random networks on int8 codes, each written as a TFLite file and as an ONNX file with Q and DQ nodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny_files import OnnxFile, TfliteFile

ROWS, COLUMNS = 8, 2

# code of LiteRT, its options table, version that takes int8, operands; all keep their shape
TFLITE_STEPS = (
    ("ADD", "AddOptions", 2, 2),
    ("SUB", "SubOptions", 3, 2),
    ("MUL", "MulOptions", 2, 2),
    ("MAXIMUM", "MaximumMinimumOptions", 2, 2),
    ("MINIMUM", "MaximumMinimumOptions", 2, 2),
    ("RELU", None, 2, 1),
    ("LOGISTIC", None, 2, 1),
    ("TANH", None, 2, 1),
)
FIXED_SCALES = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}  # the kernels take no others
ONNX_STEPS = (("Add", 2), ("Sub", 2), ("Mul", 2), ("Max", 2), ("Min", 2), ("Relu", 1), ("Sigmoid", 1), ("Tanh", 1))


@dataclass
class Layers:
    """Weights as codes and the scales of everything, the same for both formats."""

    input_scale: tuple[float, int]
    kernel: NDArray[np.int8]  # (filters, 2, COLUMNS)
    kernel_scale: NDArray[np.float32]  # (filters,)
    conv_bias: NDArray[np.int32]
    conv_scale: tuple[float, int]
    relu: bool
    pool: str
    dense: NDArray[np.int8]  # (parameters, features)
    dense_scale: float
    dense_bias: NDArray[np.int32]
    logit_scale: tuple[float, int]


def random_layers(rng: np.random.Generator) -> Layers:
    filters, parameters = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    pool = str(rng.choice(["", "max_pool", "average_pool"]))
    rows = (ROWS - 1) // (2 if pool else 1)
    return Layers(
        input_scale=_random_scale(rng),
        kernel=_codes(rng, (filters, 2, COLUMNS)),
        kernel_scale=rng.uniform(0.001, 0.02, filters).astype(np.float32),
        conv_bias=rng.integers(-500, 500, filters).astype(np.int32),
        conv_scale=_random_scale(rng),
        relu=bool(rng.integers(2)),
        pool=pool,
        dense=_codes(rng, (parameters, rows * filters)),
        dense_scale=float(np.float32(rng.uniform(0.001, 0.02))),
        dense_bias=rng.integers(-500, 500, parameters).astype(np.int32),
        logit_scale=_random_scale(rng),
    )


def write_quantized_tflite(rng: np.random.Generator, path: Path, *, ends_in_codes: bool) -> Path:
    """Float in; codes or floats out. Requantized elementwise steps follow the Dense layer."""
    layers = random_layers(rng)
    filters, parameters = len(layers.conv_bias), len(layers.dense_bias)
    file = TfliteFile((None, ROWS, COLUMNS))
    shape: tuple[int | None, ...] = (None, ROWS, COLUMNS)
    key = file.add("QUANTIZE", [file.input], file.tensor(shape, "int8", layers.input_scale), kind="QuantizeOptions")
    target = file.constant([-1, ROWS, 1, COLUMNS], "int32")
    reshaped = file.tensor((None, ROWS, 1, COLUMNS), "int8", layers.input_scale)
    key = file.add("RESHAPE", [key, target], reshaped, kind="ReshapeOptions")
    kernel = file.constant(layers.kernel[:, :, None, :], "int8", (layers.kernel_scale, 0))
    bias = file.constant(layers.conv_bias, "int32", (layers.kernel_scale * np.float32(layers.input_scale[0]), 0))
    rows = ROWS - 1
    options: dict[str, Any] = {"padding": 1, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    options["fusedActivationFunction"] = int(layers.relu)
    output = file.tensor((None, rows, 1, filters), "int8", layers.conv_scale)
    key = file.add("CONV_2D", [key, kernel, bias], output, version=3, kind="Conv2DOptions", **options)
    if layers.pool:
        rows //= 2
        options = {"padding": 1, "strideH": 2, "strideW": 1, "filterHeight": 2, "filterWidth": 1}
        output = file.tensor((None, rows, 1, filters), "int8", layers.conv_scale)
        key = file.add(f"{layers.pool.upper()}_2D", [key], output, version=2, kind="Pool2DOptions", **options)
    flat = file.tensor((None, rows * filters), "int8", layers.conv_scale)
    key = file.add("RESHAPE", [key, file.constant([-1, rows * filters], "int32")], flat, kind="ReshapeOptions")
    weights = file.constant(layers.dense, "int8", (layers.dense_scale, 0))
    bias = file.constant(
        layers.dense_bias, "int32", (np.float32(layers.dense_scale) * np.float32(layers.conv_scale[0]), 0)
    )
    output = file.tensor((None, parameters), "int8", layers.logit_scale)
    key = file.add("FULLY_CONNECTED", [key, weights, bias], output, version=4, kind="FullyConnectedOptions")
    results, scales = [key], [layers.logit_scale]
    for _ in range(rng.integers(0, 5)):
        code, table, version, operands = TFLITE_STEPS[rng.integers(len(TFLITE_STEPS))]
        first = int(rng.integers(len(results)))
        inputs, scale = [results[first]], FIXED_SCALES.get(code) or _random_scale(rng)
        if operands == 2:
            same = [place for place, other in enumerate(scales) if other == scales[first]]
            second = int(rng.choice(same)) if table == "MaximumMinimumOptions" else int(rng.integers(len(results)))
            inputs.append(results[second])
        if table == "MaximumMinimumOptions":
            scale = scales[first]
        options = {"fusedActivationFunction": int(rng.integers(4))} if code in ("ADD", "SUB", "MUL") else {}
        output = file.tensor((None, parameters), "int8", scale)
        results.append(file.add(code, inputs, output, version, kind=table, **options))
        scales.append(scale)
    if ends_in_codes:
        return file.save(path, results[-1:])
    output = file.tensor((None, parameters))
    return file.save(path, [file.add("DEQUANTIZE", results[-1:], output, version=2, kind="DequantizeOptions")])


def write_quantized_onnx(rng: np.random.Generator, path: Path) -> Path:
    """Float in and out; every result is quantized and dequantized, as ONNX Runtime's own quantizer writes it."""
    layers = random_layers(rng)
    file = OnnxFile(["batch", ROWS, COLUMNS])
    zero = file.constant(0, "int8")

    def through_codes(key: str, scale: tuple[float, int]) -> str:
        scale_key, zero_point = file.constant(scale[0]), file.constant(scale[1], "int8")
        codes = file.add("QuantizeLinear", [key, scale_key, zero_point])
        return file.add("DequantizeLinear", [codes, scale_key, zero_point])

    key = through_codes(file.add("Transpose", [file.input], perm=[0, 2, 1]), layers.input_scale)
    zeros = file.constant(np.zeros(len(layers.kernel_scale)), "int8")
    codes = file.constant(layers.kernel.transpose(0, 2, 1), "int8")
    kernel = file.add("DequantizeLinear", [codes, file.constant(layers.kernel_scale), zeros], axis=0)
    bias_scale = file.constant(layers.kernel_scale * np.float32(layers.input_scale[0]))
    bias = file.add("DequantizeLinear", [file.constant(layers.conv_bias, "int32"), bias_scale], axis=0)
    key = file.add("Conv", [key, kernel, bias], kernel_shape=[2])
    key = through_codes(file.add("Relu", [key]) if layers.relu else key, layers.conv_scale)
    if layers.pool:
        code = "MaxPool" if layers.pool == "max_pool" else "AveragePool"
        key = through_codes(file.add(code, [key], kernel_shape=[2], strides=[2]), layers.conv_scale)
    key = file.add("Flatten", [key], axis=1)
    weights = file.add(
        "DequantizeLinear", [file.constant(layers.dense.T, "int8"), file.constant(layers.dense_scale), zero]
    )
    scale = file.constant(np.float32(layers.dense_scale) * np.float32(layers.conv_scale[0]))
    bias = file.add("DequantizeLinear", [file.constant(layers.dense_bias, "int32"), scale])
    key = through_codes(file.add("Gemm", [key, weights, bias]), layers.logit_scale)
    results = [key]
    for _ in range(rng.integers(0, 5)):
        code, operands = ONNX_STEPS[rng.integers(len(ONNX_STEPS))]
        inputs = [results[int(rng.integers(len(results)))] for _ in range(operands)]
        results.append(through_codes(file.add(code, inputs), _random_scale(rng)))
    return file.save(path, results[-1:], len(layers.dense_bias))


def write_hybrid_tflite(rng: np.random.Generator, path: Path) -> Path:
    """Float in and out, int8 weights: what the converter's dynamic range quantization writes."""
    layers = random_layers(rng)
    filters, parameters = len(layers.conv_bias), len(layers.dense_bias)
    file = TfliteFile((None, ROWS, COLUMNS))
    shape = (None, ROWS, 1, COLUMNS)
    limit, key = float(rng.choice([1.0, 100.0, 1e30])), file.input
    for code, number in (("MAXIMUM", -limit), ("MINIMUM", limit)):
        output = file.tensor((None, ROWS, COLUMNS))
        key = file.add(code, [key, file.constant(number)], output, kind="MaximumMinimumOptions")
    target = file.constant([-1, *shape[1:]], "int32")
    key = file.add("RESHAPE", [key, target], file.tensor(shape), kind="ReshapeOptions")
    kernel = file.constant(layers.kernel[:, :, None, :], "int8", (layers.kernel_scale, 0))
    options = {"padding": 1, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    bias = file.constant(layers.conv_bias / 100)
    output = file.tensor((None, ROWS - 1, 1, filters))
    key = file.add("CONV_2D", [key, kernel, bias], output, version=5, kind="Conv2DOptions", **options)
    width = layers.dense.shape[1]
    if layers.pool:
        options = {"padding": 1, "strideH": 2, "strideW": 1, "filterHeight": 2, "filterWidth": 1}
        output = file.tensor((None, width // filters, 1, filters))
        key = file.add(f"{layers.pool.upper()}_2D", [key], output, kind="Pool2DOptions", **options)
    target = file.constant([-1, width], "int32")
    key = file.add("RESHAPE", [key, target], file.tensor((None, width)), kind="ReshapeOptions")
    weights, bias = file.constant(layers.dense, "int8", (layers.dense_scale, 0)), file.constant(layers.dense_bias / 100)
    output = file.tensor((None, parameters))
    key = file.add("FULLY_CONNECTED", [key, weights, bias], output, version=3, kind="FullyConnectedOptions")
    return file.save(path, [key])


def _random_scale(rng: np.random.Generator) -> tuple[float, int]:
    return float(np.float32(10 ** rng.uniform(-2, 0))), int(rng.integers(-128, 128))


def _codes(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int8]:
    return rng.integers(-127, 128, shape).astype(np.int8)
