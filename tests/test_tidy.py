"""Tidy tables through batch-predict: the estimates of the same datasets written one a row, and nothing lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from toolkit.batch import Summary, batch_predict
from toolkit.batch.checks import Violation
from toolkit.batch.origins import Origins
from toolkit.batch.smallest import Small
from toolkit.datasets import encode
from toolkit.errors import InputError, NotPositive

ROOT = Path(__file__).parent.parent
ROWS = 24
NAMES = ("time", "signal")
PREDICTED = ["predicted_height", "predicted_rate", "predicted_noise"]


def datasets_of(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.broadcast_to(np.linspace(0, 3, ROWS), (count, ROWS))
    signal = rng.uniform(1, 4, (count, 1)) * np.exp(-time) + 0.1 * rng.standard_normal((count, ROWS))
    return np.stack([time, signal], axis=2).astype(np.float32)


def tidy_table(datasets: np.ndarray, ids: list[Any], order: np.ndarray | None = None) -> pa.Table:
    """One row an observation; `order` moves the rows, but keeps those of a group in theirs."""
    count = len(datasets)
    columns = {
        "note": [f"n{row}" for row in range(count * ROWS)],
        "subject": [id for id in ids for _ in range(ROWS)],
        "signal": datasets[:, :, 1].ravel().astype(np.float64),
        "time": datasets[:, :, 0].ravel(),
    }
    table = pa.table(columns)
    if order is None:
        return table
    order = order.copy()  # which group's row comes next
    places = np.empty(len(order), np.int64)
    for group in range(count):
        places[order == group] = group * ROWS + np.arange(ROWS)
    return table.take(pa.array(places))


@pytest.fixture
def model(exported: Path) -> Path:
    return exported


def estimates(table: pa.Table) -> np.ndarray:
    return np.stack([table.column(name).to_numpy() for name in PREDICTED], axis=1)


@pytest.fixture
def expected(model: Path, tmp_path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Estimates of datasets written one a row."""

    def score(datasets: np.ndarray) -> np.ndarray:
        pq.write_table(pa.table({"x": encode(datasets)}), tmp_path / "rows.parquet")
        batch_predict(tmp_path / "rows.parquet", model=model, check="off", output=tmp_path / "rows.out", overwrite=True)
        return estimates(pq.read_table(tmp_path / "rows.out"))

    return score


def shuffled(count: int) -> np.ndarray:
    return np.random.default_rng(9).permutation(np.repeat(np.arange(count), ROWS))


@pytest.mark.parametrize("order", [None, shuffled], ids=["grouped", "shuffled"])
def test_a_tidy_table_gives_the_estimates_of_its_datasets(
    order: Callable[[int], np.ndarray] | None, model: Path, tmp_path: Path, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    datasets = datasets_of(300)
    ids = [f"s{id}" for id in np.random.default_rng(1).permutation(300)]
    groups = np.repeat(np.arange(300), ROWS) if order is None else order(300)
    table = tidy_table(datasets, ids, groups)
    parts = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    cut = 2500  # inside of a group
    for part, rows in zip(parts, (table.slice(0, cut), table.slice(cut)), strict=True):
        pq.write_table(rows, part, row_group_size=700)
    said: list[str] = []
    summary = batch_predict(parts, model=model, group_by="subject", output=tmp_path / "out.parquet", say=said.append)
    assert said == [f"{parts[0]} and 1 more: datasets in 'time, signal', 24 x 2, one row per observation, "
                    "grouped by 'subject'"]  # fmt: skip
    assert (summary.rows_in, summary.rows_predicted, summary.rows_rejected) == (300, 300, 0)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["subject", *PREDICTED, "source_file", "source_row"]
    first = [int(np.flatnonzero(groups == group)[0]) for group in range(300)]
    appearing = np.argsort(first)
    assert found.column("subject").to_pylist() == [ids[group] for group in appearing]
    np.testing.assert_array_equal(estimates(found), expected(datasets)[appearing])
    origin = list(zip(found.column("source_file").to_pylist(), found.column("source_row").to_pylist(), strict=True))
    assert origin == [
        (str(parts[0]), first[group]) if first[group] < cut else (str(parts[1]), first[group] - cut)
        for group in appearing
    ]
    for name, smallest in summary.smallest.items():
        values = found.column(f"predicted_{name}").to_numpy()
        best = int(values.argmin())
        assert (smallest[0]["source_file"], smallest[0]["source_row"]) == origin[best]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("a.parquet", "b.parquet", "out.parquet", "rows.out", "rows.parquet")
    ]


