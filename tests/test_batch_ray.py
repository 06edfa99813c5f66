"""The Ray engine on a real cluster of three nodes on this machine: the local run's bytes, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3_server
from numpy.typing import NDArray

from tests.test_batch_predict import with_bad_file
from toolkit.batch import Summary, batch_predict
from toolkit.batch.ray_worker import Worker
from toolkit.batch.storage import open_folder
from toolkit.datasets import read_datasets
from toolkit.errors import ClusterError, NotPositive
from toolkit.files import sha256_of
from toolkit.manifest import read_manifest

ROWS, SHARD_ROWS = 1500, 10
OUTPUT, REJECTED = "out.parquet", "out.rejected.parquet"
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of one CPU each, every one with a scheduler and an object store of its own."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {"RAY_USAGE_STATS_ENABLED": "0", **s3_server.ENVIRONMENT}.items():
            patched.setenv(name, value)  # what the nodes start with, their workers have
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        for _ in range(2):
            cluster.add_node(**NODE, wait=False)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """150 shards. Workers are told which they are: they need no such patch."""
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", SHARD_ROWS)


@pytest.fixture(scope="module")
def datasets(small_datasets: Path, exported: Path) -> NDArray[np.float32]:
    """float32 (2000, 24, 2)."""
    return read_datasets(small_datasets, read_manifest(exported).spec)


@pytest.fixture(scope="module")
def given(datasets: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three files: one row group, small row groups, and medium ones; two rows are no datasets."""
    lists: list[Any] = datasets[:ROWS].tolist()
    lists[5], lists[1200] = None, lists[1200][:-1]
    table = pa.table({"id": np.arange(ROWS), "x": pa.array(lists, pa.list_(pa.list_(pa.float32())))})
    folder = tmp_path_factory.mktemp("given")
    for name, first, rows, row_group_size in (("a", 0, 700, 700), ("b", 700, 300, 7), ("c", 1000, 500, 120)):
        pq.write_table(table.slice(first, rows), folder / f"{name}.parquet", row_group_size=row_group_size)
    return folder


