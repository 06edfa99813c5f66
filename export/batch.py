"""A batch of a fixed size in place of an open one: for LiteRT.js, microcontrollers, and accelerators that plan ahead.

Done to the finished file, so that it holds for every precision: the operations and weights stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.tflite import read_model, write_model


def with_batch(content: bytes, format: str, batch: int) -> bytes:
    """The same file for exactly `batch` datasets a call.

    Args:
        content: a TFLite or ONNX file whose first axis is open, from the input to the outputs.
    """
    return _tflite_with_batch(content, batch) if format == "tflite" else _onnx_with_batch(content, batch)


def _tflite_with_batch(content: bytes, batch: int) -> bytes:
    """Sizes of the tensors are those that LiteRT itself works out; readers other than it take them from the file."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without a delegate: that would add tensors of its own, and hide those it computes.
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    (source,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(source["index"], [batch, *source["shape"][1:]])
    interpreter.allocate_tensors()
    shapes = {each["index"]: each["shape"].astype(np.int32) for each in interpreter.get_tensor_details()}
    model = read_model(content)
    (graph,) = model.subgraphs
    for index, tensor in enumerate(graph.tensors):
        if tensor.shapeSignature is not None:
            tensor.shape, tensor.shapeSignature = shapes[index], None
    for operator in graph.operators:
        options = operator.builtinOptions
        if type(options).__name__ == "ReshapeOptionsT":
            tensor = graph.tensors[operator.inputs[1]]
            stored = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int32)
            model.buffers[tensor.buffer].data = np.where(stored == -1, batch, stored).astype(np.int32).view(np.uint8)
            if options.newShape is not None:
                options.newShape = np.where(options.newShape == -1, batch, options.newShape)
    return write_model(model)


def _onnx_with_batch(content: bytes, batch: int) -> bytes:
    import onnx

    model = onnx.load_model_from_string(content)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for initializer in model.graph.initializer:
        if initializer.name in shapes:
            stored: Any = onnx.numpy_helper.to_array(initializer)
            fixed = np.where(stored == -1, batch, stored)
            initializer.CopyFrom(onnx.numpy_helper.from_array(fixed, initializer.name))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
