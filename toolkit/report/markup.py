"""HTML and SVG as text that cannot be broken by what is put into it, and numbers as people read them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
VOID = ("meta", "br", "hr")  # elements without an end tag


class Markup(str):
    """Text that is markup already. Any other text is escaped when it becomes part of an element."""


Node = str | None


def tag(name: str, /, *children: Node, **attributes: str | float | None) -> Markup:
    """`<name attributes>children</name>`, text and attribute values escaped.

    Args:
        children: Markup as it is, other text escaped; None is left out.
        attributes: `class_` stands for `class`, `_` for `-`; None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = join(*children)
    return Markup(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{inside}</{name}>")


def join(*children: Node) -> Markup:
    """The children one after another, each escaped unless it is Markup."""
    return Markup("".join(child if isinstance(child, Markup) else html.escape(child) for child in children if child))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str | None) -> Markup:
    """Rows, the first cell of each its heading; without a caption also without a line of headings.

    On a narrow screen the rows become cards. The roles keep it a table for screen readers all the same.
    """
    body = []
    for row in rows:
        first = tag("th", row[0], scope="row", role="rowheader")
        cells = zip(headings[1:], row[1:], strict=True)
        body.append(tag("tr", first, *(tag("td", c, role="cell", data_label=h or None) for h, c in cells), role="row"))
    top = tag("tr", *(tag("th", each, scope="col", role="columnheader") for each in headings), role="row")
    return tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", top, role="rowgroup") if caption else None,
        tag("tbody", *body, role="rowgroup"),
        role="table",
    )


def folded(content: Markup) -> Markup:
    """A table that says again what a chart says: for those who want it."""
    return tag("details", tag("summary", "These numbers as a table"), content)


def number(value: float, digits: int = 3) -> str:
    """0.103, 4.47×10⁻³⁸, 0, ∞, NaN."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or 1e-3 <= abs(value) < 10**digits - 0.5:
        return f"{value:.{digits}g}".replace("-", "−")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    factor = (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa).replace("-", "−")
    return f"{factor}×10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def power_of_ten(exponent: int) -> str:
    """1, 10⁻³⁰."""
    return "1" if exponent == 0 else f"10{str(exponent).translate(SUPERSCRIPTS)}"


def count(quantity: int, noun: str) -> str:
    """1 file, 4 files."""
    return f"{quantity:,} {noun}{'' if quantity == 1 else 's'}"


def listed(words: list[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
