"""ONNX Runtime: .onnx and .ort files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import ModelError
from toolkit.ort_file import as_onnx
from toolkit.runtime.batches import in_batches

if TYPE_CHECKING:
    from toolkit.spec import Predict


def load_onnxruntime(path: Path, threads: int, kernels: str, batch: int) -> Predict:
    import onnxruntime

    _refuse_other_files(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only; what matters is raised as well
    if kernels == "unoptimized":
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    (model_input,), (model_output,) = session.get_inputs(), session.get_outputs()
    fixed, rows, columns = model_input.shape
    names = [model_output.name]
    return in_batches(
        path,
        lambda datasets: session.run(names, {model_input.name: datasets})[0],
        fixed if isinstance(fixed, int) else batch,
        (rows, columns),
        model_output.shape[-1],
    )


def _refuse_other_files(path: Path) -> None:
    """An ONNX file can name others to read its weights from; ONNX Runtime before 1.24 (its #26776) reads any."""
    if path.suffix == ".ort":
        as_onnx(path, path.read_bytes())
        return
    content = path.read_bytes()
    if b"location" not in content:  # the key of such a name; looking for it spares importing onnx
        return
    import onnx

    if any(tensor.external_data for tensor in _tensors(onnx.load_model_from_string(content))):
        raise ModelError(f"{path}: keeps weights in other files, which are not read. Save the model as one file.")


def _tensors(message: Any) -> Iterator[Any]:
    """Every stored tensor, those of graphs inside operations too."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if hasattr(value, "__len__") else [value]:
                yield from _tensors(each)
