"""Datasets to know a network by: those of a file, or random ones, and what the network gives for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.datasets import Layout, decode, gather, iter_batches, layout_for, open_parquet
from toolkit.errors import InputError, ModelError
from toolkit.promise import keeps_promise
from toolkit.spec import Spec
from toolkit.training_files import true_values

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

MOST_KEPT = 6000  # datasets in calibration.parquet
RANDOM_DATASETS = 1000
READ_ROWS = 1024
LEAST_ESTIMATE = 1e-37  # exported files keep to softplus down to logits of -86, 4.5e-38

Estimates = NDArray[np.float64]  # (datasets, parameters)


@dataclass(frozen=True)
class Piece:
    """Some datasets: float32 (n, rows, columns), true values of the parameters that have any, which of them to keep."""

    datasets: FloatArray
    true: Mapping[str, FloatArray]
    kept: NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """Everything that ran through the network.

    Attributes:
        kept, kept_true: the datasets to keep, and their true values.
        lowest, highest: float32 (columns,), of all datasets.
        true: of all datasets, by parameter.
        estimates: float64 (datasets, parameters).
    """

    kept: FloatArray
    kept_true: dict[str, FloatArray]
    lowest: FloatArray
    highest: FloatArray
    true: dict[str, FloatArray]
    estimates: Estimates


def run_through(spec: Spec, estimate: Callable[[FloatArray], Estimates], pieces: Iterable[Piece], where: str) -> Seen:
    ran: list[Piece] = []
    estimates: list[Estimates] = []
    ranges: list[FloatArray] = []
    row = 0
    for piece in pieces:
        found = estimate(piece.datasets)
        _check_estimates(spec, found, where, row)
        row += len(found)
        estimates.append(found)
        ranges.append(np.stack([piece.datasets.min(axis=(0, 1)), piece.datasets.max(axis=(0, 1))]))
        ran.append(replace(piece, datasets=piece.datasets[piece.kept]))  # the others may go
    if not ran:
        raise InputError(f"{where}: no datasets in it. Leave --calibration out, or name a file with some.")
    names = ran[0].true.keys()
    return Seen(
        kept=np.concatenate([piece.datasets for piece in ran]),
        kept_true={name: np.concatenate([piece.true[name][piece.kept] for piece in ran]) for name in names},
        lowest=np.min([each[0] for each in ranges], axis=0),
        highest=np.max([each[1] for each in ranges], axis=0),
        true={name: np.concatenate([piece.true[name] for piece in ran]) for name in names},
        estimates=np.concatenate(estimates),
    )


def _check_estimates(spec: Spec, estimates: Estimates, where: str, first_row: int) -> None:
    good = keeps_promise(estimates, LEAST_ESTIMATE)
    if not good.all():
        row, index = np.argwhere(~good)[0]
        estimate = f"{spec.parameters[index]} = {estimates[row, index]:.3g}"
        raise ModelError(
            f"{where}, row {first_row + row}: the network gives {estimate}, exported files no less than "
            f"{LEAST_ESTIMATE:g}. Are these the datasets it was trained for? Take others: --calibration FILE."
        )


def pieces_of(calibration: Path, layout: Layout, spec: Spec) -> Iterator[Piece]:
    """All datasets of the file, every row checked; those to keep are spread evenly over it."""
    with open_parquet(calibration) as source:
        names, total = source.schema_arrow.names, source.metadata.num_rows
    known = [name for name in spec.parameters if name in names and name not in layout.table_columns]
    kept = np.zeros(total, np.bool_)
    kept[np.linspace(0, total - 1, min(total, MOST_KEPT)).astype(np.int64)] = True
    row = 0
    for batch in iter_batches(calibration, [*layout.table_columns, *known], None, READ_ROWS):
        decoded = decode(gather(batch, layout), layout)
        for index, reason in enumerate(decoded.reasons):
            if reason is not None:
                raise InputError(
                    f"{calibration}, row {row + index}: {layout.column!r} is no dataset of {spec.describe()} "
                    f"({reason}). Fix the row or leave it out."
                )
        true = {name: true_values(batch, name, calibration, row) for name in known}
        if len(batch):
            yield Piece(decoded.datasets, true, kept[row : row + len(batch)])
        row += len(batch)


def true_values_of(calibration: Path, spec: Spec) -> FloatArray | None:
    """The true values in a file of datasets, float32 (datasets, parameters); None unless there are some of each.

    Raises:
        InputError: one that is not positive and finite.
    """
    layout = layout_for(spec, calibration)
    with open_parquet(calibration) as source:
        known = {name for name in source.schema_arrow.names if name not in layout.table_columns}
    if not known.issuperset(spec.parameters):
        return None
    row, found = 0, []
    for batch in iter_batches(calibration, list(spec.parameters), None, READ_ROWS):
        found.append(np.stack([true_values(batch, name, calibration, row) for name in spec.parameters], axis=1))
        row += len(batch)
    return np.concatenate(found) if found else None


def random_piece(spec: Spec, statistics: tuple[Estimates, Estimates] | None) -> Piece:
    mean, deviation = statistics or (0.0, 1.0)
    values = np.random.default_rng(0).normal(size=(RANDOM_DATASETS, *spec.shape)) * deviation + mean
    return Piece(values.astype(np.float32), {}, np.ones(RANDOM_DATASETS, np.bool_))
