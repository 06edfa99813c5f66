"""Integer-only TFLite files: int8 codes in, one int8 code for each parameter out, no float operation between.

For microcontrollers and accelerators that have nothing else. What the host adds on either side, codes of datasets and
the strictly positive softplus, are numbers in the file's metadata. Each parameter is a Dense output of its own with a
scale of its own. Its logits are centred, so that the codes cover the logits that there are and not those around 0: a
step of codes is 1/255 of them, which is what is left of the error in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.arena import smallest_arena
from export.equalize import equalize
from export.forward import run
from export.integer_file import write_integer
from export.integer_grid import LOWEST, choose_grid, on_codes
from export.integer_head import round_heads
from export.network import Activation, Conv1D, Dense, GlobalPooling1D, Network, Pooling1D, Reshape, ZeroPadding1D
from export.quantize import WITHIN, Codes, round_layers, through
from export.refit import refit, relative_weights
from export.region import FUSED, fold
from toolkit.errors import ExportError

FACT = "integer"  # the key of the host's numbers, in the metadata and in manifest.json

Values = NDArray[np.float32]


def to_integer(network: Network, parameters: Sequence[str], datasets: Values) -> tuple[bytes, dict[str, Any]]:
    """The file, and what its metadata say of its host.

    Args:
        parameters: names of the outputs.
        datasets: float32 (datasets, rows, columns); some thousands, like those that the file is for.
    Raises:
        ExportError: a layer that integer kernels do not compute.
    """
    network = fold(network)
    _check_layers(network)
    grid = choose_grid(network, datasets)
    logits = run(network.layers, datasets[:, np.newaxis])
    on_grid = equalize(on_codes(network, grid), grid.unrounded(datasets)[:, 0])
    *inside, head = on_grid.layers
    assert isinstance(head, Dense)
    entering = Codes(1.0, LOWEST)
    given = grid.codes(datasets)
    real = grid.unrounded(datasets)
    tried = []
    for within in WITHIN:
        layers = round_layers(inside, entering, given, real, within)
        features, codes = through(layers, entering, given)
        tried.append((layers, features, codes, refit(head, codes.real(features), logits, relative_weights(logits))))
    layers, features, codes, refitted = min(tried, key=lambda each: float(np.max(each[3].after)))
    heads = round_heads(refitted.head, codes, features, logits, parameters)
    outputs = [{"scale": head.output.scale, "zero_point": 0, "centre": head.centre} for head in heads]
    host: dict[str, Any] = {"columns": grid.to_json(), "outputs": outputs, "arena_bytes": None}
    content = write_integer(on_grid.shape, entering, layers, heads, {FACT: host})
    host["arena_bytes"] = smallest_arena(content)
    return write_integer(on_grid.shape, entering, layers, heads, {FACT: host}), {FACT: host}


def _check_layers(network: Network) -> None:
    """Raises:
    ExportError: it names the first layer that has no place in an integer-only file.
    """
    layers = network.layers
    begin = next((index for index, layer in enumerate(layers) if isinstance(layer, Conv1D | Dense)), len(layers))
    for before, layer in zip(layers[begin:], layers[begin + 1 :], strict=False):
        match layer:
            case Conv1D() | Dense() | ZeroPadding1D() | Reshape():
                continue
            case Activation() if layer.name in FUSED and isinstance(before, Conv1D | Dense):
                continue
            case Pooling1D() | GlobalPooling1D() if layer.reduce == "max":
                continue
            case Activation():
                what = f"a {layer.name} activation behind a {type(before).__name__}"
            case Pooling1D() | GlobalPooling1D():
                what = f"{layer.reduce} pooling"
            case _:
                what = f"a {type(layer).__name__} layer"
        raise ExportError(
            f"it holds {what}, which an integer-only file has no place for: Conv1D and Dense, each with relu or none "
            "right behind it, max pooling, zero padding and flattening. Export it as int8: "
            "toolkit export --precision int8"
        )
