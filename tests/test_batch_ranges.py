"""Datasets outside the ranges seen in training: counted and warned of, or rejected."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from toolkit.batch import batch_predict
from toolkit.batch.ranges import counted, outside
from toolkit.datasets import encode, read_datasets
from toolkit.errors import ModelError
from toolkit.manifest import Range, read_manifest, write_manifest

RANGES = (Range(0.0, 1.0), Range(-2.0, 2.0))


@pytest.fixture
def far_rows(exported: Path, tmp_path: Path) -> Path:
    """60 datasets; row 7 has a signal far above, row 21 a time before all, row 40 both."""
    datasets = read_datasets(exported / "calibration.parquet", read_manifest(exported).spec)[:60].copy()
    datasets[7, 3, 1] = 1e6
    datasets[21, 0, 0] = -1.0
    datasets[40, 5] = [99.0, -99.0]
    pq.write_table(pa.table({"x": encode(datasets), "id": np.arange(60)}), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


def test_outside_matches_a_plain_loop_over_random_datasets() -> None:
    datasets = np.random.default_rng(0).normal([0.5, 0.0], [0.4, 0.8], (300, 4, 2)).astype(np.float32)
    plain = [
        [
            any(not each.minimum <= value <= each.maximum for value in [row[column] for row in dataset])
            for column, each in enumerate(RANGES)
        ]
        for dataset in datasets.tolist()
    ]
    found = outside(datasets, RANGES)
    np.testing.assert_array_equal(found, plain)
    assert 0 < found[:, 1].sum() < found[:, 0].sum() < 300


def test_outside_takes_the_ends_of_a_range_as_inside_and_knows_nothing_without_ranges() -> None:
    ends = np.array([[[0.0, -2.0], [1.0, 2.0]]], np.float32)
    assert not outside(ends, RANGES).any()
    assert not outside(ends * 100, ()).any()
    assert outside(np.empty((0, 2, 2), np.float32), RANGES).shape == (0, 2)
    assert counted(outside(ends * 100, RANGES), ("a", "b")).columns == {"a": 1, "b": 1}


def test_batch_predict_counts_rows_outside_and_scores_them(exported: Path, far_rows: Path) -> None:
    summary = batch_predict(far_rows, model=exported, check="off")
    assert (summary.rows_predicted, summary.rows_rejected) == (60, 0)
    assert summary.to_json()["outside_training_range"] == {"rows": 3, "columns": {"time": 2, "signal": 2}}


def test_batch_predict_rejects_rows_outside_with_strict_range(exported: Path, far_rows: Path) -> None:
    summary = batch_predict(far_rows, model=exported, check="off", strict_range=True)
    assert (summary.rows_predicted, summary.rows_rejected, summary.reasons) == (57, 3, {"range": 3})
    assert summary.rejected is not None
    rejected = pq.read_table(summary.rejected)
    assert rejected["source_row"].to_pylist() == [7, 21, 40]
    assert set(rejected["reason"].to_pylist()) == {"range"}
    assert pq.read_table(summary.output)["id"].to_pylist() == [row for row in range(60) if row not in (7, 21, 40)]


def test_batch_predict_command_warns_on_stderr(
    toolkit_command: Callable[..., Result], exported: Path, far_rows: Path
) -> None:
    result = toolkit_command("batch-predict", far_rows, "--model", exported, "--check", "off", "--json")
    assert result.exit_code == 0
    assert result.stderr.partition("\n")[2] == (  # the first line names the layout
        "Warning: 3 rows lie outside the ranges seen in training (time in 2, signal in 2); estimates there are "
        "extrapolations. Reject them with --strict-range.\n"
    )
    assert json.loads(result.stdout)["outside_training_range"]["rows"] == 3
    strict = toolkit_command("batch-predict", far_rows, "--model", exported, "--strict-range", "--overwrite", "--quiet")
    assert (strict.exit_code, strict.output) == (3, "")


def test_batch_predict_refuses_strict_range_when_nobody_knows_the_ranges(exported_copy: Path, far_rows: Path) -> None:
    write_manifest(exported_copy, dataclasses.replace(read_manifest(exported_copy), column_ranges=()))
    assert batch_predict(far_rows, model=exported_copy, check="off").outside.rows == 0
    with pytest.raises(ModelError, match="nobody recorded the ranges of its training data. Leave out --strict-range."):
        batch_predict(far_rows, model=exported_copy, strict_range=True, overwrite=True)
