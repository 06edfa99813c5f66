"""OpenVINO: .tflite and .onnx files, computed in float32."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.integer import host_of
from toolkit.metadata import read_metadata
from toolkit.runtime.batches import in_batches

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Predict


def load_openvino(path: Path, threads: int, batch: int) -> Predict:
    """The file as a function. One stream: the calls of one worker come one after the other."""
    import openvino

    if path.suffix == ".tflite" and host_of(path, read_metadata(path)) is not None:
        raise ModelError(f"{path}: an integer-only file, which OpenVINO is not given. LiteRT runs it: --runtime litert")
    core = openvino.Core()
    model = core.read_model(os.fspath(path))
    (model_input,), (model_output,) = model.inputs, model.outputs
    if model_input.element_type != openvino.Type.f32:
        raise ModelError(f"{path}: takes {model_input.element_type.to_string()} datasets, which OpenVINO is not given.")
    dimensions = model_input.partial_shape
    if not dimensions[0].is_dynamic:
        batch = dimensions[0].get_length()
    rows, columns = (dimension.get_length() for dimension in list(dimensions)[1:])
    model.reshape([batch, rows, columns])
    settings = {
        # Its default on CPUs that have it is bfloat16: three digits.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # workers would all be pinned to the same first core
    }
    request: Any = core.compile_model(model, "CPU", settings).create_infer_request()
    # Views of the engine's own memory: one copy in, one out.
    inputs, outputs = request.get_input_tensor().data, request.get_output_tensor().data

    def run(datasets: FloatArray) -> FloatArray:
        np.copyto(inputs, datasets)
        request.infer()
        return outputs

    return in_batches(path, run, batch, (rows, columns), int(model_output.partial_shape[1].get_length()))
