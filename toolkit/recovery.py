"""Parameter recovery: how well estimates match the true values, as numbers and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import MissingExtra
from toolkit.files import appears_whole

SHOWN_POINTS = 1000  # more only blacken the plot


@dataclass(frozen=True)
class Recovery:
    """Agreement of estimates with true values.

    Attributes:
        r2: 1 - sum of squared errors / sum of squared deviations from the true mean.
            NaN where the true values are all the same.
        rmse: root of the mean squared error, in the parameter's unit.
        bias: mean of estimate - true, in the parameter's unit.
        median_relative_error, p90_relative_error: median and 90th percentile of |estimate - true| / true.
    """

    r2: float
    rmse: float
    bias: float
    median_relative_error: float
    p90_relative_error: float


def recovery_of(true: NDArray[np.float32], estimates: NDArray[np.floating[Any]]) -> Recovery:
    """Recovery of one parameter; both arguments are (datasets,), at least one, `true` > 0.

    Estimates that are NaN or infinite make what they enter NaN or infinite.
    """
    target = true.astype(np.float64)
    with np.errstate(all="ignore"):
        errors = estimates.astype(np.float64) - target
        relative = np.abs(errors) / target
        spread = float(np.sum((target - target.mean()) ** 2))
        return Recovery(
            r2=1 - float(np.sum(errors**2)) / spread if spread > 0 else np.nan,
            rmse=float(np.sqrt(np.mean(errors**2))),
            bias=float(np.mean(errors)),
            median_relative_error=float(np.median(relative)),
            p90_relative_error=float(np.quantile(relative, 0.9)),
        )


def plot_recovery(
    path: Path,
    true: NDArray[np.float32],
    estimates: NDArray[np.float32],
    parameters: Sequence[str],
    recoveries: Mapping[str, Recovery],
) -> None:
    """Draw predicted against true, one panel per parameter, into a PNG.

    Args:
        true, estimates: float32 (datasets, parameters).
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtra("train", "train", "matplotlib") from error

    figure = Figure(figsize=(3.4 * len(parameters), 3.7), layout="constrained")
    axes = figure.subplots(1, len(parameters), squeeze=False)[0]
    shown = slice(None, None, max(1, len(true) // SHOWN_POINTS))
    for index, (name, axis) in enumerate(zip(parameters, axes, strict=True)):
        axis.scatter(true[shown, index], estimates[shown, index], s=4, alpha=0.35, linewidths=0, color="#3b6ea5")
        ends = [float(true[:, index].min()), float(true[:, index].max())]
        axis.plot(ends, ends, color="#222222", linewidth=1)
        found = recoveries[name]
        axis.set_title(
            f"{name}\nR2 {found.r2:.3f}   RMSE {found.rmse:.3g}\n"
            f"median relative error {found.median_relative_error:.1%}",
            fontsize=9,
        )
        axis.set_xlabel("true")
        axis.set_ylabel("predicted" if index == 0 else "")
        axis.tick_params(labelsize=8)
    with appears_whole(path) as partial:
        figure.savefig(partial, format="png", dpi=90)