def spoiled_table() -> tuple[pa.Table, dict[str, str]]:
    """Forty groups, interleaved, of which six cannot be scored; and why."""
    datasets = datasets_of(40, seed=3)
    table = tidy_table(datasets, [f"s{id}" for id in range(40)], shuffled(40))
    subject = np.array(table.column("subject").to_pylist(), object)
    signal = table.column("signal").to_numpy().copy()
    null = np.zeros(len(table), np.bool_)
    rows = {name: np.flatnonzero(subject == name) for name in set(subject)}
    signal[rows["s3"][5]] = np.nan
    signal[rows["s7"][0]] = 1e39
    null[rows["s11"][23]] = True
    signal[rows["s23"][2]] = -np.inf
    kept = np.ones(len(table), np.bool_)
    kept[rows["s19"][4]] = False
    subject[rows["s29"][:2]] = None
    table = table.set_column(1, "subject", pa.array(subject, pa.string()))
    table = table.set_column(2, "signal", pa.array(signal, mask=null)).filter(pa.array(kept))
    why = {"s3": "nan", "s7": "infinite", "s11": "null", "s23": "infinite", "s19": "rows", "s29": "rows"}
    return table, why


def test_rejected_groups_go_with_all_their_rows_and_can_be_mended(model: Path, tmp_path: Path) -> None:
    table, why = spoiled_table()
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    summary = batch_predict(tmp_path / "a.parquet", model=model, group_by="subject")
    assert (summary.rows_in, summary.rows_predicted, summary.rows_rejected) == (41, 34, 7)
    assert summary.reasons == {"infinite": 2, "nan": 1, "null": 2, "rows": 2}
    refused = pq.read_table(summary.rejected)
    assert refused.column_names == [*table.column_names, "source_file", "source_row", "reason"]
    subjects = table.column("subject").to_pylist()
    rows = [row for row, subject in enumerate(subjects) if subject is None or subject in why]
    assert refused.column("source_row").to_pylist() == rows
    given = table.take(pa.array(rows)).to_pylist()
    assert str(refused.select(table.column_names).to_pylist()) == str(given), "as text, in which a NaN is like another"
    assert refused.column("reason").to_pylist() == [why.get(subjects[row], "null") for row in rows]
    done = set(pq.read_table(summary.output).column("subject").to_pylist())
    assert done == {f"s{id}" for id in range(40)} - set(why)

    # Mended, the file is a tidy table like any other: its three columns are known.
    signal = refused.column("signal").to_numpy().copy()
    signal[~np.isfinite(signal) | (np.abs(signal) > 1e30)] = 0.5
    subject = [s or "s29" for s in refused.column("subject").to_pylist()]
    mended = refused.set_column(1, "subject", pa.array(subject)).set_column(2, "signal", pa.array(signal))
    pq.write_table(mended, tmp_path / "mended.parquet")
    again = batch_predict(tmp_path / "mended.parquet", model=model, group_by="subject")
    assert (again.rows_in, again.rows_predicted, again.reasons) == (6, 5, {"rows": 1})
    assert pq.read_table(again.rejected).column_names == refused.column_names


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("out*"))}


def test_the_bytes_are_those_of_any_number_of_workers_and_of_a_resumed_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", 7)
    monkeypatch.setattr("toolkit.batch.shards.READ_ROWS", 7)
    table, _ = spoiled_table()
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)

    def run(folder: str, **options: Any) -> Summary:
        (tmp_path / folder).mkdir(exist_ok=True)
        return batch_predict(tmp_path / "a.parquet", model=model, group_by=["subject"],
                             output=tmp_path / folder / "out.parquet", **options)  # fmt: skip

    run("one", workers=1)
    run("three", workers=3)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "three") and len(files_of(tmp_path / "one")) == 2

    from toolkit.batch import tidy

    group_files = tidy.group_files
    calls: list[str] = []

    def counted(*arguments: Any) -> None:
        calls.append("grouped")
        group_files(*arguments)

    monkeypatch.setattr(tidy, "group_files", counted)
    stops = iter([0, 3, 5])

    def stopping(done: int) -> Callable[..., None]:
        def report(rows: int, total: int, rejected: int) -> None:
            if rows >= done:
                raise KeyboardInterrupt

        return report

    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            run("stopped", resume=True, workers=2, report=stopping(stop * 7))
    run("stopped", resume=True)
    assert calls == ["grouped"], "what is grouped is not grouped again"
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "one")
    assert run("stopped", resume=True).rows_rejected == 7, "a finished run is found finished"
    (tmp_path / "stopped" / "out.rejected.parquet").unlink()
    run("stopped", resume=True, overwrite=True)
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "one")


