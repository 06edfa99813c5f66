"""ONNX Runtime's own format, read without running it: a flatbuffer whose graph is that of an ONNX file.

The schema's reader comes with ONNX Runtime. What is read is given as an ONNX model, so that whatever reads those (the
proof, `inspect`) reads this file itself, not the one it was made from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.spec import METADATA_NAME

IDENTIFIER = b"ORTM"
VALUE_FIELD = 6  # place of a property's value in the vtable: the second field


def as_onnx(path: Path, content: bytes) -> Any:
    """onnx.ModelProto of the file's graph: its operations, weights, inputs and outputs, metadata.

    Raises:
        ModelError: not such a file, a damaged one, or one that holds what it may also do at run time: other graphs
            inside operations, optimizations to be applied while loading, weights elsewhere.
    """
    try:
        return _as_onnx(_model(content))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:  # flatbuffers raises whatever a broken file leads it to
        raise ModelError(f"{path}: not a readable ort model ({type(error).__name__}). Export it again.") from error


def with_metadata(path: Path, content: bytes, text: str) -> bytes:
    """The file with `text` in the room that its metadata of ours has; all else is as it was, byte by byte.

    Raises:
        ModelError: there is no such room, or too little.
    """
    for entry in _properties(_model(content)):
        if entry.Key() == METADATA_NAME.encode():
            table = entry._tab
            field = table.Pos + table.Offset(VALUE_FIELD)
            begin = field + int.from_bytes(content[field : field + 4], "little")
            size = int.from_bytes(content[begin : begin + 4], "little")
            written = text.encode()
            if len(written) <= size:
                return content[: begin + 4] + written.ljust(size) + content[begin + 4 + size :]
            raise ModelError(f"{path}: room for {size:,} bytes of metadata, not for {len(written):,}. Export it again.")
    raise ModelError(f"{path}: no room for metadata. Export it again: toolkit export --format ort")


def _model(content: bytes) -> Any:
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs import InferenceSession

    if content[4:8] != IDENTIFIER:
        raise ModelError("not a file in ONNX Runtime's format. Export it: toolkit export --format ort")
    return InferenceSession.InferenceSession.GetRootAs(content, 0).Model()


def _properties(model: Any) -> Iterator[Any]:
    return (model.MetadataProps(index) for index in range(model.MetadataPropsLength()))


def _as_onnx(model: Any) -> Any:
    import onnx

    graph = model.Graph()
    records = graph.RuntimeOptimizations()
    if graph.SparseInitializersLength() or (records is not None and records.RecordsLength()):
        raise ModelError("holds optimizations to be applied while loading, or sparse weights. Export it again.")
    ports = {name: _port(graph, name) for name in [*_texts(graph, "Inputs"), *_texts(graph, "Outputs")]}
    stored = [_tensor(graph.Initializers(index)) for index in range(graph.InitializersLength())]
    nodes = [_node(graph.Nodes(index)) for index in range(graph.NodesLength())]
    made = onnx.helper.make_graph(
        _in_order(nodes, {*_texts(graph, "Inputs"), *(tensor.name for tensor in stored)}),
        "graph",
        [ports[name] for name in _texts(graph, "Inputs")],
        [ports[name] for name in _texts(graph, "Outputs")],
        stored,
    )
    sets = [model.OpsetImport(index) for index in range(model.OpsetImportLength())]
    opsets = [onnx.helper.make_opsetid((each.Domain() or b"").decode(), each.Version()) for each in sets]
    used = {node.domain for node in made.node} | {""}
    written = onnx.helper.make_model(
        made, opset_imports=[each for each in opsets if each.domain in used], ir_version=model.IrVersion()
    )
    written.producer_name = (model.ProducerName() or b"").decode()
    written.producer_version = (model.ProducerVersion() or b"").decode()
    props = {each.Key().decode(): (each.Value() or b"").decode() for each in _properties(model)}
    onnx.helper.set_model_props(written, props)
    return written


def _texts(table: Any, field: str) -> list[str]:
    return [getattr(table, field)(index).decode() for index in range(getattr(table, f"{field}Length")())]


def _in_order(nodes: list[Any], ready: set[str]) -> list[Any]:
    """An order in which they can be run: ONNX Runtime finds it while loading, those that it added stand at the end."""
    ordered: list[Any] = []
    while nodes:
        next_ones = [node for node in nodes if all(not name or name in ready for name in node.input)]
        if not next_ones:
            raise ModelError("an operation of it reads what nothing has written. Export it again.")
        ordered += next_ones
        ready |= {name for node in next_ones for name in node.output}
        nodes = [node for node in nodes if not any(node is each for each in next_ones)]
    return ordered


def _node(node: Any) -> Any:
    import onnx

    if node.ImplicitInputsLength():
        raise ModelError("an operation of it holds a graph of its own. Export it again.")
    made = onnx.NodeProto(
        name=(node.Name() or b"").decode(),
        op_type=node.OpType().decode(),
        domain=(node.Domain() or b"").decode(),
        input=_texts(node, "Inputs"),
        output=_texts(node, "Outputs"),
    )
    made.attribute.extend(_attribute(node.Attributes(index)) for index in range(node.AttributesLength()))
    return made


def _attribute(attribute: Any) -> Any:
    """The kinds of attribute are numbered as in ONNX."""
    import onnx

    kinds = onnx.AttributeProto
    made = kinds(name=attribute.Name().decode(), type=attribute.Type())
    match made.type:
        case kinds.FLOAT:
            made.f = attribute.F()
        case kinds.INT:
            made.i = attribute.I()
        case kinds.STRING:
            made.s = attribute.S() or b""
        case kinds.TENSOR:
            made.t.CopyFrom(_tensor(attribute.T()))
        case kinds.FLOATS:
            made.floats.extend(attribute.Floats(index) for index in range(attribute.FloatsLength()))
        case kinds.INTS:
            made.ints.extend(attribute.Ints(index) for index in range(attribute.IntsLength()))
        case kinds.STRINGS:
            made.strings.extend(attribute.Strings(index) for index in range(attribute.StringsLength()))
        case _:
            raise ModelError(f"an attribute {made.name} of a kind that is not read. Export it again.")
    return made


def _tensor(tensor: Any) -> Any:
    import onnx

    shape = [tensor.Dims(index) for index in range(tensor.DimsLength())]
    if tensor.ExternalDataOffset() >= 0 or tensor.StringDataLength():
        raise ModelError("keeps weights in another file, or texts among them. Export it again.")
    raw = np.asarray(tensor.RawDataAsNumpy(), np.uint8).tobytes() if tensor.RawDataLength() else b""
    return onnx.TensorProto(name=(tensor.Name() or b"").decode(), data_type=tensor.DataType(), dims=shape, raw_data=raw)


def _port(graph: Any, name: str) -> Any:
    """Name, type and shape of an input or output."""
    import onnx
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs import TensorTypeAndShape

    for index in range(graph.NodeArgsLength()):
        argument = graph.NodeArgs(index)
        if argument.Name().decode() == name:
            kind = TensorTypeAndShape.TensorTypeAndShape()
            value = argument.Type().Value()
            kind.Init(value.Bytes, value.Pos)
            sizes = [kind.Shape().Dim(place).Value() for place in range(kind.Shape().DimLength())]
            shape = [size.DimParam().decode() if size.DimParam() else size.DimValue() for size in sizes]
            return onnx.helper.make_tensor_value_info(name, kind.ElemType(), shape)
    raise ModelError(f"says nothing of {name}. Export it again.")