@pytest.fixture(scope="module")
def undisturbed(given: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """sha256 of output and rejected rows of a local run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("toolkit.batch.shards.MAX_ROWS", SHARD_ROWS)
        summary = batch_predict(given, model=exported, check="sample", output=folder / OUTPUT)
    assert summary.rejected is not None
    return sha256_of(summary.output), sha256_of(summary.rejected)


@pytest.fixture
def on_ray(cluster: Any, given: Path, exported: Path, tmp_path: Path) -> Callable[..., Summary]:
    def score(**options: Any) -> Summary:
        ours = {"model": exported, "check": "sample", "output": tmp_path / OUTPUT, "ray_address": cluster.address}
        return batch_predict(given, engine="ray", **{**ours, **options})

    return score


def assert_finished(tmp_path: Path, undisturbed: tuple[str, str], summary: Summary) -> None:
    """The output is that of the local run, and nothing else is left."""
    assert (sha256_of(tmp_path / OUTPUT), sha256_of(tmp_path / REJECTED)) == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == [OUTPUT, REJECTED]
    assert (summary.rows_in, summary.rows_predicted, summary.rows_rejected) == (ROWS, ROWS - 2, 2)


def workers() -> list[int]:
    """Process ids of the workers that score, which Ray names after their class: our nodes' children."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, parent = (folder / "cmdline").read_bytes(), parent_of(int(folder.name))
            if command.startswith(b"ray::Worker") and parent_of(parent) == os.getpid():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return found


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_ray_gives_the_bytes_of_the_local_engine(
    on_ray: Callable[..., Summary], tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    seen: list[tuple[int, int, int]] = []
    summary = on_ray(report=lambda *counts: seen.append(counts))
    assert_finished(tmp_path, undisturbed, summary)
    assert seen == sorted(seen) and seen[0] == (0, ROWS, 0) and seen[-1] == (ROWS, ROWS, 2)
    assert len(seen) == 1 + len(range(0, ROWS, SHARD_ROWS)), "one receipt a shard"
    deadline = time.monotonic() + 20
    while workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers(), "workers end with the run"


def test_a_node_lost_without_grace_costs_no_row(
    cluster: Any, on_ray: Callable[..., Summary], tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    node = cluster.add_node(**NODE)
    lost: list[int] = []

    def lose(done: int, total: int, rejected: int) -> None:
        if done > ROWS // 10 and not lost:
            lost.append(done)
            cluster.remove_node(node, allow_graceful=False)

    assert_finished(tmp_path, undisturbed, on_ray(report=lose))
    assert lost and lost[0] < ROWS


def test_workers_that_are_killed_cost_no_row(
    on_ray: Callable[..., Summary], tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    killed: list[int] = []

    def kill(done: int, total: int, rejected: int) -> None:
        if done > len(killed) * ROWS // 4 and len(killed) < 3 and (running := workers()):
            os.kill(running[0], signal.SIGKILL)
            killed.append(running[0])

    assert_finished(tmp_path, undisturbed, on_ray(report=kill))
    assert len(killed) == 3


DEADLY_ROW = 300  # of the first file


class Deadly(Worker):
    """Exits in the middle of the shard that holds one certain row."""

    def _read(self, position: int, until: int) -> Iterator[pa.RecordBatch]:
        shard = self.assignment.shards[position]
        if shard.source == 0 and shard.first_row <= DEADLY_ROW < shard.first_row + shard.rows:
            self.die()
        return super()._read(position, until)

    def die(self) -> None:
        os._exit(1)


class DeadlyOnce(Deadly):
    def die(self) -> None:
        noted = Path(self.assignment.job.folder, "died.partial")
        if not noted.exists():
            noted.touch()
            os._exit(1)


@pytest.fixture
def class_travels() -> Iterator[None]:
    """Workers cannot import this module: its classes are sent as they are."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.usefixtures("class_travels")
def test_a_worker_that_exits_in_the_middle_of_its_shards_costs_no_row(
    on_ray: Callable[..., Summary], tmp_path: Path, undisturbed: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.batch.ray_engine.Worker", DeadlyOnce)
    assert_finished(tmp_path, undisturbed, on_ray())


@pytest.mark.usefixtures("class_travels")
def test_rows_with_which_worker_after_worker_dies_are_named(
    on_ray: Callable[..., Summary],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("toolkit.batch.ray_engine.Worker", Deadly)
    monkeypatch.setattr("toolkit.batch.ray_engine.MAX_DEATHS", 3)
    first = DEADLY_ROW // SHARD_ROWS * SHARD_ROWS
    expected = rf"a\.parquet, rows {first} to {first + SHARD_ROWS - 1}: 3 workers died with them \(.+\)\. Give workers"
    with pytest.raises(ClusterError, match=expected):
        on_ray()
    assert not (tmp_path / OUTPUT).exists()
    assert capfd.readouterr().out == "", "stdout is for results"


def test_nodes_without_the_toolkit_are_one_error(
    on_ray: Callable[..., Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.batch.ray_engine.Worker", Deadly)  # of a module that they lack
    expected = rf"workers die when they start \(ModuleNotFoundError: No module named '{__name__}'\)\. Install softplus-"
    with pytest.raises(ClusterError, match=expected):
        on_ray()


def test_ray_reads_from_an_object_store_and_writes_to_it(
    cluster: Any, given: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.batch.lock.SETTLE_SECONDS", 0.05)
    contents = []
    with s3_server.running(tmp_path / "server.log") as server:
        for name in ("b.parquet", "c.parquet"):
            open_folder(server.uri("in")).write(name, (given / name).read_bytes())
        for engine, address in (("local", None), ("ray", cluster.address)):
            summary = batch_predict(
                server.uri("in"),
                model=exported,
                check="off",
                output=server.uri(f"{engine}.parquet"),
                engine=engine,
                ray_address=address,
            )
            assert (summary.rows_in, summary.rows_rejected) == (800, 1)
            names = (f"{engine}.parquet", f"{engine}.rejected.parquet")
            contents.append([open_folder(server.uri("")).read(name) for name in names])
        assert server.requests("GET", "ray.parquet.unfinished/000000.predicted.arrow") == 1, "parts are read once"
    assert contents[0] == contents[1] and None not in contents[0]


DRIVER = """
import os, signal, sys
import toolkit.batch.shards
from toolkit.batch import batch_predict

toolkit.batch.shards.MAX_ROWS = int(sys.argv[5])

def die(done, total, rejected):
    if done > total // 3:
        os.kill(os.getpid(), signal.SIGKILL)

source, model, output, address = sys.argv[1:5]
batch_predict(source, model=model, output=output, check="sample", engine="ray", ray_address=address, report=die)
"""


@pytest.mark.parametrize("engine", ["ray", "local"])
def test_a_run_whose_driver_was_killed_is_finished_by_either_engine(
    engine: str, cluster: Any, given: Path, exported: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    arguments = [given, exported, tmp_path / OUTPUT, cluster.address, SHARD_ROWS]
    command = [sys.executable, "-c", DRIVER, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / OUTPUT).exists()
    seen: list[int] = []
    options: dict[str, Any] = {"engine": engine, "ray_address": cluster.address if engine == "ray" else None}
    summary = batch_predict(
        *[given],
        model=exported,
        check="sample",
        output=tmp_path / OUTPUT,
        resume=True,
        report=lambda done, *_: seen.append(done),
        **options,
    )
    assert_finished(tmp_path, undisturbed, summary)
    assert seen[0] >= ROWS // 3, "what was done is not done again"


def test_ctrl_c_leaves_a_run_that_can_be_resumed(
    cluster: Any,
    on_ray: Callable[..., Summary],
    tmp_path: Path,
    undisturbed: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(done: int, total: int, rejected: int) -> None:
        if done > total // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_ray(report=interrupt)
    assert not (tmp_path / OUTPUT).exists()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    assert_finished(tmp_path, undisturbed, on_ray(resume=True, ray_address=None))


def test_the_first_violation_in_input_order_is_raised_as_by_the_local_engine(
    on_ray: Callable[..., Summary], given: Path, exported_copy: Path, tmp_path: Path, datasets: NDArray[np.float32]
) -> None:
    with_bad_file(exported_copy, "model.float32.onnx", float(np.sort(datasets[:ROWS, 23, 1])[-30]))
    messages = []
    for output, score in (("local.parquet", batch_predict), ("ray.parquet", on_ray)):
        options = {} if score is on_ray else {"inputs": given}
        with pytest.raises(NotPositive) as error:
            score(model=exported_copy, file="model.float32.onnx", check="off", output=tmp_path / output, **options)
        messages.append(str(error.value).replace(output.removesuffix(".parquet"), "out"))
    assert messages[0] == messages[1]


def test_a_node_with_other_versions_is_refused(cluster: Any, on_ray: Callable[..., Summary], tmp_path: Path) -> None:
    metadata = tmp_path / "other" / "pyarrow-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: pyarrow\nVersion: 0.0.1\n")
    node = cluster.add_node(**NODE, env_vars={"PYTHONPATH": str(tmp_path / "other")})
    try:
        with pytest.raises(
            ClusterError, match=rf"node .+: has pyarrow 0\.0\.1, here it is {pa.__version__}\. Install the"
        ):
            on_ray()
    finally:
        cluster.remove_node(node)


def test_the_command_starts_a_cluster_of_its_own_and_prints_nothing_but_the_result(
    given: Path, exported: Path, tmp_path: Path, toolkit_process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    options = ["--model", exported, "--check", "off", "--output", tmp_path / OUTPUT, "--json"]
    done = toolkit_process("batch-predict", given, *options, "--engine", "ray", "--workers", 2)
    assert done.returncode == 3, (done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.endswith("datasets in 'x', 24 x 2, one list per observation"), "Ray is silent"
    assert json.loads(done.stdout)["rows_predicted"] == ROWS - 2
    assert pq.read_metadata(tmp_path / OUTPUT).num_rows == ROWS - 2


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10))
def test_whatever_dies_at_random_moments_costs_no_row(
    seed: int, cluster: Any, given: Path, exported: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    """Workers are killed all the time, a node is lost, and at last the driver is killed and another one resumes."""
    random = Random(seed)
    node = cluster.add_node(**NODE)
    driver_ends, node_ends = random.uniform(0.1, 0.9), random.uniform(0.1, 0.9)

    def disturb(done: int, total: int, rejected: int) -> None:
        nonlocal node
        if random.random() < 0.05 and (running := workers()):
            os.kill(random.choice(running), signal.SIGKILL)
        if done > node_ends * total and node is not None:
            cluster.remove_node(node, allow_graceful=False)
            node = None
        if done > driver_ends * total:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"model": exported, "check": "sample", "output": tmp_path / OUTPUT, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        batch_predict(given, engine="ray", ray_address=cluster.address, report=disturb, **options)
    driver_ends = 2.0
    summary = batch_predict(given, engine="ray", ray_address=cluster.address, report=disturb, **options)
    assert_finished(tmp_path, undisturbed, summary)
