"""A fault at every single operation that a run does on its files: the same command with --resume then finishes it."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from toolkit.batch import batch_predict
from toolkit.errors import InputError, OutputError, ToolkitError
from toolkit.files import sha256_of

ROWS, SHARD_ROWS = 60, 20
OUTPUT, REJECTED, WORK = "out.parquet", "out.rejected.parquet", "out.parquet.unfinished"


class Died(BaseException):
    """Stands for the end of the process: whatever is done to files afterwards does not happen."""


@dataclass
class Fault:
    """Counts the operations on files in a folder, and lets one go wrong.

    Attributes:
        at: number of the operation, from 1.
        kind: 'full': it and all after it fail with ENOSPC, but for removals; 'died': it and all after it do not happen,
            and where it is a write, half of it does.
    """

    folder: Path
    at: int
    kind: str
    seen: int = 0

    def watches(self, file: Any) -> bool:
        """Operations on other files, an engine's for instance, do not count."""
        path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.fspath(file)
        return str(path).startswith(str(self.folder))

    def meet(self, file: Any) -> bool:
        """Whether this operation is to go wrong."""
        if not self.watches(file):
            return False
        self.seen += 1
        return self.seen >= self.at

    def strike(self) -> None:
        if self.kind == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise Died


class FaultyFile(io.FileIO):
    """A file whose writes may go wrong."""

    fault: Fault

    def write(self, content: Any) -> int:
        if self.fault.meet(self.fileno()):
            if self.fault.kind == "died" and self.fault.seen == self.fault.at:
                super().write(memoryview(content).cast("B")[: len(memoryview(content).cast("B")) // 2])
            self.fault.strike()
        return super().write(content)


@contextmanager
def faults(fault: Fault) -> Iterator[Fault]:
    """Writes, syncs, renames, removals and the making of folders go through `fault`."""
    with pytest.MonkeyPatch.context() as patch:

        def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
            def operation(*arguments: Any, **options: Any) -> Any:
                removes = real.__name__ in ("unlink", "rmtree")
                if fault.meet(arguments[0]) and not (removes and fault.kind == "full"):
                    fault.strike()
                return real(*arguments, **options)

            return operation

        for name in ("fsync", "replace", "unlink", "mkdir", "ftruncate", "pwrite"):
            patch.setattr(os, name, wrapped(getattr(os, name)))
        patch.setattr(shutil, "rmtree", wrapped(shutil.rmtree))
        opened = io.open

        def faulty_open(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if "w" not in mode or not fault.watches(file):
                return opened(file, mode, *arguments, **options)
            if fault.meet(file):
                fault.strike()
            raw = FaultyFile(file, "w")
            raw.fault = fault
            return raw

        patch.setattr(io, "open", faulty_open)
        yield fault


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", SHARD_ROWS)


@pytest.fixture(scope="module")
def input_file(small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 datasets, which make three shards; row 3 and row 45 are none."""
    lists: list[Any] = pq.read_table(small_datasets)["x"].slice(0, ROWS).to_pylist()
    lists[3], lists[45] = None, lists[45][:-1]
    path = tmp_path_factory.mktemp("given") / "input.parquet"
    table = pa.table({"id": np.arange(ROWS), "x": pa.array(lists, pa.list_(pa.list_(pa.float32())))})
    pq.write_table(table, path, row_group_size=25)
    return path


@dataclass(frozen=True)
class Scene:
    """One input, one model and the bytes of an undisturbed run."""

    given: Path
    model: Path
    folder: Path
    undisturbed: tuple[str, str]

    def run(self, **options: Any) -> None:
        options = {"model": self.model, "check": "off", "workers": 1, "output": self.folder / OUTPUT, **options}
        batch_predict(self.given, **options)

    def assert_finished(self, where: object) -> None:
        hashes = sha256_of(self.folder / OUTPUT), sha256_of(self.folder / REJECTED)
        assert hashes == self.undisturbed, where
        assert sorted(os.listdir(self.folder)) == [OUTPUT, REJECTED], where

    def assert_nothing_false(self, where: object, old: bytes | None = None) -> None:
        """What stands at the output's place is the whole result, or what stood there before."""
        if (self.folder / OUTPUT).exists():
            if old is not None and (self.folder / OUTPUT).read_bytes() == old:
                return
            assert sha256_of(self.folder / OUTPUT) == self.undisturbed[0], where
            assert sha256_of(self.folder / REJECTED) == self.undisturbed[1], where
        else:
            assert old is None, f"{where}: the old output is gone"


@pytest.fixture
def scene(input_file: Path, exported: Path, tmp_path: Path) -> Scene:
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    batch_predict(input_file, model=exported, check="off", workers=2, output=undisturbed / OUTPUT)
    hashes = sha256_of(undisturbed / OUTPUT), sha256_of(undisturbed / REJECTED)
    folder = tmp_path / "work"
    folder.mkdir()
    return Scene(input_file, exported, folder, hashes)


def operations(scene: Scene, **options: Any) -> int:
    """How many operations on files an undisturbed run does."""
    with faults(Fault(scene.folder, 10**9, "full")) as fault:
        scene.run(**options)
    return fault.seen


def empty(scene: Scene) -> None:
    for name in os.listdir(scene.folder):
        path = scene.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("kind", ["full", "died"])
def test_resume_finishes_after_a_fault_at_any_operation(kind: str, scene: Scene) -> None:
    count = operations(scene)
    scene.assert_finished("no fault")
    assert count > 60, "run.json, three parts and receipts, two rejected parts and two results: each many operations"
    torn = 0
    for at in range(1, count + 1):
        empty(scene)
        with faults(Fault(scene.folder, at, kind)):
            try:
                scene.run()
            except (OutputError, Died) as error:
                if kind == "full":
                    assert "No space left on device. When there is room" in str(error), at
        scene.assert_nothing_false(at)
        torn += any(path.name.endswith(".partial") for path in scene.folder.rglob("*"))
        scene.run(resume=True, workers=1 + at % 2)
        scene.assert_finished(at)
    assert (torn > 10) == (kind != "full"), "a process that dies leaves half of a file, or this test could not fail"


@pytest.mark.parametrize("kind", ["full", "died"])
def test_overwrite_leaves_the_old_output_until_the_new_one_is_whole(kind: str, scene: Scene) -> None:
    (scene.folder / OUTPUT).write_bytes(b"old")
    count = operations(scene, overwrite=True)
    for at in range(count - 40, count + 1):  # those before do not know where the result will be
        empty(scene)
        (scene.folder / OUTPUT).write_bytes(b"old")
        (scene.folder / REJECTED).write_bytes(b"old rejects")
        with faults(Fault(scene.folder, at, kind)), suppress(OutputError, Died):
            scene.run(overwrite=True)
        scene.assert_nothing_false(at, b"old")
        scene.run(resume=True, overwrite=True)
        scene.assert_finished(at)


def interrupted(scene: Scene) -> Path:
    """A run that stopped when all shards were done; its work folder."""

    def stop(done: int, total: int, rejected: int = 0) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.run(report=stop)
    return scene.folder / WORK


def test_any_flipped_bit_of_a_part_or_receipt_is_found(scene: Scene) -> None:
    """Twenty places in each file; a receipt that still says the same after the change may stand."""
    rng = random.Random(1)
    work = interrupted(scene)
    kept = {path.name: path.read_bytes() for path in work.iterdir() if path.name not in ("lock", "run.json")}
    assert len(kept) == 8, "three parts, two of rejected rows, three receipts"
    run = (work / "run.json").read_bytes()
    for round in range(10):
        work.mkdir(exist_ok=True)
        (work / "run.json").write_bytes(run)
        for name, content in kept.items():
            flipped = bytearray(content)
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            (work / name).write_bytes(flipped)
        scene.run(resume=True)
        scene.assert_finished(round)
        (scene.folder / OUTPUT).unlink()
        (scene.folder / REJECTED).unlink()


@pytest.mark.parametrize("name", ["000001.json", "000001.predicted.arrow", "000000.rejected.arrow"])
@pytest.mark.parametrize("change", ["gone", "empty", "half", "twice", "another"])
def test_a_damaged_part_or_receipt_is_done_again(name: str, change: str, scene: Scene) -> None:
    work = interrupted(scene)
    content = (work / name).read_bytes()
    other = name.replace("000001", "000002").replace("000000", "000002")
    changed = {
        "empty": b"",
        "half": content[: len(content) // 2],
        "twice": content * 2,
        "another": (work / other).read_bytes(),
    }
    (work / name).unlink()
    if change != "gone":
        (work / name).write_bytes(changed[change])
    scene.run(resume=True)
    scene.assert_finished((name, change))


def test_files_that_do_not_belong_to_the_run_are_ignored_and_removed(scene: Scene) -> None:
    work = interrupted(scene)
    (work / "000009.json").write_text("{}")
    (work / "000003.predicted.arrow").write_bytes(b"?")
    (work / "notes").mkdir()
    (work / "notes" / "todo.txt").write_text("?")
    (work / "link").symlink_to(scene.given)
    scene.run(resume=True)
    scene.assert_finished("extra files")
    assert scene.given.is_file(), "a link is removed, not what it leads to"


def test_a_receipt_of_another_run_does_not_count(scene: Scene) -> None:
    work = interrupted(scene)
    receipt = json.loads((work / "000001.json").read_text())
    (work / "000001.json").write_text(json.dumps({**receipt, "run": "0" * 64}))
    seen: list[int] = []
    scene.run(resume=True, report=lambda done, total, rejected=0: seen.append(done))
    assert seen[0] == ROWS - SHARD_ROWS
    scene.assert_finished("another run's receipt")


def test_an_input_that_vanishes_while_it_is_scored_is_named_and_the_run_goes_on_when_it_is_back(
    scene: Scene, tmp_path: Path
) -> None:
    mine = tmp_path / "vanishing.parquet"
    shutil.copy2(scene.given, mine)

    def vanish(done: int, total: int, rejected: int = 0) -> None:
        if done == total:
            mine.rename(tmp_path / "elsewhere")

    options: dict[str, Any] = {"model": scene.model, "check": "off", "output": scene.folder / OUTPUT}
    with pytest.raises(InputError, match=r"vanishing\.parquet: gone while it was being scored. Put it back and finish"):
        batch_predict(mine, report=vanish, **options)
    assert os.listdir(scene.folder) == [WORK]
    (tmp_path / "elsewhere").rename(mine)
    batch_predict(mine, resume=True, **options)
    assert sorted(os.listdir(scene.folder)) == [OUTPUT, REJECTED]


def test_the_wall_clock_may_jump(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    work = interrupted(scene)
    for number, path in enumerate(sorted(work.iterdir())):
        os.utime(path, (number * 10**8, 10**9 - number * 10**8))
    monkeypatch.setattr(time, "time", lambda: -1e9)
    monkeypatch.setattr(time, "time_ns", lambda: -(10**18))
    seen: list[int] = []
    scene.run(resume=True, report=lambda done, total, rejected=0: seen.append(done))
    assert seen == [ROWS], "nothing is done again"
    scene.assert_finished("another clock")


@pytest.mark.parametrize("role", ["read", "work", "write"])
def test_a_thread_that_dies_ends_the_run_and_resume_finishes_it(
    role: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SystemExit ends a thread without a word, unless somebody listens."""
    places = {
        "read": "toolkit.batch.pipeline.read_shards",
        "work": "toolkit.batch.pipeline.score_rows",
        "write": "toolkit.batch.pipeline.write_shard",
    }

    def die(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(places[role], die)
        with pytest.raises(SystemExit):
            scene.run()
    assert os.listdir(scene.folder) == [WORK]
    assert threading.active_count() == 1
    scene.run(resume=True)
    scene.assert_finished(role)


def test_an_outputs_folder_that_goes_away_is_one_error(scene: Scene) -> None:
    def vanish(done: int, total: int, rejected: int = 0) -> None:
        if done == total:
            scene.folder.rename(scene.folder.with_name("away"))

    with pytest.raises(ToolkitError) as raised:
        scene.run(report=vanish)
    assert "\n" not in str(raised.value) and str(scene.folder) in str(raised.value)
    scene.folder.with_name("away").rename(scene.folder)
    scene.run(resume=True)
    scene.assert_finished("the folder is back")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_one_error(scene: Scene) -> None:
    scene.folder.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied. When there is room and permission"):
        scene.run()
    scene.folder.chmod(0o700)
    scene.run(resume=True)
    scene.assert_finished("writable")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root may mount")
def test_a_disk_that_is_really_full_ends_in_one_error(scene: Scene) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(scene.folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        with pytest.raises(OutputError, match="No space left on device. When there is room"):
            scene.run()
        assert not (scene.folder / OUTPUT).exists()
        subprocess.run(["mount", "-o", "remount,size=4m", str(scene.folder)], check=True)
        scene.run(resume=True)
        scene.assert_finished("there is room now")
    finally:
        subprocess.run(["umount", str(scene.folder)], check=True)


# A server of runs: it has loaded everything, and each run is a fork of it, so that a process costs little.
FORKING = """
import os, sys
import toolkit.batch.shards
from toolkit.batch import batch_predict

toolkit.batch.shards.MAX_ROWS = 20
source, model, output = sys.argv[1:]
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        os.setsid()
        batch_predict(source, model=model, output=output, check="off", workers=2, resume=True)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def kill_at_random(scene: Scene, kills: int, how: int, seed: int) -> None:
    """Runs are killed after random times, each resuming the one before, until one ends; again and again."""
    rng = random.Random(seed)
    arguments = [str(scene.given), str(scene.model), str(scene.folder / OUTPUT)]
    command = [sys.executable, "-W", "ignore", "-c", FORKING, *arguments]
    killed, longest = 0, 0.3
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin and server.stdout and server.stdout.readline() == "ready\n"

        def ask() -> int:
            assert server.stdin and server.stdout
            server.stdin.write("run\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        try:
            begun = time.monotonic()
            ask()
            assert server.stdout.readline() == "0\n"
            longest = time.monotonic() - begun
            scene.assert_finished("undisturbed")
            empty(scene)
            while killed < kills:
                child = ask()
                time.sleep(rng.uniform(0, 1.1 * longest))
                with suppress(ProcessLookupError):  # it has ended, and its parent knows
                    os.kill(child, how)
                ended = int(server.stdout.readline())
                if ended == 0:
                    scene.assert_finished(killed)
                    empty(scene)
                    continue
                assert ended == -how
                killed += 1
                scene.assert_nothing_false(killed)
            ask()
            assert server.stdout.readline() == "0\n"
            scene.assert_finished("in the end")
        finally:
            server.stdin.close()
            server.kill()


def test_runs_killed_at_random_moments_lose_and_double_nothing(scene: Scene) -> None:
    kill_at_random(scene, 50, signal.SIGKILL, seed=int.from_bytes(os.urandom(4), "little"))


@pytest.mark.soak
def test_runs_killed_at_very_many_random_moments_lose_and_double_nothing(scene: Scene) -> None:
    kill_at_random(scene, 2000, signal.SIGKILL, seed=1)
    kill_at_random(scene, 200, signal.SIGTERM, seed=2)
