"""Integer layers -> TFLite file, written as such: no converter, no float operation.

Everything between the first reshape and the last Dense layers is (batch, 1, rows, channels), as in the float files.
Dense layers are convolutions of width 1: only those have a scale for each filter on every microcontroller, and only
those give the same codes everywhere: LiteRT 2.3's FULLY_CONNECTED rounds once where TensorFlow Lite Micro's rounds
twice, and one code in 500 differed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.integer_head import Head
from export.network import Shape
from export.quantize import Codes, IntegerLayer
from export.tflite_file import TfliteFile
from toolkit.spec import INPUT_NAME


def write_integer(
    shape: tuple[int, int],
    entering: Codes,
    layers: Sequence[IntegerLayer],
    heads: Sequence[Head],
    facts: Mapping[str, Any],
) -> bytes:
    """The file: `datasets` int8 (batch, rows, channels) -> one int8 (batch, 1) for each head, in their order.

    Args:
        shape: (rows, channels) of one dataset's codes.
        entering: what they stand for.
        facts: for the file's metadata.
    """
    file = TfliteFile()
    source = file.tensor(INPUT_NAME, shape, entering)
    size: Shape = shape
    values, codes = file.reshape(source, (1, *shape), entering), entering
    for layer in layers:
        values, size, codes = file.add_layer(layer, values, size, codes)
    (features,) = size  # flat: the last layer is Dense
    values = file.reshape(values, (1, 1, features), codes)
    outputs = [_dense(file, head, values, codes) for head in heads]
    return file.finish(source, outputs, [head.name for head in heads], facts)


def _dense(file: TfliteFile, head: Head, values: int, codes: Codes) -> int:
    """values: (batch, 1, 1, features)."""
    weights = file.constant(f"{head.name}/kernel", head.codes.reshape(1, 1, 1, -1), [head.scale])
    unit = [float(np.float32(codes.scale) * np.float32(head.scale))]
    bias = file.constant(f"{head.name}/bias", np.array([head.bias], np.int32), unit)
    given = file.tensor(f"{head.name}/conv", (1, 1, 1), head.output)
    file.conv([values, weights, bias], given)
    return file.reshape(given, (1,), head.output, head.name)
