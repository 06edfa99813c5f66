"""Training datasets streamed from Parquet: surveyed once, split, then shuffled anew every epoch in flat memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from toolkit.datasets import (
    Layout,
    decode,
    encode,
    gather,
    iter_batches,
    layout_of_file,
    open_parquet,
    read_column_names,
    write_schema_metadata,
)
from toolkit.errors import InputError, did_you_mean
from toolkit.files import appears_whole
from toolkit.moments import Moments
from toolkit.promise import keeps_promise
from toolkit.spec import Spec

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]  # datasets (n, rows, columns), true values (n, parameters)

FEWEST_DATASETS = 200  # below this there is neither enough to learn from nor to validate on
# Two sets are held out, as large as each other. Validation datasets decide which epoch's weights are kept; what is said
# of the network on calibration datasets, which decide about nothing, holds for new ones as well.
HELD_OUT_SHARE = 0.1
MOST_HELD_OUT = 10_000  # datasets of each; 16 MB at 200 x 2, and enough for a steady RMSE
READ_ROWS = 1024
POOL_BYTES = 128 << 20  # datasets waiting to be mixed with those of other row groups


@dataclass(frozen=True)
class Source:
    """One Parquet file of training datasets."""

    path: Path
    layout: Layout
    row_groups: tuple[int, ...]  # datasets in each
    first: int  # index of its first dataset among all


@dataclass(frozen=True)
class TrainingData:
    """Datasets with known parameters, and what a first pass over them has found.

    Attributes:
        held_out: bool (datasets in all,): those kept from training.
        validation_datasets, validation_targets: float32 (n, rows, columns) and (n, parameters), in memory.
        calibration_datasets, calibration_targets: the same of datasets that neither trained nor validated.
        column_means, column_variances: float64 (columns,) over every observation; a column that never varies has 1.
        column_minima, column_maxima: float64 (columns,), of all datasets.
        parameter_means, parameter_deviations, parameter_minima, parameter_maxima: float64 (parameters,).
        fingerprint: changes when any file does.
    """

    spec: Spec
    sources: tuple[Source, ...]
    held_out: NDArray[np.bool_]
    validation_datasets: NDArray[np.float32]
    validation_targets: NDArray[np.float32]
    calibration_datasets: NDArray[np.float32]
    calibration_targets: NDArray[np.float32]
    column_means: NDArray[np.float64]
    column_variances: NDArray[np.float64]
    column_minima: NDArray[np.float64]
    column_maxima: NDArray[np.float64]
    parameter_means: NDArray[np.float64]
    parameter_deviations: NDArray[np.float64]
    parameter_minima: NDArray[np.float64]
    parameter_maxima: NDArray[np.float64]
    seed: int
    fingerprint: str

    @property
    def training_count(self) -> int:
        """Datasets that are trained on."""
        return int(len(self.held_out) - self.held_out.sum())

    def batches(self, epoch: int, batch_size: int, exchangeable_rows: bool) -> Iterator[Pair]:
        """All training datasets once, in an order that depends on seed and epoch alone; the last batch may be smaller.

        Row groups come in random order into a pool, from which batches are drawn at random. With `exchangeable_rows`
        each batch has its observations in a new order (the same for all its datasets, new for the next batch).
        """
        rng = np.random.default_rng([self.seed, epoch])
        size = batch_size * max(1, POOL_BYTES // (4 * self.spec.rows * len(self.spec.columns)) // batch_size)
        for datasets, targets in _mixed(self._pieces(rng), size, batch_size, rng):
            for start in range(0, len(datasets), batch_size):
                batch = datasets[start : start + batch_size]
                if exchangeable_rows:
                    batch = batch[:, rng.permutation(self.spec.rows)]
                yield batch, targets[start : start + batch_size]

    def _pieces(self, rng: np.random.Generator) -> Iterator[Pair]:
        """The training datasets in pieces of a thousand or fewer, row groups in random order."""
        groups = [(source, group) for source in self.sources for group in range(len(source.row_groups))]
        for index in rng.permutation(len(groups)):
            source, group = groups[index]
            row = source.first + sum(source.row_groups[:group])
            for datasets, targets in _read(source, self.spec, [group]):
                kept = ~self.held_out[row : row + len(datasets)]
                row += len(datasets)
                yield datasets[kept], targets[kept]

    def write_calibration(self, path: Path, count: int) -> None:
        """The first `count` calibration datasets with their true parameters, as Parquet."""
        targets = self.calibration_targets[:count]
        true = {name: targets[:, index] for index, name in enumerate(self.spec.parameters)}
        write_calibration(path, self.spec, self.calibration_datasets[:count], true)


def write_calibration(
    path: Path, spec: Spec, datasets: NDArray[np.float32], true: Mapping[str, NDArray[np.float32]]
) -> None:
    """Write datasets and the true values of those parameters that have any, as Parquet, whole or not at all."""
    column = "x" if "x" not in spec.parameters else "datasets"
    table = pa.table({column: encode(datasets), **{name: pa.array(values) for name, values in true.items()}})
    table = table.cast(write_schema_metadata(table.schema, spec.columns, spec.parameters))
    with appears_whole(path) as partial:
        # The bytes of a float compress when equal significances lie together.
        pq.write_table(table, partial, compression="zstd", compression_level=9, use_dictionary=False,
                       use_byte_stream_split=True)  # fmt: skip


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
            tenth is held out for calibration in any case.
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
    validating, calibrating = _held_out(total, seed, validation is None)
    moments = Moments(spec)
    kept: list[Pair] = []
    calibration: list[Pair] = []
    row = 0
    for source in sources:
        for datasets, targets in _read(source, spec, None):
            moments.add(datasets, targets)
            for held_out, into in ((validating, kept), (calibrating, calibration)):
                chosen = held_out[row : row + len(datasets)]
                if chosen.any():
                    into.append((datasets[chosen], targets[chosen]))
            row += len(datasets)
    if validation is not None:
        (other,) = _open_sources([validation], parameters, column, spec)[1]
        kept = [(datasets.copy(), targets) for datasets, targets in _read(other, spec, None)]
        if not kept:
            raise InputError(f"{validation}: no datasets to validate on.")
    deviations = np.sqrt(moments.parameter_variances)
    for name, deviation, mean in zip(spec.parameters, deviations, moments.parameter_means, strict=True):
        if not deviation > 1e-6 * mean:
            raise InputError(f"{paths[0]}: '{name}' is {mean:g} in every row; there is nothing to learn. Let it vary.")
    column_variances = np.where(moments.column_variances > 0, moments.column_variances, 1.0)
    return TrainingData(
        spec=spec,
        sources=sources,
        held_out=validating | calibrating,
        validation_datasets=np.concatenate([datasets for datasets, _ in kept]),
        validation_targets=np.concatenate([targets for _, targets in kept]),
        calibration_datasets=np.concatenate([datasets for datasets, _ in calibration]),
        calibration_targets=np.concatenate([targets for _, targets in calibration]),
        column_means=moments.column_means,
        column_variances=column_variances,
        column_minima=moments.column_minima,
        column_maxima=moments.column_maxima,
        parameter_means=moments.parameter_means,
        parameter_deviations=deviations,
        parameter_minima=moments.parameter_minima,
        parameter_maxima=moments.parameter_maxima,
        seed=seed,
        fingerprint=fingerprint or fingerprint_of([Path(path) for path in (*paths, validation) if path], parameters),
    )


def _held_out(total: int, seed: int, validate: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """bool (total,) each: the datasets to validate on, if any are, and those to calibrate with."""
    share = min(MOST_HELD_OUT, int(total * HELD_OUT_SHARE))
    order = np.random.default_rng([seed, 0]).choice(total, 2 * share, replace=False)
    validating, calibrating = np.zeros(total, np.bool_), np.zeros(total, np.bool_)
    validating[order[:share]] = validate
    calibrating[order[share:]] = True
    return validating, calibrating


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


def _mixed(pieces: Iterator[Pair], size: int, batch_size: int, rng: np.random.Generator) -> Iterator[Pair]:
    """The pieces' datasets in random order: half of a pool at a time, the rest to be mixed with what follows."""
    waiting: list[Pair] = []
    count = 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece[0])
        if count >= size:
            datasets, targets = _shuffled(waiting, rng)
            half = batch_size * max(1, count // 2 // batch_size)
            yield datasets[:half], targets[:half]
            waiting, count = [(datasets[half:], targets[half:])], count - half
    if count:
        yield _shuffled(waiting, rng)


def _shuffled(pieces: Sequence[Pair], rng: np.random.Generator) -> Pair:
    datasets = np.concatenate([datasets for datasets, _ in pieces])
    targets = np.concatenate([targets for _, targets in pieces])
    order = rng.permutation(len(targets))
    return datasets[order], targets[order]


def fingerprint_of(paths: Sequence[Path], parameters: Sequence[str]) -> str:
    """Changes when any of the files does."""
    facts = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    return hashlib.sha256(json.dumps([facts, list(parameters)]).encode()).hexdigest()
