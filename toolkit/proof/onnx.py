"""Read an ONNX file into the graph of this package.

The module shares its name with the library; only absolute imports are used, and the library only inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.proof.graph import Graph, Operation, Tensor

NEWEST_OPSET = 26  # read until here; a later one may give an old name a new meaning
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}

Attributes = dict[str, Any]
Reader = Callable[[Attributes, tuple[str, ...]], tuple[str, Attributes]]  # (attributes, inputs) -> (kind, attributes)


def read_onnx(path: Path, content: bytes) -> Graph:
    """The graph of an ONNX file.

    Raises:
        ModelError: not an ONNX file, one whose weights lie outside it, or one that takes anything but one tensor.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX file, or a damaged one. Export the model again.") from error
    stored = model.graph.initializer
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in _all_tensors(model)):
        raise ModelError(
            f"{path}: keeps its weights outside the file. Save the model with its weights inside, as one file."
        )
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = max(opsets.get("", 0), opsets.get("ai.onnx", 0))
    if model.functions or model.graph.sparse_initializer or not 7 <= opset <= NEWEST_OPSET:
        raise ModelError(
            f"{path}: opset {opset}, {len(model.functions)} functions of its own; read are opsets 7 to {NEWEST_OPSET}, "
            "without functions or sparse weights. Export the model again."
        )
    inputs = [value.name for value in model.graph.input]
    if len(inputs) != 1 or not model.graph.output:
        raise ModelError(
            f"{path}: takes {len(inputs)} inputs ({', '.join(inputs[:4])}), gives {len(model.graph.output)} outputs; "
            "a model takes one, and its weights are stored in it."
        )
    try:
        tensors = {tensor.name: _constant(tensor) for tensor in stored}
        tensors[inputs[0]] = _input(model.graph.input[0])
        operations = [_operation(index, node, tensors) for index, node in enumerate(model.graph.node)]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        raise ModelError(f"{path}: a damaged ONNX file ({error}). Export the model again.") from error
    _check_order(path, operations, tensors)
    outputs = tuple(value.name for value in model.graph.output)
    made = {key for operation in operations for key in operation.outputs}
    if not made.issuperset(outputs):
        raise ModelError(f"{path}: damaged: an output is made by no operation. Export the model again.")
    declared = {value.name: _input(value).shape for value in model.graph.output}
    tensors |= {key: Tensor(key, shape=declared.get(key, ())) for key in made - tensors.keys()}
    kept = tuple(operation for operation in operations if operation.code != "Constant" or operation.problem)
    return Graph("onnx", tensors, kept, inputs[0], outputs)


def _all_tensors(model: Any) -> list[Any]:
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
    return tensors


def _check_order(path: Path, operations: list[Operation], tensors: Mapping[str, Tensor]) -> None:
    """Each operation reads what is there by then, and writes what nothing has written."""
    ready = set(tensors)
    for operation in operations:
        if operation.code == "Constant" and not operation.problem:
            continue
        if (
            not operation.outputs
            or any(key and key not in ready for key in operation.inputs)
            or ready & set(operation.outputs)
        ):
            raise ModelError(
                f"{path}: damaged: operation {operation.index} {operation.code} is out of order. Export it again."
            )
        ready |= set(operation.outputs)


def _constant(tensor: Any) -> Tensor:
    from onnx import numpy_helper

    dtype = DTYPES.get(tensor.data_type, "")
    return Tensor(tensor.name, dtype, constant=numpy_helper.to_array(tensor) if dtype else None, stored=True)


def _input(value: Any) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(
        size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None for size in kind.shape.dim
    )
    return Tensor(value.name, DTYPES.get(kind.elem_type, ""), shape)


def _operation(index: int, node: Any, tensors: dict[str, Tensor]) -> Operation:
    from onnx import helper

    attributes: Attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    code = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    inputs, outputs = (_given(names) for names in (node.input, node.output))
    if code == "Constant":
        value = _constant_of(attributes)
        if value is not None:
            tensors[outputs[0]] = Tensor(outputs[0], value.dtype.name, constant=value, stored=True)
            return Operation(index, code, "", inputs, outputs)
    reader = READERS.get(code)
    if reader is None:
        return Operation(index, code, "", inputs, outputs, problem="no rule for it")
    kind, known = reader(attributes, inputs)
    problem = "" if kind else "no rule for this form of it"
    return Operation(index, code, kind, inputs, outputs, known, problem=problem)


