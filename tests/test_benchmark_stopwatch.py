"""How a benchmark counts: on clocks that the test moves, and in the order in which files take turns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.benchmark import stopwatch
from toolkit.benchmark.rounds import Speed, measure_speeds
from toolkit.benchmark.stopwatch import Block, all_cores, latencies, one_thread

DATASETS = np.zeros((256, 24, 2), np.float32)
NOWHERE = Path("model.onnx")


class Clock:
    """Stands in for the module `time`; the processor's runs at half the speed, as if another program had the rest."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now / 2


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many datasets each call had. A call takes 1 ms a dataset on the clock that the stopwatch looks at."""
    clock, calls = Clock(), list[int]()

    def predict(datasets: NDArray[np.float32]) -> NDArray[np.float32]:
        clock.now += len(datasets) / 1024  # a power of two: sums of it are exact
        calls.append(len(datasets))
        return np.ones((len(datasets), 3), np.float32)

    monkeypatch.setattr(stopwatch, "time", clock)
    monkeypatch.setattr(stopwatch, "_loaded", lambda path, worker: predict)
    monkeypatch.setattr(stopwatch, "_loaded_for_one", lambda path: predict)
    return calls


def test_one_thread_counts_datasets_a_second_and_a_second_of_the_processor(scored: list[int]) -> None:
    assert one_thread(NOWHERE, DATASETS, 1.0) == Block(per_second=1024, per_cpu_second=2048)
    # One batch before the clock starts; then a look at it four times a second: 256 datasets each.
    assert scored == [32, 256, 256, 256, 256]


def test_one_thread_scores_a_slow_file_batch_by_batch(scored: list[int]) -> None:
    assert one_thread(NOWHERE, DATASETS, 0.01) == Block(1024, 2048)
    assert scored == [32, 32]


def test_all_cores_adds_up_what_the_threads_have_scored(scored: list[int]) -> None:
    assert all_cores(NOWHERE, DATASETS, 1, 1.0) == Block(1024, 2048)


def test_all_cores_raises_what_a_thread_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(datasets: NDArray[np.float32]) -> NDArray[np.float32]:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(stopwatch, "_loaded", lambda path, worker: fails)
    with pytest.raises(RuntimeError, match="no such kernel"):
        all_cores(NOWHERE, DATASETS, 2, 0.01)


def test_latencies_are_of_single_calls(scored: list[int]) -> None:
    assert latencies(NOWHERE, DATASETS[:1], 4 / 1024).tolist() == [1 / 1024] * 4
    assert latencies(NOWHERE, DATASETS[:1], 0.0).tolist() == [1 / 1024], "one at least"


def test_start_up_begins_before_the_runtime_is_imported() -> None:
    """The child imports the stopwatch, and only then is it started."""
    code = "import sys, toolkit.benchmark.stopwatch; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"ai_edge_litert", "onnxruntime", "openvino"}.isdisjoint(done.stdout.split())
    assert "numpy" in done.stdout.split()


def notes_its_turn(path: Path, datasets: NDArray[np.float32], seconds: float) -> Block:
    with (path.parent / "turns.txt").open("a") as turns:
        turns.write(path.stem)
    return Block(float(len(datasets)), 2.0 * len(datasets))


def test_files_take_turns_and_none_is_always_first(exported_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.benchmark.rounds.one_thread", notes_its_turn)
    monkeypatch.setattr("toolkit.benchmark.rounds.STARTS", 1)
    monkeypatch.setattr("toolkit.benchmark.rounds.ROUNDS", 4)
    paths = [exported_copy / f"{name}.onnx" for name in "abc"]
    for path in paths:
        path.write_bytes((exported_copy / "model.float32.onnx").read_bytes())
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    found = measure_speeds(paths, DATASETS[:3], 2, 0.05, step)
    order = (exported_copy / "turns.txt").read_text()
    assert [order[begin : begin + 3] for begin in range(0, 12, 3)] == ["bca", "cab", "abc", "bca"]
    assert steps == 3 * (1 + 4)
    for path in paths:
        speed = found[path]
        assert isinstance(speed, Speed)
        # 3 datasets were made 256, so that a batch is full; the processor's seconds count, the clock's are told apart.
        assert (speed.one_thread, speed.slowed) == (512, 2)
