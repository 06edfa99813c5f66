"""What arm64's Python runs under QEMU: one model file over one array. NumPy and one engine, nothing of the toolkit.

    python arm64_runner.py FILE litert|litert-float16|onnxruntime BATCH < inputs.npy > outputs.npy

Inputs are float32 or int8 (n, rows, columns); outputs (n, parameters), several of one column each side by side.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

FORCE_FP16 = 4  # TFLITE_XNNPACK_DELEGATE_FLAG_FORCE_FP16

RunBatch = Callable[[Any], Any]


def main(path: str, engine: str, batch: int) -> None:
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the engines print is no result
    # NumPy reads and writes files by their position, and a pipe has none.
    inputs = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    size, run = {"litert": litert, "litert-float16": litert_float16, "onnxruntime": onnxruntime}[engine](path, batch)
    outputs = []
    for begin in range(0, len(inputs), size):
        piece = inputs[begin : begin + size]
        padded = np.zeros((size, *inputs.shape[1:]), inputs.dtype)
        padded[: len(piece)] = piece
        outputs.append(run(padded)[: len(piece)])
    written = io.BytesIO()
    np.save(written, np.concatenate(outputs), allow_pickle=False)
    results.write(written.getbuffer())
    results.close()


def litert(path: str, batch: int) -> tuple[int, RunBatch]:
    """The interpreter, which is what Raspberry Pis run; on arm64 it hands what it can to XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    (taken,), given = interpreter.get_input_details(), interpreter.get_output_details()
    fixed, *shape = (int(each) for each in taken["shape_signature"])
    size = batch if fixed < 0 else fixed
    if fixed < 0:
        interpreter.resize_tensor_input(taken["index"], [size, *shape])
    interpreter.allocate_tensors()

    def run(inputs: Any) -> Any:
        interpreter.set_tensor(taken["index"], inputs)
        interpreter.invoke()
        return np.concatenate([interpreter.get_tensor(each["index"]) for each in given], axis=1)

    return size, run


def litert_float16(path: str, batch: int) -> tuple[int, RunBatch]:
    """XNNPACK told to compute in float16 what the file says in float32: LiteRT 2's own way to load a file has an option
    for that, its interpreter has none."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.options import CpuOptions, Options

    unprepared = Interpreter(path)
    (taken,), (given,) = unprepared.get_input_details(), unprepared.get_output_details()
    fixed, *shape = (int(each) for each in taken["shape_signature"])
    size, parameters = (batch if fixed < 0 else fixed), int(given["shape"][-1])
    options = Options(cpu_options=CpuOptions(num_threads=1, xnnpack_flags=FORCE_FP16))
    model = CompiledModel.from_file(path, options=options)
    if fixed < 0:
        model.resize_input_tensor(0, [size, *shape])
    inputs_there, outputs_there = model.create_input_buffers(0), model.create_output_buffers(0)

    def run(inputs: Any) -> Any:
        inputs_there[0].write(inputs)
        model.run_by_index(0, inputs_there, outputs_there)
        return outputs_there[0].read(size * parameters, np.float32).reshape(size, parameters)

    return size, run


def onnxruntime(path: str, batch: int) -> tuple[int, RunBatch]:
    import onnxruntime as engine

    options = engine.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = engine.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    size = taken.shape[0] if isinstance(taken.shape[0], int) else batch
    return size, lambda inputs: session.run(None, {taken.name: inputs})[0]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
