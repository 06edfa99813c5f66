"""What the commands print: tables for people, JSON for programs, both on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from toolkit.batch import Summary
    from toolkit.manifest import Manifest, ModelFile, RelativeError
    from toolkit.verification import Verdict

PIPED_WIDTH = 140  # columns when stdout is no terminal, where nothing tells how wide a line may be


def print_json(content: object) -> None:
    """One JSON object, NaN and infinity refused: not every reader takes them."""
    print(json.dumps(content, indent=2, allow_nan=False))


def print_training(directory: Path, manifest: Manifest) -> None:
    """How well the network recovers each parameter of the held-out datasets, and what to do next."""
    table = _table("parameter", "from", "to", "R2", "RMSE", "median relative error")
    for parameter in manifest.parameters:
        found = manifest.training.metrics[parameter.name]
        table.add_row(
            parameter.name,
            f"{parameter.minimum:.4g}",
            f"{parameter.maximum:.4g}",
            f"{found['r2']:.3f}",
            f"{found['rmse']:.4g}",
            f"{found['median_relative_error']:.2%}",
        )
    console = _console()
    console.print(table)
    console.print(f"{directory}: trained on {manifest.training.datasets:,} datasets. Next: toolkit export --format all")


def print_files(files: Iterable[ModelFile]) -> None:
    """Published files with their evidence."""
    table = _table("file", "kB", "proved at least", "largest relative error")
    for file in files:
        table.add_row(file.file, f"{file.bytes / 1000:.0f}", _each(file.lower_bound), _largest(file.relative_error))
    _console().print(table)


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """One line a file, and every failure in full below."""
    table = _table("file", "verdict", "proved at least", "probed", "seen", "largest relative error")
    for verdict in verdicts:
        table.add_row(
            verdict.file,
            "passed" if verdict.passed else "FAILED",
            _each(verdict.lower_bound) if verdict.proved else "not proved",
            _each(verdict.minimum_probed) or "not run",
            _each(verdict.minimum_seen) or "not run",
            _largest(verdict.relative_error) or "not run",
            style=None if verdict.passed else "red",
        )
    console = _console()
    console.print(table)
    for verdict in verdicts:
        for failure in verdict.failures:
            # Whole lines, however long: they are searched for and copied.
            console.print(f"{verdict.file}: {failure}", style="red", markup=False, highlight=False, soft_wrap=True)


def print_summary(summary: Summary) -> None:
    """Rows in and out, then one line a file that was run."""
    result = summary.to_json()
    console = _console()
    table = _table("checked file", "rows", "smallest output", "violations", "largest relative difference")
    for file in result["formats"]:
        differences = file["max_relative_difference"]
        table.add_row(
            file["file"],
            f"{file['rows_checked']:,}",
            ", ".join(f"{name} {value:.4g}" for name, value in file["minimum"].items()),
            str(file["violations"]),
            ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
            if any(differences.values())
            else "-",
        )
    console.print(table)
    speed = result["rows_in"] / max(result["seconds"], 1e-9)
    console.print(
        f"{result['rows_in']:,} rows in = {result['rows_predicted']:,} predicted + {result['rows_rejected']:,} rejected, "
        f"{result['seconds']:.1f} s, {speed:,.0f} rows/s",
        highlight=False,
    )
    console.print(f"predictions: {result['output']}", highlight=False)
    if result["rows_rejected"]:
        console.print(f"rejected:    {result['rejected']}", highlight=False, style="yellow")


def _console() -> Console:
    from rich.console import Console

    console = Console(soft_wrap=False)
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _each(values: Mapping[str, float]) -> str:
    """One number where all parameters agree to three digits, else one for each."""
    shown = {name: f"{value:.2e}" for name, value in values.items()}
    if len(set(shown.values())) == 1:
        return next(iter(shown.values()))
    return ", ".join(f"{name} {text}" for name, text in shown.items())


def _largest(errors: Mapping[str, RelativeError]) -> str:
    return ", ".join(f"{name} {error.max:.1e}" for name, error in errors.items())
