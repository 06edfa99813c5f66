"""What a model file says of itself: inputs, outputs, operations, weights, versions. Nothing in it is run."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import ModelError, reason_of
from toolkit.keras_zip import KerasLayer, KerasZip, read_keras_zip
from toolkit.ort_file import as_onnx


@dataclass(frozen=True)
class Port:
    """An input or output. A size is a number, a name, or None where the file leaves it open."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Contents:
    """What is in a model file.

    Attributes:
        operations: how often each occurs; of a .keras file, its layers.
        weights: how many numbers are stored, by type; of a .keras file, nothing: HDF5 is not read here.
        layers: of a .keras file, in their order.
        versions: of the format, and of what wrote the file.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operations: dict[str, int]
    weights: dict[str, int]
    versions: dict[str, str]
    layers: tuple[KerasLayer, ...] = ()


def read_contents(path: Path) -> Contents:
    """What is in a .tflite, .onnx or .keras file.

    Raises:
        ModelError: it cannot be read as a model.
    """
    try:
        if path.suffix == ".tflite":
            return _read_tflite(path)
        return _read_onnx(path) if path.suffix in (".onnx", ".ort") else _read_keras(read_keras_zip(path))
    except ModelError:
        raise
    except Exception as error:  # flatbuffers and protobuf raise whatever a broken file leads them to
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise ModelError(f"{path}: not a readable {path.suffix[1:]} model ({reason}). Export it again.") from error


def _read_tflite(path: Path) -> Contents:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    dtypes, codes = (
        {value: name for name, value in vars(kind).items() if isinstance(value, int)}
        for kind in (schema.TensorType, schema.BuiltinOperator)
    )
    graph = model.subgraphs[0]
    signature = model.signatureDefs[0] if model.signatureDefs else None
    aliases = (
        {} if signature is None else {each.tensorIndex: each.name for each in signature.inputs + signature.outputs}
    )

    def port(index: int) -> Port:
        tensor = graph.tensors[index]
        sizes = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
        shape = tuple(int(size) if size >= 0 else None for size in ([] if sizes is None else sizes))
        name = aliases.get(index) or tensor.name or b""
        return Port(name.decode(errors="replace"), dtypes[tensor.type].lower(), shape)

    operations: Counter[str] = Counter()
    for operator in graph.operators or ():
        code = model.operatorCodes[operator.opcodeIndex]
        name = codes.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
        operations[f"CUSTOM {(code.customCode or b'').decode(errors='replace')}" if name == "CUSTOM" else name] += 1
    weights: Counter[str] = Counter()
    for tensor in graph.tensors:
        stored = model.buffers[tensor.buffer].data
        if stored is not None and len(stored):
            weights[dtypes[tensor.type].lower()] += math.prod(
                map(int, tensor.shape if tensor.shape is not None else ())
            )
    stored_by_name = {entry.name: model.buffers[entry.buffer].data for entry in model.metadata or ()}
    runtime = stored_by_name.get(b"min_runtime_version")
    written_by = (model.description or b"").decode(errors="replace")
    versions = {"schema": str(model.version), "written_by": written_by}
    if runtime is not None:
        versions["min_runtime"] = bytes(runtime).rstrip(b"\0").decode(errors="replace")
    inputs, outputs = (tuple(port(index) for index in indices) for indices in (graph.inputs, graph.outputs))
    return Contents(inputs, outputs, dict(operations), dict(weights), versions)


def _read_onnx(path: Path) -> Contents:
    import onnx

    ort = path.suffix == ".ort"
    model = as_onnx(path, path.read_bytes()) if ort else onnx.load_model(str(path), load_external_data=False)
    dtypes = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    dtypes = {number: {"float": "float32", "double": "float64"}.get(name, name) for number, name in dtypes.items()}
    stored = {tensor.name for tensor in model.graph.initializer}

    def port(value: Any) -> Port:
        kind = value.type.tensor_type
        shape = tuple(
            size.dim_value if size.HasField("dim_value") else size.dim_param or None for size in kind.shape.dim
        )
        return Port(value.name, dtypes.get(kind.elem_type, "unknown"), shape)

    constants = [each.t for node in model.graph.node if node.op_type == "Constant" for each in node.attribute]
    weights: Counter[str] = Counter()
    for tensor in [*model.graph.initializer, *constants]:
        weights[dtypes.get(tensor.data_type, "unknown")] += math.prod(tensor.dims)
    opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)
    return Contents(
        inputs=tuple(port(value) for value in model.graph.input if value.name not in stored),
        outputs=tuple(port(value) for value in model.graph.output),
        operations=dict(Counter(node.op_type for node in model.graph.node)),
        weights=dict(weights),
        versions={
            "ir": str(model.ir_version),
            "opset": opsets,
            "written_by": f"{model.producer_name} {model.producer_version}".strip(),
        },
    )


def _read_keras(content: KerasZip) -> Contents:
    layers = content.layers
    return Contents(
        inputs=tuple(Port(each.name, "float32", each.input_shape) for each in layers if each.kind == "InputLayer")[:1],
        outputs=(),
        operations=dict(Counter(each.kind for each in layers if each.kind != "InputLayer")),
        weights={},
        versions={key: str(value) for key, value in content.metadata.items()},
        layers=layers,
    )
