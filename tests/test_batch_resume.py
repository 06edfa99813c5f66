"""Interrupted runs: nothing half-written is ever seen, and --resume ends in the bytes of an undisturbed run."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
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
from numpy.typing import NDArray

from toolkit.batch import Summary, batch_predict
from toolkit.batch.lock import LOCK_FILE, owned
from toolkit.datasets import read_datasets
from toolkit.errors import OutputError
from toolkit.files import sha256_of
from toolkit.manifest import read_manifest

SHARDS, SHARD_ROWS = 9, 30
OUTPUT, REJECTED, WORK = "out.parquet", "out.rejected.parquet", "out.parquet.unfinished"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", SHARD_ROWS)


@pytest.fixture(scope="module")
def datasets(small_datasets: Path, exported: Path) -> NDArray[np.float32]:
    """float32 (2000, 24, 2)."""
    return read_datasets(small_datasets, read_manifest(exported).spec)


@pytest.fixture
def given(tmp_path: Path, datasets: NDArray[np.float32]) -> Path:
    """270 datasets, which make nine shards; two are no datasets, one of those in the first shard."""
    lists: list[Any] = datasets[:270].tolist()
    lists[5], lists[200] = None, lists[200][:-1]
    table = pa.table({"id": np.arange(270), "x": pa.array(lists, pa.list_(pa.list_(pa.float32())))})
    pq.write_table(table, tmp_path / "input.parquet", row_group_size=70)
    return tmp_path / "input.parquet"


@pytest.fixture
def undisturbed(given: Path, exported: Path, tmp_path: Path) -> tuple[str, str]:
    """sha256 of output and rejected rows of a run that nothing stops."""
    (tmp_path / "undisturbed").mkdir()
    summary = batch_predict(given, model=exported, check="sample", output=tmp_path / "undisturbed" / OUTPUT)
    assert summary.rejected is not None
    return sha256_of(summary.output), sha256_of(summary.rejected)


def resumed(given: Path, exported: Path, tmp_path: Path, **options: Any) -> Summary:
    return batch_predict(given, model=exported, check="sample", output=tmp_path / OUTPUT, resume=True, **options)


def assert_finished(tmp_path: Path, undisturbed: tuple[str, str], summary: Summary) -> None:
    """The output is that of the undisturbed run, and nothing else is left."""
    assert (sha256_of(tmp_path / OUTPUT), sha256_of(tmp_path / REJECTED)) == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input.parquet", OUTPUT, REJECTED, "undisturbed"]
    assert (summary.rows_in, summary.rows_predicted, summary.rows_rejected) == (270, 268, 2)
    assert [check.rows_checked for check in summary.checks[:1]] == [268]


KILLED = """
import itertools, os, signal, sys
import toolkit.batch.shards
from toolkit.batch import batch_predict

toolkit.batch.shards.MAX_ROWS = 30

source, model, output, moment, when = sys.argv[1:]
replace, numbers = os.replace, itertools.count(1)

