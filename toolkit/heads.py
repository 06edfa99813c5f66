"""The last step of an exported file alone, from logits to estimates, and a plain softplus to compare it with.

Both are small files that take logits as datasets of one row: float32 (batch, 1, parameters).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.ort_file import as_onnx
from toolkit.spec import BATCH_NAME, INPUT_NAME, OUTPUT_NAME

ONNX_OPSET = 13
ONNX_IR_VERSION = 8  # the one that came with this opset
TFLITE_IDENTIFIER = b"TFL3"
DOTS = ("FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL", "MatMul", "Gemm", "Conv")  # what gives logits


def write_head(path: Path, directory: Path) -> Path:
    """Cut an exported file behind its last dot product, and write what follows: `directory/head<ending>`.

    Raises:
        ModelError: not one float32 tensor of logits leads to the estimates.
    """
    head = directory / ("head.tflite" if path.suffix == ".tflite" else "head.onnx")
    head.write_bytes(_tflite_head(path) if path.suffix == ".tflite" else _onnx_head(path))
    return head


def write_plain_softplus(ending: str, parameters: int, directory: Path) -> Path:
    """log(1 + exp(z)) as converters write it: EXP, ADD, LOG in TFLite, which has no softplus; Softplus in ONNX."""
    plain = directory / f"plain{ending}"
    plain.write_bytes(_tflite_softplus(parameters) if ending == ".tflite" else _onnx_softplus(parameters))
    return plain


@dataclass(frozen=True)
class _Step:
    """One operation of either format; tensors by name or by number. written: it, as the format's library holds it."""

    kind: str
    inputs: tuple[Hashable, ...]
    output: Hashable
    written: Any


def _behind_logits(steps: Sequence[_Step], estimates: Hashable, path: Path) -> tuple[Any, list[_Step]]:
    """The tensor of logits, and the steps from there to the estimates, in their order."""
    producers = {step.output: step for step in steps}
    logits, needed, waiting = set[Hashable](), set[Hashable](), [estimates]
    while waiting:
        key = waiting.pop()
        if key in needed or key not in producers:
            continue
        step = producers[key]
        before = [name for name in step.inputs if name in producers]
        adds_bias = step.kind in ("ADD", "Add") and len(before) == 1 and producers[before[0]].kind in DOTS
        if step.kind in DOTS or adds_bias:
            logits.add(key)
        else:
            needed.add(key)
            waiting += before
    if len(logits) != 1:
        raise ModelError(f"{path.name}: {len(logits)} tensors of logits lead to its estimates, not one.")
    if not needed:
        raise ModelError(f"{path.name}: its estimates are its logits, with no step between.")
    return logits.pop(), [step for step in steps if step.output in needed]


def _onnx_head(path: Path) -> bytes:
    import onnx

    ort = path.suffix == ".ort"
    model = as_onnx(path, path.read_bytes()) if ort else onnx.load_model(str(path), load_external_data=False)
    graph = model.graph
    steps = [_Step(node.op_type, tuple(node.input), node.output[0], node) for node in graph.node]
    logits, behind = _behind_logits(steps, graph.output[0].name, path)
    used = {name for step in behind for name in step.inputs}
    constants = [each for each in graph.initializer if each.name in used]
    parameters = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    return _onnx_file([step.written for step in behind], logits, graph.output[0].name, constants, parameters)


def _onnx_softplus(parameters: int) -> bytes:
    import onnx

    softplus = onnx.helper.make_node("Softplus", ["logits"], [OUTPUT_NAME])
    return _onnx_file([softplus], "logits", OUTPUT_NAME, [], parameters)


def _onnx_file(nodes: list[Any], logits: str, estimates: str, constants: list[Any], parameters: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    flat = numpy_helper.from_array(np.array([-1, parameters]), "flat")
    graph = helper.make_graph(
        [helper.make_node("Reshape", [INPUT_NAME, "flat"], [logits]), *nodes],
        "head",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [BATCH_NAME, 1, parameters])],
        [helper.make_tensor_value_info(estimates, TensorProto.FLOAT, [BATCH_NAME, parameters])],
        [flat, *constants],
    )
    opset = helper.make_opsetid("", ONNX_OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=ONNX_IR_VERSION)
    content: bytes = model.SerializeToString()
    return content


def _tflite_head(path: Path) -> bytes:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    graph = model.subgraphs[0]
    kinds = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    codes = [kinds[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    steps = [
        _Step(codes[each.opcodeIndex], tuple(map(int, each.inputs)), int(each.outputs[0]), each)
        for each in graph.operators
    ]
    (estimates,) = map(int, graph.outputs)
    logits, behind = _behind_logits(steps, estimates, path)
    if graph.tensors[logits].type != schema.TensorType.FLOAT32:
        raise ModelError(f"{path.name}: its logits are not float32.")
    used = {logits, *(key for step in behind for key in (*step.inputs, step.output))}
    places = {key: place for place, key in enumerate(sorted(key for key in used if key >= 0))}
    for step in behind:
        step.written.inputs = [places.get(key, -1) for key in step.inputs]
        step.written.outputs = [places[step.output]]
    graph.tensors = [graph.tensors[key] for key in places]
    graph.operators = [step.written for step in behind]
    return _tflite_file(model, places[logits], places[estimates])


def _tflite_softplus(parameters: int) -> bytes:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    model.subgraphs = [graph]
    logits, power, sum_, estimates = (_add_tensor(model, (1, parameters)) for _ in range(4))
    one = _add_constant(model, np.float32(1))
    _add_operator(model, "EXP", [logits], power, "ExpOptions")
    _add_operator(model, "ADD", [power, one], sum_, "AddOptions")
    _add_operator(model, "LOG", [sum_], estimates)
    return _tflite_file(model, logits, estimates)


def _tflite_file(model: Any, logits: int, estimates: int) -> bytes:
    """The model's bytes, with a reshaped input in front of its logits and only the constants that are used."""
    import flatbuffers

    graph = model.subgraphs[0]
    parameters = int(graph.tensors[logits].shape[-1])
    source = _add_tensor(model, (1, 1, parameters))
    flat = _add_constant(model, np.array([-1, parameters], np.int32))
    _add_operator(model, "RESHAPE", [source, flat], logits)
    graph.operators.insert(0, graph.operators.pop())
    graph.inputs, graph.outputs = [source], [estimates]
    model.metadata = model.signatureDefs = model.metadataBuffer = None
    used = {tensor.buffer for tensor in graph.tensors}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=TFLITE_IDENTIFIER)
    return bytes(builder.Output())


def _add_tensor(model: Any, shape: tuple[int, ...], type_name: str = "FLOAT32") -> int:
    """A tensor that is computed for each of a batch; the index it has."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.shape, tensor.shapeSignature = list(shape), [-1, *shape[1:]]
    tensor.type = getattr(schema.TensorType, type_name)
    tensors = model.subgraphs[0].tensors
    tensor.name = f"tensor{len(tensors)}"
    tensors.append(tensor)
    return len(tensors) - 1


def _add_constant(model: Any, value: Any) -> int:
    from ai_edge_litert import schema_py_generated as schema

    index = _add_tensor(model, np.shape(value), str(value.dtype).upper())
    tensor = model.subgraphs[0].tensors[index]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(value.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.shapeSignature, tensor.buffer = None, len(model.buffers) - 1
    return index


def _add_operator(model: Any, kind: str, inputs: list[int], output: int, options: str = "") -> None:
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
    code.version = 1
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = inputs, [output]
    if options:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        operator.builtinOptions = getattr(schema, f"{options}T")()
    model.subgraphs[0].operators.append(operator)
