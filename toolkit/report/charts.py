"""The charts of the report on a verification."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.cliffs import Curve
from toolkit.manifest import RelativeError
from toolkit.report.markup import Markup, join, number, power_of_ten, tag
from toolkit.report.svg import LANE, LETTER, Axis, svg, text, tick
from toolkit.trials import BIN_EDGES

ZERO_AT = -46.5  # where 0, and what is below it, is drawn on the axis of log10; the smallest float32 is 10^-44.85
LOGITS = 128.0  # the axis of logits ends here, either side


@dataclass(frozen=True)
class Minima:
    """The smallest estimates of one parameter, by strength of evidence; None where there is none."""

    parameter: str
    proved: float | None
    probed: float | None
    probed_in_range: float | None
    seen: float | None


def minima_chart(minima: Sequence[Minima], required: float, label: str) -> Markup:
    """One lane for each number, along log10, with what is no normal number shaded."""
    known = [value for each in minima for value in (each.seen, each.probed_in_range) if value and math.isfinite(value)]
    axis = Axis(ZERO_AT - 1, max(2, math.ceil(math.log10(max(known, default=1)) + 0.5)))
    edge = axis.at(math.log10(required))
    top, lanes = 2 * LANE, list[Markup]()
    y = top
    for each in minima:
        lanes.append(text(each.parameter, 0, y + LETTER, class_="strong"))
        y += LANE
        proved = each.proved is not None and each.proved >= required
        for value, words, mark in (
            (each.proved, "proved: at least" if proved else "proved only: at least", "bar"),
            (each.probed, "probed:", "ring"),
            (each.probed_in_range, "probed in range:", "ring"),
            (each.seen, "seen:", "dot"),
        ):
            if value is not None:
                lanes.append(_lane(axis, value, f"{words} {number(value)}", mark, required, y))
                y += LANE
        y += LANE // 2
    ticks = range(-40, math.floor(axis.high) + 1, 10)
    scale = [tick(axis.at(exponent), power_of_ten(exponent), top, y) for exponent in ticks]
    return svg(
        label,
        y + LANE,
        tag("rect", x=0, y=top - 4, width=edge, height=y - top + 4, class_="danger-zone"),
        *scale,
        tick(axis.at(ZERO_AT), "≤ 0", top, y),
        tag("line", x1=edge, x2=edge, y1=LANE, y2=y, class_="limit"),
        text(f"smallest normal number: {number(required)}", edge, LETTER, class_="limit-text", dx=-4),
        *lanes,
    )


def _lane(axis: Axis, value: float, words: str, mark: str, required: float, y: int) -> Markup:
    good = math.isfinite(value) and value >= required
    place = _log_place(value)
    x, middle = axis.at(place), y + LANE / 2
    kind = "good" if good else "bad"
    if mark == "bar" and good:
        shape = tag("rect", x=x, y=y + 2, width=f"{100 - axis.share(place):.2f}%", height=LANE - 4, class_="interval")
    elif mark == "bar":
        shape = tag("rect", x=x, y=y + 2, width=3, height=LANE - 4, class_="mark bad")
    else:
        shape = tag("circle", cx=x, cy=middle, r=4.5, class_=f"{mark} {kind}")
    right = axis.share(place) < 50
    anchor = "start" if right else "end"
    words_class = None if good else "bad-text"
    return join(shape, text(words, x, middle + 4, words_class, dx=9 if right else -9, text_anchor=anchor))


def _log_place(value: float) -> float:
    """log10, with 0, anything negative and NaN at ZERO_AT."""
    if not value > 0:
        return ZERO_AT
    return 400.0 if math.isinf(value) else max(math.log10(value), ZERO_AT)


@dataclass(frozen=True)
class Errors:
    """Relative errors of one parameter: how many fall into each bin of BIN_EDGES, and their summary."""

    parameter: str
    counts: NDArray[np.int64]
    summary: RelativeError


def errors_axis(errors: Sequence[Errors], gates: Sequence[Mapping[str, float]]) -> Axis:
    """Whole decades around everything that is to be drawn."""
    limits = [limit for each in gates for limit in each.values() if math.isfinite(limit) and limit > 0]
    held = np.flatnonzero(sum((each.counts for each in errors), np.zeros(len(BIN_EDGES) - 1, np.int64))[1:-1]) + 1
    edges = [BIN_EDGES[held[0]], BIN_EDGES[held[-1] + 1]] if len(held) else []
    ends = [math.log10(value) for value in [*limits, *edges, 1e-8, 1e-3]]
    return Axis(math.floor(min(ends)), math.ceil(max(ends) + 0.2))


def errors_chart(errors: Sequence[Errors], gates: Mapping[str, float], axis: Axis, label: str) -> Markup:
    """One strip for each parameter: bars along log10, lines for median, p99 and maximum, and the gates."""
    height, strips, y = 44, list[Markup](), 0
    for each in errors:
        summary = each.summary
        words = f"median {number(summary.median, 2)}, p99 {number(summary.p99, 2)}, max {number(summary.max, 2)}"
        strips += [text(each.parameter, 0, y + LETTER, class_="strong"), text(words, 0, y + LETTER + 16)]
        y += 16
        base = y + LANE + height
        strips += [_bar(axis, number_, share, base, height) for number_, share in _bars(each.counts)]
        for value in (summary.median, summary.p99, summary.max):
            x = axis.at(_log_place(value) if math.isfinite(value) else axis.high)
            strips.append(tag("line", x1=x, x2=x, y1=y + LANE, y2=base + 4, class_="statistic"))
        for limit in gates.values():
            if math.isfinite(limit):
                x = axis.at(math.log10(limit))
                strips.append(tag("line", x1=x, x2=x, y1=y + LANE - 2, y2=base + 4, class_="limit dashed"))
        strips.append(tag("line", x1=0, x2="100%", y1=base, y2=base, class_="axis"))
        y = base + LANE
    ticks = [exponent for exponent in range(int(axis.low), int(axis.high) + 1) if exponent % 2 == 0]
    names = "; ".join(f"{statistic} ≤ {number(limit)}" for statistic, limit in gates.items())
    first = next((math.log10(limit) for limit in gates.values() if math.isfinite(limit)), axis.high)
    anchor = "start" if axis.share(first) < 50 else "end"
    return svg(
        label,
        y + 2 * LANE,
        *[tick(axis.at(exponent), power_of_ten(exponent), 0, y - 8) for exponent in ticks],
        *strips,
        text(f"gate: {names}", axis.at(first), y + 2 * LANE - 8, class_="limit-text", text_anchor=anchor)
        if names
        else None,
    )


def _bars(counts: NDArray[np.int64]) -> list[tuple[int, float]]:
    """Index and height, within 0 to 1, of the bins that hold something; those beyond the ends are drawn at them."""
    tallest = counts.max()
    return [(index, float(held / tallest)) for index, held in enumerate(counts.tolist()) if held]


def _bar(axis: Axis, index: int, share: float, base: int, height: int) -> Markup:
    low = math.log10(BIN_EDGES[index]) if index else axis.low
    high = math.log10(BIN_EDGES[index + 1]) if index + 2 < len(BIN_EDGES) else low + 0.1
    width = max(axis.share(high) - axis.share(low), 0.4)
    tall = max(share * (height - 4), 1.5)
    return tag(
        "rect", x=axis.at(low), y=f"{base - tall:.1f}", width=f"{width:.2f}%", height=f"{tall:.1f}", class_="bar"
    )


def cliffs_chart(
    groups: Mapping[str, Mapping[str, Curve]], ranges: Mapping[str, tuple[float, float]], label: str
) -> Markup:
    """What comes out along the logit, one bar for each way to compute it, and where the datasets' logits lie.

    Args:
        groups: by runtime, what is computed by whom.
        ranges: smallest and largest logit, by what has them.
    """
    axis, rows, y = Axis(-LOGITS, LOGITS), list[Markup](), 0
    for runtime, curves in groups.items():
        rows.append(text(runtime, 0, y + LETTER, class_="strong"))
        y += LANE
        for name, curve in curves.items():
            rows.append(text(name, 0, y + LETTER))
            rows.append(_bar_of(axis, curve, y + LETTER + 5))
            y += LETTER + 5 + LANE + 4
        y += 10
    marks = []
    for words, (low, high) in ranges.items():
        x, width = axis.at(low), f"{max(axis.share(high) - axis.share(low), 0.5):.2f}%"
        marks.append(tag("rect", x=x, y=y, width=width, height=5, class_="range"))
        marks.append(text(f"{words}: {number(low, 2)} to {number(high, 2)}", "50%", y + 19, text_anchor="middle"))
        y += LANE + 10
    ticks = [tick(axis.at(logit), f"{logit}".replace("-", "−"), 0, y) for logit in (-120, -80, -40, 0, 40, 80, 120)]
    return svg(label, y + LANE, *ticks, *rows, *marks)


def _bar_of(axis: Axis, curve: Curve, y: int) -> Markup:
    """One bar in its stretches, and on top of all of them what is written on it."""
    shapes, words = list[Markup](), list[Markup]()
    for stretch in curve:
        left, right = axis.share(stretch.first), axis.share(stretch.last)
        kind, width = stretch.kind, f"{right - left:.2f}%"
        shapes.append(tag("rect", x=f"{left:.2f}%", y=y, width=width, height=LANE - 2, class_=kind))
        if kind in SHORT:
            middle = f"{(left + right) / 2:.2f}%"
            words.append(text(SHORT[kind], middle, y + 13, f"on-{kind}", text_anchor="middle"))
        elif kind == "inexact" and right - left > 12 and (left == 0 or right == 100):
            place, anchor = ("1%", "start") if left == 0 else ("99%", "end")  # too long for the middle of a short one
            held = f"held at {number(stretch.smallest, 2)}"
            words.append(text(held, place, y + 13, "on-inexact", text_anchor=anchor))
    return join(*shapes, *words)


SHORT = {"zero": "0", "infinite": "∞", "nan": "NaN", "negative": "< 0"}  # what is written on a bar