def counted(partial, path):
    number = next(numbers)  # its own, whatever the other worker does meanwhile
    if number == int(moment) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(partial, path)
    if number == int(moment):
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = counted
batch_predict(source, model=model, output=output, check="sample", workers=2)
print(next(numbers) - 1)
"""


def killed(given: Path, exported: Path, tmp_path: Path, moment: int, when: str) -> subprocess.CompletedProcess[str]:
    """A run that kills itself before or after it renames a file for the `moment`-th time."""
    arguments = [given, exported, tmp_path / OUTPUT, moment, when]
    command = [sys.executable, "-c", KILLED, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


# run.json, a part and a receipt for each shard, two of the shards with rejected rows; then the two files of the result.
RENAMES = 1 + 2 * SHARDS + 2 + 2


def test_a_run_renames_as_often_as_the_moments_below_suppose(given: Path, exported: Path, tmp_path: Path) -> None:
    done = killed(given, exported, tmp_path, 10**9, "before")
    assert (done.returncode, done.stdout) == (0, f"{RENAMES}\n"), done.stderr


@pytest.mark.parametrize(
    ("moment", "when"),
    [
        *((1, "after"), (3, "before"), (8, "after"), (14, "before")),
        *((RENAMES - 1, "before"), (RENAMES - 1, "after"), (RENAMES, "before"), (RENAMES, "after")),
    ],
)
def test_resume_finishes_a_run_killed_at_any_moment(
    moment: int, when: str, given: Path, exported: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    done = killed(given, exported, tmp_path, moment, when)
    assert done.returncode == -signal.SIGKILL, done.stderr
    output_is_there = (moment, when) == (RENAMES, "after")
    assert (tmp_path / OUTPUT).exists() == output_is_there
    assert (tmp_path / WORK).is_dir()
    assert_finished(tmp_path, undisturbed, resumed(given, exported, tmp_path))
    assert_finished(tmp_path, undisturbed, resumed(given, exported, tmp_path))


def interrupted(given: Path, model: Path, tmp_path: Path, rows: int = 120) -> None:
    """A run that Ctrl-C stops once so many rows are done."""

    def interrupt(done: int, total: int, rejected: int) -> None:
        if done >= rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch_predict(given, model=model, check="sample", output=tmp_path / OUTPUT, report=interrupt)


def test_resume_scores_only_the_shards_that_are_not_done(
    given: Path, exported: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    interrupted(given, exported, tmp_path)
    receipts = list((tmp_path / WORK).glob("*.json"))
    seen: list[tuple[int, int]] = []
    summary = resumed(
        given, exported, tmp_path, report=lambda done, total, rejected: seen.append((done, total)), workers=1
    )
    shards_done = len(receipts) - 1  # run.json is not a receipt
    assert shards_done >= 2
    assert [done for done, _ in seen] == list(range(30 * shards_done, 271, 30))
    assert_finished(tmp_path, undisturbed, summary)


def test_resume_does_a_damaged_part_again(
    given: Path, exported: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    interrupted(given, exported, tmp_path, rows=270)
    work = tmp_path / WORK
    (work / "000001.predicted.arrow").write_bytes((work / "000001.predicted.arrow").read_bytes()[:-1])
    (work / "000002.predicted.arrow").unlink()
    (work / "000000.rejected.arrow").unlink()
    (work / "000004.json").write_text("{")
    (work / "000005.json").unlink()
    (work / ".000007.json.99.partial").write_text("{")
    assert_finished(tmp_path, undisturbed, resumed(given, exported, tmp_path))


def test_resume_with_nothing_to_resume_starts_afresh(
    given: Path, exported: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    assert_finished(tmp_path, undisturbed, resumed(given, exported, tmp_path))


def test_a_run_without_resume_starts_afresh(
    given: Path, exported: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    interrupted(given, exported, tmp_path)
    seen: list[int] = []
    summary = batch_predict(
        *[given],
        model=exported,
        check="sample",
        output=tmp_path / OUTPUT,
        report=lambda done, total, rejected: seen.append(done),
    )
    assert seen[0] == 0
    assert_finished(tmp_path, undisturbed, summary)


def touch(given: Path, model: Path) -> None:
    os.utime(given, ns=(1, 1))


def write_again(given: Path, model: Path) -> None:
    table = pq.read_table(given)
    time.sleep(0.01)
    pq.write_table(table, given, row_group_size=31)


def swap_model_files(given: Path, model: Path) -> None:
    """Another model under the same names: that of the float16 files."""
    from dataclasses import replace

    from toolkit.manifest import write_manifest

    manifest = read_manifest(model)
    entries = {entry.file: entry for entry in manifest.files}
    half = entries["model.float16.tflite"]
    (model / "model.float32.tflite").write_bytes((model / half.file).read_bytes())
    write_manifest(model, manifest.with_file(replace(entries["model.float32.tflite"], sha256=half.sha256)))


@pytest.mark.parametrize(
    ("change", "options", "difference"),
    [
        (touch, {}, r"the input .*input\.parquet has changed"),
        (write_again, {}, r"the input .*input\.parquet has changed"),
        (swap_model_files, {}, r"model\.float32\.tflite is another one now \(its sha256 differs\)"),
        (None, {"check": "all"}, "--check was sample, now it is all"),
        (None, {"check": "off"}, "--check was sample, now it is off"),
        (None, {"file": "model.float16.onnx"}, r"--file was model\.float32\.tflite, now it is model\.float16\.onnx"),
    ],
)
def test_resume_is_refused_when_something_changed(
    change: Callable[[Path, Path], None] | None,
    options: dict[str, str],
    difference: str,
    given: Path,
    exported_copy: Path,
    tmp_path: Path,
) -> None:
    interrupted(given, exported_copy, tmp_path)
    before = sorted((tmp_path / WORK).iterdir())
    if change is not None:
        change(given, exported_copy)
    again = {"model": exported_copy, "check": "sample", "output": tmp_path / OUTPUT, "resume": True, **options}
    with pytest.raises(OutputError, match=rf"unfinished: cannot resume, {difference}\. Start afresh without --resume"):
        batch_predict(given, **again)
    assert sorted((tmp_path / WORK).iterdir()) == before, "a refusal must leave what is there"
    assert batch_predict(given, **{**again, "resume": False}).rows_in == 270


def test_resume_is_refused_when_other_inputs_are_named(given: Path, exported: Path, tmp_path: Path) -> None:
    interrupted(given, exported, tmp_path)
    second = tmp_path / "second.parquet"
    second.write_bytes(given.read_bytes())
    with pytest.raises(OutputError, match=r"cannot resume, the input .*second\.parquet was not named"):
        batch_predict([given, second], model=exported, check="sample", output=tmp_path / OUTPUT, resume=True)
    with pytest.raises(OutputError, match=r"cannot resume, the input .*input\.parquet is not named any more"):
        batch_predict([second], model=exported, check="sample", output=tmp_path / OUTPUT, resume=True)


def test_resume_takes_the_same_run_with_another_number_of_workers_and_a_column_named(
    given: Path, exported: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    interrupted(given, exported, tmp_path)
    assert_finished(tmp_path, undisturbed, resumed(given, exported, tmp_path, workers=4, column="x"))


def test_ctrl_c_leaves_a_run_that_can_be_resumed(
    given: Path, exported: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    interrupted(given, exported, tmp_path, rows=60)
    assert not (tmp_path / OUTPUT).exists() and not (tmp_path / REJECTED).exists()
    assert not list((tmp_path / WORK).glob(".*")), "nothing half-written is left by an interruption"
    seen: list[int] = []
    summary = resumed(given, exported, tmp_path, report=lambda done, total, rejected: seen.append(done))
    assert seen[0] >= 60
    assert_finished(tmp_path, undisturbed, summary)


@pytest.mark.parametrize("moment", [2, 9, 20, RENAMES - 1, RENAMES])
def test_a_full_disk_ends_in_one_error_and_leaves_a_run_that_can_be_resumed(
    moment: int,
    given: Path,
    exported: Path,
    tmp_path: Path,
    undisturbed: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sync, seen = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal seen
        seen += 1
        if seen >= moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"No space left on device. When there is room .* with --resume"):
            batch_predict(given, model=exported, check="sample", output=tmp_path / OUTPUT)
    assert_finished(tmp_path, undisturbed, resumed(given, exported, tmp_path))


def test_a_second_run_to_the_same_output_is_refused_while_the_first_lives(
    given: Path, exported: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    with owned(tmp_path / WORK):
        code = (
            "import sys\nfrom toolkit.batch import batch_predict\n"
            "batch_predict(sys.argv[1], model=sys.argv[2], output=sys.argv[3], overwrite=True, resume=True)"
        )
        command = [sys.executable, "-c", code, str(given), str(exported), str(tmp_path / OUTPUT)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        expected = f"{tmp_path / WORK}: another batch-predict (process {os.getpid()}) is writing this output"
        assert done.returncode == 1 and expected in done.stderr
    assert not (tmp_path / WORK).exists(), "an empty work folder is removed"
    assert_finished(tmp_path, undisturbed, resumed(given, exported, tmp_path))


def test_the_lock_of_a_dead_process_does_not_keep_others_out(tmp_path: Path) -> None:
    work = tmp_path / WORK
    work.mkdir()
    (work / LOCK_FILE).write_text("999999\n")
    with owned(work):
        assert (work / LOCK_FILE).read_text() == f"{os.getpid()}\n"


def test_owned_takes_the_lock_that_others_find_when_the_owner_has_just_removed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the lock and locking it, its owner may finish and remove the folder."""
    work = tmp_path / WORK
    lock, tries = fcntl.flock, 0

    def slow(descriptor: int, operation: int) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            (work / LOCK_FILE).unlink()
            work.rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    with owned(work):
        assert tries == 2 and (work / LOCK_FILE).read_text() == f"{os.getpid()}\n"