def _given(names: Sequence[str]) -> tuple[str, ...]:
    """Without the absent ones at the end."""
    last = max((place for place, name in enumerate(names) if name), default=-1)
    return tuple(names[: last + 1])


def _constant_of(attributes: Attributes) -> np.ndarray | None:
    from onnx import numpy_helper

    if "value" in attributes:
        return numpy_helper.to_array(attributes["value"])
    for name, dtype in (
        ("value_float", "float32"),
        ("value_floats", "float32"),
        ("value_int", "int64"),
        ("value_ints", "int64"),
    ):
        if name in attributes:
            return np.asarray(attributes[name], dtype=dtype)
    return None


def _plain(kind: str, **known: Any) -> Reader:
    return lambda attributes, inputs: (kind, known)


def _window(attributes: Attributes) -> Attributes | None:
    """Strides, dilations, padding; None for forms without a rule."""
    padding: Any = {"SAME_UPPER": "same", "SAME_LOWER": "same_lower", "VALID": "valid"}.get(
        _text(attributes, "auto_pad")
    )
    if padding is None:
        pads = attributes.get("pads", [])
        padding = list(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True)) or "valid"
        if any(size < 0 for size in pads):
            return None
    if attributes.get("ceil_mode"):
        return None
    known = {"padding": padding, "strides": attributes.get("strides"), "dilations": attributes.get("dilations")}
    if "kernel_shape" in attributes:
        known["window"] = list(attributes["kernel_shape"])
    if not all(number > 0 for name in ("strides", "dilations", "window") for number in known.get(name) or ()):
        return None
    return {**known, "order": "channels_first"}


