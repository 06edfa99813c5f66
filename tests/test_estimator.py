"""`toolkit.load`: what a person calls from Python, and what it refuses to take and to give."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import tomllib
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import toolkit
from toolkit.datasets import read_datasets
from toolkit.errors import InputError, ModelError, NotPositive
from toolkit.manifest import read_manifest
from toolkit.runtime import load as load_engine

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def datasets(small_datasets: Path, exported: Path) -> NDArray[np.float32]:
    """float32 (100, 24, 2)."""
    return read_datasets(small_datasets, read_manifest(exported).spec)[:100]


def test_load_gives_the_estimates_of_the_runtime_and_tells_what_it_takes(
    exported: Path, datasets: NDArray[np.float32]
) -> None:
    for name, runtime in (("model.float32.tflite", "litert"), ("model.float16.onnx", "onnxruntime")):
        estimator = toolkit.load(exported / name)
        np.testing.assert_array_equal(estimator(datasets), load_engine(exported / name)(datasets))
        assert (estimator.path, estimator.runtime) == (exported / name, runtime)
        assert estimator.spec == read_manifest(exported).spec
        assert repr(estimator) == (
            f"<Estimator {exported / name}: 24 rows x (time, signal) -> height, rate, noise, {runtime}>"
        )
    assert estimator(datasets[:0]).shape == (0, 3)


def test_load_of_a_model_directory_takes_its_default_file_and_only_the_one_the_manifest_is_about(
    exported_copy: Path, datasets: NDArray[np.float32]
) -> None:
    file = exported_copy / "model.float32.tflite"
    np.testing.assert_array_equal(toolkit.load(exported_copy)(datasets), toolkit.load(str(file))(datasets))
    file.write_bytes((exported_copy / "model.float16.tflite").read_bytes())
    with pytest.raises(ModelError, match=r"model\.float32\.tflite: sha256 differs from manifest\.json"):
        toolkit.load(exported_copy)
    with pytest.raises(ModelError, match="no model here"):
        toolkit.load(exported_copy.parent)


def test_load_reads_the_names_inside_a_file_that_stands_alone_and_none_where_it_carries_none(
    exported: Path, tmp_path: Path, datasets: NDArray[np.float32]
) -> None:
    for ending in ("tflite", "onnx"):
        alone = shutil.copy(exported / f"model.float32.{ending}", tmp_path)
        assert toolkit.load(alone).spec == read_manifest(exported).spec
    path = shutil.copy(exported / "model.float32.onnx", tmp_path / "foreign.onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    estimator = toolkit.load(path)
    assert estimator.spec is None and repr(estimator) == f"<Estimator {path}, onnxruntime>"
    assert estimator(datasets).shape == (100, 3)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_estimator_converts_other_numbers_to_float32(
    exported: Path, datasets: NDArray[np.float32], dtype: type
) -> None:
    estimator = toolkit.load(exported)
    given = datasets.astype(dtype)
    np.testing.assert_array_equal(estimator(given), estimator(given.astype(np.float32)))
    np.testing.assert_array_equal(estimator(given.tolist()), estimator(given.astype(np.float32)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_estimator_refuses_a_number_that_is_not_finite_in_float32_and_names_the_dataset(
    exported: Path, datasets: NDArray[np.float32], bad: float
) -> None:
    given = datasets.astype(np.float64)
    given[41, 3, 1] = bad
    with pytest.raises(InputError, match="dataset 41: holds a number that is not finite"):
        toolkit.load(exported)(given)


def test_estimator_refuses_another_shape_and_says_how_to_pass_one_dataset(
    exported: Path, datasets: NDArray[np.float32]
) -> None:
    estimator = toolkit.load(exported)
    with pytest.raises(InputError, match=r"shape \(n, 24, 2\), not \(100, 2, 24\)"):
        estimator(datasets.transpose(0, 2, 1))
    with pytest.raises(InputError, match=r"not \(24, 2\)\. One: dataset\[np\.newaxis\]"):
        estimator(datasets[0])
    np.testing.assert_array_equal(estimator(datasets[0][np.newaxis]), estimator(datasets)[:1])


def test_estimator_gives_no_number_that_is_not_positive(exported: Path, datasets: NDArray[np.float32]) -> None:
    estimator = toolkit.load(exported)
    for bad in (0.0, -1.0, 1e-39, np.nan, np.inf):

        def broken(given: NDArray[np.float32], bad: float = bad) -> NDArray[np.float32]:
            estimates = np.ones((len(given), 3), np.float32)
            estimates[7, 2] = bad
            return estimates

        estimator._predict = broken
        with pytest.raises(NotPositive, match=r"model\.float32\.tflite: gave .* for dataset 7, which is not a finite"):
            estimator(datasets)


def test_estimator_may_be_called_from_several_threads(exported: Path, datasets: NDArray[np.float32]) -> None:
    estimator = toolkit.load(exported)
    expected = [estimator(datasets + np.float32(index)) for index in range(4)]
    wrong: list[int] = []

    def call(index: int) -> None:
        for _ in range(30):
            if not np.array_equal(estimator(datasets + np.float32(index)), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def run_examples(verb: str, **names: object) -> int:
    """How many lines of Python the help of a verb shows; all of them give what it says."""
    (test,) = doctest.DocTestFinder().find(getattr(toolkit, verb), verb, globs={"toolkit": toolkit, **names})
    assert doctest.DocTestRunner().run(test).failed == 0
    return len(test.examples)


def test_the_example_in_the_help_of_load_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    spec = read_manifest(Path("samples/model")).spec
    datasets = read_datasets("samples/model/calibration.parquet", spec)[:16]
    assert run_examples("load", datasets=datasets) == 3


def test_the_example_in_the_help_of_batch_predict_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "samples" / "response_times.parquet", tmp_path)
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    monkeypatch.chdir(tmp_path)
    assert run_examples("batch_predict") == 3


@pytest.mark.parametrize("verb", toolkit.__all__)
def test_help_of_every_verb_says_what_each_argument_is_and_what_is_raised(verb: str) -> None:
    function = getattr(toolkit, verb)
    said = inspect.getdoc(function) or ""
    arguments = said.partition("Args:")[2].partition("\n\n")[0]
    for name, parameter in inspect.signature(function).parameters.items():
        assert parameter.annotation is not inspect.Parameter.empty
        assert f"{name}:" in arguments or f"{name}," in arguments, f"{verb} does not say what {name} is"
    assert "Raises:" in said


USE = """
from pathlib import Path
import numpy as np
import toolkit

