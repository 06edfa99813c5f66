"""Model files behind one callable: right against float64, the same for any number of datasets, clear when unusable."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tiny_files import OnnxFile
from toolkit.datasets import read_datasets
from toolkit.errors import InputError, ModelError
from toolkit.manifest import read_manifest
from toolkit.reference import load_reference
from toolkit.runtime import BATCH, KERNELS, load

FloatArray = NDArray[np.float32]

FILES = ("model.float32.tflite", "model.float16.tflite", "model.float32.onnx", "model.float16.onnx", "model.keras")
EVERY_WAY = [(file, kernels) for file in FILES for kernels in KERNELS["." + file.rpartition(".")[2]]]
# Largest relative difference from the float64 forward pass over 2,000 datasets of the small network, any kernels.
# Measured: float32 1.6e-6 (XNNPACK; the others 6.5e-7), float16 5.6e-4, Keras 5.9e-7.
TOLERANCE = {"float32": 3.2e-6, "float16": 1.2e-3, "keras": 1.2e-6}


@pytest.fixture(scope="module")
def datasets(small_datasets: Path, exported: Path) -> FloatArray:
    return read_datasets(small_datasets, read_manifest(exported).spec)


@pytest.mark.parametrize(("file", "kernels"), EVERY_WAY)
def test_load_gives_the_estimates_of_the_float64_forward_pass(
    file: str, kernels: str, exported: Path, datasets: FloatArray
) -> None:
    estimates = load(exported / file, kernels=kernels)(datasets)
    truth = load_reference(exported)(datasets)
    assert estimates.dtype == np.float32 and estimates.shape == truth.shape == (2000, 3)
    assert np.max(np.abs(estimates / truth - 1)) < TOLERANCE[file.split(".")[1]]


@pytest.mark.parametrize("file", FILES)
def test_load_gives_a_dataset_the_same_estimates_in_any_company(
    file: str, exported: Path, datasets: FloatArray
) -> None:
    predict = load(exported / file)
    expected = predict(datasets[:300])
    assert predict(datasets[:0]).shape == (0, 3)
    for begin, end in ((0, 1), (0, BATCH - 1), (0, BATCH), (0, BATCH + 1), (5, 6), (7, 200)):
        np.testing.assert_array_equal(predict(datasets[begin:end]), expected[begin:end])


@pytest.mark.parametrize("file", FILES)
def test_load_takes_what_numpy_makes_float32_of(file: str, exported: Path, datasets: FloatArray) -> None:
    predict = load(exported / file)
    expected = predict(datasets[:40])
    read_only = np.frombuffer(datasets[:40].tobytes(), np.float32).reshape(40, 24, 2)
    for given in (datasets[:40].astype(np.float64), np.asfortranarray(datasets[:40]), read_only):
        np.testing.assert_array_equal(predict(given), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("file", FILES)
def test_load_refuses_an_array_of_another_shape(file: str, exported: Path) -> None:
    predict = load(exported / file)
    for shape in ((24, 2), (3, 25, 2), (3, 24, 1), (3, 2, 24), (0, 24, 3)):
        with pytest.raises(InputError) as error:
            predict(np.zeros(shape, np.float32))
        assert str(error.value) == f"the model takes an array of shape (n, 24, 2), not {shape}."


def test_load_lets_nan_through_instead_of_hiding_it(exported: Path, datasets: FloatArray) -> None:
    poisoned = datasets[:40].copy()
    poisoned[33, 3, 1] = np.nan
    for file in FILES:
        estimates = load(exported / file)(poisoned)
        assert np.isnan(estimates[33]).all() and np.isfinite(np.delete(estimates, 33, axis=0)).all(), file


def test_load_can_be_used_by_several_threads_with_a_file_each(exported: Path, datasets: FloatArray) -> None:
    for file in FILES[:4]:
        expected = load(exported / file)(datasets)
        found: dict[int, FloatArray] = {}

        def score(number: int, file: str = file, found: dict[int, FloatArray] = found) -> None:
            found[number] = load(exported / file)(datasets)

        threads = [threading.Thread(target=score, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(3):
            np.testing.assert_array_equal(found[number], expected)


def test_load_runs_a_file_with_a_fixed_batch(tmp_path: Path) -> None:
    file = OnnxFile([7, 4, 1])
    mean = file.add("ReduceMean", [file.input, file.constant([1], "int64")], keepdims=0)
    path = file.save(tmp_path / "mean.onnx", [mean], columns=1)
    datasets = np.random.default_rng(0).random((20, 4, 1), np.float32)
    # Measured 6.9e-8: a sum of four float32 numbers.
    np.testing.assert_allclose(load(path)(datasets), datasets.mean(axis=1, dtype=np.float64), rtol=1.4e-7)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", ["empty", "foreign", "first half", "without its end"])
def test_load_names_a_file_that_is_damaged_or_foreign(file: str, content: str, exported: Path, tmp_path: Path) -> None:
    whole = (exported / file).read_bytes()
    damaged = {
        "empty": b"",
        "foreign": b"PAR1" + bytes(5000) + b"PAR1",
        "first half": whole[: len(whole) // 2],
        "without its end": whole[:-10],
    }[content]
    (tmp_path / file).write_bytes(damaged)
    with pytest.raises(ModelError) as error:
        load(tmp_path / file)
    kind = file.rpartition(".")[2]
    reason = "not a .keras file (" if kind == "keras" else f"not a usable {kind} model ("
    assert str(error.value).startswith(f"{tmp_path / file}: {reason}")
    again = "Save the network again" if kind == "keras" else "Export it again"
    assert again in str(error.value) and len(str(error.value).splitlines()) == 1


def test_load_names_a_file_that_is_absent_or_of_another_kind(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: no such file. `toolkit export"):
        load(tmp_path / "none.onnx")
    shutil.copy(exported / "model.float32.onnx", tmp_path / "model.pb")
    with pytest.raises(
        ModelError, match=r"model\.pb: not a model file. It should end in \.tflite, \.onnx, \.ort, \.keras"
    ):
        load(tmp_path / "model.pb")
    with pytest.raises(ModelError, match="no kernels 'gpu'. There are xnnpack, builtin"):
        load(exported / "model.float32.tflite", kernels="gpu")


def test_load_refuses_a_model_of_two_inputs_or_outputs(tmp_path: Path) -> None:
    file = OnnxFile(["batch", 4, 1])
    outputs = [file.add("ReduceMean", [file.input, file.constant([1], "int64")], keepdims=0) for _ in range(2)]
    path = file.save(tmp_path / "two.onnx", outputs, columns=1)
    with pytest.raises(ModelError, match=r"two\.onnx: not a usable onnx model \(too many values to unpack"):
        load(path)


def test_load_writes_nothing_to_stderr(exported: Path) -> None:
    """LiteRT greets on stderr, once a process and from C++; the descriptor itself must be back afterwards."""
    code = f"""
import os
from toolkit.runtime import load
for file in {[str(exported / file) for file in FILES[:4]]}:
    load(file)
os.write(2, b"still there")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "still there"
