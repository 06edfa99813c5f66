"""`toolkit inspect`: show a model directory or one model file."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.options import examples, json_option, path


@click.command(
    "inspect",
    short_help="Show a model directory or one model file.",
    epilog=examples("toolkit inspect model", "toolkit inspect somebody_elses.onnx --json"),
)
@click.argument("path", type=path)
@json_option
def inspect_command(path: Path, as_json: bool) -> None:
    """Show a model directory or one model file: shapes, names, evidence.

    PATH is a directory, or a .tflite, .onnx or .keras file of anyone's. Nothing in it is run.
    """
    from toolkit.inspection import inspect
    from toolkit.tables import print_inspection, print_json

    inspection = inspect(path)
    if as_json:
        print_json(inspection.to_json())
    else:
        print_inspection(inspection)
