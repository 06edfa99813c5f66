"""Inline SVG without a script: what the charts of all reports are made of.

Positions along x are percentages and all else is in pixels, so that one drawing fits a telephone and a sheet of paper
with letters of the same size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.report.markup import Markup, join, tag

LANE = 20  # pixels from one line of text to the next
LETTER = 12  # pixels


@dataclass(frozen=True)
class Axis:
    """From low at the left edge to high at the right one."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Percent of the width, within 0 to 100."""
        return 100 * min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def at(self, value: float) -> str:
        return f"{self.share(value):.2f}%"

    def holds(self, values: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """Which of them lie on it; NaN does not."""
        return np.asarray((values >= self.low) & (values <= self.high))


def svg(label: str, height: float, *children: Markup | None) -> Markup:
    return tag("svg", *children, width="100%", height=height, role="img", aria_label=label)


def text(words: str, x: float | str, y: float, class_: str | None = None, **attributes: float | str) -> Markup:
    return tag("text", words, x=x, y=y, class_=class_, **attributes)


def tick(x: str, words: str, top: float, bottom: float) -> Markup:
    return join(
        tag("line", x1=x, x2=x, y1=top, y2=bottom + 3, class_="grid"),
        text(words, x, bottom + 15, class_="tick", text_anchor="middle"),
    )
