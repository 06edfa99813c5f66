"""Training on tidy tables: the data, and the network, of the same datasets written one a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from toolkit.datasets.tidy import DATASET
from toolkit.errors import InputError
from toolkit.training_files import open_training_data
from toolkit.training_groups import group_training_files

PARAMETERS = ["height", "rate", "noise"]


@pytest.fixture(scope="module")
def tidy(small_datasets: Path) -> pa.Table:
    """The first 400 of the small datasets, row by row."""
    table = pq.read_table(small_datasets).slice(0, 400)
    x = np.array(table.column("x").to_pylist(), np.float32)
    count, rows, _ = x.shape
    return pa.table(
        {
            "dataset": np.repeat(np.arange(count), rows),
            "time": x[:, :, 0].ravel(),
            "signal": x[:, :, 1].ravel(),
            **{name: np.repeat(table.column(name).to_numpy(), rows) for name in PARAMETERS},
        }
    )


@pytest.mark.parametrize("interleaved", [False, True])
def test_grouped_training_data_is_that_of_datasets_one_a_row(
    interleaved: bool, tidy: pa.Table, small_datasets: Path, tmp_path: Path
) -> None:
    table = tidy.take(np.arange(400 * 24).reshape(400, 24).T.ravel()) if interleaved else tidy
    parts = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    pq.write_table(table.slice(0, 1000), parts[0])
    pq.write_table(table.slice(1000), parts[1])
    rows = group_training_files(parts, PARAMETERS, ["dataset"], ["time", "signal"], tmp_path / "grouped.parquet")
    assert rows == 24
    found = open_training_data([tmp_path / "grouped.parquet"], PARAMETERS, column=DATASET)
    pq.write_table(pq.read_table(small_datasets).slice(0, 400), tmp_path / "rows.parquet")
    expected = open_training_data([tmp_path / "rows.parquet"], PARAMETERS)
    assert found.spec == expected.spec
    for name in ("validation_datasets", "calibration_targets", "column_means", "parameter_deviations"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    given, wanted = next(found.batches(1, 64, False)), next(expected.batches(1, 64, False))
    np.testing.assert_array_equal(given[0], wanted[0])
    np.testing.assert_array_equal(given[1], wanted[1])


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("signal", 30, None, "a.parquet, row 24: the group that begins here holds a null. Remove it or mend its rows"),
        ("signal", 30, np.inf, "row 24: the group that begins here holds a number that is not finite"),
        ("rate", 25, 0.123, "row 24: the group that begins here has no single positive 'rate' in all its rows"),
        ("dataset", 47, 2, "row 24: the group that begins here has 23 rows, the first one 24"),
    ],
)
def test_a_group_that_cannot_be_trained_on_is_named(
    column: str, row: int, value: float | None, message: str, tidy: pa.Table, tmp_path: Path
) -> None:
    values = tidy.column(column).to_pylist()
    values[row] = value
    index = tidy.column_names.index(column)
    table = tidy.set_column(index, column, pa.array(values, tidy.schema.field(index).type))
    pq.write_table(table, tmp_path / "a.parquet")
    target = tmp_path / "grouped.parquet"
    with pytest.raises(InputError, match=message):
        group_training_files([tmp_path / "a.parquet"], PARAMETERS, ["dataset"], ["time", "signal"], target)


def test_zero_and_negative_parameters_are_refused(tidy: pa.Table, tmp_path: Path) -> None:
    for value in (0.0, -1.0, np.nan):
        rates = tidy.column("rate").to_numpy().copy()
        rates[48:72] = value
        pq.write_table(tidy.set_column(4, "rate", pa.array(rates)), tmp_path / "a.parquet")
        with pytest.raises(InputError, match="row 48: the group that begins here has no single positive 'rate'"):
            group_training_files([tmp_path / "a.parquet"], PARAMETERS, ["dataset"], ["time", "signal"],
                                 tmp_path / "grouped.parquet")  # fmt: skip


def test_the_command_trains_on_tidy_tables(
    tidy: pa.Table, tmp_path: Path, toolkit_command: Callable[..., Result]
) -> None:
    path, model = tmp_path / "tidy.parquet", tmp_path / "model"
    pq.write_table(tidy, path)
    arguments = ("train", path, "--parameters", "height,rate,noise", "--output", model, "--epochs", "1", "--quiet")
    refused = toolkit_command(*arguments, "--group-by", "dataset")
    assert refused.exit_code == 1 and "--group-by needs the columns of a dataset as well" in refused.stderr
    refused = toolkit_command(*arguments, "--group-by", "height", "--columns", "time,rates")
    assert refused.exit_code == 1 and "no column 'rates', or several, for --columns" in refused.stderr
    assert not model.exists(), "what failed leaves nothing behind"
    done = toolkit_command(*arguments, "--group-by", "dataset", "--columns", "time,signal")
    assert done.exit_code == 0, done.stderr
    assert sorted(file.name for file in model.iterdir() if file.name.startswith(".")) == []
    import json

    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["input"]["columns"] == ["time", "signal"] and manifest["input"]["rows"] == 24
