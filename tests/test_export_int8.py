"""int8 files: on unseen datasets close to the float64 truth, and for every kind of network positive."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from networks import example, extreme_datasets

from export.int8 import Int8
from export.keras_file import read_network
from export.limit import input_limit
from toolkit.datasets import sort_rows
from toolkit.errors import ExportError
from toolkit.proof import prove
from toolkit.reference import load_reference
from toolkit.runtime import KERNELS, load
from toolkit.spec import SMALLEST_NORMAL_FLOAT32

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
MODEL = SAMPLES / "model"
FILES = ("model.int8.tflite", "model.int8.onnx")


@pytest.fixture(scope="module")
def unseen() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """500 fresh datasets of the diffusion model, their true parameters, and the float64 estimates."""
    spec = importlib.util.spec_from_file_location("diffusion", SAMPLES / "diffusion.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["diffusion"] = module
    spec.loader.exec_module(module)
    datasets, true = module.simulate(500, np.random.default_rng(77))
    datasets = sort_rows(datasets)
    return datasets, true, load_reference(MODEL)(datasets)


@pytest.mark.parametrize("name", FILES)
def test_sample_file_is_small(name: str) -> None:
    assert (MODEL / name).stat().st_size <= {".tflite": 85_000, ".onnx": 115_000}[Path(name).suffix]


@pytest.mark.parametrize("name", FILES)
def test_sample_file_is_accurate_on_unseen_datasets(
    name: str, unseen: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    datasets, true, truth = unseen
    for kernels in KERNELS[Path(name).suffix]:
        estimates = load(MODEL / name, kernels=kernels)(datasets)
        assert (estimates > 0).all()
        relative = np.abs(estimates - truth) / truth
        # Measured .49% median, 2.4% p99, 3.5% largest, RMSE 1.0044 times float's; of 4,000 datasets .49, 2.4, 4.8 and
        # 1.0082. The bars of the project are .5, 3, 8% and 1.01; of 500 datasets the median is .03% uncertain.
        assert np.median(relative, axis=0).max() <= 5.5e-3
        assert np.quantile(relative, 0.99, axis=0).max() <= 3e-2
        assert relative.max() <= 8e-2
        rmse = np.sqrt(np.mean((estimates - true) ** 2, axis=0) / np.mean((truth - true) ** 2, axis=0))
        assert rmse.max() <= 1.01


@pytest.mark.parametrize("name", ["standard", "causal", "residue_of_strides", "functional"])
@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("first_layer", ["int8", "float"])
def test_int8_is_right_and_positive_or_refused_for_every_kind_of_network(
    name: str, format: str, first_layer: str, tmp_path: Path
) -> None:
    made = example(name)
    _, network = read_network(made.keras_file, made.spec)
    path = tmp_path / f"model.int8.{format}"
    try:
        content, facts = Int8(network, made.datasets, first_layer, input_limit(network)).write(format)
    except ExportError as error:
        assert "int8 needs a Conv1D or Dense layer" in str(error)
        return
    path.write_bytes(content)
    assert facts["first_layer"] == first_layer
    proof = prove(path)
    assert proof.passed and min(proof.lower) >= SMALLEST_NORMAL_FLOAT32, proof.failures
    from export.forward import run

    truth = np.logaddexp(0, run(network.layers, made.datasets[:, None]).astype(np.float64))
    for kernels in KERNELS[path.suffix]:
        run_file = load(path, kernels=kernels)
        error = np.median(np.abs(run_file(made.datasets) - truth) / truth)
        assert error <= 2e-2, f"{kernels}: {error}"
        assert (run_file(extreme_datasets(made.spec)) >= SMALLEST_NORMAL_FLOAT32).all()


def test_int8_needs_some_datasets() -> None:
    made = example("standard")
    _, network = read_network(made.keras_file, made.spec)
    with pytest.raises(ExportError, match="at least 10; here are 3"):
        Int8(network, made.datasets[:3], "auto", 1e9)
