"""Progress in rows: a live line on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PLAIN_LINE_SECONDS = 5.0  # a log file gets at most one line in this time, and one at the end


class Report(Protocol):
    """Told of progress: rows done so far, rows in all, and how many of those done were rejected."""

    def __call__(self, done: int, total: int, rejected: int = 0, /) -> None: ...


def silent(done: int, total: int, rejected: int = 0) -> None:
    """The Report that says nothing."""


@contextmanager
def rows_progress(label: str, *, quiet: bool = False, unit: str = "rows") -> Iterator[Report]:
    """Yield a Report that shows rows done, rows a second and the time left, on stderr."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        with _live(label, unit) as report:
            yield report
    else:
        yield _plain(label, unit)


@contextmanager
def _live(label: str, unit: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:,.0f} {unit}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        last = 0

        def report(done: int, total: int, rejected: int = 0) -> None:
            nonlocal last
            if done < last:  # the next epoch: speed and time left are its own
                progress.reset(task)
            last = done
            progress.update(task, completed=done, total=total)

        yield report


def _plain(label: str, unit: str) -> Report:
    begun = shown = time.monotonic()
    last = 0

    def report(done: int, total: int, rejected: int = 0) -> None:
        nonlocal begun, shown, last
        now = time.monotonic()
        if done < last:  # the next epoch: speed and time left are its own
            begun = shown
        last = done
        if done < total and now - shown < PLAIN_LINE_SECONDS:
            return
        shown = now
        speed = done / max(now - begun, 1e-9)
        left = f", {(total - done) / speed:,.0f} s left" if speed and done < total else ""
        print(f"{label}: {done:,} of {total:,} {unit}, {speed:,.0f} {unit}/s{left}", file=sys.stderr)

    return report
