"""What the network is trained on, wherever it comes from: pieces mixed anew every epoch, and two sets held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from toolkit.datasets import encode, sort_rows, write_schema_metadata
from toolkit.files import appears_whole
from toolkit.moments import Moments, Ranges
from toolkit.spec import Spec
from toolkit.training_checks import check_spread, warnings_of

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]  # datasets (n, rows, columns), true values (n, parameters)

FEWEST_DATASETS = 200  # below this there is neither enough to learn from nor to validate on
# Two sets are held out, as large as each other. Validation datasets decide which epoch's weights are kept; what is said
# of the network on calibration datasets, which decide about nothing, holds for new ones as well.
HELD_OUT_SHARE = 0.1
MOST_HELD_OUT = 10_000  # datasets of each; 16 MB at 200 x 2, and enough for a steady RMSE


class Pieces(Protocol):
    """Where an epoch's training datasets come from: files, or a simulator."""

    @property
    def count(self) -> int:
        """Training datasets in an epoch."""

    @property
    def different(self) -> int:
        """Different datasets that have been trained on, in all epochs so far."""

    @property
    def pool_bytes(self) -> int:
        """Bytes of datasets that wait to be mixed with those of other pieces."""

    def of_epoch(self, epoch: int, rng: np.random.Generator) -> Iterator[Pair]:
        """The training datasets of an epoch, a thousand or fewer at a time; they depend on the arguments alone."""

    def configuration(self) -> dict[str, str | int | float | bool]:
        """For manifest.json, what there is to say of them."""

    def warnings(self) -> list[str]:
        """What has gone wrong, without ending training, since this was last asked."""

    def state(self) -> dict[str, Any]:
        """What a resumed run has to know of the epochs before, in JSON's types; `restore` takes it."""

    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class TrainingData:
    """Datasets with known parameters, and what a first look at them has found.

    Attributes:
        pieces: the datasets to train on.
        validation_datasets, validation_targets: float32 (n, rows, columns) and (n, parameters), in memory.
        calibration_datasets, calibration_targets: the same of datasets that neither trained nor validated.
        column_means, column_variances: float64 (columns,) over every observation; a column that never varies has 1.
        parameter_means, parameter_deviations: float64 (parameters,).
        ranges: of all datasets; those of a simulator grow while it trains.
        fingerprint: changes when any dataset does.
        warnings: of what is odd about the datasets, a line each.
    """

    spec: Spec
    pieces: Pieces
    validation_datasets: NDArray[np.float32]
    validation_targets: NDArray[np.float32]
    calibration_datasets: NDArray[np.float32]
    calibration_targets: NDArray[np.float32]
    column_means: NDArray[np.float64]
    column_variances: NDArray[np.float64]
    parameter_means: NDArray[np.float64]
    parameter_deviations: NDArray[np.float64]
    ranges: Ranges
    seed: int
    fingerprint: str
    warnings: tuple[str, ...] = ()

    @property
    def training_count(self) -> int:
        """Datasets that are trained on in an epoch."""
        return self.pieces.count

    def batches(self, epoch: int, batch_size: int, exchangeable_rows: bool) -> Iterator[Pair]:
        """All training datasets once, in an order that depends on seed and epoch alone; the last batch may be smaller.

        Pieces come into a pool, from which batches are drawn at random. Where the network wants them so, observations
        are sorted; with `exchangeable_rows` each batch has them in a new order (the same for all its datasets, new for
        the next batch).
        """
        rng = np.random.default_rng([self.seed, epoch])
        pool = self.pieces.pool_bytes // (4 * self.spec.rows * len(self.spec.columns))
        size = batch_size * max(1, pool // batch_size)
        for batch, targets in _mixed(self.pieces.of_epoch(epoch, rng), size, batch_size, rng):
            if self.spec.sorted_rows:
                yield sort_rows(batch), targets
            elif exchangeable_rows:
                yield batch[:, rng.permutation(self.spec.rows)], targets
            else:
                yield batch, targets

    def with_sorted_rows(self) -> TrainingData:
        """The same for a network that takes the rows of a dataset sorted."""
        return replace(
            self,
            spec=replace(self.spec, sorted_rows=True),
            validation_datasets=sort_rows(self.validation_datasets),
            calibration_datasets=sort_rows(self.calibration_datasets),
        )

    def write_calibration(self, path: Path, count: int) -> None:
        """The first `count` calibration datasets with their true parameters, as Parquet."""
        targets = self.calibration_targets[:count]
        true = {name: targets[:, index] for index, name in enumerate(self.spec.parameters)}
        write_calibration(path, self.spec, self.calibration_datasets[:count], true)


def training_data_of(
    pieces: Pieces,
    moments: Moments,
    validation: Sequence[Pair],
    calibration: Sequence[Pair],
    *,
    source: str,
    seed: int,
    fingerprint: str,
    warnings: tuple[str, ...] = (),
    place_of: Callable[[int, float], str] | None = None,
) -> TrainingData:
    """Training data whose first look has found `moments`.

    Args:
        validation, calibration: pieces of the two sets that are held out.
        source: where the datasets are from, for messages.
        warnings: what is known already to be odd about them.
        place_of: where a value of a column is, by the column's index; `source` where it is not given.
    Raises:
        InputError: a parameter that never varies, or not in a way that can be learned.
    """
    check_spread(moments, source)
    held_out = [_joined(validation), _joined(calibration)]
    return TrainingData(
        spec=moments.spec,
        pieces=pieces,
        validation_datasets=held_out[0][0],
        validation_targets=held_out[0][1],
        calibration_datasets=held_out[1][0],
        calibration_targets=held_out[1][1],
        column_means=moments.column_means,
        column_variances=np.where(moments.column_variances > 0, moments.column_variances, 1.0),
        parameter_means=moments.parameter_means,
        parameter_deviations=np.sqrt(moments.parameter_variances),
        ranges=moments.ranges,
        seed=seed,
        fingerprint=fingerprint,
        warnings=(*warnings, *warnings_of(moments, held_out, source, place_of or (lambda index, value: source))),
    )


def _joined(pairs: Sequence[Pair]) -> Pair:
    return np.concatenate([datasets for datasets, _ in pairs]), np.concatenate([targets for _, targets in pairs])


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


def _mixed(pieces: Iterator[Pair], size: int, batch_size: int, rng: np.random.Generator) -> Iterator[Pair]:
    """The pieces' datasets in random order, in batches: of a full pool half is drawn, the rest mixes with what follows.

    The pool stays where it is, and what comes takes the places of what has gone: each dataset is copied in and out
    once. (Joining and shuffling arrays instead costs 6.5 us a dataset of 200 x 2, a twentieth of the training step.)
    """
    free = np.arange(size)  # places in the pool
    half = batch_size * max(1, size // 2 // batch_size)
    pool: Pair | None = None
    for datasets, targets in pieces:
        if pool is None:
            pool = np.empty((size, *datasets.shape[1:]), np.float32), np.empty((size, targets.shape[1]), np.float32)
        begin = 0
        while begin < len(datasets):
            coming = slice(begin, begin + len(free))
            places = free[: len(datasets) - begin]
            pool[0][places], pool[1][places] = datasets[coming], targets[coming]
            begin, free = begin + len(places), free[len(places) :]
            if not len(free):
                order = rng.permutation(size)
                yield from _batches(pool, order[:half], batch_size)
                free = np.sort(order[:half])
    if pool is not None:
        taken = np.ones(size, np.bool_)  # np.setdiff1d takes 4 s for the 2.8 million places of datasets of 6 x 2
        taken[free] = False
        yield from _batches(pool, rng.permutation(np.flatnonzero(taken)), batch_size)


def _batches(pool: Pair, places: NDArray[np.intp], batch_size: int) -> Iterator[Pair]:
    for start in range(0, len(places), batch_size):
        chosen = places[start : start + batch_size]
        yield pool[0][chosen], pool[1][chosen]
