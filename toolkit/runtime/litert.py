"""LiteRT: .tflite files, integer-only ones with their host side."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.integer import LOWEST, Host, host_of
from toolkit.metadata import read_metadata
from toolkit.runtime.batches import in_batches

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Predict


def load_litert(path: Path, threads: int, kernels: str, batch: int) -> Predict:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolvers = {
        "xnnpack": OpResolverType.BUILTIN,
        "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "reference": OpResolverType.BUILTIN_REF,
    }
    with _no_greeting():
        interpreter = Interpreter(
            os.fspath(path), num_threads=threads, experimental_op_resolver_type=resolvers[kernels]
        )
        (model_input,), (model_output, *others) = interpreter.get_input_details(), interpreter.get_output_details()
        fixed, rows, columns = (int(size) for size in model_input["shape_signature"])
        if fixed >= 0:
            batch = fixed
        else:
            interpreter.resize_tensor_input(model_input["index"], [batch, rows, columns])
        interpreter.allocate_tensors()
    if model_input["dtype"] is np.int8:
        host = _host_of(path, model_input, [model_output, *others])
        outputs = [interpreter.tensor(each["index"]) for each in (model_output, *others)]
        return _with_host(path, host, interpreter, interpreter.tensor(model_input["index"]), outputs, batch)
    if others:
        raise ValueError(f"gives {1 + len(others)} outputs, not one")
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


def _host_of(path: Path, model_input: dict[str, Any], outputs: list[dict[str, Any]]) -> Host:
    """The host side that the file tells of; it must be that of this network."""
    host = host_of(path, read_metadata(path))
    if host is None:
        raise ModelError(f"{path}: takes int8 codes, and does not say how datasets become codes. Export it again.")
    channels, said = int(model_input["shape"][-1]), [(output.scale, output.zero_point) for output in host.outputs]
    there = [output["quantization"] for output in outputs]
    whole = all(
        output["dtype"] is np.int8 and output["shape"].shape == (2,) and output["shape"][1] == 1 for output in outputs
    )
    if channels != host.channels or there != said or not whole:
        raise ModelError(
            f"{path}: takes {channels} channels and gives codes of (scale, zero point) {there}, its host side "
            f"is for {host.channels} and {said}. Export it again."
        )
    return host


def _with_host(
    path: Path, host: Host, interpreter: Any, inputs: Callable[[], Any], outputs: list[Callable[[], Any]], batch: int
) -> Predict:
    """An integer-only network between the roundings and the softplus of its host."""
    table = host.table()
    columns = np.arange(len(outputs))

    def run(datasets: FloatArray) -> FloatArray:
        inputs()[:] = host.codes(datasets)
        interpreter.invoke()
        codes = np.concatenate([output() for output in outputs], axis=1)
        estimates = table[codes.astype(np.intp) - LOWEST, columns]
        # Float files carry NaN through; here nothing else is left of it.
        estimates[np.isnan(datasets).any(axis=(1, 2))] = np.nan
        return estimates

    return in_batches(path, run, batch, (inputs().shape[1], len(host.columns)), len(outputs))


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
