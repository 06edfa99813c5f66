"""The promise of every exported file, asked of numbers: finite, and no smaller than a normal float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.spec import SMALLEST_NORMAL_FLOAT32


def keeps_promise(values: NDArray[np.floating[Any]], least: float = SMALLEST_NORMAL_FLOAT32) -> NDArray[np.bool_]:
    """bool, of the same shape: whether each is finite and at least `least`. NaN is neither."""
    return np.isfinite(values) & (values >= least)
