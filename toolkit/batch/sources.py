"""What the user named -> the files to score, in order, each with what its footer tells."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from toolkit.datasets import Layout, layout_for, open_parquet
from toolkit.datasets.tidy import Tidy, check_tidy
from toolkit.errors import InputError, did_you_mean
from toolkit.places import find_uris, is_uri, open_input, plain, size_and_change
from toolkit.spec import Spec

OUTPUT_ENDING = ".predictions.parquet"
REJECTED_ENDING = ".rejected.parquet"
VIOLATION_ENDING = ".violation.parquet"
WORK_ENDING = ".unfinished"
FOOTER_TAIL_BYTES = 8  # length of the footer and the magic PAR1


@dataclass(frozen=True)
class Source:
    """One Parquet file to score.

    Attributes:
        name: the path as the user gave it, or found below the folder given; the value of `source_file`.
        row_groups: rows in each of them.
        footer_sha256: of the footer, which holds the offsets, sizes and statistics of all pages.
        lost: indices of the row groups that are left out, because they cannot be read.
        grouped: holds the groups of tidy tables, each with the file and row that it begins in.
    """

    name: str
    bytes: int
    modified_ns: int
    footer_sha256: str
    row_groups: tuple[int, ...]
    schema: pa.Schema
    layout: Layout
    grouped: bool = False
    lost: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        return sum(self.row_groups)

    @property
    def rows_kept(self) -> int:
        """Rows in the row groups that are not lost."""
        return self.rows - sum(self.row_groups[group] for group in self.lost)

    @property
    def stretches(self) -> list[range]:
        """The rows that are not lost, in as few ranges as possible."""
        found, begin, end = [], 0, 0
        for group, rows in enumerate(self.row_groups):
            if group in self.lost:
                found.append(range(begin, end))
                begin = end + rows
            end += rows
        return [stretch for stretch in (*found, range(begin, end)) if stretch]


def find_files(inputs: Iterable[str | Path]) -> list[str]:
    """Paths of the files named: files as they stand, folders searched in depth for *.parquet, globs expanded; sorted.

    Left out of folders and globs: hidden files, names that begin with an underscore, and what `batch-predict` itself
    wrote there (*.predictions.parquet, *.rejected.parquet, *.violation.parquet, unfinished work).
    Raises:
        InputError: nothing there, or one file named twice.
    """
    found: list[str] = []
    for given in map(plain, inputs):
        if is_uri(given):
            found += _find_objects(given)
            continue
        if os.path.isfile(given):
            found.append(given)
            continue
        if os.path.isdir(given):
            names = [name for name in _files_below(given) if _is_input(os.path.relpath(name, given))]
        elif glob.has_magic(given):
            names = [name for name in glob.glob(given, recursive=True) if os.path.isfile(name) and _is_input(name)]
        else:
            if not given:
                raise InputError("the name of an input is empty. A shell's variable that is not set gives one.")
            beside = glob.glob(os.path.join(glob.escape(os.path.dirname(given)), "*"))
            raise InputError(f"{given}: no such file or folder.{did_you_mean(given, beside)}")
        if not names:
            raise InputError(f"{given}: no Parquet file here (*.parquet; what batch-predict wrote does not count).")
        found += sorted(names)
    known: dict[str, str] = {}
    for name in found:
        real = name if is_uri(name) else os.path.realpath(name)
        if real in known:
            raise InputError(
                f"{name}: named twice (also as {known[real]}). Leave one out: its rows would be scored twice."
            )
        known[real] = name
    return found


def _find_objects(uri: str) -> list[str]:
    there = find_uris(uri)
    if there is None:
        raise InputError(f"{uri}: no such object or folder.")
    if there == [uri]:
        return there
    # Hidden counts below the folder named, as for paths.
    folder = uri.partition("?")[0].partition("*")[0].rpartition("/")[0]
    heads = {name: name.partition("?")[0] for name in there}
    names = [name for name, head in heads.items() if head.endswith(".parquet") and _is_input(head.removeprefix(folder))]
    if not names:
        raise InputError(f"{uri}: no Parquet file here (*.parquet; what batch-predict wrote does not count).")
    return names


def _files_below(folder: str) -> Iterator[str]:
    """All *.parquet files in it and in the folders in it. Links are followed, to each folder once."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be searched ({error.strerror}).") from error

    searched = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        folders.sort()  # which of two ways to the same folder is taken must not depend on the file system
        if os.path.realpath(here) in searched:
            folders.clear()
            continue
        searched.add(os.path.realpath(here))
        yield from (os.path.join(here, file) for file in files if file.endswith(".parquet"))


def _is_input(name: str) -> bool:
    parts = name.split(os.sep)
    hidden = any(part.startswith((".", "_")) and part.strip(".") for part in parts)
    work = any(part.endswith(WORK_ENDING) for part in parts)
    return not hidden and not work and not name.endswith((OUTPUT_ENDING, REJECTED_ENDING, VIOLATION_ENDING))


def open_sources(
    names: Sequence[str],
    spec: Spec,
    *,
    column: str | None,
    order: str | None,
    group_by: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> tuple[Source, ...]:
    """The files with what their footers tell; rows are read only where types do not tell what bytes hold.

    Args:
        group_by: the columns of the id of a tidy table, whose rows are observations.
        columns: of a tidy table, those of a dataset; the model's names by default.
    Raises:
        InputError: not Parquet, or no column in it holds datasets of the model.
    """
    sources = []
    tidy = Tidy(tuple(group_by), tuple(columns or spec.columns), spec.rows)
    for name in names:
        with open_parquet(name) as opened:
            schema, metadata = opened.schema_arrow, opened.metadata
            row_groups = tuple(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
        if group_by:
            check_tidy(schema, tidy, name)
            layout = replace(tidy.layout, sorted_rows=spec.sorted_rows)
        else:
            layout = layout_for(spec, name, column=column, order=order)
        sources.append(Source(name, *size_and_change(name), _footer_sha256(name), row_groups, schema, layout))
    return tuple(sources)


def check_unchanged_since(source: Source) -> None:
    """Refuse to go on with a file that was written to since it was opened.

    Raises:
        InputError: it is gone, or its size or time of change differ.
    """
    try:
        now = size_and_change(source.name)
    except OSError as error:
        raise InputError(
            f"{source.name}: gone while it was being scored. Put it back and finish with --resume."
        ) from error
    if now != (source.bytes, source.modified_ns):
        raise InputError(f"{source.name}: changed while it was being scored. Score it again, without --resume.")


def _footer_sha256(name: str) -> str:
    with open_input(name) as file:
        file.seek(-FOOTER_TAIL_BYTES, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-FOOTER_TAIL_BYTES - length, os.SEEK_END)
        return hashlib.sha256(file.read(length)).hexdigest()
