"""TensorFlow function -> TFLite file, through the TensorFlow converter."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.half import to_half

IDENTIFIER = b"TFL3"
BUFFER_ALIGNMENT = 16  # bytes: the schema's force_align for weights, which the Python flatbuffers code leaves out
WITH_WEIGHTS = ("CONV_2D", "FULLY_CONNECTED")
WEIGHTS_INPUT = 1  # of both


def to_tflite(function: Any, precision: str) -> bytes:
    """Convert a concrete function.

    Args:
        function: tf.ConcreteFunction of named float32 tensors, the batch dimension None.
        precision: float32, or float16: the weights of convolutions and Dense layers are stored in half precision, and
            a DEQUANTIZE op widens them, which runtimes run once. (The converter's own float16 mode halves every
            constant: the input limit becomes 65504, the softplus is off by thousands of ulp.)
    Returns:
        The file. Tensors and the only signature, `serving_default`, have the function's input and output names.
    Raises:
        ExportError: a weight does not fit into half precision.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    model = read_model(converter.convert())
    _name_tensors(model)
    if precision == "float16":
        _halve_weights(model)
    return write_model(model)


def read_model(content: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def write_model(model: Any) -> bytes:
    import flatbuffers

    class Builder(flatbuffers.Builder):
        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
            return super().StartVector(elemSize, numElems, BUFFER_ALIGNMENT if elemSize == 1 else alignment)

    builder = Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _name_tensors(model: Any) -> None:
    """The converter calls them `serving_default_datasets:0` and `PartitionedCall:0`."""
    (signature,) = model.signatureDefs
    for entry in [*signature.inputs, *signature.outputs]:
        model.subgraphs[0].tensors[entry.tensorIndex].name = entry.name


def _halve_weights(model: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = model.subgraphs
    codes = [getattr(schema.BuiltinOperator, name) for name in WITH_WEIGHTS]
    indices = {
        int(operator.inputs[WEIGHTS_INPUT]): None  # a dict, because it keeps the order
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode in codes
    }
    weights = [index for index in indices if model.buffers[graph.tensors[index].buffer].data is not None]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # the version that takes float16
    model.operatorCodes.append(code)
    widening = []
    for index in weights:
        wide = graph.tensors[index]
        buffer = schema.BufferT()
        buffer.data = to_half(np.asarray(model.buffers[wide.buffer].data).view(np.float32), wide.name.decode()).view(
            np.uint8
        )
        model.buffers.append(buffer)
        half = schema.TensorT()
        half.name, half.shape, half.type = wide.name + b"/half", wide.shape, schema.TensorType.FLOAT16
        half.buffer = len(model.buffers) - 1
        graph.tensors.append(half)
        wide.buffer = 0  # by convention the empty buffer: the tensor is computed
        operator = schema.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs, operator.outputs = [len(graph.tensors) - 1], [index]
        widening.append(operator)
    graph.operators = widening + graph.operators
    used = {tensor.buffer for tensor in graph.tensors} | {entry.buffer for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None
