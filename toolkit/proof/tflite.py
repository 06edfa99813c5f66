"""Read a TFLite file into the graph of this package."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.proof.graph import Graph, Operation, Quantization, Tensor

# What the generated reader raises on bytes that are not a model.
CORRUPT = (
    struct.error,
    IndexError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)

# TensorType of the schema -> NumPy.
DTYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    16: "uint16",
}
ACTIVATIONS = {0: "", 1: "relu", 2: "relu1", 3: "relu6"}
FUSES = ("add", "sub", "mul", "div", "conv", "matmul", "max_pool", "average_pool")  # CONCATENATION ignores its own

Attributes = Mapping[str, Any]


def read_tflite(path: Path, content: bytes) -> Graph:
    """The main graph of a TFLite file.

    Raises:
        ModelError: not a TFLite file, or one that is damaged or takes anything but one tensor.
    """
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise ModelError(f"{path}: not a TFLite file. Export the model again.")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        codes = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        return _graph(path, model, codes)
    except CORRUPT as error:
        raise ModelError(
            f"{path}: a damaged TFLite file ({type(error).__name__}: {error}). Export the model again."
        ) from error


def _graph(path: Path, model: Any, codes: Mapping[int, str]) -> Graph:
    subgraph = model.subgraphs[0]
    if any(signature.subgraphIndex for signature in model.signatureDefs or ()):
        raise ModelError(f"{path}: its signature runs another graph than the first. Export the model again.")
    tensors = {str(index): _tensor(tensor, model.buffers) for index, tensor in enumerate(subgraph.tensors)}
    if len(subgraph.inputs) != 1 or not len(subgraph.outputs):
        raise ModelError(
            f"{path}: takes {len(subgraph.inputs)} inputs and gives {len(subgraph.outputs)} outputs; a model takes one."
        )
    operations = []
    for index, operator in enumerate(subgraph.operators or ()):
        code = model.operatorCodes[operator.opcodeIndex]
        name = codes.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
        if name == "CUSTOM":
            name = f"CUSTOM {(code.customCode or b'').decode(errors='replace')}"
        operations.append(_operation(index, name, operator))
    _check_order(path, operations, tensors, str(subgraph.inputs[0]))
    return Graph(
        "tflite", tensors, tuple(operations), str(subgraph.inputs[0]), tuple(str(output) for output in subgraph.outputs)
    )


def _check_order(path: Path, operations: list[Operation], tensors: Mapping[str, Tensor], source: str) -> None:
    """Operations are run in file order: each reads what is there by then, and writes what nothing has written."""
    ready = {key for key, tensor in tensors.items() if tensor.stored}
    if source in ready:
        raise ModelError(f"{path}: damaged: its input is stored in it. Export it again.")
    ready.add(source)
    for operation in operations:
        if (
            not operation.outputs
            or any(key and key not in ready for key in operation.inputs)
            or ready & set(operation.outputs)
        ):
            raise ModelError(
                f"{path}: damaged: operation {operation.index} {operation.code} is out of order. Export it again."
            )
        ready |= set(operation.outputs)


def _tensor(tensor: Any, buffers: Any) -> Tensor:
    dtype = DTYPES.get(tensor.type, "")
    sizes = tensor.shapeSignature if tensor.shapeSignature is not None and len(tensor.shapeSignature) else tensor.shape
    shape = tuple(None if size < 0 else int(size) for size in (sizes if sizes is not None else ()))
    name = (tensor.name or b"").decode(errors="replace")
    constant = None
    content = buffers[tensor.buffer].data
    stored = content is not None and len(content) > 0
    if stored and dtype:
        constant = np.frombuffer(bytes(content), dtype=dtype).reshape(
            tuple(tensor.shape if tensor.shape is not None else ())
        )
    if tensor.sparsity is not None or tensor.isVariable:
        dtype, constant = "", None  # no rule reads these
    return Tensor(name, dtype, shape, constant, _quantization(tensor.quantization), stored)


def _quantization(stored: Any) -> Quantization | None:
    if stored is None or stored.scale is None or not len(stored.scale):
        return None
    scale = np.asarray(stored.scale, dtype=np.float64)
    zero_point = np.asarray(stored.zeroPoint if stored.zeroPoint is not None else 0, dtype=np.float64)
    if not (np.isfinite(scale).all() and (scale > 0).all()) or stored.details is not None:
        raise ValueError("a scale that is not a positive number")
    return Quantization(scale, np.broadcast_to(zero_point, scale.shape), int(stored.quantizedDimension))


def _operation(index: int, code: str, operator: Any) -> Operation:
    inputs = tuple("" if key < 0 else str(key) for key in operator.inputs) if operator.inputs is not None else ()
    outputs = tuple(str(key) for key in operator.outputs) if operator.outputs is not None else ()
    reader = READERS.get(code)
    if reader is None:
        return Operation(index, code, "", inputs, outputs, problem="no rule for it")
    options = operator.builtinOptions
    if code == "SPLIT":
        inputs = inputs[::-1]  # the only one whose axis comes first
    kind, attributes = reader(options, inputs)
    fused = getattr(options, "fusedActivationFunction", 0)
    if fused not in ACTIVATIONS or (fused and kind not in FUSES):
        return Operation(index, code, "", inputs, outputs, problem="no rule for its fused activation")
    return Operation(index, code, kind, inputs, outputs, attributes, ACTIVATIONS[fused])


Reader = Callable[[Any, tuple[str, ...]], tuple[str, Attributes]]  # (options, inputs) -> (kind, attributes)


def _plain(kind: str, **attributes: Any) -> Reader:
    return lambda options, inputs: (kind, attributes)


def _window(options: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "strides": [options.strideH, options.strideW],
        "padding": "same" if options.padding == 0 else "valid",
    }
    if hasattr(options, "dilationHFactor"):
        attributes["dilations"] = [options.dilationHFactor, options.dilationWFactor]
    if hasattr(options, "filterHeight"):
        attributes["window"] = [options.filterHeight, options.filterWidth]
    if not all(number > 0 for key in ("strides", "dilations", "window") for number in attributes.get(key, ())):
        raise ValueError("a stride, dilation or window that is not positive")
    return attributes


def _convolution(options: Any, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    return "conv", {**_window(options), "kernel_order": "OHWI"}


def _depthwise(options: Any, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    return "conv", {**_window(options), "kernel_order": "1HWO"}


def _dense(options: Any, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    if options.weightsFormat:
        return "", {}
    return "matmul", {"transposed": True, "flattens": not options.keepNumDims}


def _batch_matmul(options: Any, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    return ("" if options.adjX else "matmul"), {"transposed": bool(options.adjY)}


def _reshape(options: Any, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    if len(inputs) > 1:
        return "reshape", {"names": ("shape",)}
    return "reshape", {"shape": options.newShape}


def _strided_slice(options: Any, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    masks = {"begin_mask": options.beginMask, "end_mask": options.endMask, "shrink_mask": options.shrinkAxisMask}
    masks |= {"ellipsis_mask": options.ellipsisMask or int(options.offset), "new_axis_mask": options.newAxisMask}
    return "strided_slice", {**masks, "names": ("starts", "ends", "steps")}


def _squeeze(options: Any, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    chosen = options.squeezeDims
    return "squeeze", {"axes": chosen if chosen is not None and len(chosen) else None}


READERS: Mapping[str, Reader] = {
    "ADD": _plain("add"),
    "SUB": _plain("sub"),
    "MUL": _plain("mul"),
    "DIV": _plain("div"),
    "MINIMUM": _plain("min"),
    "MAXIMUM": _plain("max"),
    "ABS": _plain("abs"),
    "NEG": _plain("neg"),
    "EXP": _plain("exp"),
    "LOG": _plain("log"),
    "POW": _plain("pow"),
    "SQRT": _plain("sqrt"),
    "SQUARE": _plain("square"),
    "FLOOR": _plain("floor"),
    "CEIL": _plain("ceil"),
    "ROUND": _plain("round"),
    "RELU": _plain("relu"),
    "RELU6": _plain("relu6"),
    "RELU_N1_TO_1": _plain("relu1"),
    "LEAKY_RELU": lambda options, inputs: ("leaky_relu", {"alpha": options.alpha}),
    "PRELU": _plain("leaky_relu"),
    "ELU": _plain("elu"),
    "LOGISTIC": _plain("sigmoid"),
    "TANH": _plain("tanh"),
    "LESS": _plain("less"),
    "LESS_EQUAL": _plain("less_equal"),
    "GREATER": _plain("greater"),
    "GREATER_EQUAL": _plain("greater_equal"),
    "SELECT": _plain("select"),
    "SELECT_V2": _plain("select"),
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _batch_matmul,
    "MAX_POOL_2D": lambda options, inputs: ("max_pool", _window(options)),
    "AVERAGE_POOL_2D": lambda options, inputs: ("average_pool", _window(options)),
    "MEAN": lambda options, inputs: ("mean", {"keep": options.keepDims}),
    "SUM": lambda options, inputs: ("reduce_sum", {"keep": options.keepDims}),
    "REDUCE_MAX": lambda options, inputs: ("reduce_max", {"keep": options.keepDims}),
    "REDUCE_MIN": lambda options, inputs: ("reduce_min", {"keep": options.keepDims}),
    "QUANTIZE": _plain("quantize"),
    "DEQUANTIZE": _plain("dequantize"),
    "CAST": _plain("cast"),
    "RESHAPE": _reshape,
    "TRANSPOSE": _plain("transpose", names=("order",)),
    "EXPAND_DIMS": _plain("unsqueeze", names=("axes",)),
    "SQUEEZE": _squeeze,
    "CONCATENATION": lambda options, inputs: ("concat", {"axis": options.axis}),
    "PACK": lambda options, inputs: ("pack", {"axis": options.axis}),
    "UNPACK": lambda options, inputs: ("unpack", {"axis": options.axis}),
    "SPLIT": _plain("split", names=("axis",)),
    "SPLIT_V": _plain("split", names=("lengths", "axis")),
    "SLICE": _plain("slice", names=("starts", "lengths")),
    "STRIDED_SLICE": _strided_slice,
    "GATHER": lambda options, inputs: (
        "" if options.batchDims else "gather",
        {"axis": options.axis, "names": ("indices",)},
    ),
    "PAD": _plain("pad", names=("padding",)),
    "PADV2": _plain("pad", names=("padding", "fill")),
    "BROADCAST_TO": _plain("broadcast", names=("shape",)),
    "SHAPE": _plain("shape"),
}
