"""The speed of training from Parquet and from a simulator beside Keras `fit` on arrays, and the memory of reading.

    python -m tests.benchmarks.training                      epochs of 100,000 datasets in turns, 5 rounds: 4 minutes
    python -m tests.benchmarks.training --memory             peak memory of reading 200,000 and 2,000,000 datasets

All train the same network at the same batch size in one process, an epoch each in turn, so that what else runs on the
machine slows all of them; each also validates. The datasets come from samples/diffusion.py, and are kept in
build/benchmarks for the next time.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.processes import run

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "benchmarks"
SIMULATOR = f"{ROOT / 'samples' / 'diffusion.py'}:simulate"
PARAMETERS = ("v", "a", "t0")
BATCH = 128
FEW, MANY = 200_000, 2_000_000
BASE = "Keras fit, arrays in memory"


def simulated(count: int) -> Path:
    from toolkit.simulate import simulate

    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"training.{count}.parquet"
    if not path.exists():
        print(f"simulating {count:,} datasets", file=sys.stderr)
        simulate(SIMULATOR, count, path)
    return path


def fit(data: Any) -> Callable[[int], None]:
    """What a person would write with Keras alone, the datasets in memory."""
    from toolkit.model import build_network

    pairs = list(data.batches(1, 4096, exchangeable_rows=False))
    datasets, targets = (np.concatenate(each) for each in zip(*pairs, strict=True))
    statistics_of = (data.column_means, data.column_variances, data.parameter_means, data.parameter_deviations)
    network = build_network(data.spec, *statistics_of)
    network.compile(optimizer="adam", loss="mse")
    held_out = (data.validation_datasets, data.validation_targets)

    def epoch(number: int) -> None:
        network.fit(datasets, targets, batch_size=BATCH, validation_data=held_out, validation_batch_size=512, verbose=0)

    return epoch


def trainer(data: Any, folder: Path, epochs: int) -> Callable[[int], None]:
    import tensorflow

    from toolkit.model import build_network
    from toolkit.progress import silent
    from toolkit.trainer import Settings, Trainer

    statistics_of = (data.column_means, data.column_variances, data.parameter_means, data.parameter_deviations)
    settings = Settings(epochs=epochs, batch_size=BATCH)
    folder.mkdir()
    running = Trainer(tensorflow, build_network(data.spec, *statistics_of), data, settings, None, folder)
    return lambda number: print("    " + running.run_epoch(silent), file=sys.stderr)


def compare(count: int, rounds: int) -> None:
    from toolkit.model import import_tensorflow
    from toolkit.simulator import open_simulator
    from toolkit.training_files import open_training_data
    from toolkit.training_simulator import simulated_data
    from toolkit.training_source import NICE

    tensorflow = import_tensorflow()
    tensorflow.config.experimental.enable_op_determinism()
    tensorflow.keras.utils.set_random_seed(0)
    path = simulated(count)
    with tempfile.TemporaryDirectory() as folder, open_simulator(SIMULATOR, nice=NICE) as simulator:
        files = open_training_data([path], PARAMETERS)
        fresh = simulated_data(simulator, PARAMETERS, count=files.training_count)
        contenders = {
            BASE: fit(files),
            "toolkit train, from Parquet": trainer(files, Path(folder, "files"), rounds + 1),
            "toolkit train --simulator": trainer(fresh, Path(folder, "fresh"), rounds + 1),
        }
        speeds: dict[str, list[float]] = {name: [] for name in contenders}
        work: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name, epoch in contenders.items():
                cpu, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
                epoch(number + 1)
                seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
                if number:  # the first traces and compiles
                    speeds[name].append(files.training_count / seconds)
                    work[name].append(after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime)
                    print(f"round {number} of {rounds}: {name}: {speeds[name][-1]:,.0f}/s", file=sys.stderr)
    print(f"{files.training_count:,} datasets of 200 x 2 an epoch, batches of {BATCH}, medians of {rounds} rounds")
    print(f"{'':34}{'datasets/s':>11}{'of fit':>8}{'ratios':>14}{'us CPU a dataset':>18}")
    for name in contenders:
        ratios = [one / base for one, base in zip(speeds[name], speeds[BASE], strict=True)]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        cpu_each = statistics.median(work[name]) / files.training_count * 1e6
        print(
            f"{name:34}{statistics.median(speeds[name]):>11,.0f}{statistics.median(ratios):>8.2f}{spread:>14}"
            f"{cpu_each:>18.1f}"
        )
    print("CPU without that of the simulator's processes")


def read(path: str) -> None:
    """What training does with a file but the steps: the survey, and an epoch of batches."""
    from toolkit.training_files import open_training_data

    data = open_training_data([path], PARAMETERS)
    begun, count = time.process_time(), 0
    for datasets, _ in data.batches(1, BATCH, exchangeable_rows=True):
        count += len(datasets)
    print(f"{(time.process_time() - begun) / count * 1e6:.1f}")


def memory() -> None:
    print(f"{'datasets':>12}{'peak MB (PSS)':>15}{'us CPU a dataset':>18}")
    for count in (FEW, MANY):
        found = run([sys.executable, "-m", "tests.benchmarks.training", "--read", str(simulated(count))])
        print(f"{count:>12,}{found.peak_bytes / 1e6:>15,.0f}{float(found.stdout):>18.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.training", description=__doc__)
    parser.add_argument("--datasets", type=int, default=100_000, help="in the file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options.read)
    elif options.memory:
        memory()
    else:
        compare(options.datasets, options.rounds)


if __name__ == "__main__":
    main()
