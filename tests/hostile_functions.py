"""What the tests of hostile files run in a child process, and the datasets they run them on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.inspection import InspectedFile, examine
from toolkit.probes import stored_adversarial
from toolkit.reference import load_reference
from toolkit.runtime import load
from toolkit.spec import Spec

DATASETS = 40  # more than one batch, and not a whole number of them


def inspected(path: Path) -> InspectedFile:
    return examine(path)


def estimates(path: Path, kernels: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Of random datasets, some of them extreme."""
    rng = np.random.default_rng(0)
    datasets = rng.normal(0, 2, (DATASETS, *shape)) * 10.0 ** rng.integers(-3, 4, (DATASETS, 1, 1))
    datasets[:4] = np.array([0, 3e38, -3e38, 1e-40])[:, None, None]
    return load(path, kernels=kernels)(datasets.astype(np.float32))


def adversarial(directory: Path, shape: tuple[int, int]) -> int:
    spec = Spec(shape[0], tuple("abcdefgh"[: shape[1]]), ("p", "q"))
    return sum(len(probes.datasets) for probes in stored_adversarial(directory, spec))


def truth(directory: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        return load_reference(directory)(np.ones((2, *shape), np.float32))
