"""Weights in half precision, the same for both formats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ExportError


def to_half(weights: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """The nearest float16 of every weight.

    Raises:
        ExportError: a weight exceeds 65504, the largest float16.
    """
    largest: Any = np.finfo(np.float16).max
    if not np.all(np.abs(weights) <= largest):
        raise ExportError(
            f"{name} holds {np.max(np.abs(weights)):.3g}, beyond the largest half-precision number, {largest:g}. "
            "Export it as float32: toolkit export --precision float32"
        )
    return weights.astype(np.float16)
