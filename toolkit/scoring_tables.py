"""What `batch-predict` prints: the plan of a run, or the summary of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from toolkit.errors import printable
from toolkit.progress import describe_duration
from toolkit.tables import new_console, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from toolkit.batch import Summary
    from toolkit.batch.plan import Estimate, Plan

SHOWN_INPUTS = 10


def describe_outside(summary: Summary) -> str:
    """A sentence on the rows outside the ranges seen in training."""
    columns = ", ".join(f"{name} in {count:,}" for name, count in summary.outside.columns.items())
    rows = "1 row lies" if summary.outside.rows == 1 else f"{summary.outside.rows:,} rows lie"
    held = " and intervals promise nothing" if summary.interval else ""
    return f"{rows} outside the ranges seen in training ({columns}); estimates there are extrapolations{held}."


def print_summary(summary: Summary) -> None:
    """One line a file that was run, the smallest predictions, rows in and out, and where they are."""
    console = new_console()
    rows = []
    for check in summary.checks:
        content = check.to_json(summary.parameters)
        differences = content["max_relative_difference"]
        differs = any(differences.values())
        rows.append(
            [
                check.file,
                f"{check.rows_checked:,}",
                _listed(content["minimum"], ".4g"),
                str(check.violations),
                _listed(differences, ".1e") if differs else "-",
            ]
        )
    headings = ("checked file", "rows", "smallest output", "violations", "largest relative difference")
    print_table(console, headings, rows)
    _print_smallest(console, summary)
    speed = summary.rows_in / max(summary.seconds, 1e-9)
    _say(
        console,
        f"{summary.rows_in:,} rows in = {summary.rows_predicted:,} predicted + {summary.rows_rejected:,} rejected, "
        f"{summary.seconds:.1f} s, {speed:,.0f} rows/s",
    )
    _say(console, f"predictions: {summary.output}")
    if summary.interval:
        _say(console, f"intervals:   of level {summary.interval:g}, for datasets like those of training")
    if summary.rejected:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary.reasons.items())
        _say(console, f"rejected:    {summary.rejected} ({reasons})", style="yellow")


def _print_smallest(console: Console, summary: Summary) -> None:
    """The smallest predictions with their rows, one line a parameter."""
    files = {one["source_file"] for found in summary.smallest.values() for one in found}
    if not files:
        return
    one_file = f" in {next(iter(files))}" if len(files) == 1 else ""
    rows = []
    for name, found in summary.smallest.items():
        places = ("row" if one_file else f"{one['source_file']} row" for one in found)
        shown = (f"{one['value']:.4g} in {place} {one['source_row']}" for one, place in zip(found, places, strict=True))
        rows.append([name, ", ".join(shown)])
    print_table(console, ("parameter", f"smallest predictions{one_file}"), rows)


def print_plan(plan: Plan) -> None:
    """What a run would do, a line a thing."""
    console = new_console()
    shown = [
        [each.file, f"{each.rows:,}", f"{each.row_groups:,}", _bytes(each.bytes)] for each in plan.inputs[:SHOWN_INPUTS]
    ]
    if left := len(plan.inputs) - SHOWN_INPUTS:
        shown += [[f"and {left:,} more"]] if left > 0 else []
    print_table(console, ("input", "rows", "row groups", "size"), shown)
    for name, text in _plan_lines(plan):
        _say(console, f"{name + ':':<14}{text}")
    if plan.refused:
        _say(console, f"Would be refused: {plan.refused}", style="yellow")
    _say(console, "Nothing was written.")


def _plan_lines(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "rows", f"{plan.rows:,} in {_count(plan.row_groups, 'row group')}, scored as {_count(plan.shards, 'shard')}"
    for layout in dict.fromkeys(each.layout for each in plan.inputs):
        yield "datasets", layout
    yield "carried over", ", ".join(plan.carried) or "no column"
    yield "added", ", ".join(plan.predicted)
    scoring, *others = plan.checked
    yield "scored by", scoring
    if others:
        where = "every row" if plan.check == "all" else "a sample of 1% and the smallest outputs"
        yield "checked by", f"{', '.join(others)}, on {where}"
    yield "predictions", plan.output
    yield "rejected", f"{plan.rejected}, if any row is"
    yield "unfinished", f"{plan.unfinished}: {plan.state}"
    if plan.estimate:
        yield "estimate", _estimate(plan, plan.estimate)
    elif plan.rows:
        yield "estimate", "none: how many datasets a tidy table holds is known once it is read"


def _estimate(plan: Plan, estimate: Estimate) -> str:
    if estimate.seconds is None:
        took = f"{describe_duration(plan.rows / estimate.rows_per_second)} of one core"
    else:
        took = f"{describe_duration(estimate.seconds)} on {_count(plan.workers or 1, 'worker')}"
    return (
        f"about {took}, {_bytes(estimate.memory_bytes)} of memory; the output takes {_bytes(estimate.output_bytes)}, "
        f"with unfinished work at most {_bytes(estimate.disk_bytes)} of disk "
        f"(measured on the first {_count(estimate.rows_measured, 'row')})"
    )


def _listed(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _bytes(number: int) -> str:
    """`12 MB`: two digits or more, powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 10_000:
            return f"{number:,.0f} {unit}"
        number = round(number / 1000)
    return f"{number:,} TB"


def _say(console: Console, text: str, style: str | None = None) -> None:
    """A whole line, however long: paths are copied from it."""
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
