"""The model directory that is shipped: small, proved, and right about real response times."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import Result

import toolkit
from tests.benchmarks import accuracy
from toolkit.manifest import check_unchanged, read_manifest
from toolkit.verification import verify

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
MODEL = SAMPLES / "model"


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare", SAMPLES / "compare.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare"] = module
    spec.loader.exec_module(module)
    return module


def test_sample_model_is_complete_and_under_two_megabytes() -> None:
    manifest = read_manifest(MODEL)
    assert manifest.spec.describe() == "200 sorted rows x (rt, correct) -> v, a, t0"
    for entry in manifest.files:
        check_unchanged(MODEL, entry)
    assert {(entry.format, entry.precision) for entry in manifest.files} >= {
        *(("tflite", "float32"), ("tflite", "float16"), ("onnx", "float32"), ("onnx", "float16")),
    }
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 2_000_000


def test_sample_model_passes_verify_within_the_bars_of_export() -> None:
    for verdict in verify(MODEL).verdicts:
        assert verdict.passed, verdict.failures
        bar = {"float32": 5e-5, "float16": 1e-2}.get(verdict.precision)
        assert bar is None or max(error.max for error in verdict.relative_error.values()) <= bar


def test_sample_model_passes_verify_on_real_response_times() -> None:
    for verdict in verify(MODEL, [SAMPLES / "response_times.parquet"]).verdicts:
        assert verdict.passed, verdict.failures


def test_sample_model_is_nearly_as_accurate_as_the_data_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On datasets nobody trained on, beside the exact posterior mean and classical estimators."""
    monkeypatch.setattr(accuracy, "FOLDER", tmp_path)
    problem = accuracy.problem_of(MODEL)
    trial = accuracy.make_trial(problem, 500, accuracy.SEED)
    estimates = toolkit.load(MODEL)(trial.datasets)
    bars = accuracy.bars_of(problem, trial, estimates.astype("float64"))
    # Of 5,000 datasets it has 1.04 / 1.09 / 1.05 times the RMSE of the posterior mean and 1.05 / 1.14 / 1.03 times its
    # 90th percentile; the bars are 1.06 / 1.10 / 1.15, and 1.15. Of 500 the standard error is .02 / .03 / .03, and .07.
    for bar in bars:
        assert bar.value <= bar.most + 2 * bar.error, str(bar)


def test_sample_model_agrees_with_maximum_likelihood_on_real_datasets(
    toolkit_command: Callable[..., Result], tmp_path: Path, compare: ModuleType
) -> None:
    output = tmp_path / "out.parquet"
    source = SAMPLES / "response_times.parquet"
    result = toolkit_command("batch-predict", source, "--model", MODEL, "--output", output)
    assert result.exit_code == 0, result.output
    network, likelihood = compare.read_predictions(output), compare.read_reference("mle_wfpt")
    names = sorted(compare.inside(likelihood))
    assert len(names) == 16
    # Measured .988 / .947 / .992; the closed-form EZ estimator has .996 / .421 / .835.
    for parameter, bar in {"v": 0.98, "a": 0.92, "t0": 0.985}.items():
        assert compare.correlation(names, network, likelihood, parameter) >= bar, parameter


def test_compare_prints_a_table_and_draws_a_plot(
    toolkit_command: Callable[..., Result], tmp_path: Path, compare: ModuleType
) -> None:
    output, plot = tmp_path / "out.parquet", tmp_path / "plot.png"
    toolkit_command("batch-predict", SAMPLES / "response_times.parquet", "--model", MODEL, "--output", output)
    command = [sys.executable, SAMPLES / "compare.py", output, "--plot", plot]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "closed-form EZ  v 0.996, a 0.421, t0 0.835" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
