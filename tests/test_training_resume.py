"""A training run that is stopped at any moment goes on to the very model directory of an undisturbed one."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import toolkit.training
from tests.training_files import write_training_file
from toolkit.errors import OutputError
from toolkit.manifest import read_manifest
from toolkit.trainer import Settings
from toolkit.training import train

PARAMETERS = ["p", "q"]
KILLED_WITHIN_SECONDS = 1.0  # of the moment at which training begins; a quiet machine trains and writes in about that
SETTINGS = Settings(epochs=3, batch_size=64, exchangeable_rows=True, shuffled_rows=True)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 datasets of 8 x 2."""
    rng = np.random.default_rng(0)
    true = rng.uniform(1, 2, (400, 2))
    x = true[:, None] + rng.normal(0, 1, (400, 8, 2))
    path = tmp_path_factory.mktemp("resume") / "d.parquet"
    return write_training_file(path, x, {"p": true[:, 0], "q": true[:, 1]})


@pytest.fixture(scope="module")
def undisturbed(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "model"
    train([datasets], PARAMETERS, output=output, settings=SETTINGS)
    return output


class Died(BaseException):
    """Stands for the end of the process."""


def assert_same_model(output: Path, other: Path) -> None:
    """Weights to the bit, and everything else that does not hold a time."""
    import keras

    assert sorted(path.name for path in output.iterdir()) == sorted(path.name for path in other.iterdir())
    one, two = (keras.saving.load_model(path / "model.keras", compile=False).get_weights() for path in (output, other))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))
    assert read_manifest(output) == read_manifest(other)
    assert (output / "calibration.parquet").read_bytes() == (other / "calibration.parquet").read_bytes()


