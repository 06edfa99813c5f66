"""What the report says, in which order: the verdict, every file, what a plain softplus does, what it all rests on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from toolkit.report.cliffs_section import cliffs_section
from toolkit.report.document import document
from toolkit.report.file_section import file_section, plain_words, verdict_word
from toolkit.report.markup import Markup, count, listed, number, table, tag
from toolkit.report.measured import Measured, machine

if TYPE_CHECKING:
    from toolkit.verification import Verification

EVIDENCE = {
    "Proved": "read off the file's own operations and weights, for every finite input; nothing is run.",
    "Probed": "the smallest estimate that extreme inputs, and inputs found by gradient descent on the network, gave in "
    "the real runtimes. “In range” are those whose values stay within the ranges of the model's own calibration data.",
    "Seen": "the smallest estimate over the compared datasets.",
    "Relative error": "|file − truth| / truth, where the truth is the trained network computed in 64-bit arithmetic. "
    "It says how faithful the file is to the network, not how well the network was trained.",
}


def page(verification: Verification, measured: Measured) -> str:
    """The whole page as text."""
    outcome = "Passed" if verification.passed else "Failed"
    title = f"{outcome}: verification of {verification.model.resolve().name}"
    return document(
        title,
        _verdict(verification),
        _summary(verification),
        *(file_section(verification, place) for place in range(len(verification.verdicts))),
        cliffs_section(verification, measured),
        _basis(verification),
        _versions(verification),
    )


def _verdict(verification: Verification) -> Markup:
    failed = [verdict for verdict in verification.verdicts if not verdict.passed]
    passed = [verdict.file for verdict in verification.verdicts if verdict.passed]
    files = count(len(verification.verdicts), "exported file")
    if failed:
        headline = f"{len(failed)} of {files} failed"
        words = [
            tag("p", f"Do not deploy {listed([verdict.file for verdict in failed])}."),
            tag("ul", *(tag("li", tag("strong", each.file), f": {' '.join(plain_words(each))}") for each in failed)),
            tag("p", f"{listed(passed)} passed.") if passed else None,
        ]
    else:
        headline = f"{'All ' if len(passed) > 1 else 'The '}{files if len(passed) > 1 else 'exported file'} passed"
        words = [tag("p", _promise(verification))]
    state = "failed" if failed else "passed"
    return tag(
        "header",
        tag(
            "div",
            tag("p", tag("span", state.upper(), class_="word")),
            tag("h1", headline),
            *words,
            class_=f"verdict {state}",
        ),
        tag(
            "p",
            "Model ",
            tag("code", str(verification.model)),
            f": {verification.manifest.spec.describe()}. Verified on {datetime.now(UTC):%-d %B %Y, %H:%M} UTC.",
            class_="quiet",
        ),
        *_on_target(verification),
    )


def _on_target(verification: Verification) -> list[Markup]:
    """What ran the files, where it was not this machine, what they take there, and which files it did not run."""
    if verification.target is None:
        return []
    run = tag("p", "The files were run on ", tag("strong", verification.target), ".", class_="quiet")
    memory = [tag("li", tag("strong", each.file), f": {each.describe()}") for each in verification.memory]
    not_run = [tag("li", tag("strong", file), f": {reason}") for file, reason in verification.not_run]
    lists = {"Memory that they take there:": memory, "Not run there:": not_run}
    said = [(tag("p", heading), tag("ul", *lines)) for heading, lines in lists.items() if lines]
    return [run, *(part for parts in said for part in parts)]


def _promise(verification: Verification) -> str:
    bound = min(min(verdict.lower_bound.values()) for verdict in verification.verdicts)
    worst = max(error.max for verdict in verification.verdicts for error in verdict.relative_error.values())
    return (
        f"Whatever finite numbers go in, every estimate is finite and at least {number(bound)}: proved for each file. "
        f"On {count(verification.datasets, 'dataset')}, no estimate was more than {number(100 * worst, 2)}% off that "
        "of the trained network."
    )


def _summary(verification: Verification) -> Markup:
    headings = ("File", "Verdict", "Size", "Proved at least", "Smallest probed", "Smallest seen", "Largest error")
    rows: list[list[str]] = []
    for place, verdict in enumerate(verification.verdicts):
        entry = verification.entry_of(verdict)
        errors = [error.max for error in verdict.relative_error.values()]
        rows.append(
            [
                tag("a", verdict.file, href=f"#file-{place}"),
                verdict_word(verdict),
                f"{entry.bytes / 1000:.0f} kB",
                number(min(verdict.lower_bound.values())) if verdict.proved else "not proved",
                _smallest(verdict.minimum_probed),
                _smallest(verdict.minimum_seen),
                number(max(errors), 2) if errors else "not run",
            ]
        )
    sources = listed([path.name for path in verification.sources])
    caption = (
        "Each number is that of the worst parameter, errors are relative. "
        f"Compared on {count(verification.datasets, 'dataset')} of {sources}."
    )
    return tag(
        "section",
        tag("h2", "Every file at a glance"),
        table(headings, rows, caption),
        tag("ul", *(tag("li", tag("strong", name), ": ", words) for name, words in EVIDENCE.items())),
    )


def _smallest(values: dict[str, float]) -> str:
    """The smallest of numbers that may be none at all; NaN wins."""
    if not values:
        return "not run"
    return number(next((value for value in values.values() if value != value), min(values.values())))


def _basis(verification: Verification) -> Markup:
    """The assumptions of the proofs; those that files share once."""
    together: dict[tuple[str, ...], list[str]] = {}
    for verdict in verification.verdicts:
        if verdict.proof is not None:
            together.setdefault(verdict.proof.assumptions, []).append(verdict.file)
    parts = []
    for assumptions, files in together.items():
        parts.append(tag("h3", listed(files)) if len(together) > 1 else None)
        parts.append(tag("ul", *(tag("li", assumption) for assumption in assumptions)))
    return tag(
        "section",
        tag("h2", "What the proofs rest on"),
        tag("p", "A proof holds in every runtime of which these sentences are true:"),
        *parts,
    )


def _versions(verification: Verification) -> Markup:
    rows = [["trained with", name, release] for name, release in verification.manifest.versions.items()]
    rows += [["verified with", name, release] for name, release in machine().items()]
    return tag("section", tag("h2", "Versions"), table(("When", "What", "Version"), rows, "Software and machine"))
