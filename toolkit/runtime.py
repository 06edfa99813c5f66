"""Any model file behind one callable: Keras, ONNX Runtime, LiteRT."""

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

from toolkit.errors import InputError, MissingExtra, ModelError, reason_of
from toolkit.keras_zip import check_keras_file

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Predict

# Datasets a call of the engine. A batch must stay in cache: 16 to 128 differ by less than 5 %, 8 and 1,024 are slower.
# The size is fixed and the last batch padded: a dataset's estimates must not depend on how many others come along.
BATCH = 32
KERAS_BATCH = 256  # Keras spends 0.5 ms a call on itself

# The ways to run a file, the one used for scoring first. The others answer whether another build of the engine, or one
# without its optimizer, gives the same.
KERNELS = {".tflite": ("xnnpack", "builtin"), ".onnx": ("optimized", "unoptimized"), ".keras": ("default",)}

RunBatch = Callable[["FloatArray"], "FloatArray"]  # exactly one batch


def load(path: Path | str, *, threads: int = 1, kernels: str = "default") -> Predict:
    """The model file as a function: float32 (n, rows, columns) -> float32 (n, parameters), for any n.

    Not for several threads at once: load the file once in each. While it computes, other Python threads run.

    Args:
        path: an exported .tflite or .onnx file, or a .keras file.
        threads: what the engine may use inside one call.
        kernels: one of KERNELS for the file's ending, or 'default' for its first.
    Raises:
        ModelError: no such file, another ending, or content that is damaged or no such model. The function itself
            raises InputError for an array of another shape, and ModelError where the engine fails or gives anything
            but one float32 estimate per dataset and parameter.
    """
    path = Path(path)
    if path.suffix not in KERNELS:
        raise ModelError(f"{path}: not a model file. It should end in {', '.join(KERNELS)}.")
    if not path.is_file():
        raise ModelError(f"{path}: no such file. `toolkit export --format all` writes the exported files.")
    known = KERNELS[path.suffix]
    if kernels not in ("default", *known):
        raise ModelError(f"{path}: no kernels {kernels!r}. There are {', '.join(known)}.")
    chosen = known[0] if kernels == "default" else kernels
    try:
        if path.suffix == ".tflite":
            return _load_litert(path, threads, chosen)
        if path.suffix == ".onnx":
            return _load_onnx(path, threads, chosen)
        return _load_keras(path)
    except (ModelError, MissingExtra):
        raise
    except Exception as error:  # each engine has exceptions of its own, some derive from nothing narrower
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path}: not a usable {path.suffix[1:]} model ({reason_of(error)}). Export it again.")


def _load_litert(path: Path, threads: int, kernels: str) -> Predict:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    builtin = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with _no_greeting():
        interpreter = Interpreter(
            os.fspath(path),
            num_threads=threads,
            experimental_op_resolver_type=builtin if kernels == "builtin" else OpResolverType.BUILTIN,
        )
        (model_input,), (model_output,) = interpreter.get_input_details(), interpreter.get_output_details()
        batch, rows, columns = (int(size) for size in model_input["shape_signature"])
        if batch < 0:
            batch = BATCH
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

    return _in_batches(path, run, batch, (rows, columns), parameters)


def _load_onnx(path: Path, threads: int, kernels: str) -> Predict:
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
    batch, rows, columns = model_input.shape
    names = [model_output.name]
    return _in_batches(
        path,
        lambda datasets: session.run(names, {model_input.name: datasets})[0],
        batch if isinstance(batch, int) else BATCH,
        (rows, columns),
        model_output.shape[-1],
    )


def _refuse_other_files(path: Path) -> None:
    """An ONNX file can name others to read its weights from; ONNX Runtime before 1.24 (its #26776) reads any."""
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


def _load_keras(path: Path) -> Predict:
    from toolkit.model import import_tensorflow

    try:
        import_tensorflow()
    except MissingExtra as error:
        raise MissingExtra("load of a .keras file", "train", "TensorFlow") from error
    import keras

    check_keras_file(path)
    network: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
    _, rows, columns = network.input_shape
    return _in_batches(path, network.predict_on_batch, KERAS_BATCH, (rows, columns), network.output_shape[-1])


def _in_batches(path: Path, run: RunBatch, size: int, shape: tuple[int, int], parameters: int) -> Predict:
    """`run`, which takes exactly `size` datasets, for any number of them; the last batch is padded with zeros."""
    if not all(isinstance(number, int) and number > 0 for number in (size, *shape, parameters)):
        raise ValueError(f"takes datasets of shape {shape} and gives {parameters} estimates: not whole numbers above 0")

    def run_one(datasets: FloatArray) -> FloatArray:
        try:
            estimates = run(datasets)
        except Exception as error:  # as above
            raise _unusable(path, error) from error
        # Assigned as it is, another shape would be broadcast: one dataset's estimates given to all.
        if estimates.shape != (size, parameters) or estimates.dtype != np.float32:
            raise ModelError(
                f"{path}: gives {estimates.dtype} estimates of shape {estimates.shape} for {size} datasets, "
                f"not float32 {(size, parameters)}. Export it again."
            )
        return estimates

    def predict(datasets: FloatArray) -> FloatArray:
        datasets = np.asarray(datasets, np.float32)
        if datasets.ndim != 3 or datasets.shape[1:] != shape:
            rows, columns = shape
            raise InputError(f"the model takes an array of shape (n, {rows}, {columns}), not {datasets.shape}.")
        estimates = np.empty((len(datasets), parameters), np.float32)
        whole = len(datasets) // size * size
        for begin in range(0, whole, size):
            estimates[begin : begin + size] = run_one(datasets[begin : begin + size])
        if left := len(datasets) - whole:
            padded = np.zeros((size, *shape), np.float32)
            padded[:left] = datasets[whole:]
            estimates[whole:] = run_one(padded)[:left]
        return estimates

    return predict


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
