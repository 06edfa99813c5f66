"""What a worker of a cluster refuses, what it hands back, and what is said before a cluster is asked for."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from toolkit.batch import batch_predict
from toolkit.batch.prepare import prepare
from toolkit.batch.ray_worker import Assignment, Outcome, Worker
from toolkit.batch.score import Scored
from toolkit.batch.shards import plan_shards
from toolkit.batch.work import RUN_FILE, begin, versions
from toolkit.errors import ClusterError, InputError, MissingExtra, ModelError, OutputError

SHARD_ROWS = 40


@pytest.fixture
def assignment(tmp_path: Path, small_datasets: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> Assignment:
    """200 datasets in one row group, five shards."""
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", SHARD_ROWS)
    pq.write_table(pq.read_table(small_datasets).slice(0, 5 * SHARD_ROWS), tmp_path / "input.parquet")
    prepared = prepare(
        tmp_path / "input.parquet",
        model=exported,
        output=None,
        file=None,
        check="off",
        column=None,
        order=None,
        strict_range=False,
    )
    prepared.paths.work.mkdir()
    begin(prepared.paths.work, prepared.key)
    content = prepared.job.scoring.read_bytes()
    name = prepared.job.scoring.name
    return Assignment(
        prepared.job,
        tuple(plan_shards(prepared.job.sources)),
        {name: content},
        {name: hashlib.sha256(content).hexdigest()},
        str(tmp_path),
        (prepared.paths.work / RUN_FILE).read_bytes(),
    )


def started(assignment: Assignment) -> Worker:
    worker = Worker()
    assert worker.start(assignment) is None
    return worker


def shards_of(outcome: Outcome) -> list[int]:
    assert outcome.failed is None, outcome.failed
    return [receipt.shard for receipt in outcome.receipts]


def test_worker_says_what_is_installed_in_words_that_any_version_reads() -> None:
    node, found = Worker().versions()
    assert found == versions() and found["pyarrow"] == pa.__version__ and node == socket.gethostname()
    assert type(node) is str and {type(each) for each in [*found, *found.values()]} == {str}


def test_worker_reads_a_row_group_once_while_it_is_asked_for_one_shard_after_the_other(
    assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit.batch.shards import read_shards

    begun: list[list[int]] = []

    def counted(sources: object, shards: tuple[object, ...], *rest: object) -> object:
        begun.append([shard.index for shard in shards])  # type: ignore[attr-defined]
        return read_shards(sources, shards, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("toolkit.batch.ray_worker.read_shards", counted)
    worker = started(assignment)
    assert shards_of(worker.score(0, 2, 4, False)) == [0, 1]
    assert shards_of(worker.score(2, 3, 4, False)) == [2]
    assert shards_of(worker.score(3, 4, 4, False)) == [3]
    assert begun == [[0, 1, 2, 3]]
    assert shards_of(worker.score(1, 2, 5, False)) == [1] and begun[1:] == [[1, 2, 3, 4]]


def test_worker_does_not_do_again_what_a_dead_one_finished(assignment: Assignment) -> None:
    (before,) = started(assignment).score(1, 2, 2, False).receipts
    part = assignment.job.folder / before.predicted.file
    written = part.stat().st_mtime_ns
    worker = started(assignment)
    assert shards_of(worker.score(0, 3, 5, True)) == [0, 1, 2]
    assert part.stat().st_mtime_ns == written
    part.write_bytes(b"damaged")
    (after,) = worker.score(1, 2, 2, True).receipts
    assert after == before and part.stat().st_mtime_ns != written


def test_worker_leaves_no_model_file_behind(
    assignment: Assignment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    worker = started(assignment)
    assert not list((tmp_path / "temporary").iterdir())
    assert shards_of(worker.score(0, 5, 5, False)) == [0, 1, 2, 3, 4]


def test_worker_refuses_model_files_that_arrived_damaged(assignment: Assignment) -> None:
    damaged = {name: content[:-1] for name, content in assignment.models.items()}
    error = Worker().start(replace(assignment, models=damaged))
    assert isinstance(error, ModelError) and "model.float32.tflite arrived damaged" in str(error)


def test_worker_refuses_a_folder_that_is_another_one_on_its_machine(assignment: Assignment) -> None:
    for folder in (assignment.job.folder.with_name("elsewhere"), assignment.job.folder):
        job = replace(assignment.job, folder=folder)
        error = Worker().start(replace(assignment, job=job, run=b"of another run"))
        assert isinstance(error, OutputError)
        assert str(error).startswith(f"node {socket.gethostname()}: does not see {folder}. The output has to be on a ")


def test_worker_refuses_an_input_that_its_machine_does_not_see(assignment: Assignment) -> None:
    worker = started(assignment)
    os.utime(assignment.job.sources[0].name, ns=(1, 1))
    position, error = worker.score(2, 5, 5, False).failed or (None, None)
    assert position == 2 and isinstance(error, InputError)
    assert f"node {socket.gethostname()}: {assignment.job.sources[0].name}: changed while" in str(error)
    assert "Inputs have to be where every node reads the same" in str(error)


def test_worker_reads_relative_names_where_the_run_was_started(
    assignment: Assignment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = replace(assignment.job.sources[0], name="input.parquet")
    relative = replace(assignment, job=replace(assignment.job, sources=(source,)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shards_of(started(relative).score(0, 1, 1, False)) == [0]
    error = Worker().start(replace(relative, here=str(tmp_path / "nowhere")))
    assert isinstance(error, InputError)
    assert "nowhere, in which input.parquet should be. Name inputs by absolute paths" in str(error)


def test_worker_hands_back_receipts_and_the_error_of_the_shard_that_failed(
    assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit.batch.score import score_rows

    class Unpicklable(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    def score(job: object, shard: object, *rest: object) -> Scored:
        if shard.index == 2:  # type: ignore[attr-defined]
            raise Unpicklable(1, 2)
        return score_rows(job, shard, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("toolkit.batch.ray_worker.score_rows", score)
    outcome = started(assignment).score(0, 5, 5, False)
    assert [receipt.shard for receipt in outcome.receipts] == [0, 1]
    position, error = pickle.loads(pickle.dumps(outcome)).failed
    assert position == 2 and str(error) == f"node {socket.gethostname()}: Unpicklable: 1 and 2"


def test_worker_names_the_shard_that_cannot_be_written(assignment: Assignment) -> None:
    """The shards after it may have been scored meanwhile."""
    blocked = assignment.job.folder / "000001.json"
    blocked.mkdir()
    outcome = started(assignment).score(0, 5, 5, False)
    position, error = outcome.failed or (None, None)
    assert [receipt.shard for receipt in outcome.receipts] == [0] and position == 1
    assert isinstance(error, IsADirectoryError) and error.filename2 == str(blocked)


def test_ray_that_is_not_installed_is_named_before_anything_is_written(
    small_datasets: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"--engine ray needs Ray, .* pip install 'softplus-toolkit\[ray\]'"):
        batch_predict(small_datasets, model=exported, output=tmp_path / "out.parquet", engine="ray")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", r"--ray-address ray://head:10001: not HOST:PORT. Run this on a machine of the cluster"),
        ("head", r"--ray-address head: not HOST:PORT"),
        ("127.0.0.1:1", r"the Ray cluster 127\.0\.0\.1:1: does not answer \(.*refused\). Look at it with `ray status`"),
        ("no.such.host.invalid:6379", r"the Ray cluster no\.such\.host\.invalid:6379: does not answer"),
    ],
)
def test_a_cluster_that_does_not_answer_is_named(
    address: str, message: str, small_datasets: Path, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match=message):
        batch_predict(
            small_datasets, model=exported, output=tmp_path / "out.parquet", engine="ray", ray_address=address
        )


def test_a_ray_address_without_the_ray_engine_is_wrong_usage(
    small_datasets: Path, toolkit_command: Callable[..., Result]
) -> None:
    done = toolkit_command("batch-predict", small_datasets, "--ray-address", "127.0.0.1:6379")
    assert done.exit_code == 2 and "--ray-address goes with --engine ray." in done.stderr
    with pytest.raises(ValueError, match="engine is 'spark', not one of local, ray"):
        batch_predict(small_datasets, engine="spark")


def test_violations_and_datasets_come_back_whole() -> None:
    """What leaves a worker is pickled: a violation has to bring the dataset for its replay file."""
    from toolkit.batch.checks import Violation

    violation = Violation("model.onnx", "a.parquet", 7, "v = 0", np.arange(6, dtype=np.float32).reshape(3, 2))
    back = pickle.loads(pickle.dumps(violation))
    assert str(back) == str(violation) and (back.row, back.output) == (7, "v = 0")
    np.testing.assert_array_equal(back.dataset, violation.dataset)
