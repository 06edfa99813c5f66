"""Score many datasets in each way, taking turns, and print one table. Run by `make bench`.

    python -m tests.benchmarks                                             200,000 datasets, every contender, 6 minutes
    python -m tests.benchmarks --datasets 1000000 --only off bare          the long run
    python -m tests.benchmarks --memory                                    peak memory for 200,000 and 2,000,000

The datasets come from samples/diffusion.py; the file is what pyarrow writes by default (nested fixed-size lists,
Snappy). It and the array of the bare engine are kept in build/benchmarks for the next time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.processes import Finished, run

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "benchmarks"
SIMULATOR = ROOT / "samples" / "diffusion.py"
BASE = "bare"
SLOW_PART = 10  # contenders that take minutes get a tenth of the datasets, and one round
MEMORY_TIMES = 10  # as many datasets in the second memory run as in the first


@dataclass(frozen=True)
class Contender:
    """One way to score, and which of its seconds count.

    Attributes:
        key: what --only calls it.
        whole_process: start-up counts; otherwise what the contender itself has timed.
        needs: modules and programs without which it is left out.
        slow: gets a part of the datasets.
    """

    key: str
    name: str
    command: list[str]
    whole_process: bool = False
    needs: tuple[str, ...] = ()
    slow: bool = False

    def missing(self) -> list[str]:
        return [need for need in self.needs if not (shutil.which(need) or importlib.util.find_spec(need))]


def contenders(model: Path, parquet: Path, array: Path, part: Path) -> list[Contender]:
    python, module = sys.executable, "tests.benchmarks.contenders"
    output = FOLDER / "out.parquet"
    ours = [python, "-m", "toolkit", "batch-predict", str(parquet), "--model", str(model), "--output", str(output)]
    ours += ["--overwrite", "--quiet"]
    tflite, onnx = model / "model.float32.tflite", model / "model.float32.onnx"

    def scoring(key: str, name: str, *options: str, needs: tuple[str, ...] = ()) -> Contender:
        return Contender(key, f"batch-predict {name}", [*ours, *options], True, needs)

    def other(key: str, name: str, *arguments: Path, needs: tuple[str, ...] = (), slow: bool = False) -> Contender:
        return Contender(key, name, [python, "-m", module, key, *map(str, arguments)], needs=needs, slow=slow)

    found = [
        scoring("off", "--check off", "--check", "off"),
        other("bare", "bare engine, in memory", tflite, array),
        scoring("sample", "--check sample", "--check", "sample"),
        scoring("all", "--check all", "--check", "all"),
        scoring("onnx-file", "model.float32.onnx", "--check", "off", "--file", onnx.name),
        scoring("openvino", "--runtime openvino", "--check", "off", "--runtime", "openvino", needs=("openvino",)),
        other("onnx", "ONNX Runtime script", onnx, parquet),
        other("keras", "read_table, Keras predict", model / "model.keras", part, needs=("keras",), slow=True),
        other("ray", "Ray Data", onnx, part, needs=("ray", "pandas"), slow=True),
        other("spark", "Spark predict_batch_udf", onnx, part, needs=("pyspark", "pandas", "java"), slow=True),
    ]
    if (model / "model.int8.tflite").exists():
        int8 = ("--check", "off", "--file", "model.int8.tflite")
        found.insert(2, scoring("int8", "model.int8.tflite", *int8))
    return found


def make_datasets(count: int) -> tuple[Path, Path, Path]:
    """The Parquet file, the same datasets as an array, and a Parquet file of a part of them; made once."""
    from toolkit.datasets import decode, iter_batches, layout_of_file
    from toolkit.simulate import simulate

    FOLDER.mkdir(parents=True, exist_ok=True)
    parquet, array, part = (FOLDER / f"datasets.{count}.{ending}" for ending in ("parquet", "npy", "part.parquet"))
    if part.exists():
        return parquet, array, part
    print(f"simulating {count:,} datasets", file=sys.stderr)
    simulated = FOLDER / "simulated.parquet"
    simulate(f"{SIMULATOR}:simulate", count, simulated)
    layout = layout_of_file(simulated)
    datasets = np.lib.format.open_memmap(array, "w+", np.float32, (count, layout.rows, layout.columns))
    done = 0
    for batch in iter_batches(simulated, None, None, 8192):
        datasets[done : done + len(batch)] = decode(batch.column(layout.column), layout).datasets
        done += len(batch)
    datasets.flush()
    table = pq.read_table(simulated)
    pq.write_table(table, parquet)
    pq.write_table(table.slice(0, max(count // SLOW_PART, 1)), part)
    simulated.unlink()
    return parquet, array, part


def measure_memory(model: Path, count: int) -> None:
    """Peak memory for some datasets, for ten times as many, and for as many in one row group."""
    once, _, _ = make_datasets(count)
    table = pq.read_table(once)
    many = pa.concat_tables([table] * MEMORY_TIMES)
    usual, single = (FOLDER / f"datasets.{len(many)}.{kind}.parquet" for kind in ("usual", "single"))
    for path, rows in ((usual, 65_536), (single, len(many))):
        if not path.exists():
            partial = path.with_suffix(".partial")
            pq.write_table(many, partial, row_group_size=rows)
            os.replace(partial, path)
    del table, many
    print(f"{'peak MB (PSS)':40}{'off':>8}{'sample':>8}{'all':>8}")
    for path in (once, usual, single):
        metadata = pq.read_metadata(path)
        peaks = []
        for check in ("off", "sample", "all") if path is once else ("off",):
            output = ["--output", str(FOLDER / "out.parquet"), "--overwrite", "--quiet", "--check", check]
            command = [sys.executable, "-m", "toolkit", "batch-predict", str(path), "--model", str(model), *output]
            peaks.append(f"{run(command).peak_bytes / 1e6:8,.0f}")
        groups = "1 row group" if metadata.num_row_groups == 1 else f"{metadata.num_row_groups} row groups"
        print(f"{f'{metadata.num_rows:,} datasets, {groups}':40}{''.join(peaks)}", flush=True)


def measure(contender: Contender, count: int) -> tuple[float, Finished]:
    """Datasets a second, and what the process took."""
    finished = run(contender.command)
    if contender.whole_process:
        return count / finished.seconds, finished
    result = json.loads(finished.stdout.splitlines()[-1])
    return result["datasets"] / result["seconds"], finished


def show(run_in_turn: list[Contender], results: dict[str, list[tuple[float, Finished]]]) -> None:
    median = {key: statistics.median(speed for speed, _ in found) for key, found in results.items()}
    print(f"{'':34}{'datasets/s':>11}{'spread':>18}{'of bare':>9}{'CPU s':>8}{'peak MB':>9}")
    for contender in run_in_turn:
        found = results[contender.key]
        speeds = [speed for speed, _ in found]
        cpu = statistics.median(finished.cpu_seconds for _, finished in found)
        peak = max(finished.peak_bytes for _, finished in found) / 1e6
        spread = f"{min(speeds):,.0f}-{max(speeds):,.0f}"
        share = f"{median[contender.key] / median[BASE]:.2f}" if BASE in median else "-"
        name = contender.name + (" *" if contender.slow else "")
        print(f"{name:34}{median[contender.key]:>11,.0f}{spread:>18}{share:>9}{cpu:>8.1f}{peak:>9,.0f}")
    if any(contender.slow for contender in run_in_turn):
        print(f"* one round, over a {SLOW_PART}th of the datasets; its own start is not counted")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--datasets", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3, help="each contender runs so often; medians are shown")
    parser.add_argument("--model", type=Path, default=ROOT / "samples" / "model")
    parser.add_argument("--only", nargs="*", metavar="KEY", help="off bare sample all int8 onnx-file openvino onnx ...")
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    options = parser.parse_args()
    if options.memory:
        return measure_memory(options.model, options.datasets)
    files = make_datasets(options.datasets)
    run_in_turn = []
    for contender in contenders(options.model, *files):
        if options.only is not None and contender.key not in options.only:
            continue
        if missing := contender.missing():
            print(f"left out: {contender.name} ({', '.join(missing)} not installed; see the extra `bench`)")
            continue
        run_in_turn.append(contender)
    results: dict[str, list[tuple[float, Finished]]] = {contender.key: [] for contender in run_in_turn}
    for number in range(options.rounds):
        for contender in run_in_turn:
            if number and contender.slow:
                continue
            print(f"round {number + 1} of {options.rounds}: {contender.name}", file=sys.stderr)
            results[contender.key].append(measure(contender, options.datasets))
    cores = len(os.sched_getaffinity(0))
    megabytes = files[0].stat().st_size / 1e6
    print(f"{options.datasets:,} datasets of 200 x 2, {megabytes:,.0f} MB of Parquet, {cores} cores")
    show(run_in_turn, results)


if __name__ == "__main__":
    main()
