"""The Dense outputs of an integer-only file: one for each parameter, its weights, its scale, its centre."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.network import Dense
from export.quantize import Codes
from export.refit import relative_weights
from export.rounding import LARGEST_CODE, SHRINKS

STEPS = 255  # of an int8
# Codes beyond the calibration logits, in parts of their range, for data unlike those: where it ends, estimates stay. At
# the small end that makes an estimate wrong by any factor, at the large end by little.
MARGIN_BELOW, MARGIN_ABOVE = 0.2, 0.05
SMALLEST_STEP = 1e-6  # where all datasets have the same logit
SWEEPS = 3  # over all weights; a fourth changes nothing that can be seen
DAMPING = 0.01  # of the mean variance of a feature: what the calibration datasets cannot tell

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """One Dense output.

    Attributes:
        codes: int8 (features,) of the weights. scale: of these, a float32.
        bias: in units of the features' scale times `scale`.
        output: what the code that comes out stands for; zero point 0.
        centre: the logit of code 0, a float32.
    """

    name: str
    codes: NDArray[np.int8]
    scale: float
    bias: int
    output: Codes
    centre: float


def round_heads(
    head: Dense,
    codes: Codes,
    features: NDArray[np.float32],
    logits: NDArray[np.float32],
    parameters: Sequence[str],
) -> list[Head]:
    """The refitted Dense layer, one int8 output for each parameter.

    Args:
        codes: what the features stand for.
        features: codes as float32 (datasets, features).
        logits: float32 (datasets, parameters), of the float network.
        parameters: names of the outputs.
    """
    weights = relative_weights(logits)
    mean = features.mean(axis=0, dtype=np.float64)
    centred = np.ascontiguousarray((features - mean.astype(np.float32)).T)
    heads = []
    for index, name in enumerate(parameters):
        kernel = head.kernel[:, index].astype(np.float64) * codes.scale
        rounded, scale = _round(kernel, centred, weights[:, index])
        low, high = float(logits[:, index].min()), float(logits[:, index].max())
        low, high = low - MARGIN_BELOW * (high - low), high + MARGIN_ABOVE * (high - low)
        step = float(np.float32((high - low) / STEPS)) or SMALLEST_STEP
        centre = float(np.float32((low + high + step) / 2))  # of the codes -128..127, whose middle is not 0
        share = weights[:, index] ** 2 / np.sum(weights[:, index] ** 2)
        wanted = float(share @ (logits[:, index] - features @ (rounded * scale)))  # the constant that is left
        bias = (wanted - centre) / scale + codes.zero_point * float(rounded.sum())
        weight_scale = float(np.float32(scale / codes.scale))
        heads.append(Head(name, rounded.astype(np.int8), weight_scale, round(bias), Codes(step, 0), centre))
    return heads


def _round(kernel: Array, centred: NDArray[np.float32], weights: Array) -> tuple[Array, float]:
    """Whole numbers and their scale whose logits come closest to those of `kernel`, (features,).

    The scale at which plain rounding does least harm; then one weight after the other moved to where the sum over
    datasets is smallest, the others being what they are.

    Args:
        centred: float32 (features, datasets), of mean 0 over datasets.
        weights: (datasets,), of a logit's error.
    """
    weighted = centred * (weights / np.sqrt(np.mean(weights**2))).astype(np.float32)
    largest = float(np.abs(kernel).max()) or 1.0
    tried = [float(np.float32(largest * shrink / LARGEST_CODE)) for shrink in SHRINKS]
    plain = np.stack([_nearest(kernel / scale) * scale - kernel for scale in tried])
    errors = np.sum((plain.astype(np.float32) @ weighted) ** 2, axis=1)
    scale = tried[int(np.argmin(errors))]
    wanted, codes = kernel / scale, _nearest(kernel / scale)
    count = weighted.shape[1]
    variance = np.sum(weighted**2, axis=1, dtype=np.float64) / count
    damping = DAMPING * float(variance.mean())
    left = (wanted - codes).astype(np.float32) @ weighted  # (datasets,), in codes of a weight
    for _ in range(SWEEPS):
        for index in np.argsort(-variance, kind="stable"):
            if not variance[index] > 0:
                continue
            row = weighted[index]
            pull = float(row @ left) / count + damping * (wanted[index] - codes[index])
            code = _nearest(codes[index] + pull / (variance[index] + damping))
            if code != codes[index]:
                left = left - row * np.float32(code - codes[index])
                codes[index] = code
    return codes, scale


def _nearest(numbers: Array) -> Array:
    return np.clip(np.round(numbers), -LARGEST_CODE, LARGEST_CODE)
