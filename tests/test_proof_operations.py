"""Each operation that has a rule, in a file of its own: at a point the bounds close around what the runtimes compute.

With bounds that are a single dataset, the proof computes what the file computes, so that a wrong stride, padding, axis
or layout shows at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_files import OnnxFile, TfliteFile, run_onnx, run_tflite

from toolkit.proof.intervals import Bounds
from toolkit.proof.onnx import read_onnx
from toolkit.proof.propagate import Bounded, propagate
from toolkit.proof.tflite import read_tflite
from toolkit.proof.values import reals

ROWS, COLUMNS = 7, 4
SHAPE = (2, ROWS, COLUMNS)
# Widest interval seen around a result, relative to the largest magnitude of the tensor: 9.2e-5 where 2^-15 and 2^-16
# are granted to either side, 2e-3 in half precision.
WIDTH, HALF_WIDTH = 2e-4, 4e-3

rng = np.random.default_rng(7)
KERNEL = rng.normal(size=(3, COLUMNS, 5)).astype(np.float32)  # (window, channels, filters)
DENSE = rng.normal(size=(COLUMNS, 3)).astype(np.float32)
BIAS = rng.normal(size=5).astype(np.float32)

OnnxCase = Callable[[OnnxFile], str]
TfliteCase = Callable[[TfliteFile], int]


def node(code: str, *constants: Any, dtype: str = "int64", **attributes: Any) -> OnnxCase:
    """A node of the input and constants; numbers that are float stay float."""

    def build(file: OnnxFile) -> str:
        keys = [file.constant(one, "float32" if np.asarray(one).dtype.kind == "f" else dtype) for one in constants]
        return file.add(code, [file.input, *keys], **attributes)

    return build


def convolution(transposed: bool = True, **attributes: Any) -> OnnxCase:
    def build(file: OnnxFile) -> str:
        key = file.add("Transpose", [file.input], perm=[0, 2, 1])
        kernel = file.constant(KERNEL.transpose(2, 1, 0))
        return file.add("Conv", [key, kernel, file.constant(BIAS)], **attributes)

    return build


def grouped(file: OnnxFile) -> str:
    key = file.add("Transpose", [file.input], perm=[0, 2, 1])
    return file.add("Conv", [key, file.constant(KERNEL[:, :2, :4].transpose(2, 1, 0))], group=2)


def pooled(code: str, **attributes: Any) -> OnnxCase:
    def build(file: OnnxFile) -> str:
        return file.add(code, [file.add("Transpose", [file.input], perm=[0, 2, 1])], **attributes)

    return build


def normalized(file: OnnxFile) -> str:
    key = file.add("Transpose", [file.input], perm=[0, 2, 1])
    scale, offset, mean = (file.constant(rng.normal(size=COLUMNS)) for _ in range(3))
    return file.add(
        "BatchNormalization", [key, scale, offset, mean, file.constant(np.full(COLUMNS, 0.7))], epsilon=1e-3
    )


def flat_dense(file: OnnxFile) -> str:
    flat = file.add("Flatten", [file.input])
    kernel = file.constant(rng.normal(size=(3, ROWS * COLUMNS)))
    return file.add("Gemm", [flat, kernel, file.constant(rng.normal(size=3))], transB=1, alpha=0.5, beta=2.0)


def split_and_joined(file: OnnxFile) -> str:
    file.nodes.append(
        file.onnx.helper.make_node("Split", [file.input, file.constant([1, 3], "int64")], ["a", "b"], axis=2)
    )
    return file.add("Concat", ["b", "a"], axis=-1)


def by_shape(file: OnnxFile) -> str:
    """What exporters write for a flatten with an open batch."""
    shape = file.add("Shape", [file.input])
    batch = file.add("Slice", [shape, file.constant([0], "int64"), file.constant([1], "int64")])
    target = file.add("Concat", [batch, file.constant([ROWS * COLUMNS], "int64")], axis=0)
    return file.add("Reshape", [file.input, target])


def where(file: OnnxFile) -> str:
    condition = file.add("Less", [file.input, file.constant(0.1)])
    return file.add("Where", [condition, file.add("Neg", [file.input]), file.constant(0.25)])


def half(file: OnnxFile) -> str:
    return file.add("Cast", [file.add("Relu", [file.add("Cast", [file.input], to=10)])], to=1)


ONNX_CASES: dict[str, OnnxCase] = {
    **{
        code: node(code)
        for code in ("Abs", "Neg", "Exp", "Floor", "Ceil", "Relu", "Softplus", "Sigmoid", "Tanh", "Elu")
    },
    **{code: node(code, rng.normal(size=COLUMNS)) for code in ("Add", "Sub", "Mul", "Div", "Min", "Max", "PRelu")},
    "Log": lambda file: file.add("Log", [file.add("Exp", [file.input])]),
    "Sqrt": lambda file: file.add("Sqrt", [file.add("Abs", [file.input])]),
    "Round": node("Round"),
    "Pow": node("Pow", 2.0),
    "Pow of a constant": lambda file: file.add("Pow", [file.constant(0.5), file.input]),
    "LeakyRelu": node("LeakyRelu", alpha=0.1),
    "Identity": node("Identity"),
    "Dropout": node("Dropout"),
    "Sum": node("Sum", 0.5),
    "Clip": node("Clip", -0.5, 0.5),
    "Clip above": lambda file: file.add("Clip", [file.input, "", file.constant(0.5)]),
    "Clip below": node("Clip", -0.5),
    "Where": where,
    "Cast": half,
    "Conv": convolution(),
    "Conv with strides": convolution(strides=[2], pads=[1, 0]),
    "Conv same": convolution(auto_pad="SAME_UPPER", strides=[2]),
    "Conv same, odd end first": convolution(auto_pad="SAME_LOWER", strides=[2]),
    "Conv dilated": convolution(dilations=[2]),
    "Conv in groups": grouped,
    "MaxPool": pooled("MaxPool", kernel_shape=[3], strides=[2], pads=[1, 1]),
    "AveragePool": pooled("AveragePool", kernel_shape=[3], strides=[2], pads=[1, 1]),
    "AveragePool with padding": pooled("AveragePool", kernel_shape=[3], pads=[1, 1], count_include_pad=1),
    "GlobalAveragePool": pooled("GlobalAveragePool"),
    "GlobalMaxPool": pooled("GlobalMaxPool"),
    "ReduceMean": node("ReduceMean", [1], keepdims=0),
    "ReduceSum": node("ReduceSum", [-1]),
    "ReduceMax": node("ReduceMax", [1]),
    "ReduceMin": node("ReduceMin", [1]),
    "BatchNormalization": normalized,
    "MatMul": node("MatMul", DENSE),
    "Gemm": flat_dense,
    "Transpose": node("Transpose", perm=[0, 2, 1]),
    "Reshape": node("Reshape", [0, -1, 2]),
    "Flatten": node("Flatten"),
    "Unsqueeze": node("Unsqueeze", [1, 3]),
    "Squeeze": lambda file: file.add(
        "Squeeze", [file.add("Unsqueeze", [file.input, file.constant([2], "int64")]), file.constant([2], "int64")]
    ),
    "Slice": node("Slice", [1], [6], [1], [2]),
    "Gather": node("Gather", [2, 0], axis=2),
    "Split and Concat": split_and_joined,
    "Pad": node("Pad", [0, 1, 0, 0, 2, 0], 0.5),
    "Expand": lambda file: file.add(
        "Expand", [file.add("ReduceMean", [file.input, file.constant([1], "int64")]), file.constant([1, 3, 1], "int64")]
    ),
    "Shape": by_shape,
}


def operation(
    code: str, shape: tuple[int | None, ...], *constants: Any, kind: str | None = None, version: int = 1, **options: Any
) -> TfliteCase:
    def build(file: TfliteFile) -> int:
        keys = [file.constant(one, "float32" if np.asarray(one).dtype.kind == "f" else "int32") for one in constants]
        return file.add(code, [file.input, *keys], file.tensor(shape), version, kind=kind, **options)

    return build


SAME = (None, ROWS, COLUMNS)


def pictured(file: TfliteFile) -> int:
    """The input as (batch, rows, 1, columns)."""
    shape = (None, ROWS, 1, COLUMNS)
    return file.add("RESHAPE", [file.input, file.constant([-1, *shape[1:]], "int32")], file.tensor(shape))


def convolution_2d(rows: int, **options: Any) -> TfliteCase:
    options = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, **options}

    def build(file: TfliteFile) -> int:
        kernel = file.constant(KERNEL.transpose(2, 0, 1)[:, :, None, :])
        inputs = [pictured(file), kernel, file.constant(BIAS)]
        return file.add("CONV_2D", inputs, file.tensor((None, rows, 1, 5)), kind="Conv2DOptions", **options)

    return build


def depthwise(file: TfliteFile) -> int:
    kernel = file.constant(rng.normal(size=(1, 3, 1, 2 * COLUMNS)))
    options = {
        "strideH": 1,
        "strideW": 1,
        "dilationHFactor": 1,
        "dilationWFactor": 1,
        "depthMultiplier": 2,
        "padding": 1,
    }
    inputs = [pictured(file), kernel, file.constant(rng.normal(size=2 * COLUMNS))]
    output = file.tensor((None, ROWS - 2, 1, 2 * COLUMNS))
    return file.add("DEPTHWISE_CONV_2D", inputs, output, kind="DepthwiseConv2DOptions", **options)


def pool_2d(code: str, rows: int, **options: Any) -> TfliteCase:
    options = {"strideH": 2, "strideW": 1, "filterHeight": 3, "filterWidth": 1, **options}

    def build(file: TfliteFile) -> int:
        return file.add(code, [pictured(file)], file.tensor((None, rows, 1, COLUMNS)), kind="Pool2DOptions", **options)

    return build


def dense(file: TfliteFile) -> int:
    flat = file.add("RESHAPE", [file.input, file.constant([-1, ROWS * COLUMNS], "int32")], file.tensor((None, 28)))
    inputs = [flat, file.constant(rng.normal(size=(3, ROWS * COLUMNS))), file.constant(rng.normal(size=3))]
    options = {"fusedActivationFunction": 3}  # RELU6
    return file.add("FULLY_CONNECTED", inputs, file.tensor((None, 3)), kind="FullyConnectedOptions", **options)


def half_weights(file: TfliteFile) -> int:
    stored = file.constant(DENSE.T, "float16")
    kernel = file.add("DEQUANTIZE", [stored], file.tensor((3, COLUMNS)), version=3, kind="DequantizeOptions")
    rows = file.add("SLICE", [file.input, *_slice(file)], file.tensor((None, 1, COLUMNS)), kind="SliceOptions")
    flat = file.add("RESHAPE", [rows, file.constant([-1, COLUMNS], "int32")], file.tensor((None, COLUMNS)))
    return file.add("FULLY_CONNECTED", [flat, kernel, -1], file.tensor((None, 3)), kind="FullyConnectedOptions")


def _slice(file: TfliteFile) -> list[int]:
    return [file.constant([0, 2, 0], "int32"), file.constant([-1, 1, -1], "int32")]


def by_shape_2d(file: TfliteFile) -> int:
    """SHAPE, STRIDED_SLICE, PACK: what the converter writes for a reshape with an open batch."""
    shape = file.add("SHAPE", [file.input], file.tensor((3,), "int32"), kind="ShapeOptions", outType=2)
    ends = [file.constant(one, "int32") for one in ([0], [1], [1])]
    batch = file.add(
        "STRIDED_SLICE", [shape, *ends], file.tensor((), "int32"), kind="StridedSliceOptions", shrinkAxisMask=1
    )
    rest = file.constant(ROWS * COLUMNS, "int32")
    target = file.add("PACK", [batch, rest], file.tensor((2,), "int32"), kind="PackOptions", valuesCount=2, axis=0)
    return file.add("RESHAPE", [file.input, target], file.tensor((None, ROWS * COLUMNS)))


def joined(file: TfliteFile) -> int:
    other = file.add("NEG", [file.input], file.tensor(SAME), kind="NegOptions")
    output = file.tensor((None, ROWS, 2 * COLUMNS))
    return file.add("CONCATENATION", [file.input, other], output, kind="ConcatenationOptions", axis=-1)


def selected(file: TfliteFile) -> int:
    condition = file.add("GREATER", [file.input, file.constant(0.1)], file.tensor(SAME, "bool"), kind="GreaterOptions")
    inputs = [condition, file.add("ABS", [file.input], file.tensor(SAME)), file.constant(np.zeros(SHAPE[1:])[None])]
    return file.add("SELECT_V2", inputs, file.tensor(SAME), kind="SelectV2Options")


NUMBERS = rng.normal(size=COLUMNS)
TFLITE_CASES: dict[str, TfliteCase] = {
    "ADD": operation("ADD", SAME, NUMBERS, kind="AddOptions"),
    "SUB": operation("SUB", SAME, NUMBERS, kind="SubOptions", fusedActivationFunction=2),  # RELU_N1_TO_1
    "MUL": operation("MUL", SAME, NUMBERS, kind="MulOptions"),
    "DIV": operation("DIV", SAME, NUMBERS, kind="DivOptions"),
    "MINIMUM": operation("MINIMUM", SAME, NUMBERS, kind="MaximumMinimumOptions"),
    "MAXIMUM": operation("MAXIMUM", SAME, NUMBERS, kind="MaximumMinimumOptions"),
    **{code: operation(code, SAME) for code in ("ABS", "NEG", "EXP", "FLOOR", "CEIL", "ROUND", "SQUARE", "RELU")},
    **{code: operation(code, SAME) for code in ("RELU6", "RELU_N1_TO_1", "ELU", "LOGISTIC", "TANH")},
    "LEAKY_RELU": operation("LEAKY_RELU", SAME, kind="LeakyReluOptions", alpha=0.2),
    "PRELU": operation("PRELU", SAME, rng.normal(size=(1, COLUMNS))),
    "SELECT_V2": selected,
    "CONV_2D": convolution_2d(ROWS - 2, padding=1, fusedActivationFunction=1),
    "CONV_2D same": convolution_2d(4, padding=0, strideH=2),
    "CONV_2D dilated": convolution_2d(ROWS - 4, padding=1, dilationHFactor=2),
    "DEPTHWISE_CONV_2D": depthwise,
    "MAX_POOL_2D": pool_2d("MAX_POOL_2D", 4, padding=0),
    "AVERAGE_POOL_2D": pool_2d("AVERAGE_POOL_2D", 4, padding=0),
    "AVERAGE_POOL_2D valid": pool_2d("AVERAGE_POOL_2D", 3, padding=1),
    "FULLY_CONNECTED": dense,
    "DEQUANTIZE": half_weights,
    "MEAN": operation("MEAN", (None, COLUMNS), [1], kind="ReducerOptions"),
    "SUM": operation("SUM", (None, 1, COLUMNS), [1], kind="ReducerOptions", keepDims=True),
    "REDUCE_MAX": operation("REDUCE_MAX", (None, COLUMNS), [1], kind="ReducerOptions"),
    "TRANSPOSE": operation("TRANSPOSE", (None, COLUMNS, ROWS), [0, 2, 1], kind="TransposeOptions"),
    "EXPAND_DIMS": operation("EXPAND_DIMS", (None, 1, ROWS, COLUMNS), 1, kind="ExpandDimsOptions"),
    "PAD": operation("PAD", (None, ROWS + 3, COLUMNS), [[0, 0], [1, 2], [0, 0]], kind="PadOptions"),
    "SLICE": lambda file: file.add(
        "SLICE", [file.input, *_slice(file)], file.tensor((None, 1, COLUMNS)), kind="SliceOptions"
    ),
    "GATHER": operation("GATHER", (None, ROWS, 2), [2, 0], kind="GatherOptions", axis=2),
    "STRIDED_SLICE": operation(
        "STRIDED_SLICE",
        (None, 3, COLUMNS),
        [0, 1, 0],
        [0, 6, 0],
        [1, 2, 1],
        kind="StridedSliceOptions",
        beginMask=5,
        endMask=5,
    ),
    "CONCATENATION": joined,
    "SHAPE": by_shape_2d,
}


@pytest.fixture
def datasets() -> np.ndarray:
    return np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)


@pytest.mark.parametrize("case", ONNX_CASES)
def test_bounds_at_a_point_close_around_onnx_runtime(case: str, datasets: np.ndarray, tmp_path: Path) -> None:
    file = OnnxFile(["batch", ROWS, COLUMNS])
    key = ONNX_CASES[case](file)
    model = file.model([key])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    path = tmp_path / "case.onnx"
    path.write_bytes(model.SerializeToString())
    bounded = propagate(read_onnx(path, path.read_bytes()), Bounds(*[datasets.astype(np.float64)] * 2))
    for kernels in ("optimized", "unoptimized"):
        check(bounded, run_onnx(path, datasets, kernels)[0], HALF_WIDTH if case == "Cast" else WIDTH)


@pytest.mark.parametrize("case", TFLITE_CASES)
def test_bounds_at_a_point_close_around_litert(case: str, datasets: np.ndarray, tmp_path: Path) -> None:
    file = TfliteFile((None, ROWS, COLUMNS))
    key = TFLITE_CASES[case](file)
    path = file.save(tmp_path / "case.tflite", [key])
    bounded = propagate(read_tflite(path, path.read_bytes()), Bounds(*[datasets.astype(np.float64)] * 2))
    for kernels in ("xnnpack", "builtin"):
        check(bounded, run_tflite(path, datasets, kernels)[0])


def test_a_fused_activation_that_the_kernel_ignores_is_not_counted_on(tmp_path: Path) -> None:
    """XNNPACK runs CONCATENATION without the RELU that its options ask for; LiteRT's own kernel refuses it."""
    file = TfliteFile((None, 1, 2))
    output = file.tensor((None, 1, 4))
    options = {"axis": -1, "fusedActivationFunction": 1}
    key = file.add("CONCATENATION", [file.input, file.input], output, kind="ConcatenationOptions", **options)
    path = file.save(tmp_path / "case.tflite", [key])
    assert run_tflite(path, np.full((1, 1, 2), -1, np.float32), "xnnpack")[0].min() == -1
    bounded = propagate(read_tflite(path, path.read_bytes()))
    assert bounded.findings.unsupported == {0: "no rule for its fused activation"}


def check(bounded: Bounded, computed: np.ndarray, width: float = WIDTH) -> None:
    assert not bounded.findings.unsupported, bounded.findings.unsupported
    low, high = reals(bounded.values[bounded.graph.outputs[0]])
    assert low.shape == computed.shape
    assert np.all((computed >= low) & (computed <= high)), (computed, low, high)
    widest = float(((high - low) / np.abs(computed).max()).max())
    assert widest < width, f"the bounds are {widest:.2g} apart"