def _text(attributes: Attributes, name: str) -> str:
    value = attributes.get(name, b"")
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _conv(attributes: Attributes, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    known = _window(attributes)
    return (
        ("", {}) if known is None else ("conv", {**known, "groups": attributes.get("group", 1), "kernel_order": "OI"})
    )


def _pool(kind: str) -> Reader:
    def read(attributes: Attributes, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
        known = _window(attributes)
        if known is None or "window" not in known or attributes.get("storage_order"):
            return "", {}
        return kind, {**known, "count_padding": attributes.get("count_include_pad", 0)}

    return read


def _gemm(attributes: Attributes, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    if attributes.get("transA"):
        return "", {}
    scales = {name: attributes.get(name, 1.0) for name in ("alpha", "beta")}
    return "matmul", {"transposed": bool(attributes.get("transB")), **scales}


def _clip(attributes: Attributes, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    """Limits are inputs, each optional, and were attributes before opset 11."""
    if len(inputs) > 1:
        return {(True, True): "clip", (True, False): "max", (False, True): "min"}[bool(inputs[1]), len(inputs) > 2], {}
    return "clip", {name: attributes[key] for name, key in (("low", "min"), ("high", "max")) if key in attributes}


def _reduce(kind: str) -> Reader:
    """Axes were an attribute before opset 13 (sums) and 18 (the others)."""

    def read(attributes: Attributes, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
        return kind, {"keep": attributes.get("keepdims", 1), "axes": attributes.get("axes")}

    return read


def _move(kind: str, *names: str, **renamed: str) -> Reader:
    """A move whose sizes are inputs, called `names`, or attributes, in older opsets: our word = theirs."""

    def read(attributes: Attributes, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
        known: Attributes = {ours: attributes[theirs] for ours, theirs in renamed.items() if theirs in attributes}
        if len(inputs) > 1 and kind != "concat":
            known["names"] = names[: len(inputs) - 1]
        return kind, known

    return read


def _reshape(attributes: Attributes, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    return "reshape", {"names": ("shape",), "zero_copies": not attributes.get("allowzero", 0)}


def _pad(attributes: Attributes, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    if _text(attributes, "mode") not in ("", "constant") or len(inputs) > 3:
        return "", {}
    known = {"onnx_order": True, "names": ("padding", "fill")[: len(inputs) - 1]}
    if "pads" in attributes:
        known |= {"padding": attributes["pads"], "fill": attributes.get("value", 0.0)}
    return "pad", known


def _quantize(kind: str) -> Reader:
    def read(attributes: Attributes, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
        if attributes.get("block_size"):
            return "", {}
        return f"{kind}_linear", {
            "axis": attributes.get("axis", 1),
            "dtype": DTYPES.get(attributes.get("output_dtype", 0), ""),
        }

    return read


def _cast(attributes: Attributes, inputs: tuple[str, ...]) -> tuple[str, Attributes]:
    dtype = DTYPES.get(attributes.get("to", 0), "")
    return ("cast", {"dtype": dtype}) if dtype else ("", {})


READERS: Mapping[str, Reader] = {
    "Add": _plain("add"),
    "Sub": _plain("sub"),
    "Mul": _plain("mul"),
    "Div": _plain("div"),
    "Min": _plain("min"),
    "Max": _plain("max"),
    "Sum": lambda attributes, inputs: ({1: "identity", 2: "add"}.get(len(inputs), ""), {}),
    "Clip": _clip,
    "Abs": _plain("abs"),
    "Neg": _plain("neg"),
    "Exp": _plain("exp"),
    "Log": _plain("log"),
    "Pow": _plain("pow"),
    "Sqrt": _plain("sqrt"),
    "Floor": _plain("floor"),
    "Ceil": _plain("ceil"),
    "Round": _plain("round"),
    "Relu": _plain("relu"),
    "LeakyRelu": lambda attributes, inputs: ("leaky_relu", {"alpha": attributes.get("alpha", 0.01)}),
    "PRelu": _plain("leaky_relu"),
    "Elu": lambda attributes, inputs: ("elu", {"alpha": attributes.get("alpha", 1.0)}),
    "Sigmoid": _plain("sigmoid"),
    "Tanh": _plain("tanh"),
    "Softplus": _plain("softplus"),
    "Less": _plain("less"),
    "LessOrEqual": _plain("less_equal"),
    "Greater": _plain("greater"),
    "GreaterOrEqual": _plain("greater_equal"),
    "Where": _plain("select"),
    "Conv": _conv,
    "MatMul": _plain("matmul"),
    "Gemm": _gemm,
    "MaxPool": _pool("max_pool"),
    "AveragePool": _pool("average_pool"),
    "GlobalAveragePool": _plain("mean", axes="spatial", keep=True),
    "GlobalMaxPool": _plain("reduce_max", axes="spatial", keep=True),
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("reduce_sum"),
    "ReduceMax": _reduce("reduce_max"),
    "ReduceMin": _reduce("reduce_min"),
    "BatchNormalization": lambda attributes, inputs: (
        ("", {})
        if attributes.get("training_mode")
        else ("batch_normalization", {"epsilon": attributes.get("epsilon", 1e-5), "order": "channels_first"})
    ),
    "QuantizeLinear": _quantize("quantize"),
    "DequantizeLinear": _quantize("dequantize"),
    "Cast": _cast,
    "Identity": _move("identity"),
    "Dropout": lambda attributes, inputs: (
        ("identity", {"names": ("ratio",)[: len(inputs) - 1]}) if len(inputs) < 3 else ("", {})
    ),
    "Reshape": _reshape,
    "Flatten": _move("flatten", axis="axis"),
    "Transpose": _move("transpose", order="perm"),
    "Squeeze": _move("squeeze", "axes", axes="axes"),
    "Unsqueeze": _move("unsqueeze", "axes", axes="axes"),
    "Concat": _move("concat", axis="axis"),
    "Split": _move("split", "lengths", axis="axis", lengths="split"),
    "Slice": _move("slice", "starts", "ends", "axes", "steps", starts="starts", ends="ends", axes="axes"),
    "Gather": _move("gather", "indices", axis="axis"),
    "Pad": _pad,
    "Expand": _move("broadcast", "shape"),
    "Shape": lambda attributes, inputs: ("shape", {}) if not attributes else ("", {}),
}