def died_in(patch: pytest.MonkeyPatch, name: str, at: int) -> None:
    """The process ends at the renaming number `at` of a file called so: half of the new one is on the disk."""
    real = os.replace
    seen = 0

    def replace(source: Any, target: Any) -> None:
        nonlocal seen
        if Path(target).name == name:
            seen += 1
            if seen == at:
                content = Path(source).read_bytes()
                Path(source).write_bytes(content[: len(content) // 2])
                patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # the dead remove nothing
                raise Died
        real(source, target)

    patch.setattr(os, "replace", replace)


@pytest.mark.parametrize(
    ("name", "at", "begins_with"),
    [
        ("checkpoint.npz", 2, "resuming after epoch 1"),
        ("model.keras", 1, "resuming after epoch 3"),
        ("manifest.json", 1, "resuming after epoch 3"),
    ],
)
def test_a_run_that_dies_while_it_writes_goes_on_to_the_same_model(
    name: str, at: int, begins_with: str, datasets: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        died_in(patch, name, at)
        train([datasets], PARAMETERS, output=output, settings=SETTINGS)
    assert not (output / "manifest.json").exists()
    assert list(output.rglob(".*.partial")), "half of a file is there, or this test could not fail"
    lines: list[str] = []
    train([datasets], PARAMETERS, output=output, settings=SETTINGS, resume=True, say=lines.append)
    assert lines[0] == begins_with
    assert_same_model(output, undisturbed)


def test_a_run_that_dies_after_its_last_file_is_finished_by_resume(
    datasets: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model"

    def died(output: Path) -> None:
        raise Died

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(toolkit.training, "remove_training_folder", died)
        train([datasets], PARAMETERS, output=output, settings=SETTINGS)
    assert (output / ".training").exists()
    assert train([datasets], PARAMETERS, output=output, settings=SETTINGS, resume=True) == read_manifest(output)
    assert_same_model(output, undisturbed)
    with pytest.raises(OutputError, match="already holds a model"):
        train([datasets], PARAMETERS, output=output, settings=SETTINGS, resume=True)


def test_a_disk_that_is_full_at_the_end_leaves_what_can_be_resumed(
    datasets: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    real = os.fsync

    def full(descriptor: int) -> None:
        if "model.keras" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="model: cannot be written: No space left on device. When there is room"):
            train([datasets], PARAMETERS, output=output, settings=SETTINGS)
    assert not list(output.rglob(".*.partial"))
    lines: list[str] = []
    train([datasets], PARAMETERS, output=output, settings=SETTINGS, resume=True, say=lines.append)
    assert lines[0] == "resuming after epoch 3"
    assert_same_model(output, undisturbed)


def stop_after(epoch: int) -> Callable[[str], None]:
    def say(line: str) -> None:
        if line.startswith(f"epoch {epoch} "):
            raise Died

    return say


@pytest.fixture(scope="module")
def cut(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output whose run ended after an epoch. Copy it."""
    output = tmp_path_factory.mktemp("cut") / "model"
    with pytest.raises(Died):
        train([datasets], PARAMETERS, output=output, settings=SETTINGS, say=stop_after(1))
    return output


@pytest.fixture
def cut_copy(cut: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cut, tmp_path / "model"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": Settings(epochs=3, batch_size=32, seed=4)}, "had --batch-size 64, not 32; --seed 0, not 4; --ex"),
        ({"parameters": ["q", "p"]}, "had other datasets, parameters or columns. Repeat its command, or start afresh"),
        ({"validation": True}, "had other datasets, parameters or columns"),
    ],
)
def test_resume_names_what_has_changed_and_changes_nothing(
    change: dict[str, Any], said: str, datasets: Path, cut_copy: Path
) -> None:
    before = (cut_copy / ".training" / "checkpoint.npz").read_bytes()
    if "validation" in change:
        table = pq.read_table(datasets)
        pq.write_table(table.slice(0, 50), cut_copy.parent / "v.parquet")
        change = {"validation": cut_copy.parent / "v.parquet"}
    options: dict[str, Any] = {"parameters": PARAMETERS, "settings": SETTINGS, **change}
    with pytest.raises(OutputError) as caught:
        train([datasets], output=cut_copy, resume=True, **options)
    assert said in str(caught.value)
    assert (cut_copy / ".training" / "checkpoint.npz").read_bytes() == before


def test_resume_refuses_datasets_that_were_written_anew(datasets: Path, cut_copy: Path) -> None:
    times = datasets.stat()
    os.utime(datasets, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    try:
        with pytest.raises(OutputError, match="had other datasets"):
            train([datasets], PARAMETERS, output=cut_copy, settings=SETTINGS, resume=True)
    finally:
        os.utime(datasets, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("damage", ["half", "a byte", "empty", "another file"])
def test_resume_refuses_a_damaged_checkpoint(damage: str, datasets: Path, cut_copy: Path) -> None:
    checkpoint = cut_copy / ".training" / "checkpoint.npz"
    content = bytearray(checkpoint.read_bytes())
    if damage == "a byte":
        content[len(content) // 2] ^= 1
    elif damage == "another file":
        np.savez(checkpoint, state=np.array("{}"))
        content = bytearray(checkpoint.read_bytes())
    checkpoint.write_bytes(content[: {"half": len(content) // 2, "empty": 0}.get(damage)])
    with pytest.raises(OutputError, match=r"checkpoint.npz: damaged, or of another version. Start afresh without"):
        train([datasets], PARAMETERS, output=cut_copy, settings=SETTINGS, resume=True)


def test_resume_refuses_the_checkpoint_of_another_network(
    datasets: Path, cut_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.model.FILTERS", (16, 32, 64))  # as another version of this toolkit may have them
    with pytest.raises(OutputError, match="checkpoint.npz: is of another network. Start afresh without --resume"):
        train([datasets], PARAMETERS, output=cut_copy, settings=SETTINGS, resume=True)


def test_without_resume_a_run_starts_afresh_and_says_what_it_throws_away(datasets: Path, cut_copy: Path) -> None:
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if line.startswith("warning"):  # before the first epoch
            raise Died

    with pytest.raises(Died):
        train([datasets], PARAMETERS, output=cut_copy, settings=SETTINGS, say=say)
    assert lines[0] == (
        f"{cut_copy / '.training'}: what an interrupted run has done is thrown away; --resume would have gone on"
    )
    assert not (cut_copy / ".training").exists()


def test_two_runs_do_not_write_one_model(datasets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model" / ".training"
    folder.mkdir(parents=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="model: another toolkit train is at work here. Wait for it, or choose"):
            train([datasets], PARAMETERS, output=tmp_path / "model", settings=SETTINGS)
    finally:
        os.close(descriptor)


# ---- processes that are really stopped ----


def start(datasets: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "toolkit", "train", str(datasets), "--parameters", ",".join(PARAMETERS)]
    command += ["--output", str(output), "--epochs", "3", "--batch-size", "64", "--exchangeable-rows", "--shuffle-rows"]
    return subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True)


def test_ctrl_c_ends_in_one_line_and_resume_goes_on(datasets: Path, undisturbed: Path, tmp_path: Path) -> None:
    said = []
    with start(datasets, tmp_path / "model") as run:
        assert run.stderr is not None
        for line in run.stderr:
            said.append(line)
            if line.startswith("epoch 1 "):
                run.send_signal(signal.SIGINT)
    assert run.returncode == 130
    assert said[-1] == "Interrupted. Nothing that is done is lost: the same command with --resume goes on.\n"
    assert "Traceback" not in "".join(said)
    train([datasets], PARAMETERS, output=tmp_path / "model", settings=SETTINGS, resume=True)
    assert_same_model(tmp_path / "model", undisturbed)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root may mount")
def test_a_disk_that_is_really_full_ends_in_one_error(datasets: Path, undisturbed: Path, tmp_path: Path) -> None:
    """It holds one checkpoint, and not a second beside it."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=768k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        with pytest.raises(OutputError, match="No space left on device. When there is room and permission, the same"):
            train([datasets], PARAMETERS, output=folder / "model", settings=SETTINGS)
        subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
        lines: list[str] = []
        train([datasets], PARAMETERS, output=folder / "model", settings=SETTINGS, resume=True, say=lines.append)
        assert lines[0] == "resuming after epoch 1"
        assert_same_model(folder / "model", undisturbed)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_runs_killed_at_random_moments_end_in_the_same_model(datasets: Path, undisturbed: Path, tmp_path: Path) -> None:
    random.seed(0)
    killed = 0
    for attempt in range(12):
        output = tmp_path / str(attempt)
        while not (output / "manifest.json").exists() or (output / ".training").exists():
            with start(datasets, output, "--resume") as run:
                assert run.stderr is not None
                for line in run.stderr:  # from here on it trains and writes
                    if line.startswith("resuming"):
                        break
                time.sleep(random.uniform(0, KILLED_WITHIN_SECONDS))
                run.kill()
            killed += run.returncode == -signal.SIGKILL
        assert_same_model(output, undisturbed)
        assert not list(output.rglob(".*"))
    assert killed >= 12