def test_an_input_that_changes_while_it_is_scored_gives_no_output(given: Path, exported: Path, tmp_path: Path) -> None:
    def meddle(done: int, total: int, rejected: int) -> None:
        if done == total:
            os.utime(given, ns=(1, 1))

    from toolkit.errors import InputError

    with pytest.raises(InputError, match=r"input\.parquet: changed while it was being scored. Score it again"):
        batch_predict(given, model=exported, check="off", output=tmp_path / OUTPUT, report=meddle)
    assert not (tmp_path / OUTPUT).exists()


def test_overwrite_replaces_the_output_of_an_interrupted_run_too(
    given: Path, exported: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    """The old output stays until the new one is whole; --overwrite has to be said again."""
    (tmp_path / OUTPUT).write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        batch_predict(
            given, model=exported, check="sample", output=tmp_path / OUTPUT, overwrite=True, report=interrupt_at_once
        )
    assert (tmp_path / OUTPUT).read_bytes() == b"old"
    with pytest.raises(OutputError, match=r"out\.parquet: exists"):
        resumed(given, exported, tmp_path)
    assert_finished(tmp_path, undisturbed, resumed(given, exported, tmp_path, overwrite=True))


def interrupt_at_once(done: int, total: int, rejected: int) -> None:
    if done:
        raise KeyboardInterrupt
