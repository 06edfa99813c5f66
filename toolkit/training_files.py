"""Training datasets streamed from Parquet: surveyed once, split, then read row group after row group in flat memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toolkit.datasets import Layout, decode, gather, iter_batches, layout_of_file, open_parquet, read_column_names
from toolkit.errors import InputError, did_you_mean
from toolkit.moments import Moments
from toolkit.promise import keeps_promise
from toolkit.spec import Spec
from toolkit.training_checks import check_split, warnings_of_copies
from toolkit.training_copies import Split, any_twice, hashes_of, split, split_apart
from toolkit.training_data import (
    FEWEST_DATASETS,
    HELD_OUT_SHARE,
    MOST_HELD_OUT,
    Pair,
    TrainingData,
    training_data_of,
)

READ_ROWS = 1024
POOL_BYTES = 128 << 20  # files may be sorted: many row groups are to meet in the pool


@dataclass(frozen=True)
class Source:
    """One Parquet file of training datasets."""

    path: Path
    layout: Layout
    row_groups: tuple[int, ...]  # datasets in each
    first: int  # index of its first dataset among all


@dataclass(frozen=True)
class FilePieces:
    """The datasets of Parquet files that are trained on, the same in every epoch.

    Attributes:
        held_out: bool (datasets in all,): those kept from training, copies of them included.
    """

    spec: Spec
    sources: tuple[Source, ...]
    held_out: NDArray[np.bool_]

    @property
    def count(self) -> int:
        return int(len(self.held_out) - self.held_out.sum())

    @property
    def different(self) -> int:
        return self.count

    @property
    def pool_bytes(self) -> int:
        return POOL_BYTES

    def of_epoch(self, epoch: int, rng: np.random.Generator) -> Iterator[Pair]:
        """Row groups in random order."""
        groups = [(source, group) for source in self.sources for group in range(len(source.row_groups))]
        for index in rng.permutation(len(groups)):
            source, group = groups[index]
            row = source.first + sum(source.row_groups[:group])
            for datasets, targets in _read(source, self.spec, [group]):
                kept = ~self.held_out[row : row + len(datasets)]
                row += len(datasets)
                yield datasets[kept], targets[kept]

    def configuration(self) -> dict[str, str | int | float | bool]:
        return {}

    def warnings(self) -> list[str]:
        return []

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


def open_training_data(
    paths: Sequence[Path | str],
    parameters: Sequence[str],
    *,
    validation: Path | str | None = None,
    column: str | None = None,
    seed: int = 0,
    fingerprint: str | None = None,
) -> TrainingData:
    """Survey the files in one pass: every row must be a dataset with positive, finite parameters.

    Args:
        paths: Parquet files that agree on rows and columns.
        parameters: names of the columns with the true values.
        validation: a file to validate on; without it a tenth is held out, chosen by `seed`, at most 10,000. Another
            tenth is held out for calibration in any case. Copies of a dataset are never on both sides: nothing that is
            held out, and nothing in the file to validate on, is trained on.
        fingerprint: of what the files were made of; by default their own.
    Raises:
        InputError: no file, a missing column, too few datasets, or a row that cannot be trained on, named.
    """
    spec, sources = _open_sources(paths, parameters, column)
    total = sum(sum(source.row_groups) for source in sources)
    if total < FEWEST_DATASETS:
        raise InputError(
            f"{', '.join(map(str, paths))}: {total} datasets; training takes {FEWEST_DATASETS} or more. Simulate more."
        )
    given = [] if validation is None else read_validation(validation, spec, column)
    moments, hashes = Moments(spec), np.empty(total, np.int64)

    def survey(row: int, datasets: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        moments.add(datasets, targets)
        hashes[row : row + len(datasets)] = hashes_of(datasets, targets)

    chosen = split(total, HELD_OUT_SHARE, MOST_HELD_OUT, seed, validation is None)
    validating, calibrating = _held_out(sources, spec, chosen, survey)
    warnings: tuple[str, ...] = ()
    in_file = np.concatenate([np.empty(0, np.int64), *(hashes_of(*pair) for pair in given)])
    if any_twice(hashes, in_file):
        chosen = split_apart(hashes, in_file, HELD_OUT_SHARE, MOST_HELD_OUT, seed, validation is None)
        check_split(chosen, FEWEST_DATASETS, str(paths[0]), validation)
        warnings = warnings_of_copies(chosen, str(paths[0]), validation)
        validating, calibrating = _held_out(sources, spec, chosen)

    def place_of(index: int, value: float) -> str:
        return _place_of(sources, spec, index, value)

    return training_data_of(
        FilePieces(spec, sources, ~chosen.trained),
        moments,
        given or validating,
        calibrating,
        source=str(paths[0]),
        seed=seed,
        fingerprint=fingerprint
        or fingerprint_of(
            [Path(path) for path in (*paths, validation) if path],
            [*parameters, *sources[0].layout.table_columns, "" if validation is None else "validated"],
        ),
        warnings=warnings,
        place_of=place_of,
    )


def read_validation(path: Path | str, spec: Spec, column: str | None) -> list[Pair]:
    """All datasets of a file to validate on, which must be of this shape."""
    (source,) = _open_sources([path], spec.parameters, column, spec)[1]
    kept = [(datasets.copy(), targets) for datasets, targets in _read(source, spec, None)]
    if not kept:
        raise InputError(f"{path}: no datasets to validate on.")
    return kept


def _held_out(
    sources: Sequence[Source],
    spec: Spec,
    chosen: Split,
    visit: Callable[[int, NDArray[np.float32], NDArray[np.float32]], None] = lambda row, datasets, targets: None,
) -> tuple[list[Pair], list[Pair]]:
    """The datasets to validate on and those to calibrate with, from one pass over all of them.

    Args:
        visit: told of every piece, and of the number of its first dataset among all.
    """
    validating: list[Pair] = []
    calibrating: list[Pair] = []
    row = 0
    for source in sources:
        for datasets, targets in _read(source, spec, None):
            visit(row, datasets, targets)
            for mask, into in ((chosen.validating, validating), (chosen.calibrating, calibrating)):
                held_out = mask[row : row + len(datasets)]
                if held_out.any():
                    into.append((datasets[held_out], targets[held_out]))
            row += len(datasets)
    return validating, calibrating


def _place_of(sources: Sequence[Source], spec: Spec, index: int, value: float) -> str:
    """File and row of the first dataset in whose column `index` the value is."""
    for source in sources:
        row = 0
        for datasets, _ in _read(source, spec, None):
            there = np.any(datasets[:, :, index] == np.float32(value), axis=1)
            if there.any():
                return f"{source.path}, row {row + int(np.argmax(there))}"
            row += len(datasets)
    return str(sources[0].path)


def _open_sources(
    paths: Sequence[Path | str], parameters: Sequence[str], column: str | None, spec: Spec | None = None
) -> tuple[Spec, tuple[Source, ...]]:
    sources: list[Source] = []
    first = 0
    for path in map(Path, paths):
        with open_parquet(path) as source:
            schema, metadata = source.schema_arrow, source.metadata
            groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        absent = [name for name in parameters if name not in schema.names]
        if absent:
            near = did_you_mean(absent[0], schema.names)
            raise InputError(
                f"{path}: no column {absent[0]!r} for a parameter.{near} It has: {', '.join(schema.names)}."
            )
        if not sum(groups):
            raise InputError(f"{path}: no rows.")
        if spec is None:
            layout = layout_of_file(path, column=column)
            names = read_column_names(schema) or layout.fields or tuple(f"column_{i}" for i in range(layout.columns))
            if len(names) != layout.columns:
                raise InputError(
                    f"{path}: {layout.columns} columns a dataset, but names for {len(names)} in its metadata."
                )
            spec = Spec(layout.rows, names, tuple(parameters))
        else:
            layout = layout_of_file(path, rows=spec.rows, columns=spec.columns, column=column)
        sources.append(Source(path, layout, groups, first))
        first += sum(groups)
    if spec is None:
        raise InputError("No datasets to train on: name at least one Parquet file.")
    return spec, tuple(sources)


def _read(source: Source, spec: Spec, row_groups: Sequence[int] | None) -> Iterator[Pair]:
    """Datasets and true values of some row groups, every row checked."""
    row = sum(source.row_groups[: row_groups[0]]) if row_groups else 0
    for batch in iter_batches(source.path, [*source.layout.table_columns, *spec.parameters], row_groups, READ_ROWS):
        decoded = decode(gather(batch, source.layout), source.layout)
        for index, reason in enumerate(decoded.reasons):
            if reason is not None:
                raise InputError(
                    f"{source.path}, row {row + index}: {source.layout.column!r} cannot be trained on: {reason}. "
                    "Remove or mend the row."
                )
        targets = np.stack([true_values(batch, name, source.path, row) for name in spec.parameters], axis=1)
        row += len(batch)
        yield decoded.datasets, targets


def true_values(batch: pa.RecordBatch, name: str, path: Path, row: int) -> NDArray[np.float32]:
    """The column of a parameter's true values, whose first row is the file's `row`: float32, all of them positive.

    Raises:
        InputError: not numbers, or one that is not positive and finite.
    """
    array = batch.column(name)
    if not (pa.types.is_floating(array.type) or pa.types.is_integer(array.type)):
        raise InputError(f"{path}: parameter {name!r} is {array.type}, not a number.")
    with np.errstate(over="ignore"):
        values = np.asarray(array.to_numpy(zero_copy_only=False), np.float64).astype(np.float32)
    good = keeps_promise(values)  # null has become NaN
    if not good.all():
        bad = int(np.argmin(good))
        raise InputError(
            f"{path}, row {row + bad}: {name!r} is {array[bad].as_py()}; a parameter must be positive and finite. "
            "Remove the row, or describe it by a positive parameter."
        )
    return values


def fingerprint_of(paths: Sequence[Path], words: Sequence[str]) -> str:
    """Changes when any of the files does, or what is read from them in these words."""
    facts = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    return hashlib.sha256(json.dumps([facts, list(words)]).encode()).hexdigest()
