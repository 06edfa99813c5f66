"""LiteRT: .tflite files."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.runtime.batches import in_batches

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Predict


def load_litert(path: Path, threads: int, kernels: str, batch: int) -> Predict:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    builtin = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with _no_greeting():
        interpreter = Interpreter(
            os.fspath(path),
            num_threads=threads,
            experimental_op_resolver_type=builtin if kernels == "builtin" else OpResolverType.BUILTIN,
        )
        (model_input,), (model_output,) = interpreter.get_input_details(), interpreter.get_output_details()
        fixed, rows, columns = (int(size) for size in model_input["shape_signature"])
        if fixed >= 0:
            batch = fixed
        else:
            interpreter.resize_tensor_input(model_input["index"], [batch, rows, columns])
        interpreter.allocate_tensors()
    if model_input["dtype"] is not np.float32:  # writing into its memory would make integers of the datasets
        raise ValueError(f"takes {model_input['dtype'].__name__} datasets, not float32")
    parameters = int(model_output["shape"][-1])
    # Views of the engine's own memory: one copy in, one out. A view may not be held while it runs.
    inputs, outputs = interpreter.tensor(model_input["index"]), interpreter.tensor(model_output["index"])

    def run(datasets: FloatArray) -> FloatArray:
        inputs()[:] = datasets
        interpreter.invoke()
        return outputs()

    return in_batches(path, run, batch, (rows, columns), parameters)


_stderr_lock = threading.Lock()


@contextmanager
def _no_greeting() -> Iterator[None]:
    """Keep LiteRT's "INFO: Created TensorFlow Lite XNNPACK delegate" off stderr; no option of ai-edge-litert 2.3 does.

    It is written by the C++ side, so the descriptor itself points elsewhere for these milliseconds. Other lines are
    passed on afterwards.
    """
    with _stderr_lock, tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # started without a stderr
            yield
            return
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            rest = b"".join(line for line in caught if not line.startswith(b"INFO: "))
            if rest:
                os.write(2, rest)
