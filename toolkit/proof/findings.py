"""What is noticed while bounds are worked out, in words for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from toolkit.proof import intervals
from toolkit.proof.intervals import ARITHMETICS, Bounds
from toolkit.proof.values import Value


@dataclass
class Findings:
    """By operation index.

    Attributes:
        lost: why the result may be infinite or NaN, where all operands were known: here the proof is lost.
        vanished: why a result that is positive in real arithmetic may be 0.
        unsupported: why there is no rule; the results are missing then, and so is all behind them.
        kinds: rules that were used.
    """

    lost: dict[int, str] = field(default_factory=dict)
    vanished: dict[int, str] = field(default_factory=dict)
    unsupported: dict[int, str] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)


def describe(bounds: Bounds) -> str:
    """`[-3.1e+24, 2.9e+24]`: the interval around all elements."""
    return f"[{bounds.low.min():.4g}, {bounds.high.max():.4g}]"


def limit_of(dtype: str) -> str:
    return f"{dtype} ends at {ARITHMETICS[dtype].largest:.3g}"


def why_lost(kind: str, operands: Sequence[Value], exact: Bounds, lost: np.ndarray, dtype: str) -> str:
    """Why a result may be infinite or NaN, read off its bounds in real arithmetic."""
    reached = np.where(lost, intervals.magnitude(exact), 0.0).max()
    if np.isfinite(reached):
        return f"may overflow: reaches {reached:.4g}, {limit_of(dtype)}"
    culprit = operands[-1] if kind == "div" else operands[0]
    return f"may be infinite or NaN: its operand lies in {describe(culprit.bounds)}"


def why_outside(kind: str, operand: Value, domain: tuple[float, float]) -> str:
    """An argument for which a kernel in use gives infinity or NaN."""
    first, last = domain
    highest, lowest = operand.bounds.high.max(), operand.bounds.low.min()
    if highest > last:
        return f"may be infinite or NaN: {kind} of up to {highest:.4g}, and some kernels fail above {last:.4g}"
    return f"may be infinite or NaN: {kind} of down to {lowest:.4g}, and some kernels fail below {first:.4g}"


def why_vanished(kind: str, operand: Value, exact: Bounds, where: np.ndarray) -> str:
    """Why a positive result may become 0; `operand` is the one to show."""
    if kind == "log":
        return "may be 0: its operand may be 1, as 1 + x is in float32 for x below 6e-8"
    place = np.unravel_index(np.argmin(np.where(where, exact.low, np.inf)), where.shape)
    argument = float(np.broadcast_to(operand.bounds.low, where.shape)[place])
    value = float(exact.low[place])
    if value < ARITHMETICS["float32"].smallest_normal:
        return f"may be 0: {kind}({argument:.4g}) = {value:.3g} is below 2^-126"
    return f"may be 0: {kind}({argument:.4g}) = {value:.3g} is smaller than the error a kernel may make there"
