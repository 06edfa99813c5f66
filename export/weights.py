"""weights.npz: what the float64 forward pass needs, so that judging a file takes no TensorFlow."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.network import Network

WEIGHTS_FILE = "weights.npz"


def save_weights(network: Network, path: Path, keras_file: Path) -> None:
    """Write weights.npz.

    It holds one array per weight, named `<layer>.<field>`, and `network`, a JSON text: `shape`, `parameters`, `layers`
    (each its `kind` and its plain attributes), and `keras_sha256` of the file that the weights are from.
    """
    arrays: dict[str, NDArray[Any]] = {}
    layers = []
    for index, layer in enumerate(network.layers):
        plain: dict[str, Any] = {"kind": type(layer).__name__}
        for field in fields(layer):
            value = getattr(layer, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"{index}.{field.name}"] = value
            else:
                plain[field.name] = value
        layers.append(plain)
    description = {
        "shape": network.shape,
        "parameters": network.parameters,
        "layers": layers,
        "keras_sha256": hashlib.sha256(keras_file.read_bytes()).hexdigest(),
    }
    np.savez(path, network=np.array(json.dumps(description)), **arrays)  # type: ignore[arg-type]
