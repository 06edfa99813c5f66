"""One table for people: a block of lines for each file, a line for each parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from toolkit.errors import printable
from toolkit.tables import new_console

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.benchmark.result import Benchmark, FileResult

SLOWED = 1.1  # beyond which the clock's numbers are not worth much
WIDE = 130  # columns of a terminal that has room for everything side by side
NOTHING = "-"

Column = tuple[str, Callable[["FileResult"], str]]  # heading, and a file's lines in it


def print_benchmark(benchmark: Benchmark) -> None:
    """Where it was measured, the table (two of them on a narrow terminal), and every failure in full below."""
    console = new_console()
    machine = benchmark.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    where = f"{machine.processor}, {machine.usable_cores} of {machine.cores} cores; {versions}"
    console.print(printable(where), highlight=False, markup=False, soft_wrap=True)
    speed, error = _speed_columns(benchmark), _error_columns(benchmark)
    for columns in [[*speed, *error]] if console.width >= WIDE else [speed, error]:
        console.print(_table(benchmark, columns))
    console.print(_explanation(benchmark), highlight=False, markup=False)
    if benchmark.slowed > SLOWED:
        console.print(
            f"Other programs slowed this by {benchmark.slowed - 1:.0%}. '1 thread' is counted by processor time and "
            "holds; start-up, all threads and latency are worse than on a quiet machine.",
            style="yellow",
            highlight=False,
        )
    for file in benchmark.files:
        for failure in file.failures:
            # Whole lines, however long: they are searched for and copied.
            line = printable(f"{file.file}: {failure}")
            console.print(line, style="dim" if file.plain else "red", markup=False, highlight=False, soft_wrap=True)


def _table(benchmark: Benchmark, columns: Sequence[Column]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("file", overflow="fold", min_width=20)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for file in benchmark.files:
        name = escape(printable(file.file)) + (f"\n[dim]{escape(file.recipe)}[/dim]" if file.plain else "")
        wrong = bool(file.failures) and not file.plain
        cells = [lines(file) for _, lines in columns]
        table.add_row(name, *cells, style="red" if wrong else None, end_section=True)
    return table


def _speed_columns(benchmark: Benchmark) -> list[Column]:
    def over_float32(file: FileResult) -> str:
        over = benchmark.speed_over_float32(file)
        return NOTHING if over is None else f"{over:.2f}"

    return [
        ("\nkB", lambda file: f"{file.bytes / 1000:.0f}" if file.bytes else NOTHING),
        ("start\nms", lambda file: f"{file.speed.start_up_seconds * 1e3:.0f}" if file.speed else NOTHING),
        ("1 thread\n/s", lambda file: f"{file.speed.one_thread:,.0f}" if file.speed else NOTHING),
        ("x\nf32", over_float32),
        (f"{_workers(benchmark)}\n/s", lambda file: f"{file.speed.all_cores:,.0f}" if file.speed else NOTHING),
        ("p50\nus", lambda file: f"{file.speed.p50_seconds * 1e6:,.0f}" if file.speed else NOTHING),
        ("p99\nus", lambda file: f"{file.speed.p99_seconds * 1e6:,.0f}" if file.speed else NOTHING),
    ]


def _error_columns(benchmark: Benchmark) -> list[Column]:
    names = benchmark.parameters

    def errors(statistic: str) -> Callable[[FileResult], str]:
        return lambda file: (
            "\n".join(percent(getattr(file.accuracy.relative_error[name], statistic)) for name in names)
            if file.accuracy
            else NOTHING
        )

    def rmse(file: FileResult) -> str:
        found = file.accuracy.rmse if file.accuracy else {}
        return "\n".join(f"{found[name]:.4g}" if name in found else NOTHING for name in names)

    def bad(file: FileResult) -> str:
        return f"{file.accuracy.not_positive + file.accuracy.not_finite:,}" if file.accuracy else NOTHING

    return [
        ("error\n%", lambda file: "\n".join(printable(name) for name in names)),
        ("\nmedian", errors("median")),
        ("\np99", errors("p99")),
        ("\nmax", errors("max")),
        ("\nRMSE", rmse),
        ("not\n> 0", bad),
        ("proved\nat least", _bound),
    ]


def _bound(file: FileResult) -> str:
    if not file.proved:
        return "nothing"
    shown = [f"{bound:.2e}" for bound in file.lower_bound.values()]
    return shown[0] if len(set(shown)) == 1 else "\n".join(shown)


def _workers(benchmark: Benchmark) -> str:
    return "all cores" if benchmark.workers == 1 else f"{benchmark.workers} threads"


def _explanation(benchmark: Benchmark) -> str:
    return (
        "Start: to the first estimate in a fresh process. Datasets/s in batches of "
        f"{benchmark.batch}, an interpreter for each thread; x f32: over the fastest float32 file of the runtime; "
        f"p50, p99: latency of one dataset. Medians of {benchmark.rounds} rounds in which the files take turns. "
        "Errors: of estimates against the float64 forward pass, over "
        f"{benchmark.datasets:,} datasets; RMSE: against the true parameters; not > 0: datasets with such an estimate."
    )


def percent(error: float) -> str:
    """A share in percent, without the sign: `1,231`, `48`, `2.85`, `0.013`, `<0.001`; `nan` and `inf` as they are."""
    value = error * 100
    if not math.isfinite(value) or value >= 10:
        return f"{value:,.0f}"
    if value >= 0.1:
        return f"{value:.2f}"
    return f"{value:.3f}" if value >= 0.001 else "<0.001"
