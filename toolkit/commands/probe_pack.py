"""`toolkit probe-pack`: a folder to check the exported files with on a real device."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.options import examples, model_option, path


@click.command(
    "probe-pack",
    short_help="Write a folder that checks the files on a real device.",
    epilog=examples("toolkit probe-pack for_the_phone"),
)
@click.argument("output_folder", type=path)
@model_option
def probe_pack_command(output_folder: Path, model: Path) -> None:
    """Write OUTPUT_FOLDER: the exported files, inputs, expected estimates, and a program that compares.

    There `python check.py` needs NumPy and a runtime, nothing of this toolkit.
    """
    from toolkit.probe_pack import write_probe_pack

    pack = write_probe_pack(model, output_folder)
    click.echo(f"{pack.folder}: {len(pack.files)} files, {pack.datasets} datasets. On the device: python check.py")
