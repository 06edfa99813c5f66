"""The conversion itself, run as `python -m export.worker` in a process of its own.

Converters have been seen to crash on extreme weights and to misread layers; a crash here cannot take the caller with
it. One JSON request on stdin, one JSON answer in the file that the request names; stdout and stderr are noise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.adversarial import ADVERSARIAL_FILE, save_adversarial
from export.batch import with_batch
from export.graph import build_function
from export.half_limits import limits_in_half
from export.head import SMALLEST_U_IN_HALF
from export.int8 import Int8
from export.integer import to_integer
from export.keras_file import read_network
from export.limit import input_limit
from export.network import Network, Normalization
from export.onnx import to_onnx
from export.ort import to_ort
from export.tflite import to_tflite
from export.weights import WEIGHTS_FILE, save_weights
from toolkit.errors import ExportError
from toolkit.spec import INPUT_NAME, OUTPUT_NAME, QUANTIZED, Spec, file_name, held_back

COMPARED_DATASETS = 32
COMPARED_SEED = 0
WHERE_KERAS_IS_RIGHT = 1e-30  # softplus(-69); below -87 Keras's own softplus is 0
TOLERANCE = 1e-3  # of the largest estimate of a parameter; a misread layer is off by its own size
TOLERANCE_IN_HALF = 5e-2  # where Keras itself computes in float16 or bfloat16


def main() -> None:
    request = json.load(sys.stdin)
    answer = Path(request["answer"])
    try:
        content: dict[str, Any] = {"converted": _convert(request)}
    except ExportError as error:
        content = {"error": str(error)}
    answer.write_text(json.dumps(content), encoding="utf-8")


def _convert(request: dict[str, Any]) -> list[dict[str, Any]]:
    stage, directory, keras_file = Path(request["stage"]), Path(request["directory"]), Path(request["keras_file"])
    spec = Spec(request["rows"], tuple(request["columns"]), tuple(request["parameters"]))
    stage.write_text(f"reading {keras_file.name}", encoding="utf-8")
    model, network = read_network(keras_file, spec)
    with _about(keras_file):
        limit = input_limit(network)
    function = build_function(network, limit)
    _compare(model, function, network, keras_file)
    save_weights(network, directory / WEIGHTS_FILE, keras_file)
    stage.write_text("looking for datasets with the smallest estimates", encoding="utf-8")
    real = np.load(request["datasets"], allow_pickle=False) if request["datasets"] else _random_datasets(network)
    save_adversarial(model, spec, real, limit, directory / ADVERSARIAL_FILE, keras_file)
    held = held_back(len(real))
    fitted_to = np.delete(real, np.arange(len(real))[held], axis=0)  # the others are left to whoever judges the files
    int8: Int8 | None = None  # made once for both formats
    batch: int | None = request["batch"]
    half = request["arithmetic"] == "float16"
    if half:
        half_limit, cuts = limits_in_half(network)
        half_function = build_function(network, half_limit, cuts)
        _compare(model, half_function, network, keras_file, floor=SMALLEST_U_IN_HALF)
    converted = []
    for format, precision in request["wanted"]:
        path = directory / file_name(format, precision, arithmetic=request["arithmetic"], batch=batch)
        stage.write_text(f"writing {path.name} ({format}, {precision})", encoding="utf-8")
        entry: dict[str, Any] = {"path": str(path), "format": format, "precision": precision}
        try:
            facts: dict[str, Any] = {"input_limit": limit}
            written = "onnx" if format == "ort" else format
            if half and precision in QUANTIZED:
                raise ExportError(f"{precision} files are not made for float16 arithmetic. Leave --arithmetic out.")
            if half:
                facts = {"input_limit": half_limit, "arithmetic": "float16"}
                content = (
                    to_tflite(half_function, precision) if format == "tflite" else to_onnx(half_function, precision)
                )
            elif precision == "integer":
                content, facts = to_integer(network, spec.parameters, fitted_to)
            elif precision == "int8":
                int8 = int8 or Int8(network, fitted_to, request["first_layer"], limit)
                content, facts = int8.write(format)
            else:
                content = to_tflite(function, precision) if format == "tflite" else to_onnx(function, precision)
            if batch:
                content, facts = with_batch(content, written, batch), {**facts, "batch": batch}
            if format == "ort":
                content = to_ort(content, precision, network.parameters)
            path.write_bytes(content)
            converted.append({**entry, "facts": facts})
        except ExportError as error:  # of this file alone: the network may well have the others
            converted.append({**entry, "problem": f"{path.name}: {error}"})
    if converted and all("problem" in entry for entry in converted):
        raise ExportError("\n".join(entry["problem"] for entry in converted))
    return converted


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Begin the message of an error with the file that it is about."""
    try:
        yield
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error


def _compare(model: Any, function: Any, network: Network, path: Path, floor: float = 0.0) -> None:
    """Refuse a network that was misread: its estimates must be Keras's, on random datasets of the right scale.

    Args:
        floor: what the head adds to estimates that are nearly 0. On random datasets all of a parameter's may be.
    """
    datasets = _random_datasets(network)
    theirs = np.asarray(model(datasets, training=False), np.float32)
    ours = function(**{INPUT_NAME: datasets})[OUTPUT_NAME].numpy()
    in_float32 = all(layer.compute_dtype == "float32" for layer in model.layers)
    allowed = (TOLERANCE if in_float32 else TOLERANCE_IN_HALF) * np.max(np.abs(theirs), axis=0) + floor
    known = theirs > WHERE_KERAS_IS_RIGHT
    if not np.all(np.abs(ours - theirs)[known] <= np.broadcast_to(allowed, theirs.shape)[known]):
        difference = float(np.max(np.abs(ours - theirs)))
        raise ExportError(
            f"{path}: the graph to convert differs from Keras by {difference:.3g} on random datasets. "
            "This is a fault of the exporter; please report it with the network's summary."
        )


def _random_datasets(network: Network) -> NDArray[np.float32]:
    """float32 (COMPARED_DATASETS, rows, columns), of the mean and spread that the input normalization was made for."""
    values = np.random.default_rng(COMPARED_SEED).normal(size=(COMPARED_DATASETS, *network.shape))
    first = network.layers[0] if network.layers else None
    if isinstance(first, Normalization):
        values = values * first.deviation + first.mean
    return values.astype(np.float32)


if __name__ == "__main__":
    main()
