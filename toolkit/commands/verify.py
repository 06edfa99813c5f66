"""`toolkit verify`: judge the exported files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from toolkit.options import Gate, column_option, examples, file, json_option, model_option, path
from toolkit.targets import TARGETS, find_target


@click.command(
    "verify",
    short_help="Prove, probe and compare the exported files.",
    epilog=examples(
        "toolkit verify",
        "toolkit verify datasets.parquet --report verification.html",
        "toolkit verify --on arm64 --gate float16:p99=0.1% --json",
    ),
)
@model_option
@click.argument("datasets", nargs=-1, type=file)
@column_option
@click.option(
    "--gate",
    "gates",
    type=Gate(),
    multiple=True,
    metavar="PRECISION:STATISTIC=ERROR",
    help="Another largest relative error that passes: float16:max=0.01, float16:p99=0.1%. Repeatable.",
)
@click.option(
    "--on",
    "target",
    type=click.Choice(list(TARGETS)),
    help="Run the files on an emulated target instead of this machine; the first time, what it needs is downloaded.",
)
@click.option("--report", type=path, metavar="FILE.html", help="Write a page for people who decide about deployment.")
@json_option
def verify_command(
    model: Path,
    datasets: tuple[Path, ...],
    column: str | None,
    gates: tuple[tuple[str, str, float], ...],
    target: str | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Prove, probe and compare every exported file; exit code 1 when one fails.

    Compares on DATASETS, Parquet files, or on the model's calibration datasets.
    """
    from toolkit.tables import print_json, print_verdicts
    from toolkit.verification import changed_gates, verify

    on = find_target(target) if target else None
    verification = verify(model, datasets, column=column, gates=changed_gates(gates), on=on)
    if as_json:
        print_json(verification.to_json())
    else:
        print_verdicts(verification)
    if report:
        from toolkit.report import write_report

        write_report(verification, report)
        click.echo(f"{report}: written", err=True)
    sys.exit(0 if verification.passed else 1)
