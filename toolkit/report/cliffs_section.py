"""Where a plain softplus ends, beside the files' own last step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.cliffs import Curve
from toolkit.report.charts import LOGITS, cliffs_chart
from toolkit.report.markup import Markup, count, listed, number, table, tag
from toolkit.report.measured import RUNTIMES, Measured

if TYPE_CHECKING:
    from toolkit.verification import Verification

KINDS = {
    "good": "right within 1%",
    "inexact": "positive, but more than 1% off",
    "subnormal": "so small that some hardware makes it 0",
    "zero": "exactly 0",
    "infinite": "infinite",
    "negative": "negative",
    "nan": "not a number",
}
HEADINGS = ("Runtime", "Computed by", "0 or less", "May become 0", "Infinite or NaN", "More than 1% off")


def cliffs_section(verification: Verification, measured: Measured) -> Markup:
    """The section: a chart of what comes out along the logit, and the same as a table."""
    groups, rows = dict[str, dict[str, Curve]](), list[list[str]]()
    for cliffs in measured.cliffs:
        runtime = f"{RUNTIMES[cliffs.ending]}: {', '.join(cliffs.kernels)}"
        curves = {"plain softplus": cliffs.plain} | {
            _whose(files, cliffs.ending, verification): curve for files, curve in cliffs.exported.items()
        }
        groups[runtime] = curves
        rows += [[runtime, name, *_ends(curve)] for name, curve in curves.items()]
    ranges = {
        "logits of the compared datasets": _span(verification.logits),
        "logits of probes in range": _span(verification.logits_within_ranges),
    }
    drawn = {stretch.kind for curves in groups.values() for curve in curves.values() for stretch in curve}
    spoken = "; ".join(f"{row[0]}, {row[1]}: 0 or less {row[2]}, infinite {row[4]}" for row in rows)
    skipped = [tag("li", f"{file} was not measured: {reason}") for file, reason in measured.skipped.items()]
    return tag(
        "section",
        tag("h2", "Where a plain softplus ends"),
        tag(
            "p",
            "The network's last layer turns a number of either sign, the logit, into an estimate: log(1 + exp(logit)), "
            "which is positive on paper. Computed with the usual operations it falls to 0 for very negative logits, "
            "and in some runtimes becomes infinite for large ones. Both were measured on this machine, beside the last "
            "step cut out of each exported file.",
        ),
        tag(
            "figure",
            tag("div", cliffs_chart(groups, ranges, f"What comes out along the logit. {spoken}."), class_="chart"),
            tag("ul", *(tag("li", tag("span", class_=k), KINDS[k]) for k in KINDS if k in drawn), class_="key"),
            tag(
                "figcaption",
                "Horizontal: the logit."
                + (" Beyond the axis, to ±3.4×10³⁸, all stays as it is at its ends." if _ends_go_on(groups) else ""),
            ),
        ),
        table(HEADINGS, rows, "Logits at which an estimate is not what it should be"),
        tag("ul", *skipped) if skipped else None,
    )


def _whose(files: tuple[str, ...], ending: str, verification: Verification) -> str:
    together = [verdict.file for verdict in verification.verdicts if verdict.file.endswith(ending)]
    return f"the {count(len(files), 'exported file')}" if list(files) == together else listed(list(files))


def _ends_go_on(groups: dict[str, dict[str, Curve]]) -> bool:
    curves = [curve for curves in groups.values() for curve in curves.values()]
    return all(curve[0].last >= -LOGITS and curve[-1].first <= LOGITS for curve in curves)


def _span(ranges: dict[str, tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in ranges.values()), max(high for _, high in ranges.values())


def _ends(curve: Curve) -> list[str]:
    kinds = (("zero", "negative"), ("subnormal",), ("infinite", "nan"), ("inexact",))
    return [_where(curve, each) for each in kinds]


def _where(curve: Curve, kinds: tuple[str, ...]) -> str:
    """The logits at which one of these kinds comes out, in words."""
    found = []
    for place, stretch in enumerate(curve):
        if stretch.kind in kinds:
            is_first, is_last = place == 0, place == len(curve) - 1
            first, last = number(stretch.first), number(stretch.last)
            if is_first and is_last:
                found.append("everywhere")
            else:
                found.append(f"below {last}" if is_first else f"above {first}" if is_last else f"{first} to {last}")
    return ", ".join(found) or "nowhere"
