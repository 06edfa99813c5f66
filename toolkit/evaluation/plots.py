"""The plots of an evaluation: estimates against true values, and errors along the true value.

A dot is a line without length whose ends are round: it stays round however wide the plot is drawn, and takes ten
characters of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.report.markup import Markup, number, tag
from toolkit.report.svg import LANE, LETTER, Axis, svg, text, tick

if TYPE_CHECKING:
    from toolkit.evaluation.measures import Bin

HEIGHT = 200  # pixels of a plot, without what is written above and below
LOW_HEIGHT = 72  # of a plot of errors
GRAIN = 1000  # steps across a plot in which dots are placed
TICKS = 4  # about so many on an axis


def recovery_plot(true: NDArray[np.floating], estimates: NDArray[np.floating], axis: Axis, label: str) -> Markup:
    """Estimates, upwards, against true values: on the line where they are right.

    Args:
        true, estimates: (points,). Estimates beyond the axis, or NaN, are drawn at its ends and in red.
    """
    good = axis.holds(estimates)
    known = np.clip(np.nan_to_num(estimates.astype(np.float64), nan=axis.low), axis.low, axis.high)
    bottom = LANE + HEIGHT
    across = [tick(axis.at(value), number(value), LANE, bottom) for value in ticks_of(axis)]
    upwards = [_level(axis, value, bottom, HEIGHT) for value in ticks_of(axis)]
    inside = tag(
        "svg",
        tag("path", d=f"M0 {GRAIN}L{GRAIN} 0", class_="identity"),
        tag("path", d=_dots(axis, true[good], known[good]), class_="points"),
        tag("path", d=_dots(axis, true[~good], known[~good]), class_="points bad") if not good.all() else None,
        x=0,
        y=LANE,
        width="100%",
        height=HEIGHT,
        viewBox=f"0 0 {GRAIN} {GRAIN}",
        preserveAspectRatio="none",
    )
    return svg(
        label,
        bottom + LANE,
        *across,
        *(line for line, _ in upwards),
        inside,
        *(words for _, words in upwards),
        text("estimate, against the true value", 0, LETTER, class_="tick"),
    )


def errors_plot(bins: Sequence[Bin], axis: Axis, largest: float, label: str) -> Markup:
    """Relative error along the true value: a bar up to the median, a line up to the 90th percentile."""
    bottom = LANE + LOW_HEIGHT
    level = Axis(0.0, largest)
    shapes = []
    for each in bins:
        left, right = axis.share(each.low), axis.share(each.high)
        width = max(right - left, 0.6)
        for value, kind in ((each.median_relative_error, "bar"), (each.p90_relative_error, "statistic")):
            tall = LOW_HEIGHT * (level.share(value) if math.isfinite(value) else 100.0) / 100
            y = f"{bottom - tall:.1f}"
            if kind == "bar":
                place, size = f"{left + 0.15:.2f}%", f"{max(width - 0.3, 0.3):.2f}%"
                shapes.append(tag("rect", x=place, y=y, width=size, height=f"{tall:.1f}", class_=kind))
            else:
                ends = {"x1": f"{left + 0.15:.2f}%", "x2": f"{left + width - 0.15:.2f}%"}
                shapes.append(tag("line", y1=y, y2=y, class_=kind, **ends))
    levels = [_level(level, value, bottom, LOW_HEIGHT, percent=True) for value in ticks_of(level, 3)]
    return svg(
        label,
        bottom + LANE,
        *(tick(axis.at(value), number(value), LANE, bottom) for value in ticks_of(axis)),
        *(line for line, _ in levels),
        *shapes,
        tag("line", x1=0, x2="100%", y1=bottom, y2=bottom, class_="axis"),
        *(words for _, words in levels),
        text("relative error, against the true value", 0, LETTER, class_="tick"),
    )


def bias_plot(bins: Sequence[Bin], axis: Axis, largest: float, label: str) -> Markup:
    """Mean error along the true value: bars up from the line where estimates are too large, down where too small."""
    bottom, middle = LANE + LOW_HEIGHT, LANE + LOW_HEIGHT / 2
    level = Axis(-largest, largest)
    shapes = []
    for each in bins:
        left, right = axis.share(each.low), axis.share(each.high)
        if math.isfinite(each.bias):
            end = bottom - LOW_HEIGHT * level.share(each.bias) / 100
            y, tall = min(end, middle), max(abs(end - middle), 0.5)
            place, size = f"{left + 0.15:.2f}%", f"{max(right - left - 0.3, 0.3):.2f}%"
            shapes.append(tag("rect", x=place, y=f"{y:.1f}", width=size, height=f"{tall:.1f}", class_="bar"))
    levels = [_level(level, value, bottom, LOW_HEIGHT) for value in ticks_of(level) if value]
    return svg(
        label,
        bottom + LANE,
        *(tick(axis.at(value), number(value), LANE, bottom) for value in ticks_of(axis)),
        *(line for line, _ in levels),
        *shapes,
        tag("line", x1=0, x2="100%", y1=middle, y2=middle, class_="axis"),
        *(words for _, words in levels),
        text("bias, against the true value", 0, LETTER, class_="tick"),
    )


def ticks_of(axis: Axis, about: int = TICKS) -> list[float]:
    """Round numbers well inside the axis: of the steps 1, 2 and 5 the one that gives nearest to so many."""
    decade = math.floor(math.log10(axis.high - axis.low))
    steps = [factor * 10.0**power for power in (decade, decade - 1) for factor in (5, 2, 1)]
    return min((_multiples(axis, step) for step in steps), key=lambda ticks: abs(len(ticks) - about))


def _multiples(axis: Axis, step: float) -> list[float]:
    indices = range(math.ceil(axis.low / step), math.floor(axis.high / step) + 1)
    values = [float(f"{index * step:.12g}") for index in indices]  # 0.3, not 0.30000000000000004
    return [value for value in values if 4 <= axis.share(value) <= 96]


def axis_around(values: NDArray[np.floating]) -> Axis:
    """All of the values, and a little more; never an axis without a length."""
    low, high = float(values.min()), float(values.max())
    margin = 0.03 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(low - margin, high + margin)


def _level(axis: Axis, value: float, bottom: float, height: float, percent: bool = False) -> tuple[Markup, Markup]:
    """A line across at this height, and the number on it."""
    y = round(bottom - height * axis.share(value) / 100, 1)
    words = f"{100 * value:g}%" if percent else number(value)
    line = tag("line", x1=0, x2="100%", y1=y, y2=y, class_="grid")
    below = axis.share(value) > 75  # what is drawn above the plot has its words there
    return line, text(words, 2, y + LETTER if below else y - 3, class_="tick on-plot")


def _dots(axis: Axis, across: NDArray[np.floating], up: NDArray[np.floating]) -> str:
    scale = GRAIN / (axis.high - axis.low)
    x = np.rint((np.clip(across, axis.low, axis.high) - axis.low) * scale).astype(int)
    y = GRAIN - np.rint((up - axis.low) * scale).astype(int)
    return "".join(f"M{a} {b}h0" for a, b in zip(x.tolist(), y.tolist(), strict=True))
