"""How datasets become int8 codes outside an integer-only file, and the first layer that takes such codes.

One int8 for a number is too coarse: on response times it costs more accuracy than all the rest. A column is counted in
FINE times as many steps, and what the division by FINE leaves is a channel of its own, with the same weights, only FINE
times smaller. All columns share one step, in standard deviations: what matters beside it is how well int8 holds the
weights, and a column of two values needs no more than two codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.forward import run
from export.network import Affine, Conv1D, Dense, Layer, Network, Normalization
from export.refit import relative_weights
from toolkit.errors import ExportError

STEPS = 255  # of an int8
LOWEST = -128
FINE = 16  # more helps less: int8 weights 16 times smaller than the others are off by 7 %
MARGIN = 0.05  # of a column's range, on either side, for values that calibration datasets do not hold
TAILS = (0.0, 1e-5, 1e-4, 1e-3)  # shares of a column's values, on either side, that may saturate
WORSE = 1.2
NOTHING = 1e-3  # of an estimate; the codes of its logit lose more
COMPARED = 500  # datasets to choose among them
EXACT = 1e-3  # of a step: a column whose values all lie this close to one needs no finer ones

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Column:
    """count = round((min(max(x, minimum), maximum) - minimum) * multiplier), split into count // fine and count % fine.
    Real numbers are float32."""

    minimum: float
    maximum: float
    multiplier: float
    fine: int

    @property
    def channels(self) -> int:
        return 2 if self.fine > 1 else 1

    def count(self, values: Values) -> Values:
        """Whole numbers, as float32. The same arithmetic as that of the host that runs the file."""
        minimum = np.float32(self.minimum)
        inside = np.clip(values, minimum, np.float32(self.maximum))
        return np.rint((inside - minimum) * np.float32(self.multiplier))


@dataclass(frozen=True)
class Grid:
    """columns: in the order of the datasets' own."""

    columns: tuple[Column, ...]

    def codes(self, datasets: Values) -> Values:
        """Codes as float32 (datasets, 1, rows, channels)."""
        made = []
        for index, column in enumerate(self.columns):
            count = column.count(datasets[..., index])
            made.append(np.floor(count / column.fine))
            if column.fine > 1:
                made.append(count % column.fine)
        return np.stack(made, axis=-1)[:, np.newaxis] + np.float32(LOWEST)

    def unrounded(self, datasets: Values) -> Values:
        """Real numbers of the same shape that are the datasets themselves: steps from the minimum, whole ones or not,
        and nothing left."""
        made = []
        for index, column in enumerate(self.columns):
            steps = (datasets[..., index].astype(np.float64) - column.minimum) * (column.multiplier / column.fine)
            made += [steps, *[np.zeros_like(steps)] * (column.channels - 1)]
        return np.stack(made, axis=-1)[:, np.newaxis].astype(np.float32)

    def rounded(self, datasets: Values) -> Values:
        """The datasets that the codes stand for."""
        columns = enumerate(self.columns)
        made = [column.minimum + column.count(datasets[..., index]) / column.multiplier for index, column in columns]
        return np.stack(made, axis=-1).astype(np.float32)

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(column) for column in self.columns]


