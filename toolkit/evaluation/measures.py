"""Estimates against true values, in numbers: over all datasets, and along the true value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.json_values import jsonable
from toolkit.recovery import Recovery, recovery_of

BINS = 10  # as many datasets in each: the first is the tenth with the smallest true values
FEWEST_IN_BIN = 20  # datasets; a median of fewer says little

Values = NDArray[np.floating[Any]]  # (datasets,)


@dataclass(frozen=True)
class Bin:
    """The datasets whose true value is from `low` up to `high`, and how well it is recovered there."""

    low: float
    high: float
    datasets: int
    rmse: float
    bias: float
    median_relative_error: float
    p90_relative_error: float


@dataclass(frozen=True)
class Measures:
    """Of one parameter: over all datasets, and in bins of its true value, ascending."""

    recovery: Recovery
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        """A number that is NaN or infinite is null."""
        return {**jsonable(asdict(self.recovery)), "bins": [jsonable(asdict(each)) for each in self.bins]}


def edges_of(true: Values) -> NDArray[np.float64]:
    """Edges of bins of equally many datasets; fewer bins where there are few datasets, or few different values.

    Returns:
        float64 (bins + 1,), ascending, the first the smallest value and the last the largest; where there is but one
        value, twice that.
    """
    bins = max(1, min(BINS, len(true) // FEWEST_IN_BIN))
    edges = np.unique(np.quantile(true.astype(np.float64), np.linspace(0, 1, bins + 1)))
    return edges if len(edges) > 1 else np.repeat(edges, 2)


def measure(true: NDArray[np.float32], estimates: Values) -> Measures:
    """Of one parameter; both (datasets,), at least one."""
    edges = edges_of(true)
    place = np.searchsorted(edges[1:-1], true, side="right")
    bins = []
    for index, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        inside = place == index
        if inside.any():
            found = recovery_of(true[inside], estimates[inside])
            bins.append(
                Bin(
                    low=float(low),
                    high=float(high),
                    datasets=int(inside.sum()),
                    rmse=found.rmse,
                    bias=found.bias,
                    median_relative_error=found.median_relative_error,
                    p90_relative_error=found.p90_relative_error,
                )
            )
    return Measures(recovery_of(true, estimates), tuple(bins))
