"""`toolkit export`: write files for other machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from toolkit.errors import printable
from toolkit.manifest import int8_in_words
from toolkit.options import examples, file, model_option, quiet_option
from toolkit.spec import ARITHMETICS, FORMATS, FURTHER_FORMATS, HEADER, LARGEST_BATCH, PRECISIONS, QUANTIZED

if TYPE_CHECKING:
    from toolkit.manifest import ModelFile


@click.command(
    "export",
    short_help="Write files for other machines, all proved.",
    epilog=examples(
        "toolkit export --format all --precision all",
        "toolkit export --format tflite --arithmetic float16 --batch 1",
        "toolkit export --format c --precision integer",
    ),
)
@model_option
@click.option(
    "--format",
    "formats",
    type=click.Choice([*FORMATS, *FURTHER_FORMATS, HEADER, "all"]),
    multiple=True,
    required=True,
    help="all stands for tflite and onnx; ort is ONNX Runtime's own format, for phones; c writes tflite files as C "
    "headers, those that are there unless --precision names some.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice([*PRECISIONS, "all"]),
    multiple=True,
    default=("float32",),
    show_default=True,
)
@click.option(
    "--calibration", type=file, help="Datasets to compare on and to quantize with, in place of the model directory's."
)
@click.option(
    "--first-layer",
    type=click.Choice(["auto", "int8", "float"]),
    default="auto",
    show_default=True,
    help="Of int8 files; float keeps inputs that int8 would round too coarsely.",
)
@click.option(
    "--arithmetic",
    type=click.Choice(ARITHMETICS),
    default="float32",
    show_default=True,
    help="Of the hardware: many phone GPUs and NPUs compute float32 files in float16, which needs a head of its own.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1, max=LARGEST_BATCH),
    help="Datasets in each call, fixed, as LiteRT.js and microcontrollers want it; open by default.",
)
@quiet_option
@click.pass_context
def export_command(
    ctx: click.Context,
    model: Path,
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    calibration: Path | None,
    first_layer: str,
    arithmetic: str,
    batch: int | None,
    quiet: bool,
) -> None:
    """Convert the trained network, and publish only files that prove positive and are accurate."""
    if "onnx" in formats and "integer" in precisions:
        raise click.UsageError(
            "integer files are TFLite only, for microcontrollers: --format tflite --precision integer"
        )
    in_half = arithmetic == "float16"
    if in_half and any(each in QUANTIZED for each in precisions):
        raise click.UsageError("int8 and integer files are not computed in float16: --precision float32 or float16")
    from functools import partial

    from export import convert
    from toolkit.c_header import precisions_there, write_headers
    from toolkit.publish import publish
    from toolkit.tables import print_files

    possible = tuple(each for each in PRECISIONS if not (in_half and each in QUANTIZED))
    asked = possible if "all" in precisions else precisions
    converted = (*FORMATS, *formats) if "all" in formats else formats
    export = partial(
        publish,
        model,
        convert=partial(convert, first_layer=first_layer, arithmetic=arithmetic, batch=batch),
        arithmetic=arithmetic,
        calibration=calibration,
        optional=QUANTIZED if "all" in precisions else (),
        say=(lambda entry: None) if quiet else (lambda entry: click.echo(_published(model, entry), err=True)),
        say_lacking=lambda problem: click.echo(f"Left out: {printable(problem)}", err=True),
    )
    files = export(converted, asked) if set(converted) != {HEADER} else ()
    headed: list[str] = []
    if HEADER in formats:
        named = ctx.get_parameter_source("precisions") is not ParameterSource.DEFAULT
        there = precisions_there(model, arithmetic=arithmetic, batch=batch)
        headed = [*(asked if named else there or asked)]
        # Files that are there are taken as they are, unless something is said of how they are to be made.
        again = "tflite" not in converted and (calibration is not None or first_layer != "auto")
        if absent := [each for each in headed if again or each not in there]:
            files += export(("tflite",), absent)
    headers = write_headers(model, headed, files, arithmetic=arithmetic, batch=batch)
    if quiet:
        return
    for path in headers:
        click.echo(f"{path}: written", err=True)
    if files:
        print_files(files)


def _published(model: Path, entry: ModelFile) -> str:
    return f"{model / entry.file}: published{f'; {int8_in_words(entry.int8)}' if entry.int8 else ''}"
