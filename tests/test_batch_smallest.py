"""The summary names the smallest predictions and their rows: those that sorting all predictions would put first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from toolkit.batch import batch_predict
from toolkit.batch.smallest import KEPT, Smallest, merge_smallest, smallest_of

NAMES = ("height", "rate", "noise")


def shards_of(estimates: NDArray[np.float32], shard_rows: int, batch_rows: int) -> list[Smallest]:
    found = []
    for shard, begin in enumerate(range(0, len(estimates), shard_rows)):
        end = min(begin + shard_rows, len(estimates))
        known: Smallest = ()
        for first in range(begin, end, batch_rows):
            rows = np.arange(first, min(first + batch_rows, end))
            known = smallest_of(estimates[rows], rows, shard, "a.parquet", known)
        found.append(known)
    return found


@pytest.mark.parametrize("different", [2, 40, 1_000_000], ids=["nearly all equal", "many equal", "nearly none equal"])
@pytest.mark.parametrize(("rows", "shard_rows", "batch_rows"), [(1, 10, 10), (2, 1, 1), (1000, 170, 32), (999, 999, 4)])
def test_smallest_predictions_are_those_that_sorting_all_rows_puts_first(
    different: int, rows: int, shard_rows: int, batch_rows: int
) -> None:
    rng = np.random.default_rng(different + rows)
    estimates = rng.integers(1, different + 1, (rows, 2)).astype(np.float32)
    shards = shards_of(estimates, shard_rows, batch_rows)
    for order in (range(len(shards)), reversed(range(len(shards))), rng.permutation(len(shards))):
        merged = merge_smallest([shards[index] for index in order], 2)
        for column, found in enumerate(merged):
            first = np.lexsort((np.arange(rows), estimates[:, column]))[:KEPT]
            assert [one.source_row for one in found] == first.tolist()
            assert [one.value for one in found] == estimates[first, column].tolist()


def test_smallest_predictions_merge_to_the_same_however_they_are_grouped() -> None:
    rng = np.random.default_rng(5)
    shards = shards_of(rng.integers(1, 5, (600, 3)).astype(np.float32), 50, 16)
    whole = merge_smallest(shards, 3)
    halves = [merge_smallest(shards[::2], 3), merge_smallest(shards[1::2], 3)]
    assert merge_smallest(halves, 3) == whole == merge_smallest([(), *shards, ()], 3)


def test_smallest_predictions_of_no_rows_are_none() -> None:
    assert smallest_of(np.empty((0, 2), np.float32), np.arange(0), 0, "a.parquet", ()) == ()
    assert merge_smallest([(), ()], 2) == ((), ())


def test_batch_predict_names_the_smallest_predictions_of_each_parameter_for_any_number_of_workers(
    tmp_path: Path, exported: Path, small_datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", 64)
    table = pq.read_table(small_datasets)
    for name, rows in (("a", table.slice(0, 1200)), ("b", table.slice(1200, 800)), ("c", table.slice(0, 1200))):
        pq.write_table(rows, tmp_path / f"{name}.parquet", row_group_size=300)
    inputs = [tmp_path / f"{name}.parquet" for name in "bac"]  # every prediction of a.parquet comes again in c.parquet
    output = tmp_path / "out.parquet"
    for workers in (1, 3):
        summary = batch_predict(inputs, model=exported, output=output, check="off", workers=workers, overwrite=True)
        written = pq.read_table(output)
        for name in NAMES:
            values = written.column(f"predicted_{name}").to_numpy()
            expected = np.lexsort((np.arange(len(values)), values))[:3]
            assert summary.smallest[name] == [
                {
                    "value": float(values[index]),
                    "source_file": written.column("source_file")[index].as_py(),
                    "source_row": written.column("source_row")[index].as_py(),
                }
                for index in expected
            ]
        assert summary.to_json()["smallest"] == summary.smallest
    again = batch_predict(inputs, model=exported, output=output, check="off", resume=True)
    assert again.smallest == summary.smallest, "also told of an output that was there already"


def test_batch_predict_names_no_smallest_prediction_where_every_row_is_rejected(
    tmp_path: Path, exported: Path, small_datasets: Path
) -> None:
    table = pq.read_table(small_datasets).slice(0, 2)
    x = table.schema.get_field_index("x")
    path = tmp_path / "a.parquet"
    pq.write_table(table.set_column(x, "x", pa.nulls(2, table.field("x").type)), path)
    summary = batch_predict(path, model=exported)
    assert summary.rows_rejected == 2 and summary.smallest == {name: [] for name in NAMES}
