"""Weights to int8 codes, chosen together rather than each to the nearest.

What counts is how far a layer's output moves over the calibration datasets, not how far a weight does. Rounding one
weight leaves an error that the weights not yet rounded can take back, as far as their inputs go together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LARGEST_CODE = 127  # symmetric: -128 is not used, which integer kernels rely on
SHRINKS = np.linspace(1.0, 0.6, 21)  # of the largest weight: what a code of 127 stands for
DAMPING = 1e-4  # of the mean diagonal, where inputs hardly vary


@dataclass(frozen=True)
class Rounded:
    """codes: int8 (inputs, filters). scales: float32 (filters,), of one code. bias: float64 (filters,)."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias: Array


@dataclass
class Moments:
    """Sums over calibration positions of a linear layer's inputs a (inputs,) and of the outputs y (filters,) it should
    give, from which the best weights follow without looking at the datasets again."""

    count: float
    a: Array
    y: Array
    aa: Array
    ay: Array

    @classmethod
    def empty(cls, inputs: int, filters: int) -> Moments:
        return cls(0.0, np.zeros(inputs), np.zeros(filters), np.zeros((inputs, inputs)), np.zeros((inputs, filters)))

    def add(self, a: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        """Args: a (positions, inputs), y (positions, filters)."""
        self.count += len(a)
        self.a += a.sum(axis=0, dtype=np.float64)
        self.y += y.sum(axis=0, dtype=np.float64)
        self.aa += a.T @ a
        self.ay += a.T @ y

    @property
    def covariance(self) -> Array:
        """float64 (inputs, inputs), damped so that it can be inverted."""
        mean = self.a / self.count
        centred = self.aa / self.count - np.outer(mean, mean)
        damping = DAMPING * float(np.mean(np.diag(centred))) or 1.0
        return centred + damping * np.eye(len(mean))

    @property
    def cross_covariance(self) -> Array:
        """float64 (inputs, filters)."""
        return self.ay / self.count - np.outer(self.a, self.y) / self.count**2


def round_weights(kernel: Array, moments: Moments) -> Rounded:
    """int8 weights, a scale for each filter, and the bias, that bring a layer's outputs closest to what they should be.

    In three steps: the real weights that do best on the inputs as they are (codes themselves by now, off by what their
    rounding has done); for each filter the scale at which plain rounding does least harm; then one weight after the
    other rounded, the rest moved to take its error back.

    Args:
        kernel: (inputs, filters), the trained weights.
    Source: Frantar et al. 2022, arXiv:2210.17323 (GPTQ), on outputs that are corrected for their inputs' rounding.
    """
    covariance = moments.covariance
    best = kernel + np.linalg.solve(covariance, moments.cross_covariance - _undamped(moments) @ kernel)
    scales = _scales(best, covariance)
    codes = _rounded_in_turn(best, scales, covariance)
    bias = (moments.y - moments.a @ (codes * scales)) / moments.count
    return Rounded(codes.astype(np.int8), scales.astype(np.float32), bias)


def _undamped(moments: Moments) -> Array:
    return moments.aa / moments.count - np.outer(moments.a, moments.a) / moments.count**2


def _scales(kernel: Array, covariance: Array) -> Array:
    """float64 (filters,), as float32 holds them."""
    largest = np.abs(kernel).max(axis=0)
    largest = np.where(largest > 0, largest, 1.0)
    tried = [(largest * shrink / LARGEST_CODE).astype(np.float32).astype(np.float64) for shrink in SHRINKS]
    errors = []
    for scales in tried:
        moved = np.clip(np.round(kernel / scales), -LARGEST_CODE, LARGEST_CODE) * scales - kernel
        errors.append(np.sum(moved * (covariance @ moved), axis=0))
    best = np.argmin(errors, axis=0)
    return np.array(tried)[best, np.arange(len(best))]


def _rounded_in_turn(kernel: Array, scales: Array, covariance: Array) -> Array:
    """Codes as float64 (inputs, filters). Inputs that vary most are rounded first."""
    order = np.argsort(-np.diag(covariance), kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(covariance[np.ix_(order, order)])).T
    left, codes = kernel[order].copy(), np.empty_like(kernel)
    for index in range(len(order)):
        code = np.clip(np.round(left[index] / scales), -LARGEST_CODE, LARGEST_CODE)
        error = (left[index] - code * scales) / upper[index, index]
        left[index:] -= np.outer(upper[index, index:], error)
        codes[order[index]] = code
    return codes
