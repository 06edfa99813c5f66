"""`python -m tests.benchmarks.quantized [MODEL]`: every exported file against the float32 one of its runtime, one
thread, batches of 32, taking turns; the ratio of the fastest rounds, which other work on the machine disturbs least."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from toolkit.datasets import read_datasets
from toolkit.manifest import CALIBRATION_FILE, read_manifest
from toolkit.runtime import BATCH, load

ROUNDS, BATCHES = 300, 4


def main(directory: Path) -> None:
    manifest = read_manifest(directory)
    datasets = read_datasets(directory / CALIBRATION_FILE, manifest.spec)[: BATCH * BATCHES]
    for format in ("tflite", "onnx"):
        names = [entry.file for entry in manifest.files if entry.format == format]
        runs = [load(directory / name) for name in names]
        seconds = np.empty((ROUNDS, len(runs)))
        for turn in range(ROUNDS):
            for index, run in enumerate(runs):
                run(datasets[:BATCH])  # its weights into the cache
                begin = time.perf_counter()
                run(datasets)
                seconds[turn, index] = time.perf_counter() - begin
        fastest = seconds.min(axis=0)
        for name, each in zip(names, fastest, strict=True):
            rate = len(datasets) / each
            print(f"{name:24}{rate:10,.0f} datasets/s  {fastest[names.index(f'model.float32.{format}')] / each:.2f}x")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "samples/model"))
