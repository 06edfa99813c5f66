"""Inputs that no dataset looks like, to try a model file where it is most likely to fail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.spec import Spec

LARGEST = np.finfo(np.float32).max  # 3.4028235e38
SUBNORMAL = np.float32(1e-45)  # the smallest positive float32
LEVELS = (0.0, 1e-45, 1e-38, 1e-3, 1.0, 1e3, 1e10, 1e20, 1e30, 3e38, float(LARGEST))


def extreme_inputs(spec: Spec, real: NDArray[np.float32]) -> NDArray[np.float32]:
    """Finite float32 datasets from the ends of what can be typed, and real ones pushed there.

    Args:
        real: float32 (datasets, rows, columns), at least one; the first few are scaled, and given spikes.
    Returns:
        float32 (probes, rows, columns): constants of either sign, one column against the others, signs alternating over
        rows and over columns, single spikes in the first, middle and last row, real datasets times powers of ten.
    """
    rows, columns = spec.shape
    row_signs = np.where(np.arange(rows) % 2, -1.0, 1.0)[:, None]
    column_signs = np.where(np.arange(columns) % 2, -1.0, 1.0)[None, :]
    patterns = [np.ones((rows, columns)), row_signs * np.ones(columns), np.ones((rows, 1)) * column_signs]
    patterns += [row_signs * column_signs]
    patterns += [np.eye(columns)[column] * np.ones((rows, 1)) for column in range(columns)]
    probes = [sign * level * pattern for level in LEVELS for sign in (1, -1) for pattern in patterns]
    for dataset in real[:3].astype(np.float64):
        probes += [sign * factor * dataset for factor in (1e-30, 1e-3, 1e3, 1e10, 1e30) for sign in (1, -1)]
        for row in (0, rows // 2, rows - 1):
            for spike in (float(LARGEST), -float(LARGEST), 1e6, -1e6):
                spiked = dataset.copy()
                spiked[row] = spike
                probes.append(spiked)
    return np.clip(np.stack(probes), -float(LARGEST), float(LARGEST)).astype(np.float32)
