"""One exported file in the report: what is wrong with it, its smallest estimates, its errors, its facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolkit.manifest import int8_in_words
from toolkit.probes import WITHIN_RANGES
from toolkit.report.charts import Errors, Minima, errors_axis, errors_chart, minima_chart
from toolkit.report.markup import Markup, count, folded, join, listed, number, table, tag
from toolkit.report.measured import RUNTIMES
from toolkit.spec import SMALLEST_NORMAL_FLOAT32

if TYPE_CHECKING:
    from toolkit.judge import Verdict
    from toolkit.verification import Verification

STATISTICS = {"median": "Median", "p99": "99th percentile", "max": "Maximum"}


def file_section(verification: Verification, place: int) -> Markup:
    """The section of the file in this place of the manifest."""
    verdict = verification.verdicts[place]
    return tag(
        "section",
        tag("h2", verdict_word(verdict), " ", verdict.file, id=f"file-{place}"),
        _failures(verdict) if verdict.failures else None,
        _minima(verification, verdict) if verdict.proof or verdict.trials else None,
        _errors(verification, verdict) if verdict.trials else None,
        _facts(verification, place),
    )


def verdict_word(verdict: Verdict) -> Markup:
    """PASSED or FAILED."""
    state = "passed" if verdict.passed else "failed"
    return tag("span", state.upper(), class_=f"word {state}")


def plain_words(verdict: Verdict) -> list[str]:
    """What is wrong with a file, in sentences for readers who know neither its operations nor its runtime."""
    said, words = "\n".join(verdict.failures), []
    if verdict.proof is not None and not verdict.proved:
        words.append("It is not proved that its estimates are positive numbers.")
    if any(trial.failures for trial in verdict.trials):
        words.append("When it was run, it gave estimates that are no positive numbers.")
    if "the proof is wrong" in said:
        words.append("It gave an estimate below what was proved, so its proof cannot be relied on.")
    if "the gate for" in said:
        words.append("Its estimates differ from those of the trained network by more than is allowed.")
    return words or ["It could not be judged."]


def _failures(verdict: Verdict) -> Markup:
    return join(
        tag("h3", "What is wrong"),
        *(tag("p", tag("strong", sentence)) for sentence in plain_words(verdict)),
        tag("p", "In detail:"),
        tag("ul", *(tag("li", failure) for failure in verdict.failures)),
    )


def _minima(verification: Verification, verdict: Verdict) -> Markup:
    minima = [
        Minima(
            name,
            verdict.lower_bound.get(name),
            verdict.minimum_probed.get(name),
            _smallest_in_range(verdict, index),
            verdict.minimum_seen.get(name),
        )
        for index, name in enumerate(verification.manifest.spec.parameters)
    ]
    required = verdict.proof.required if verdict.proof else SMALLEST_NORMAL_FLOAT32
    rows = [
        [each.parameter, *map(_or_dash, (each.proved, each.probed, each.probed_in_range, each.seen))] for each in minima
    ]
    spoken = "; ".join(f"{a}: proved at least {b}, probed {c}, probed in range {d}, seen {e}" for a, b, c, d, e in rows)
    headings = ("Parameter", "Proved at least", "Probed", "Probed in range", "Seen")
    return join(
        tag("h3", "Smallest estimates"),
        tag(
            "figure",
            tag("div", minima_chart(minima, required, f"Smallest estimates. {spoken}."), class_="chart"),
            tag(
                "figcaption",
                "On a logarithmic axis, in the units of each parameter. Shaded: 0, and numbers so small that hardware "
                "may turn them into 0. Bar: where all estimates are proved to lie.",
            ),
        ),
        folded(table(headings, rows, f"Smallest estimates of {verdict.file}")),
    )


def _smallest_in_range(verdict: Verdict, index: int) -> float | None:
    found = [float(trial.minimum[WITHIN_RANGES][index]) for trial in verdict.trials if WITHIN_RANGES in trial.minimum]
    return min(found, default=None)


def _or_dash(value: float | None) -> str:
    return "–" if value is None else number(value)


def _worst_errors(verification: Verification, verdict: Verdict) -> list[Errors]:
    """Of each parameter, those in the kernel set with the largest one."""
    worst = []
    for index, name in enumerate(verification.manifest.spec.parameters):
        trial = max(verdict.trials, key=lambda each: np.nan_to_num(each.relative_error[index].max, nan=np.inf))
        worst.append(Errors(name, trial.error_counts[index], trial.relative_error[index]))
    return worst


def _errors(verification: Verification, verdict: Verdict) -> Markup:
    run = [each for each in verification.verdicts if each.trials]
    axis = errors_axis(
        [errors for each in run for errors in _worst_errors(verification, each)],
        [verification.gates[each.gate] for each in run],
    )
    errors, gates = _worst_errors(verification, verdict), verification.gates[verdict.gate]
    rows = [
        [each.parameter, *(number(getattr(each.summary, statistic)) for statistic in STATISTICS)] for each in errors
    ]
    spoken = "; ".join(f"{a}: median {b}, 99th percentile {c}, maximum {d}" for a, b, c, d in rows)
    return join(
        tag("h3", "Relative error"),
        tag(
            "figure",
            tag(
                "div", errors_chart(errors, gates, axis, f"Distribution of relative errors. {spoken}."), class_="chart"
            ),
            tag(
                "figcaption",
                f"Over {count(verification.datasets, 'dataset')}, in the kernel set with the largest error. The axis "
                "is logarithmic, and the same for all files. Vertical lines: median, 99th percentile and maximum, from "
                "left to right; dashed, the largest that passes.",
            ),
        ),
        folded(table(("Parameter", *STATISTICS.values()), rows, f"Relative error of {verdict.file}")),
    )


def _facts(verification: Verification, place: int) -> Markup:
    verdict = verification.verdicts[place]
    entry = verification.entry_of(verdict)
    facts: list[list[str]] = [
        ["Format", f"{verdict.format}, {verdict.precision} weights"],
        ["Size", f"{entry.bytes:,} bytes"],
        ["SHA-256", tag("code", entry.sha256)],
        ["Run in", _run_in(verification, verdict)],
    ]
    if entry.int8:
        facts.append(["Quantized", int8_in_words(entry.int8)])
    if verdict.proof is not None:
        proof = verdict.proof
        limit = f"; inputs beyond ±{number(proof.input_limit)} are cut off" if proof.input_limit else ""
        facts.append(["Proof", f"{count(proof.operations, 'operation')}, {proof.arithmetic} arithmetic{limit}"])
    return join(tag("h3", "Facts"), table(("Fact", ""), facts, None))


def _run_in(verification: Verification, verdict: Verdict) -> str:
    if not verdict.trials:
        return "nothing"
    ways = listed([trial.kernels for trial in verdict.trials])
    if verification.target is not None:
        return f"{verification.target}: {ways}"
    return f"{RUNTIMES[f'.{verdict.format}']}, {ways} kernels"
