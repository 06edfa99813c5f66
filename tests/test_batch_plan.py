"""`--dry-run` says what a run would do, and does nothing of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from toolkit.batch import batch_predict
from toolkit.batch.lock import owned

Command = Callable[..., Result]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", 100)


@pytest.fixture
def given(small_datasets: Path, tmp_path: Path) -> Path:
    """400 datasets, one of them no dataset, with three columns beside them."""
    table = pq.read_table(small_datasets).slice(0, 400)
    lists = table.column("x").to_pylist()
    lists[7] = None
    column = pa.array(lists, pa.list_(pa.list_(pa.float32())))
    path = tmp_path / "input.parquet"
    pq.write_table(table.set_column(table.schema.get_field_index("x"), "x", column), path, row_group_size=250)
    return path


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below, with its time of change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


@pytest.fixture
def untouched(given: Path, tmp_path: Path) -> Iterator[None]:
    before = contents(tmp_path)
    yield
    assert contents(tmp_path) == before, "a dry run has written"


def plan_of(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    plan: dict[str, object] = json.loads(result.stdout)
    return plan


def test_dry_run_says_what_a_run_does(toolkit_command: Command, given: Path, exported: Path, untouched: None) -> None:
    result = toolkit_command("batch-predict", given, "--model", exported, "--dry-run", "--workers", 2, "--json")
    plan = plan_of(result)
    estimate = plan.pop("estimate")
    checked = plan.pop("checked")
    shards = plan.pop("shards")
    assert isinstance(checked, list) and checked[0] == "model.float32.tflite"
    assert set(checked) == {path.name for path in exported.glob("model.float*") if path.suffix != ".keras"} | set(
        path.name for path in exported.glob("model.int*")
    )
    assert plan == {
        "inputs": [
            {
                "file": str(given),
                "rows": 400,
                "row_groups": 2,
                "bytes": given.stat().st_size,
                "layout": "'x', 24 x 2, one list per observation",
            }
        ],
        "rows": 400,
        "row_groups": 2,
        "carried": ["height", "rate", "noise"],
        "predicted": ["predicted_height", "predicted_rate", "predicted_noise", "source_file", "source_row"],
        "check": "all",
        "output": str(given.with_name("input.predictions.parquet")),
        "rejected": str(given.with_name("input.predictions.rejected.parquet")),
        "unfinished": str(given.with_name("input.predictions.parquet.unfinished")),
        "workers": 2,
        "shards_done": 0,
        "state": "nothing to resume",
        "refused": None,
    }
    assert isinstance(shards, int) and shards >= 4
    assert isinstance(estimate, dict) and 0 < estimate["rows_measured"] <= 100
    cores = min(2, len(os.sched_getaffinity(0)))
    assert estimate["seconds"] == pytest.approx(400 / estimate["rows_per_second"] / cores)


def test_dry_run_announces_the_columns_the_files_and_about_the_size_that_a_run_then_gives(
    toolkit_command: Command, given: Path, exported: Path
) -> None:
    plan = plan_of(toolkit_command("batch-predict", given, "--model", exported, "--dry-run", "--json"))
    summary = batch_predict(given, model=exported)
    written = pq.read_metadata(summary.output)
    assert written.schema.names == [*plan["carried"], *plan["predicted"]]  # type: ignore[misc]
    assert (str(summary.output), str(summary.rejected)) == (plan["output"], plan["rejected"])
    columns = written.row_group(0)
    size = sum(columns.column(index).total_compressed_size for index in range(columns.num_columns))
    estimate = plan["estimate"]
    assert isinstance(estimate, dict)
    # The estimate counts a footer for every hundred rows, and no evidence: measured 1.8 times the columns' bytes.
    assert size < estimate["output_bytes"] < 4 * size
    assert estimate["disk_bytes"] > estimate["output_bytes"]


def test_dry_run_in_words_names_layout_shards_and_estimate(
    toolkit_command: Command, given: Path, exported: Path, untouched: None
) -> None:
    result = toolkit_command("batch-predict", given, "--model", exported, "--dry-run", "--check", "off")
    assert result.exit_code == 0 and result.stderr == ""
    for said in (
        "'x', 24 x 2, one list per observation",
        "400 in 2 row groups, scored as ",
        "carried over: height, rate, noise",
        "scored by:    model.float32.tflite",
        "nothing to resume",
        "(measured on the first ",
        "Nothing was written.",
    ):
        assert said in result.stdout, said
    assert "checked by" not in result.stdout


def test_dry_run_counts_the_shards_that_an_unfinished_run_has_done(
    toolkit_command: Command, given: Path, exported: Path, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int, rejected: int) -> None:
        if done >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch_predict(given, model=exported, report=interrupt)
    before = contents(tmp_path)
    arguments = ("batch-predict", given, "--model", exported, "--dry-run", "--json")
    plan = plan_of(toolkit_command(*arguments))
    done, shards = plan["shards_done"], plan["shards"]
    assert isinstance(done, int) and isinstance(shards, int) and 2 <= done < shards
    assert plan["state"] == f"{done} of {shards} shards are done; --resume keeps them, without it they are dropped"
    resumed = plan_of(toolkit_command(*arguments, "--resume"))
    assert resumed["state"] == f"{done} of {shards} shards are done; goes on from there"
    other = toolkit_command(*arguments, "--check", "off")
    assert "an unfinished run of something else (--check was all, now it is off)" in other.stdout
    refused = toolkit_command(*arguments, "--check", "off", "--resume")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["refused"].endswith("cannot resume, --check was all, now it is off.")
    assert contents(tmp_path) == before
    batch_predict(given, model=exported, resume=True)
    assert plan_of(toolkit_command(*arguments, "--resume"))["state"] == "this very run is finished"


def test_dry_run_says_why_a_run_would_be_refused(
    toolkit_command: Command, given: Path, exported: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.parquet"
    arguments = ("batch-predict", given, "--model", exported, "--dry-run", "--output", output)
    output.write_bytes(b"older")
    result = toolkit_command(*arguments)
    assert result.exit_code == 1
    assert f"Would be refused: {output}: exists. Replace it with --overwrite" in result.stdout
    assert toolkit_command(*arguments, "--overwrite").exit_code == 0
    with owned(tmp_path / "out.parquet.unfinished"):
        result = toolkit_command(*arguments, "--overwrite")
        assert result.exit_code == 1
        assert f"another batch-predict (process {os.getpid()}) is writing this output" in result.stdout
    assert output.read_bytes() == b"older"


def test_dry_run_of_no_rows_has_nothing_to_measure(toolkit_command: Command, given: Path, exported: Path) -> None:
    path = given.with_name("empty.parquet")
    pq.write_table(pq.read_table(given).slice(0, 0), path)
    plan = plan_of(toolkit_command("batch-predict", path, "--model", exported, "--dry-run", "--json"))
    assert (plan["rows"], plan["shards"], plan["estimate"]) == (0, 0, None)


def test_dry_run_raises_what_the_run_would_raise(toolkit_command: Command, given: Path, tmp_path: Path) -> None:
    result = toolkit_command("batch-predict", given, "--model", tmp_path / "absent", "--dry-run")
    assert result.exit_code == 1 and "no model here" in result.stderr


def test_batch_predict_says_which_layout_it_takes_unless_quiet(
    toolkit_command: Command, given: Path, exported: Path
) -> None:
    arguments = ("batch-predict", given, "--model", exported, "--check", "off", "--overwrite")
    said = f"{given}: datasets in 'x', 24 x 2, one list per observation\n"
    for options, expected in (((), said), (("--json",), said), (("--quiet",), "")):
        result = toolkit_command(*arguments, *options)
        assert result.exit_code == 3
        assert result.stderr.startswith(expected)
        assert "datasets in" not in result.stdout
    assert result.stderr == ""
