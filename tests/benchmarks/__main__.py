"""Score many datasets in each way, taking turns, and print one table. Run by `make bench`.

    python -m tests.benchmarks --datasets 200000 --rounds 3

The datasets come from samples/diffusion.py; the file is the usual one (nested fixed-size lists, Snappy). It and the
array of the bare engine are kept in build/benchmarks for the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.benchmarks.processes import Finished, run

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "benchmarks"
SIMULATOR = ROOT / "samples" / "diffusion.py"


@dataclass(frozen=True)
class Contender:
    """One way to score, and which of its seconds count.

    Attributes:
        whole_process: start-up counts; otherwise what the contender itself has timed.
    """

    name: str
    command: list[str]
    whole_process: bool


def contenders(model: Path, parquet: Path, array: Path, checks: list[str]) -> list[Contender]:
    python, module = sys.executable, "tests.benchmarks.contenders"
    output = FOLDER / "out.parquet"
    ours = [python, "-m", "toolkit", "batch-predict", str(parquet), "--model", str(model), "--output", str(output)]
    return [
        *(
            Contender(f"batch-predict --check {check}", [*ours, "--check", check, "--overwrite", "--quiet"], True)
            for check in checks
        ),
        Contender(
            "bare engine, in memory",
            [python, "-m", module, "bare", str(model / "model.float32.tflite"), str(array)],
            whole_process=False,
        ),
        Contender(
            "read_table, Keras predict",
            [python, "-m", module, "keras", str(model / "model.keras"), str(parquet)],
            whole_process=False,
        ),
    ]


def make_datasets(count: int) -> tuple[Path, Path]:
    """The Parquet file and the same datasets as an array; made once."""
    from toolkit.datasets import decode, iter_batches, layout_of_file
    from toolkit.simulate import simulate

    FOLDER.mkdir(parents=True, exist_ok=True)
    parquet, array = FOLDER / f"diffusion.{count}.parquet", FOLDER / f"diffusion.{count}.npy"
    if parquet.exists() and array.exists():
        return parquet, array
    print(f"simulating {count:,} datasets", file=sys.stderr)
    simulated = FOLDER / "simulated.parquet"
    simulate(f"{SIMULATOR}:simulate", count, simulated)
    layout = layout_of_file(simulated)
    datasets = np.lib.format.open_memmap(array, "w+", np.float32, (count, layout.rows, layout.columns))
    partial, done = FOLDER / "partial.parquet", 0
    with pq.ParquetWriter(partial, pq.read_schema(simulated), compression="snappy") as writer:
        for batch in iter_batches(simulated, None, None, 8192):
            writer.write_batch(batch)
            datasets[done : done + len(batch)] = decode(batch.column(layout.column), layout).datasets
            done += len(batch)
    datasets.flush()
    os.replace(partial, parquet)
    simulated.unlink()
    return parquet, array


def measure(contender: Contender, count: int) -> tuple[float, Finished]:
    """Datasets a second, and what the process took."""
    finished = run(contender.command)
    if contender.whole_process:
        return count / finished.seconds, finished
    result = json.loads(finished.stdout)
    return result["datasets"] / result["seconds"], finished


def show(
    names: list[str], results: dict[str, list[tuple[float, Finished]]], base: str, say: Callable[[str], None]
) -> None:
    median = {name: statistics.median(speed for speed, _ in results[name]) for name in names}
    say(f"{'':32}{'datasets/s':>12}{'spread':>16}{'of bare':>9}{'CPU s':>8}{'peak MB':>9}")
    for name in names:
        speeds = [speed for speed, _ in results[name]]
        cpu = statistics.median(finished.cpu_seconds for _, finished in results[name])
        peak = max(finished.peak_bytes for _, finished in results[name]) / 1e6
        spread = f"{min(speeds):,.0f}-{max(speeds):,.0f}"
        say(f"{name:32}{median[name]:>12,.0f}{spread:>16}{median[name] / median[base]:>9.2f}{cpu:>8.1f}{peak:>9,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--datasets", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3, help="each contender runs so often; medians are shown")
    parser.add_argument("--model", type=Path, default=ROOT / "samples" / "model")
    parser.add_argument("--check", nargs="*", default=["off", "sample", "all"], help="values of --check to measure")
    parser.add_argument("--without-keras", action="store_true", help="leave out the slowest contender")
    options = parser.parse_args()
    parquet, array = make_datasets(options.datasets)
    run_in_turn = contenders(options.model, parquet, array, options.check)
    if options.without_keras:
        run_in_turn.pop()
    results: dict[str, list[tuple[float, Finished]]] = {contender.name: [] for contender in run_in_turn}
    for number in range(options.rounds):
        for contender in run_in_turn:
            print(f"round {number + 1} of {options.rounds}: {contender.name}", file=sys.stderr)
            results[contender.name].append(measure(contender, options.datasets))
    cores = len(os.sched_getaffinity(0))
    print(f"{options.datasets:,} datasets of 200 x 2, {parquet.stat().st_size / 1e6:,.0f} MB of Parquet, {cores} cores")
    show(list(results), results, "bare engine, in memory", print)


if __name__ == "__main__":
    main()