estimates = toolkit.load("model", threads=2)(np.zeros((3, 200, 2)))
reveal_type(estimates)
summary = toolkit.batch_predict(Path("a.parquet"), check="off")
reveal_type(summary.rows_in)
toolkit.load(3)
"""


@pytest.mark.soak
def test_types_reach_the_users_type_checker(tmp_path: Path) -> None:
    """In an environment with the packages where a wheel puts them, with the files that pyproject.toml names."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    for package in ("toolkit", "export"):
        shutil.copytree(ROOT / package, packages / package, ignore=shutil.ignore_patterns("__pycache__", "py.typed"))
        for pattern in listed[package]:
            for path in (ROOT / package).glob(pattern):
                shutil.copy(path, packages / package / path.relative_to(ROOT / package))
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tmp_path / "use.py").write_text(USE)
    python = tmp_path / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "mypy", "--python-executable", python, "--cache-dir", tmp_path / "cache", "use.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    array, number, *errors = done.stdout.splitlines()
    assert "numpy.ndarray" in array and "numpy.floating" in array, done.stdout + done.stderr
    assert re.search(r'Revealed type is "(builtins\.)?int"', number), number
    assert 'Argument 1 to "load" has incompatible type "int"; expected "Path | str"' in errors[0]
    assert errors[1] == "Found 1 error in 1 file (checked 1 source file)"


def test_packages_say_that_they_are_typed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert all("py.typed" in listed[package] for package in ("toolkit", "export"))
    assert all((ROOT / package / "py.typed").is_file() for package in listed)
