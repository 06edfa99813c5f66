"""`toolkit train --simulator`: which datasets it trains on, what becomes of bad ones, and interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from toolkit.datasets import read_datasets
from toolkit.errors import InputError, OutputError, SimulatorError
from toolkit.manifest import read_manifest
from toolkit.simulate import simulate
from toolkit.simulator import BLOCK, open_simulator
from toolkit.trainer import Settings
from toolkit.training import train
from toolkit.training_data import Pair, TrainingData
from toolkit.training_files import open_training_data
from toolkit.training_simulator import simulated_data, with_simulated

SHORT = Settings(epochs=2, batch_size=64)

# The parameter p says which random numbers a dataset is made of, and so does every row of it. Blocks come in any order.
TELLING = """
import os, time
import numpy as np

COLUMNS = ("first", "second")
PARAMETERS = ("p", "sign", "q")

def simulate(count, rng):
    p = rng.uniform(1, 2, count)
    datasets = np.broadcast_to(p[:, None, None], (count, 6, 2)).copy()
    parameters = np.stack([p, rng.normal(size=count), rng.uniform(5, 6, count)], axis=1)
    time.sleep(0.02 * rng.random())
    return datasets, parameters
"""


def write(folder: Path, change: str = "", name: str = "sim.py") -> str:
    """The simulator above, with a change to what it returns."""
    (folder / name).write_text(TELLING.replace("    return", f"    {change}\n    return"))
    return f"{folder / name}:simulate"


@contextmanager
def opened(function: str, workers: int = 2, **options: Any) -> Iterator[TrainingData]:
    options = {"parameters": ["p"], "count": 1000, **options}
    with open_simulator(function, workers=workers) as simulator:
        yield simulated_data(simulator, options.pop("parameters"), **options)


def weights_of(directory: Path) -> list[np.ndarray]:
    import keras

    return keras.saving.load_model(directory / "model.keras", compile=False).get_weights()


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# ---- which datasets ----


def drawn(entropy: list[int], count: int = BLOCK) -> np.ndarray:
    """p as the simulator draws it, from the rule that the message of every failure states."""
    return np.random.default_rng(entropy).uniform(1, 2, count).astype(np.float32)


def ps(pairs: Iterator[Pair]) -> np.ndarray:
    found = []
    for datasets, targets in pairs:
        np.testing.assert_array_equal(datasets, np.broadcast_to(targets[:, :1, None], datasets.shape))
        found.append(targets[:, 0])
    return np.concatenate(found)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_epoch_follows_from_seed_epoch_and_block_alone(tmp_path: Path, workers: int) -> None:
    with opened(write(tmp_path), workers, seed=7) as data:
        for epoch in (2, 1):  # in any order: a resumed run begins later
            found = ps(data.batches(epoch, 64, exchangeable_rows=False))
            blocks = [drawn([7, block, epoch, 1], min(BLOCK, 1000 - block * BLOCK)) for block in range(4)]
            np.testing.assert_array_equal(np.sort(found), np.sort(np.concatenate(blocks)))
            assert not np.array_equal(found, np.concatenate(blocks)), "blocks are not mixed"
            np.testing.assert_array_equal(found, ps(data.batches(epoch, 64, exchangeable_rows=False)))
        assert data.training_count == 1000
        assert data.pieces.different == 4000  # as often as they were asked for here


def test_no_dataset_is_met_twice(tmp_path: Path) -> None:
    function = write(tmp_path)
    sets: dict[str, set[float]] = {}
    with opened(function, seed=1) as data:
        for epoch in (0, 1, 2):
            sets[f"epoch {epoch}"] = set(ps(data.batches(epoch, 64, exchangeable_rows=True)).tolist())
        assert data.pieces.different == 2000  # no step is made in epoch 0
        sets["validation"] = set(data.validation_targets[:, 0].tolist())
        sets["calibration"] = set(data.calibration_targets[:, 0].tolist())
    for seed in (0, 1, 2):  # what one evaluates on is made by `toolkit simulate`, with whatever seed
        simulate(function, 1000, tmp_path / "d.parquet", seed=seed)
        sets[f"file of seed {seed}"] = set(pq.read_table(tmp_path / "d.parquet")["p"].to_pylist())
    assert {name: len(each) for name, each in sets.items() if name[0] in "vc"} == {
        "validation": 100,
        "calibration": 100,
    }
    # p has 2^23 values: of 8,200 draws 4 are expected to meet by chance, a set shared would be 100 or more.
    assert sum(map(len, sets.values())) - len(set().union(*sets.values())) < 20


def test_moments_are_those_of_a_survey_and_ranges_of_all_that_was_seen(tmp_path: Path) -> None:
    with opened(write(tmp_path), seed=3) as data:
        survey = np.concatenate([drawn([3, block, 0, 3], min(BLOCK, 1000 - block * BLOCK)) for block in range(4)])
        np.testing.assert_allclose(data.parameter_means, [survey.mean(dtype=np.float64)], rtol=1e-6)
        np.testing.assert_allclose(data.column_variances, [survey.var(dtype=np.float64)] * 2, rtol=1e-6)
        seen = [survey, data.validation_targets[:, 0], data.calibration_targets[:, 0]]
        for epoch in (1, 2):
            assert data.ranges.column_minima.tolist() == [np.concatenate(seen).min()] * 2
            assert data.ranges.parameter_maxima.tolist() == [np.concatenate(seen).max()]
            seen.append(ps(data.batches(epoch, 64, exchangeable_rows=False)))
        assert len(set(data.ranges.column_minima)) == 1


def test_parameters_are_chosen_by_name_and_only_those_must_be_positive(tmp_path: Path) -> None:
    with opened(write(tmp_path), parameters=["q", "p"]) as data:  # "sign" is negative half of the time
        assert data.spec.parameters == ("q", "p")
        targets = np.concatenate([targets for _, targets in data.batches(1, 64, exchangeable_rows=False)])
        assert len(targets) == 1000
        assert (targets > [5, 1]).all() and (targets < [6, 2]).all()
        assert data.pieces.warnings() == []
    with pytest.raises(SimulatorError, match=r"no parameter 'sig'. Did you mean 'sign'\? It has: p, sign, q."):
        opened(write(tmp_path), parameters=["sig"]).__enter__()
    with pytest.raises(InputError, match="--datasets-per-epoch 100: training takes 200 or more."):
        opened(write(tmp_path), count=100).__enter__()


def test_files_and_a_simulator_share_every_epoch(tmp_path: Path) -> None:
    function, path = write(tmp_path), tmp_path / "d.parquet"
    simulate(function, 1500, path, seed=5)
    files = open_training_data([path], ["p"])
    of_files = set(ps(files.batches(1, 64, exchangeable_rows=False)).tolist())
    held_out = files.validation_targets.copy()
    with open_simulator(function, workers=2) as simulator:
        data = with_simulated(files, simulator, count=600)
        assert data.training_count == 1200 + 600
        np.testing.assert_array_equal(data.validation_targets, held_out)
        for epoch in (1, 2):
            found = ps(data.batches(epoch, 64, exchangeable_rows=False))
            fresh = np.concatenate([drawn([0, block, epoch, 1], min(BLOCK, 600 - block * BLOCK)) for block in range(3)])
            assert len(found) == 1800
            assert set(found.tolist()) == of_files | set(fresh.tolist())
            # Mixed, a third of every part is fresh; in its first half 300 +- 14 would be.
            assert 200 < np.isin(found[:900], fresh).sum() < 400
        assert data.pieces.different == 1200 + 2 * 600
        assert data.fingerprint != files.fingerprint
    other = write(tmp_path, "datasets = datasets[:, :5]", "other.py")
    with (
        open_simulator(other, workers=1) as simulator,
        pytest.raises(SimulatorError, match=r"makes 5 rows x \(first, second\) -> p, the files hold 6 rows x"),
    ):
        with_simulated(files, simulator, count=600)


# ---- datasets that are no good ----


def test_what_is_no_good_is_left_out_counted_and_named(tmp_path: Path) -> None:
    # In 1 of 100 datasets a value that is not finite, in another a parameter of 0.
    change = "datasets[10::100, 3, 1] = np.nan; parameters[20::100, 0] = 0"
    with opened(write(tmp_path, change), seed=4) as data:
        surveyed = data.pieces.warnings()
        found = ps(data.batches(1, 64, exchangeable_rows=False))
        blocks = []
        for block in range(4):
            p = drawn([4, block, 1, 1], min(BLOCK, 1000 - block * BLOCK))
            place = np.arange(len(p)) % 100
            blocks.append(p[(place != 10) & (place != 20)])
        np.testing.assert_array_equal(np.sort(found), np.sort(np.concatenate(blocks)))
        (warning,) = data.pieces.warnings()
        lost = 1000 - len(found)
        assert lost == 4 * 6
        assert warning.startswith(f"warning: {lost} of 1,000 datasets of epoch 1 are left out. The first: ")
        assert "block 0 of epoch 1, seed 4: datasets[10, 3, 1] is nan. Return numbers that are finite" in warning
        assert warning.endswith("\nTo see it again: simulate(256, np.random.default_rng([4, 0, 1, 1]))")
        assert [line.split(" are ")[0] for line in surveyed] == [
            "warning: 24 of 1,000 datasets of the survey",
            "warning: 2 of 100 datasets of the validation",
            "warning: 2 of 100 datasets of the calibration",
        ]
        assert data.pieces.configuration()["datasets_left_out"] == 24 + 2 + 2 + lost
        assert data.pieces.different == len(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("parameters[:, 0] *= -1", "parameters[0, 0], 'p', is -1."),
        ("datasets[:20] = np.inf", "datasets[0, 0, 0] is inf."),
        ("parameters[count // 2, 0] /= 0", "raised FloatingPointError: divide by zero"),
        ("datasets = datasets[:-1]", "datasets have shape (255, 6, 2). Return (256, rows, 2)."),
        ("datasets = datasets[:, : 4 + rng.integers(2)]", ": datasets of shape ("),
        ("return None", "returned NoneType. Return two arrays"),
    ],
)
def test_more_than_a_twentieth_that_is_no_good_ends_it_naming_the_first(
    tmp_path: Path, change: str, message: str
) -> None:
    with pytest.raises(SimulatorError) as raised:
        opened(write(tmp_path, f"np.seterr(all='raise'); {change}"), seed=9).__enter__()
    first, again, share = str(raised.value).splitlines()
    assert "of the survey datasets, seed 9: " in first and message in first
    assert again.startswith("To see it again: simulate(256, np.random.default_rng([9, ")
    assert " of 1,000 datasets of the survey cannot be trained on, more than 5%. Mend the simulator" in share


def test_a_block_that_fails_is_left_out_and_the_others_are_kept(tmp_path: Path) -> None:
    function = write(tmp_path, "assert p.max() < 1.9999, 'too large'")  # one block of 40
    with opened(function, count=20_000, seed=3) as data:
        found = ps(data.batches(1, 64, exchangeable_rows=False))
        blocks = [drawn([3, block, 1, 1], min(BLOCK, 20_000 - block * BLOCK)) for block in range(79)]
        kept = [p for p in blocks if p.max() < 1.9999]
        assert len(kept) == 77
        np.testing.assert_array_equal(np.sort(found), np.sort(np.concatenate(kept)))
        warnings = data.pieces.warnings()
        assert "raised AssertionError: too large (sim.py, line 13)" in warnings[-1]
        # One of the 8 blocks to calibrate with is more than a twentieth of them, and still only one.
        assert [warning[9:].split(" are ")[0] for warning in warnings] == [
            "256 of 2,000 datasets of the calibration",
            "512 of 20,000 datasets of epoch 1",
        ]


def test_random_numbers_that_are_not_from_rng_are_noticed(tmp_path: Path) -> None:
    seeded = "p = np.random.default_rng(1).uniform(1, 2, count); parameters = np.stack([p] * 3, axis=1)"
    seeded += "; datasets = np.broadcast_to(p[:, None, None], (count, 6, 2))"
    with pytest.raises(SimulatorError, match="gives the same datasets at every call. Draw all random numbers from"):
        opened(write(tmp_path, seeded)).__enter__()
    with opened(write(tmp_path, "datasets += np.random.uniform()")) as data:
        (warning,) = data.pieces.warnings()
    assert "gives other datasets for the same generator, rng." in warning and "neither repeated nor resumed" in warning
    with opened(write(tmp_path)) as data:
        assert data.pieces.warnings() == []


# ---- training ----


def trained_on(function: str, output: Path, **options: Any) -> Any:
    return train(
        simulator=function, output=output, datasets_per_epoch=640, **{"workers": 2, "settings": SHORT, **options}
    )


def test_train_gives_the_same_weights_for_any_number_of_workers_and_writes_what_was_seen(
    small_simulator: str, tmp_path: Path
) -> None:
    for workers in (1, 2):
        trained_on(small_simulator, tmp_path / str(workers), workers=workers)
    assert same(weights_of(tmp_path / "1"), weights_of(tmp_path / "2"))
    manifest = read_manifest(tmp_path / "1")
    assert manifest == read_manifest(tmp_path / "2")
    assert manifest.spec.describe() == "24 rows x (time, signal) -> height, rate, noise"
    assert manifest.training.datasets == 2 * 640
    said = manifest.training.configuration
    assert str(said["simulator"]).startswith("decay.py:simulate (sha256 ")
    assert (said["datasets_per_epoch"], said["datasets_left_out"], said["validation_datasets"]) == (640, 0, 64)
    card = (tmp_path / "1" / "README.md").read_text()
    assert "| simulator | decay.py:simulate (sha256 " in card and "| fresh datasets an epoch | 640 |" in card
    calibration = read_datasets(tmp_path / "1" / "calibration.parquet", manifest.spec)
    assert len(calibration) == 64


def test_train_ends_when_the_simulator_fails_and_goes_on_to_the_same_weights_once_it_is_mended(
    small_simulator: str, tmp_path: Path
) -> None:
    source = Path(small_simulator.rpartition(":")[0]).read_text()
    broken, mended = tmp_path / "sim.py", f"{tmp_path / 'sim.py'}:simulate"
    flag = tmp_path / "flag"
    raising = f"    import os\n    if os.path.exists({str(flag)!r}): raise ValueError('no root')\n"
    broken.write_text(source.replace("    height, rate", raising + "    height, rate"))

    def break_after_one(line: str) -> None:
        if line.startswith("epoch 1"):
            flag.touch()

    settings = Settings(epochs=3, batch_size=64, exchangeable_rows=True)
    trained_on(small_simulator, tmp_path / "whole", settings=settings)
    with pytest.raises(SimulatorError, match=r"block 0 of epoch 2, seed 0: raised ValueError: no root \(sim.py, line"):
        trained_on(mended, tmp_path / "cut", settings=settings, say=break_after_one)
    assert os.listdir(tmp_path / "cut") == [".training"]
    broken.write_text(source.replace("uniform(1, 4", "uniform(1, 3"))
    with pytest.raises(OutputError, match="had other datasets, parameters or columns. Repeat its command, or start"):
        trained_on(mended, tmp_path / "cut", settings=settings, resume=True)
    broken.write_text(source + "\n# mended\n")
    lines: list[str] = []
    trained_on(mended, tmp_path / "cut", settings=settings, resume=True, say=lines.append)
    assert [line.split(":")[0] for line in lines[1:]] == ["resuming after epoch 1", "epoch 2 of 3", "epoch 3 of 3"]
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut"))
    whole, cut = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("whole", "cut"))
    for each in (whole, cut):
        del each["training"]["configuration"]["simulator"]  # the checksum of its file
    assert whole == cut  # ranges and counts of the epoch before the interruption are in it


def eventually(claim: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.05)
    return claim()


def test_interrupt_in_a_slow_block_ends_training_at_once_and_its_workers(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    slow = f"if os.path.exists({str(flag)!r}): open({str(tmp_path)!r} + f'/pid.{{os.getpid()}}', 'w'); time.sleep(600)"
    command = [sys.executable, "-m", "toolkit", "train", "--simulator", write(tmp_path, slow), "--parameters", "p,q"]
    command += ["--output", str(tmp_path / "model"), "--datasets-per-epoch", "300", "--workers", "2"]
    with (tmp_path / "errors").open("w") as errors:
        run = subprocess.Popen(command, stderr=errors, start_new_session=True)
    try:
        assert eventually(lambda: "epoch 1 of" in (tmp_path / "errors").read_text() or run.poll() is not None)
        assert run.poll() is None, (tmp_path / "errors").read_text()
        flag.touch()
        assert eventually(lambda: len(list(tmp_path.glob("pid.*"))) == 2)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(timeout=60) == 130
    finally:
        run.kill()
    assert (
        (tmp_path / "errors")
        .read_text()
        .rstrip()
        .endswith("Interrupted. Nothing that is done is lost: the same command with --resume goes on.")
    )
    assert "Traceback" not in (tmp_path / "errors").read_text()
    for path in tmp_path.glob("pid.*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.suffix[1:]), 0)
    assert (tmp_path / "model" / ".training" / "checkpoint.npz").is_file()


def test_train_command_takes_a_simulator_alone_or_beside_datasets(
    toolkit_command: Callable[..., Result], small_simulator: str, small_datasets: Path, tmp_path: Path
) -> None:
    simulated = ("--simulator", small_simulator, "--datasets-per-epoch", 400, "--workers", 1, "--epochs", 1)
    validation = tmp_path / "validation.parquet"
    pq.write_table(pq.read_table(small_datasets).slice(0, 250), validation)
    result = toolkit_command(
        "train", small_datasets, *simulated, "--output", tmp_path / "model", "--validation", validation
    )
    assert result.exit_code == 0, result.output
    assert "simulating the datasets to begin with" in result.stderr and "epoch 1 of 1" in result.stderr
    manifest = read_manifest(tmp_path / "model")
    assert manifest.training.datasets == int(manifest.training.configuration["datasets_of_files"]) + 400
    for arguments, complaint in (
        (("train",), "Name files of DATASETS, or a --simulator."),
        (("train", small_datasets), "Missing option '--parameters'."),
        (("train", small_datasets, "--parameters", "rate", "--workers", 1), "are of a --simulator."),
        (("train", *simulated, "--group-by", "id"), "--group-by is of DATASETS."),
    ):
        result = toolkit_command(*arguments)
        assert (result.exit_code, complaint in result.stderr) == (2, True), result.stderr
