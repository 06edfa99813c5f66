"""What every edge target is tried with, and what decides whether a test of one may be skipped."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.datasets import read_datasets
from toolkit.heads import write_head
from toolkit.manifest import CALIBRATION_FILE, ModelFile, read_manifest
from toolkit.probes import extreme_inputs
from toolkit.reference import load_logits

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "samples" / "model"
EACH = 64
SWEEP = 100.0  # logits from -SWEEP to SWEEP


def require(why_not: str) -> None:
    """Go on where `why_not` is empty. Skip the test where it says what this platform lacks, except in continuous
    integration, where a target that nobody looked at has not passed."""
    if not why_not:
        return
    if os.environ.get("CI", "").lower() in ("1", "true") or os.environ.get("EDGE_TEST_REQUIRED"):
        pytest.fail(f"edge targets may not be skipped here: {why_not}", pytrace=False)
    pytest.skip(why_not)


@functools.cache
def entries() -> dict[str, ModelFile]:
    """The sample model's files by name."""
    return {entry.file: entry for entry in read_manifest(MODEL).files}


@functools.cache
def real_datasets() -> FloatArray:
    """float32 (64, rows, columns): all 34 measured ones, then calibration datasets (simulated) up to 64."""
    spec = read_manifest(MODEL).spec
    measured = read_datasets(ROOT / "samples" / "response_times.parquet", spec)
    more = read_datasets(MODEL / CALIBRATION_FILE, spec)
    return np.concatenate([measured, more])[:EACH]


@functools.cache
def extreme_datasets() -> FloatArray:
    """float32 (64, rows, columns): from all over the probes that `toolkit verify` makes, the largest numbers first."""
    probes = extreme_inputs(read_manifest(MODEL).spec, real_datasets()).datasets
    order = np.argsort(-np.abs(probes).max(axis=(1, 2)), kind="stable")
    chosen = np.concatenate([order[: EACH // 2], order[EACH // 2 :: 3][: EACH // 2]])
    assert len(chosen) == EACH
    return np.ascontiguousarray(probes[chosen])


@functools.cache
def shuffled_datasets() -> FloatArray:
    """float32 (128, rows, columns): the real ones, then the extreme ones, each with its rows in another order, for
    devices that sort them."""
    datasets = np.concatenate([real_datasets(), extreme_datasets()])
    order = np.random.default_rng(0).permuted(np.tile(np.arange(datasets.shape[1]), (len(datasets), 1)), axis=1)
    return np.take_along_axis(datasets, order[:, :, np.newaxis], axis=1)


def truth_of(datasets: FloatArray) -> NDArray[np.float64]:
    """float64 (datasets, parameters): the forward pass of the trained weights."""
    return np.logaddexp(0.0, load_logits(MODEL)(datasets))


def sweep_file(file: ModelFile | Path, folder: Path) -> tuple[Path, FloatArray]:
    """The last step of a file alone, and logits for it: float32 (256, 1, parameters), from -100 to 100.

    No dataset leads a trained network to every logit, so the file is cut behind its last layer; the operations, and so
    the kernels, are those of the whole file.
    """
    logits = np.linspace(-SWEEP, SWEEP, 256, dtype=np.float32)
    parameters = len(read_manifest(MODEL).spec.parameters)
    path = file if isinstance(file, Path) else MODEL / file.file
    return write_head(path, folder), np.repeat(logits, parameters).reshape(-1, 1, parameters)