def choose_grid(network: Network, datasets: Values) -> Grid:
    """The widest grid on which the float network's estimates move hardly more than on the best of all: a wider one
    rounds coarser, on a narrower one outliers saturate.

    Args:
        datasets: float32 (datasets, rows, columns).
    Raises:
        ExportError: the network begins with layers that codes cannot take the place of.
    """
    spread = _spread(network, datasets)
    some = datasets[:: -(-len(datasets) // COMPARED)]
    truth = run(network.layers, some[:, np.newaxis])
    weights = relative_weights(truth)

    def error(grid: Grid) -> float:
        moved = run(network.layers, grid.rounded(some)[:, np.newaxis]) - truth
        return float(np.sqrt(np.mean((weights * moved) ** 2)))

    grids = [_grid(datasets, spread, tail) for tail in TAILS]
    errors = [error(grid) for grid in grids]
    allowed = max(WORSE * min(errors), NOTHING)
    return next(grid for grid, found in zip(grids, errors, strict=True) if found <= allowed)  # the widest


def on_codes(network: Network, grid: Grid) -> Network:
    """The same function of the numbers that codes count from -128 on: what comes before the first linear layer, and the
    grid, taken into that layer.

    Raises:
        ExportError: as `choose_grid`.
    """
    slopes, offsets, layers = _leading(network)
    first = layers[0]
    assert isinstance(first, Conv1D | Dense)
    kernel, parts = first.kernel.astype(np.float64), []
    bias = first.bias.astype(np.float64)
    for index, column in enumerate(grid.columns):
        weights = kernel[..., index : index + 1, :]
        per_step = slopes[index] / column.multiplier
        parts.append(weights * (per_step * column.fine))
        if column.fine > 1:
            parts.append(weights * per_step)
        constant = slopes[index] * column.minimum + offsets[index]
        bias = bias + constant * weights.reshape(-1, weights.shape[-1]).sum(axis=0)
    changed = replace(first, kernel=np.concatenate(parts, axis=-2).astype(np.float32), bias=bias.astype(np.float32))
    rows, channels = network.shape[0], sum(column.channels for column in grid.columns)
    return replace(network, shape=(rows, channels), layers=(changed, *layers[1:]))


def _grid(datasets: Values, spread: NDArray[np.float64], tail: float) -> Grid:
    flat = datasets.reshape(-1, datasets.shape[-1]).astype(np.float64)
    low, high = np.quantile(flat, [tail, 1 - tail], axis=0)
    span = np.where(high > low, high - low, 1.0)
    step = float(np.max(span / spread)) * (1 + 2 * MARGIN) / STEPS  # of the widest column, in standard deviations
    steps = np.clip(np.round(span / spread / step), 1, STEPS)
    return Grid(tuple(_columns(flat, low, span, steps)))


def _columns(
    flat: NDArray[np.float64], low: NDArray[np.float64], span: NDArray[np.float64], steps: NDArray[np.float64]
) -> Iterator[Column]:
    for index in range(len(low)):
        minimum, wide, count = low[index], span[index], float(steps[index])
        from_minimum = (flat[:, index] - minimum) / wide * count
        if np.all(np.abs(from_minimum - np.round(from_minimum)) <= EXACT):  # all values lie on whole steps
            yield _column(minimum, wide, count, 1)
        else:
            wider = 1 + 2 * MARGIN
            # Half a step less: the last count must not become one more where float32 rounds.
            count = min(count * wider, STEPS) * FINE - 0.5
            yield _column(minimum - MARGIN * wide, wide * wider, count, FINE)


def _column(minimum: float, wide: float, count: float, fine: int) -> Column:
    low, high, multiplier = (float(np.float32(each)) for each in (minimum, minimum + wide, count / wide))
    return Column(low, high, multiplier, fine)


def _spread(network: Network, datasets: Values) -> NDArray[np.float64]:
    """float64 (columns,): what the network divides each column by; its standard deviation where it does not."""
    slopes, _, _ = _leading(network)
    if np.all(slopes == 1):
        deviation = datasets.std(axis=(0, 1), dtype=np.float64)
        return np.where(deviation > 0, deviation, 1.0)
    return np.asarray(1 / np.abs(np.where(slopes == 0, 1.0, slopes)))


def _leading(network: Network) -> tuple[NDArray[np.float64], NDArray[np.float64], Sequence[Layer]]:
    """The layers in front that only scale and shift columns, as slope and offset (columns,), and the other layers.

    Raises:
        ExportError: one of them treats rows differently, or what follows is no layer that can take codes.
    """
    slopes, offsets = np.ones(network.shape[1]), np.zeros(network.shape[1])
    layers = list(network.layers)
    while layers and isinstance(layer := layers[0], Normalization | Affine):
        del layers[0]
        if isinstance(layer, Normalization):
            slope, offset = 1 / layer.deviation, -layer.mean.astype(np.float64) / layer.deviation
        else:
            slope, offset = layer.scale.astype(np.float64), layer.offset.astype(np.float64)
        if max(slope.size, offset.size) > network.shape[1]:
            raise ExportError(
                f"its {type(layer).__name__} layer scales each row differently. Integer files take one scale a column."
            )
        slopes, offsets = slopes * slope.reshape(-1), offsets * slope.reshape(-1) + offset.reshape(-1)
    first = layers[0]
    if not isinstance(first, Conv1D | Dense):
        raise ExportError(f"it begins with a {type(first).__name__} layer, integer files with Conv1D or Dense.")
    if isinstance(first, Conv1D) and first.padding != "valid":
        raise ExportError(
            f"its first Conv1D pads with {first.padding!r}: an integer file takes codes, and none of them is a row of "
            "zeros. Use padding='valid' there, or export it as int8: toolkit export --precision int8"
        )
    return slopes, offsets, layers
