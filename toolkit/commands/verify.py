"""`toolkit verify`: judge the exported files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from toolkit.options import Gate, column_option, examples, file, json_option, model_option, path


@click.command(
    "verify",
    short_help="Prove, probe and compare the exported files.",
    epilog=examples(
        "toolkit verify",
        "toolkit verify datasets.parquet --report verification.html",
        "toolkit verify --gate float16:p99=0.1% --json",
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
@click.option("--report", type=path, metavar="FILE.html", help="Write a page for people who decide about deployment.")
@json_option
def verify_command(
    model: Path,
    datasets: tuple[Path, ...],
    column: str | None,
    gates: tuple[tuple[str, str, float], ...],
    report: Path | None,
    as_json: bool,
) -> None:
    """Prove, probe and compare every exported file; exit code 1 when one fails.

    Compares on DATASETS, Parquet files, or on the model's calibration datasets.
    """
    from toolkit.tables import print_json, print_verdicts
    from toolkit.verification import changed_gates, verify

    verification = verify(model, datasets, column=column, gates=changed_gates(gates))
    if as_json:
        print_json(verification.to_json())
    else:
        print_verdicts(verification.verdicts)
    if report:
        from toolkit.report import write_report

        write_report(verification, report)
        click.echo(f"{report}: written", err=True)
    sys.exit(0 if verification.passed else 1)
