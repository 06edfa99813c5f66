"""Damaged row groups and files: named, and with --keep-going the rest is scored and what is lost is stated."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from toolkit.batch import batch_predict
from toolkit.errors import InputError, OutputError
from toolkit.files import sha256_of

ROWS, GROUP = 210, 70


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", 30)


def write(path: Path, lists: list[Any]) -> Path:
    """Three row groups; the first dataset of the last one is none."""
    lists = [*lists[:140], None, *lists[141:ROWS]]
    table = pa.table({"id": np.arange(ROWS), "x": pa.array(lists, pa.list_(pa.list_(pa.float32())))})
    pq.write_table(table, path, row_group_size=GROUP)
    return path


@pytest.fixture(scope="module")
def lists(small_datasets: Path) -> list[Any]:
    return list(pq.read_table(small_datasets)["x"].slice(0, 2 * ROWS).to_pylist())


@pytest.fixture
def whole(tmp_path: Path, lists: list[Any]) -> Path:
    return write(tmp_path / "a.parquet", lists)


def damage(path: Path, group: int) -> None:
    """Overwrite the middle of the datasets' pages in one row group."""
    column = pq.read_metadata(path).row_group(group).column(1)
    begin = column.dictionary_page_offset or column.data_page_offset
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(b"\xff" * column.total_compressed_size)


@pytest.fixture
def damaged(tmp_path: Path, whole: Path) -> Path:
    path = tmp_path / "damaged.parquet"
    path.write_bytes(whole.read_bytes())
    damage(path, 1)
    return path


def predictions(path: object) -> dict[int, tuple[float, ...]]:
    """By `source_row`."""
    table = pq.read_table(str(path)).to_pydict()
    values = zip(*(table[name] for name in table if name.startswith("predicted_")), strict=True)
    return dict(zip(table["source_row"], values, strict=True))


def test_a_damaged_row_group_is_named_and_gives_no_output(damaged: Path, exported: Path) -> None:
    with pytest.raises(InputError, match=r"damaged\.parquet, row group 1: damaged \("):
        batch_predict(damaged, model=exported, check="off")
    assert not damaged.with_name("damaged.predictions.parquet").exists()


def test_keep_going_scores_the_rest_and_says_what_is_lost(damaged: Path, whole: Path, exported: Path) -> None:
    summary = batch_predict(damaged, model=exported, check="off", keep_going=True)
    assert (summary.rows_in, summary.rows_predicted, summary.rows_rejected, summary.rows_lost) == (210, 139, 1, 70)
    (lost,) = summary.lost
    assert (lost.file, lost.row_group, lost.rows) == (str(damaged), 1, GROUP)
    assert lost.describe().startswith(f"{damaged}, row group 1: damaged (")
    assert lost.describe().endswith(" 70 rows are lost.")
    expected = predictions(batch_predict(whole, model=exported, check="off").output)
    found = predictions(summary.output)
    assert sorted(found) == [*range(70), *range(141, 210)]
    # The same file computes the same rows in other batches: measured equal; twice float32's spacing is allowed.
    np.testing.assert_allclose([found[row] for row in found], [expected[row] for row in found], rtol=2.4e-7)
    assert pq.read_table(str(summary.rejected))["source_row"].to_pylist() == [140]


def test_keep_going_changes_nothing_where_nothing_is_damaged(whole: Path, exported: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"{keep_going}.parquet" for keep_going in (True, False)]
    for output, keep_going in zip(outputs, (True, False), strict=True):
        assert not batch_predict(whole, model=exported, check="off", output=output, keep_going=keep_going).lost
    assert len({sha256_of(output) for output in outputs}) == 1


@pytest.mark.parametrize("broken", ["cut", "empty", "text"])
def test_keep_going_leaves_out_a_file_that_is_none(broken: str, whole: Path, exported: Path, tmp_path: Path) -> None:
    content = {"cut": whole.read_bytes()[:-100], "empty": b"", "text": b"not Parquet at all"}[broken]
    bad = tmp_path / "b.parquet"
    bad.write_bytes(content)
    given = [whole, bad]
    with pytest.raises(InputError, match=r"b\.parquet: not a readable Parquet file"):
        batch_predict(given, model=exported, check="off", output=tmp_path / "out.parquet")
    summary = batch_predict(given, model=exported, check="off", output=tmp_path / "out.parquet", keep_going=True)
    assert (summary.rows_in, summary.rows_predicted, summary.rows_rejected) == (210, 209, 1)
    (lost,) = summary.lost
    assert (lost.file, lost.row_group, lost.rows) == (str(bad), None, None)


def test_keep_going_with_nothing_left_is_an_error(tmp_path: Path, exported: Path, whole: Path) -> None:
    for group in range(3):
        damage(whole, group)
    with pytest.raises(InputError, match=r"nothing that was named can be read. The first of it: .*row group 0: dam"):
        batch_predict(whole, model=exported, check="off", keep_going=True)


def test_keep_going_does_not_excuse_a_file_of_other_columns(whole: Path, exported: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"y": [1.0]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet"):
        options: dict[str, Any] = {"model": exported, "check": "off", "keep_going": True}
        batch_predict([whole, tmp_path / "b.parquet"], output=tmp_path / "out.parquet", **options)


def test_keep_going_is_resumed_to_the_same_bytes(damaged: Path, exported: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, rejected: int = 0) -> None:
        assert total == 140
        if done >= 60:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"model": exported, "check": "off", "keep_going": True}
    undisturbed = batch_predict(damaged, output=tmp_path / "undisturbed.parquet", workers=1, **options)
    with pytest.raises(KeyboardInterrupt):
        batch_predict(damaged, output=tmp_path / "out.parquet", report=stop, **options)
    again = batch_predict(damaged, output=tmp_path / "out.parquet", resume=True, **options)
    assert sha256_of(Path(again.output)) == sha256_of(Path(undisturbed.output))
    assert again.lost == undisturbed.lost


def test_resume_is_refused_when_other_row_groups_are_lost(damaged: Path, exported: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, rejected: int = 0) -> None:
        raise KeyboardInterrupt

    options: dict[str, Any] = {"model": exported, "check": "off", "output": tmp_path / "out.parquet"}
    with pytest.raises(KeyboardInterrupt):
        batch_predict(damaged, report=stop, **options)
    with pytest.raises(OutputError, match=r"cannot resume, other row groups of .*damaged\.parquet are left out now"):
        batch_predict(damaged, resume=True, keep_going=True, **options)


def test_the_command_names_what_is_lost_and_exits_with_3(
    damaged: Path, exported: Path, toolkit_command: Callable[..., Result]
) -> None:
    command = ["batch-predict", damaged, "--model", exported, "--check", "off"]
    assert toolkit_command(*command).exit_code == 1
    done = toolkit_command(*command, "--keep-going", "--json")
    assert done.exit_code == 3, done.stderr
    said = json.loads(done.stdout)
    assert said["rows_in"] == said["rows_predicted"] + said["rows_rejected"] + said["rows_lost"] == ROWS
    assert [(each["file"], each["row_group"], each["rows"]) for each in said["lost"]] == [(os.fspath(damaged), 1, 70)]
    assert f"Left out: {damaged}, row group 1: damaged (" in done.stderr


def test_a_tidy_table_is_not_scored_with_a_hole(whole: Path, exported: Path) -> None:
    with pytest.raises(InputError, match="--keep-going is not for tidy tables: with rows missing, their groups"):
        batch_predict(whole, model=exported, group_by="id", keep_going=True)
