"""Progress in rows: a live line on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from toolkit.errors import printable

PLAIN_LINE_SECONDS = 5.0  # a log file gets at most one line in this time, and always the first and the last
BAR_TERMINAL_WIDTH = 100


class Report(Protocol):
    """Told of progress: rows done so far, rows in all, and how many of those done were rejected."""

    def __call__(self, done: int, total: int, rejected: int = 0, /) -> None: ...


def silent(done: int, total: int, rejected: int = 0) -> None:
    """The Report that says nothing."""


def say(line: str) -> None:
    """A line on stderr. While a live line is drawn it goes above it, which what click writes would not."""
    print(printable(line), file=sys.stderr)


@contextmanager
def rows_progress(label: str, *, quiet: bool = False, unit: str = "rows") -> Iterator[Report]:
    """Yield a Report that shows rows done, rows a second, the time left and rows rejected, on stderr."""
    if quiet:
        yield silent
    elif sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        with _live(label, unit) as report:
            yield report
    else:
        yield _plain(label, unit)


def describe_duration(seconds: float) -> str:
    """For people: `12 s`, `3 min 20 s`, `2 h 05 min`, `4 days 7 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    days = "1 day" if whole < 2 * 86_400 else f"{whole // 86_400:,} days"
    return f"{days} {whole % 86_400 // 3600} h"


def _numbers(unit: str, done: float, total: float, speed: float | None, rejected: int) -> str:
    """`120,000 of 200,000 rows, 77,000 rows/s, 1 s left, 3 rejected`; without a speed where none is known yet."""
    shown = [f"{done:,.0f} of {total:,.0f} {unit}"]
    if speed:
        shown.append(f"{speed:,.0f} {unit}/s")
        if done < total:
            shown.append(f"{describe_duration((total - done) / speed)} left")
    if rejected:
        shown.append(f"{rejected:,} rejected")
    return ", ".join(shown)


@contextmanager
def _live(label: str, unit: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Numbers(ProgressColumn):
        def render(self, task: Task) -> Text:
            if task.total is None:
                return Text("starting")
            speed = task.finished_speed or task.speed
            return Text(_numbers(unit, task.completed, task.total, speed, task.fields["rejected"]))

    console = Console(stderr=True)
    named = TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=len(label)))
    # A narrow terminal has no place for a bar beside the numbers, which wrap if they have to.
    bar = [BarColumn(bar_width=24)] if console.width >= BAR_TERMINAL_WIDTH else []
    numbers = Numbers(table_column=Column(overflow="fold"))
    with Progress(named, *bar, numbers, console=console, transient=True) as progress:
        task = progress.add_task(label, total=None, rejected=0)
        last: int | None = None

        def report(done: int, total: int, rejected: int = 0) -> None:
            nonlocal last
            # Begun, or gone on with: speed and time left are of what is done here. Or another epoch has: they are its.
            if last is None:
                progress.reset(task, total=total, completed=done, rejected=rejected)
            elif done < last:
                progress.reset(task, total=total)
            last = done
            progress.update(task, completed=done, total=total, rejected=rejected)

        yield report


def _plain(label: str, unit: str) -> Report:
    begun = shown = 0.0
    last: int | None = None
    before = 0  # rows done by an earlier run

    def report(done: int, total: int, rejected: int = 0) -> None:
        nonlocal begun, shown, last, before
        now = time.monotonic()
        first = last is None
        if last is None:
            begun, before = now, done
        elif done < last:  # another epoch: speed and time left are its own
            begun, before = shown, 0
        last = done
        if not first and done < total and now - shown < PLAIN_LINE_SECONDS:
            return
        shown = now
        speed = (done - before) / max(now - begun, 1e-9)
        print(f"{label}: {_numbers(unit, done, total, speed, rejected)}", file=sys.stderr)

    return report
