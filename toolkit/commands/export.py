"""`toolkit export`: write files for other machines."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.options import examples, file, model_option, quiet_option
from toolkit.spec import FORMATS, PRECISIONS


@click.command(
    "export",
    short_help="Write files for other machines, all proved.",
    epilog=examples(
        "toolkit export --format all --precision all",
        "toolkit export --model samples/model --format tflite --precision float16",
    ),
)
@model_option
@click.option("--format", "formats", type=click.Choice([*FORMATS, "all"]), multiple=True, required=True)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice([*PRECISIONS, "all"]),
    multiple=True,
    default=("float32",),
    show_default=True,
)
@click.option("--calibration", type=file, help="Datasets to compare on, in place of the model directory's.")
@quiet_option
def export_command(
    model: Path, formats: tuple[str, ...], precisions: tuple[str, ...], calibration: Path | None, quiet: bool
) -> None:
    """Convert the trained network, and publish only files that prove positive and are accurate."""
    if "onnx" in formats and "integer" in precisions:
        raise click.UsageError(
            "integer files are TFLite only, for microcontrollers: --format tflite --precision integer"
        )
    from export import convert
    from toolkit.publish import publish
    from toolkit.tables import print_files

    files = publish(
        model,
        FORMATS if "all" in formats else formats,
        PRECISIONS if "all" in precisions else precisions,
        convert,
        calibration=calibration,
        say=(lambda entry: None) if quiet else (lambda entry: click.echo(f"{model / entry.file}: published", err=True)),
    )
    if not quiet:
        print_files(files)
