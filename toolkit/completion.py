"""What the shell offers after the tab key: model directories, exported files, columns of the input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from toolkit.errors import ModelError

MAX_FOLDERS = 200  # looked into for models: a completion that takes longer than a moment is none


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Model directories here and one folder below; any folder where there is none."""
    here = os.path.dirname(incomplete)
    found = [name for name in _folders(here) if _is_model(name)]
    for folder in _folders(here):
        found += [name for name in _folders(folder) if _is_model(name)]
    found = sorted(name for name in found if name.startswith(incomplete))
    return [CompletionItem(name) for name in found] or [CompletionItem(incomplete, type="dir")]


def complete_exported_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The exported files that the manifest names."""
    from toolkit.manifest import read_manifest

    directory = Path(ctx.params.get("model") or os.environ.get("TOOLKIT_MODEL") or "model")
    try:
        files = read_manifest(directory).files
    except ModelError:
        return []
    return [
        CompletionItem(file.file, help=f"{file.bytes / 1000:.0f} kB")
        for file in files
        if file.file.startswith(incomplete)
    ]


def complete_column(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The columns of the first Parquet file that the command names."""
    return [CompletionItem(name, help=kind) for name, kind in _columns(ctx) if name.startswith(incomplete)]


def complete_columns(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The last of several columns, with commas between them; those before it are not offered again."""
    before, comma, last = incomplete.rpartition(",")
    named = before.split(",")
    return [
        CompletionItem(f"{before}{comma}{name}", help=kind)
        for name, kind in _columns(ctx)
        if name.startswith(last) and name not in named
    ]


def complete_path(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and folders, by the shell itself."""
    return [CompletionItem(incomplete, type="file")]


def _folders(parent: str) -> Iterator[str]:
    try:
        with os.scandir(parent or ".") as entries:
            found = (os.path.join(parent, entry.name) for entry in entries if entry.is_dir() and entry.name[0] != ".")
            yield from list(islice(found, MAX_FOLDERS))
    except OSError:
        return


def _is_model(folder: str) -> bool:
    from toolkit.manifest import MANIFEST

    return os.path.isfile(os.path.join(folder, MANIFEST))


def _columns(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """Name and type of each column."""
    # Where the option to be completed comes last, its value is missing, and click has not yet given out the arguments.
    given = [*(ctx.params.get("inputs") or ctx.params.get("datasets") or ()), *ctx.args]
    path = next((path for name in given if (path := _first_file(os.fspath(name)))), None)
    if path is None:
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for field in pq.read_schema(path):
            yield field.name, str(field.type)
    except (OSError, pa.ArrowException):
        return


def _first_file(given: str) -> str | None:
    if os.path.isdir(given):
        given = os.path.join(glob.escape(given), "**", "*.parquet")
    return given if os.path.isfile(given) else next(glob.iglob(given, recursive=True), None)