def test_a_run_killed_while_it_groups_is_resumed(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = spoiled_table()
    pq.write_table(table, tmp_path / "a.parquet")
    output = tmp_path / "out.parquet"
    monkeypatch.setattr("toolkit.batch.tidy.MEMORY_BYTES", 10_000)
    from toolkit.datasets import spill

    original = spill._Spill.merged

    def stopped(self: Any, runs: list[Path]) -> Any:
        raise KeyboardInterrupt

    def run(**options: Any) -> None:
        from toolkit.batch import tidy

        grouped = tidy.grouped
        monkeypatch.setattr("toolkit.batch.run.grouped", lambda job: grouped(job, 10_000))
        batch_predict(tmp_path / "a.parquet", model=model, group_by="subject", output=output, check="off", **options)
        monkeypatch.setattr("toolkit.batch.run.grouped", grouped)

    run()
    whole = files_of(tmp_path)
    for file in whole:
        (tmp_path / file).unlink()
    monkeypatch.setattr(spill._Spill, "merged", stopped)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(spill._Spill, "merged", original)
    left = [file.name for file in (tmp_path / "out.parquet.unfinished").iterdir()]
    assert any(name.startswith("groups-") for name in left), "the test must stop amid the work"
    run(resume=True)
    assert files_of(tmp_path) == whole


def test_a_resumed_run_of_other_groups_is_refused(model: Path, tmp_path: Path) -> None:
    table, _ = spoiled_table()
    table = table.append_column("block", table.column("subject"))
    pq.write_table(table, tmp_path / "a.parquet")

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch_predict(tmp_path / "a.parquet", model=model, group_by="subject", report=interrupt)
    with pytest.raises(Exception, match=r"were read as .*grouped by 'subject', now as .*grouped by 'block'"):
        batch_predict(tmp_path / "a.parquet", model=model, group_by="block", resume=True)


def test_groups_outside_the_training_range_are_rejected_with_their_rows(model: Path, tmp_path: Path) -> None:
    datasets = datasets_of(20)
    datasets[7, 3, 1] = 1000
    pq.write_table(tidy_table(datasets, list(range(20))), tmp_path / "a.parquet")
    summary = batch_predict(tmp_path / "a.parquet", model=model, group_by="subject", strict_range=True)
    assert summary.reasons == {"range": 1}
    refused = pq.read_table(summary.rejected)
    assert refused.column("subject").to_pylist() == [7] * ROWS and set(refused.column("reason").to_pylist()) == {
        "range"
    }


def test_several_id_columns_are_carried_over(model: Path, tmp_path: Path) -> None:
    table = tidy_table(datasets_of(6), [1, 1, 2, 2, 3, 3])
    table = table.append_column("block", pa.array(np.tile(np.repeat(["a", "b"], ROWS), 3)))
    table = table.rename_columns(["note", "subject", "y", "t", "block"])
    pq.write_table(table, tmp_path / "a.parquet")
    summary = batch_predict(tmp_path / "a.parquet", model=model, group_by=["block", "subject"], columns=["t", "y"])
    found = pq.read_table(summary.output)
    assert found.column_names[:3] == ["block", "subject", "predicted_height"]
    assert found.column("block").to_pylist() == ["a", "b"] * 3
    assert found.column("subject").to_pylist() == [1, 1, 2, 2, 3, 3]


def test_a_tidy_table_without_rows_gives_an_output_without_rows(model: Path, tmp_path: Path) -> None:
    pq.write_table(tidy_table(datasets_of(1), ["s"]).slice(0, 0), tmp_path / "a.parquet")
    summary = batch_predict(tmp_path / "a.parquet", model=model, group_by="subject")
    assert summary.rows_in == 0
    assert pq.read_table(summary.output).column_names == ["subject", *PREDICTED, "source_file", "source_row"]


def test_rejected_groups_beyond_what_is_held_at_once_take_another_pass(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("MAX_ROWS", 5), ("READ_ROWS", 5)):
        monkeypatch.setattr(f"toolkit.batch.shards.{name}", size)
    datasets = datasets_of(30)
    datasets[::3, 0, 0] = np.inf
    order = shuffled(30)
    table = tidy_table(datasets, list(range(30)), order)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    whole = pq.read_table(batch_predict(tmp_path / "a.parquet", model=model, group_by="subject", check="off").rejected)
    assert len(whole) == 10 * ROWS
    monkeypatch.setattr("toolkit.batch.tidy.REJECTED_AT_ONCE", 3)
    again = batch_predict(tmp_path / "a.parquet", model=model, group_by="subject", check="off", overwrite=True)
    by_row = pq.read_table(again.rejected).sort_by("source_row")
    assert by_row.equals(whole)
    monkeypatch.setattr("toolkit.batch.tidy.hashes_of", lambda ids: np.zeros(len(ids[0]), np.uint64))
    again = batch_predict(tmp_path / "a.parquet", model=model, group_by="subject", check="off", overwrite=True)
    assert pq.read_table(again.rejected).sort_by("source_row").equals(whole), "ids of one hash are told apart"


def test_a_violation_names_a_row_of_the_input() -> None:
    batch = pa.record_batch({"source_file": ["a", "b"], "source_row": [7, 24]})
    origins = Origins(100)
    origins.add(batch)
    origins.add(batch.slice(1))
    assert [origins.of(row) for row in (100, 101, 102)] == [("a", 7), ("b", 24), ("b", 24)]
    named = origins.violation(Violation("m.tflite", "groups.parquet", 101, "v = 0", np.zeros((1, 1), np.float32)))
    assert isinstance(named, NotPositive) and str(named).startswith("b, row 24: m.tflite gave v = 0")
    assert origins.renamed(((Small(0.5, 3, 100, "groups.parquet"),),)) == ((Small(0.5, 3, 7, "a"),),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_by": "source_file"}, "--group-by source_file: the result has a column of this name"),
        ({"group_by": "who"}, "no column 'who', or several, for --group-by"),
        (
            {"group_by": "subject", "columns": ["time", "note"]},
            "column 'note' is string, which --columns does not take",
        ),
        (
            {"group_by": "subject", "columns": ["time"]},
            r"--columns names 1 columns, the model takes 2 \(time, signal\)",
        ),
        ({"group_by": "subject", "column": "x"}, "--group-by is for tidy tables, --column and --order for"),
        (
            {"columns": ["time", "signal"]},
            "--columns names the columns of a tidy table. Name its id as well: --group-by",
        ),
    ],
)
def test_options_that_contradict_each_other_or_the_file_are_named(
    options: dict[str, Any], message: str, model: Path, tmp_path: Path
) -> None:
    pq.write_table(tidy_table(datasets_of(2), [1, 2]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        batch_predict(tmp_path / "a.parquet", model=model, **options)
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_the_command_takes_tidy_tables(model: Path, tmp_path: Path, toolkit_command: Callable[..., Result]) -> None:
    table, _ = spoiled_table()
    pq.write_table(table.rename_columns(["note", "who", "y", "t"]), tmp_path / "a.parquet")
    arguments = ("batch-predict", tmp_path / "a.parquet", "--model", model, "--group-by", "who", "--columns", "t,y")
    planned = toolkit_command(*arguments, "--dry-run")
    assert planned.exit_code == 0 and "grouped by 'who'" in planned.stdout
    done = toolkit_command(*arguments)
    assert done.exit_code == 3, done.stderr
    assert "grouped by 'who'" in done.stderr and "41 rows in = 34 predicted + 7 rejected" in done.stdout
    shutil.rmtree(tmp_path / "none", ignore_errors=True)


RUN = """
import sys
from toolkit.batch import batch_predict
from toolkit.batch import run, tidy
run.grouped = lambda job: tidy.grouped(job, 200_000)
batch_predict(sys.argv[1], model=sys.argv[2], group_by="subject", output=sys.argv[3], check="off", resume=True)
"""


@pytest.mark.soak
def test_a_run_killed_at_any_moment_is_resumed_to_the_same_bytes(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    datasets = datasets_of(6000)
    datasets[::50, 3, 1] = np.nan
    pq.write_table(tidy_table(datasets, list(range(6000)), shuffled(6000)), tmp_path / "a.parquet")
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    command = [sys.executable, "-c", RUN, tmp_path / "a.parquet", model]
    begun = time.monotonic()
    subprocess.run([*command, tmp_path / "whole" / "out.parquet"], check=True, cwd=ROOT)
    seconds = time.monotonic() - begun
    killed = 0
    for _ in range(25):
        with subprocess.Popen([*command, tmp_path / "killed" / "out.parquet"], cwd=ROOT) as process:
            try:
                process.wait(rng.uniform(0.3, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
        if process.returncode == 0:
            assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
            shutil.rmtree(tmp_path / "killed")
            (tmp_path / "killed").mkdir()
    assert killed >= 5
    subprocess.run([*command, tmp_path / "killed" / "out.parquet"], check=True, cwd=ROOT)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert [file.name for file in (tmp_path / "killed").iterdir() if "unfinished" in file.name] == []
