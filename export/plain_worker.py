"""The plain conversions, run as `python -m export.plain_worker` in a process of its own.

One JSON request on stdin. The answer is a line for each recipe, written as soon as it is done: a JSON text, empty, or
what went wrong.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.keras_file import load_network
from toolkit.errors import reason_of
from toolkit.spec import INPUT_NAME, OUTPUT_NAME

CALIBRATED_ON = 500  # datasets; the guides say 100 to 500


def main() -> None:
    request = json.load(sys.stdin)
    directory = Path(request["directory"])
    datasets = np.load(request["datasets"], allow_pickle=False)[:CALIBRATED_ON]
    model = load_network(Path(request["keras_file"]))
    with Path(request["answer"]).open("w", encoding="utf-8") as answer:
        for format, precision, file in request["wanted"]:
            failure = ""
            try:
                content = (
                    _to_tflite(model, precision, datasets)
                    if format == "tflite"
                    else _to_onnx(model, precision, datasets)
                )
                (directory / file).write_bytes(content)
            except Exception as error:  # whatever the libraries raise belongs into the table
                failure = f"{type(error).__name__}: {reason_of(error)}"
            answer.write(json.dumps(failure) + "\n")
            answer.flush()


def _to_tflite(model: Any, precision: str, datasets: NDArray[np.float32]) -> bytes:
    """As https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization does it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision in ("int8", "int16x8"):
        kernels = tf.lite.OpsSet
        narrow, wide = kernels.TFLITE_BUILTINS_INT8, kernels.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [narrow if precision == "int8" else wide]
        converter.representative_dataset = lambda: ([each] for each in _one_by_one(datasets))
    content: bytes = converter.convert()
    return content


def _to_onnx(model: Any, precision: str, datasets: NDArray[np.float32]) -> bytes:
    import tensorflow as tf
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [tf.TensorSpec((None, *datasets.shape[1:]), tf.float32, name=INPUT_NAME)]
    function = tf.function(
        lambda values: tf.identity(model(values, training=False), name=OUTPUT_NAME),
        input_signature=signature,
        autograph=False,
    ).get_concrete_function()
    # The weights become constants first: Keras's normalization holds tensors that tf2onnx would make inputs of.
    frozen = convert_variables_to_constants_v2(function)
    made, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[each.name for each in frozen.inputs],
        output_names=[each.name for each in frozen.outputs],
    )
    content: bytes = made.SerializeToString()
    return content if precision == "float32" else _quantized(content, datasets)


def _quantized(content: bytes, datasets: NDArray[np.float32]) -> bytes:
    """As https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html does it: QDQ around every node
    that ONNX Runtime can quantize."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = ({f"{INPUT_NAME}:0": each} for each in _one_by_one(datasets))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        source, prepared, quantized = (Path(folder, name) for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        source.write_bytes(content)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)  # symbolic shapes take SymPy, and tell no more
        quantize_static(prepared, quantized, Reader())
        return quantized.read_bytes()


def _one_by_one(datasets: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    return (datasets[index : index + 1] for index in range(len(datasets)))


if __name__ == "__main__":
    main()
