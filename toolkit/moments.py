"""Means and variances of datasets that stream by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.spec import Spec


class Ranges:
    """The smallest and largest value of each column and parameter, float64 (columns,) and (parameters,)."""

    def __init__(self, spec: Spec) -> None:
        columns, parameters = len(spec.columns), len(spec.parameters)
        self.column_minima, self.column_maxima = np.full(columns, np.inf), np.full(columns, -np.inf)
        self.parameter_minima, self.parameter_maxima = np.full(parameters, np.inf), np.full(parameters, -np.inf)

    def add(self, datasets: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        if not len(datasets):
            return
        # Over datasets first: a reduction over the few columns that lie side by side is some five times as slow.
        for minima, maxima, low, high in (
            (self.column_minima, self.column_maxima, datasets.min(axis=0), datasets.max(axis=0)),
            (self.parameter_minima, self.parameter_maxima, targets, targets),
        ):
            np.minimum(minima, low.min(axis=0), out=minima)
            np.maximum(maxima, high.max(axis=0), out=maxima)


class Moments:
    """Running sums; shifted by the first values, so that a large offset does not drown a small spread."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.ranges = spec, Ranges(spec)
        self._count = self._observations = 0
        self._shift: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        columns, parameters = len(spec.columns), len(spec.parameters)
        self._column_sums = np.zeros((2, columns))
        self._parameter_sums = np.zeros((2, parameters))

    def add(self, datasets: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        if not len(datasets):
            return
        self.ranges.add(datasets, targets)
        values, true = datasets.reshape(-1, datasets.shape[2]).astype(np.float64), targets.astype(np.float64)
        if self._shift is None:
            self._shift = values[0].copy(), true[0].copy()
        values, shifted = values - self._shift[0], true - self._shift[1]
        self._column_sums += [values.sum(axis=0), np.square(values).sum(axis=0)]
        self._parameter_sums += [shifted.sum(axis=0), np.square(shifted).sum(axis=0)]
        self._observations += len(values)
        self._count += len(true)

    @property
    def column_means(self) -> NDArray[np.float64]:
        assert self._shift is not None
        return np.asarray(self._shift[0] + self._column_sums[0] / self._observations)

    @property
    def column_variances(self) -> NDArray[np.float64]:
        mean, square = self._column_sums / self._observations
        return np.asarray(np.maximum(square - mean**2, 0.0))

    @property
    def parameter_means(self) -> NDArray[np.float64]:
        assert self._shift is not None
        return np.asarray(self._shift[1] + self._parameter_sums[0] / self._count)

    @property
    def parameter_variances(self) -> NDArray[np.float64]:
        mean, square = self._parameter_sums / self._count
        return np.asarray(np.maximum(square - mean**2, 0.0))
