"""TensorFlow function -> ONNX file, through tf2onnx."""

from __future__ import annotations

import re
from typing import Any

from export.half import to_half
from toolkit.spec import BATCH_NAME

OPSET = 13  # the oldest that has every op used here as runtimes know it today; what is older is read by more of them
WITH_WEIGHTS = ("Conv", "MatMul", "Gemm")
WEIGHTS_INPUT = 1  # of all three
WRAPPER = "PartitionedCall/"  # tf2onnx puts this before every name of a function that calls another


def to_onnx(function: Any, precision: str) -> bytes:
    """Convert a concrete function.

    Args:
        function: tf.ConcreteFunction of named float32 tensors, the batch dimension None, weights as constants (a
            captured tensor would silently become one more input).
        precision: float32, or float16: the weights of convolutions and Dense layers are stored in half precision and
            widened by a Cast, which runtimes fold while loading; all arithmetic stays float32.
    Returns:
        The file, with the function's input and output names and the batch dimension called `batch`.
    Raises:
        ExportError: a weight does not fit into half precision.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    arguments, _ = function.structured_input_signature
    wrapped = tf.function(lambda *inputs: function(*inputs), input_signature=arguments, autograph=False)
    model, _ = tf2onnx.convert.from_function(wrapped, input_signature=arguments, opset=OPSET)
    _tidy(model)
    if precision == "float16":
        _halve_weights(model)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _tidy(model: Any) -> None:
    """Name the batch dimension; drop the wrapper's prefix, intermediate shapes and operator sets that nothing uses."""
    del model.graph.value_info[:]
    numbers: dict[str, int] = {}

    def renumbered(found: re.Match[str]) -> str:
        return f"__{numbers.setdefault(found.group(), len(numbers))}"

    def tidied(name: str) -> str:
        # tf2onnx numbers what it adds (`const_fold_opt__35`) in an order that changes from run to run.
        return re.sub(r"__\d+", renumbered, name.removeprefix(WRAPPER))

    for node in model.graph.node:
        node.name = tidied(node.name)
        node.input[:] = [tidied(name) for name in node.input]
        node.output[:] = [tidied(name) for name in node.output]
    for initializer in model.graph.initializer:
        initializer.name = tidied(initializer.name)
    model.graph.initializer.sort(key=lambda initializer: initializer.name)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_NAME
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.graph.name, model.graph.doc_string = "softplus_network", ""


def _halve_weights(model: Any) -> None:
    import onnx

    graph = model.graph
    names = {node.input[WEIGHTS_INPUT] for node in graph.node if node.op_type in WITH_WEIGHTS}
    widening = []
    for initializer in graph.initializer:
        if initializer.name in names:
            wide, half = initializer.name, f"{initializer.name}/half"
            weights = to_half(onnx.numpy_helper.to_array(initializer), wide)
            initializer.CopyFrom(onnx.numpy_helper.from_array(weights, half))
            widening.append(onnx.helper.make_node("Cast", [half], [wide], to=onnx.TensorProto.FLOAT))
    nodes = widening + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
