"""A small integer-only file, written by hand: three outputs, random weights, and a host that fits it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tiny_files import TfliteFile

from toolkit.metadata import write_metadata

ROWS, PARAMETERS = 12, 3
FACTS: dict[str, Any] = {
    "input": {"rows": ROWS, "columns": ["rt", "correct"]},
    "parameters": ["v", "a", "t0"],
    "precision": "integer",
    "integer": {
        "columns": [
            {"minimum": -0.5, "maximum": 9.5, "multiplier": 409.5, "fine": 16},
            {"minimum": 0.0, "maximum": 1.0, "multiplier": 40.0, "fine": 1},
        ],
        "outputs": [
            {"scale": 0.015625, "zero_point": 0, "centre": 1.5},
            {"scale": 0.0078125, "zero_point": 3, "centre": 0.25},
            {"scale": 0.03125, "zero_point": 0, "centre": -2.5},
        ],
        "arena_bytes": None,
    },
}


def integer_file(
    path: Path,
    *,
    facts: dict[str, Any] | None = FACTS,
    float_inside: bool = False,
    seed: int = 0,
    scales: Sequence[float] = (1e-3,) * 4,
) -> Path:
    """RESHAPE, CONV_2D with relu, MAX_POOL_2D, RESHAPE, and a CONV_2D of width 1 and a RESHAPE for each output.

    Args:
        facts: for the metadata; none if None.
        float_inside: the pooled codes go through float32 and back.
        scales: of the weights of each filter of the convolution.
    """
    rng = np.random.default_rng(seed)
    file = TfliteFile([None, ROWS, 3], "int8", (1.0, -128))
    values = file.tensor([None, 1, ROWS, 3], "int8", (1.0, -128))
    file.add("RESHAPE", [file.input, file.constant([-1, 1, ROWS, 3], "int32")], values)
    unit = (np.array(scales), 0)
    kernel = file.constant(rng.integers(-127, 128, (4, 1, 3, 3)), "int8", unit)
    bias = file.constant(rng.integers(-9000, 9000, 4), "int32", unit)
    convolved, pooled = (file.tensor([None, 1, rows, 4], "int8", (0.25, -128)) for rows in (ROWS - 2, ROWS // 2 - 1))
    convolution = {"kind": "Conv2DOptions", "padding": 1, "strideH": 1, "strideW": 1}
    convolution |= {"dilationHFactor": 1, "dilationWFactor": 1}
    file.add("CONV_2D", [values, kernel, bias], convolved, 3, **convolution, fusedActivationFunction=1)
    window = {"padding": 1, "strideH": 1, "strideW": 2, "filterHeight": 1, "filterWidth": 2}
    file.add("MAX_POOL_2D", [convolved], pooled, 2, kind="Pool2DOptions", **window)
    if float_inside:
        real, back = file.tensor([None, 1, 5, 4]), file.tensor([None, 1, 5, 4], "int8", (0.25, -128))
        file.add("DEQUANTIZE", [pooled], real, 2)
        file.add("QUANTIZE", [real], back)
        pooled = back
    flat = file.tensor([None, 1, 1, 20], "int8", (0.25, -128))
    file.add("RESHAPE", [pooled, file.constant([-1, 1, 1, 20], "int32")], flat)
    outputs = []
    for output in FACTS["integer"]["outputs"]:
        weights = file.constant(rng.integers(-127, 128, (1, 1, 1, 20)), "int8", (2e-4, 0))
        offset = file.constant(rng.integers(-9000, 9000, 1), "int32", (0.25 * 2e-4, 0))
        scale = (output["scale"], output["zero_point"])
        dense, given = file.tensor([None, 1, 1, 1], "int8", scale), file.tensor([None, 1], "int8", scale)
        file.add("CONV_2D", [flat, weights, offset], dense, 3, **convolution)
        outputs.append(file.add("RESHAPE", [dense, file.constant([-1, 1], "int32")], given))
    file.save(path, outputs)
    if facts is not None:
        write_metadata(path, facts)
    return path
