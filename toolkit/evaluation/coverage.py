"""Do intervals hold the true values as often as they should, and how wide are they?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.intervals import intervals_of
from toolkit.json_values import jsonable
from toolkit.promise import keeps_promise
from toolkit.spec import Spec

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

THIRDS = 3


@dataclass(frozen=True)
class Coverage:
    """Of one parameter's intervals of one level.

    Attributes:
        coverage: share of datasets whose true value is in its interval.
        thirds: the same in the thirds of the datasets with the smallest, the middle and the largest true values. The
            level is promised for all together, not for each.
        mean_width_ratio: geometric mean of high / low.
    """

    level: float
    coverage: float
    thirds: tuple[float, ...]
    mean_width_ratio: float

    def to_json(self) -> dict[str, Any]:
        return dict(jsonable(asdict(self)))


def coverages_of(
    file: Path | str,
    stored: Mapping[str, Any] | None,
    spec: Spec,
    level: float,
    true: FloatArray,
    estimates: NDArray[np.float64],
) -> dict[str, Coverage]:
    """Of each parameter; none where the file knows no intervals, or none of this level, or gives what is no estimate.

    Args:
        stored: `ModelFile.interval`, or that of the network.
        true, estimates: (datasets, parameters).
    Raises:
        ModelError: what is stored is damaged.
    """
    intervals = intervals_of(file, stored, spec.parameters)
    rounded = estimates.astype(np.float32)
    if intervals is None or not keeps_promise(rounded).all():
        return {}
    try:
        limits = intervals.at(level, file)
    except InputError:
        return {}
    found = {}
    for name, value, low, high in zip(spec.parameters, true.T, *(each.T for each in limits(rounded)), strict=True):
        inside = (low <= value) & (value <= high)
        thirds = np.array_split(inside[np.argsort(value, kind="stable")], THIRDS)
        ratio = float(np.exp(np.mean(np.log(high.astype(np.float64)) - np.log(low.astype(np.float64)))))
        shares = tuple(float(third.mean()) if len(third) else float("nan") for third in thirds)
        found[name] = Coverage(level, float(inside.mean()), shares, ratio)
    return found
