"""Rows of a dataset in ascending order: the sort itself, and that everything which reads datasets does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import toolkit
from export import convert
from toolkit.datasets import encode, read_datasets, sort_rows
from toolkit.evaluation import evaluate
from toolkit.publish import publish
from toolkit.spec import FORMATS, Spec
from toolkit.trainer import Settings
from toolkit.training import train

PARAMETERS = ("height", "rate", "noise")
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def sorted_model(small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of rows without an order, and with a hidden layer, exported in every precision."""
    folder = tmp_path_factory.mktemp("sorted") / "model"
    settings = Settings(epochs=2, batch_size=64, exchangeable_rows=True, hidden=8)
    train([small_datasets], PARAMETERS, output=folder, settings=settings)
    publish(folder, FORMATS, ("float32", "int8"), convert)
    return folder


@given(npst.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 4)), elements=NUMBERS))
def test_rows_come_out_in_the_order_that_python_gives_tuples(datasets: np.ndarray) -> None:
    datasets = datasets + np.float32(0)  # Python knows one zero
    ordered = sort_rows(datasets)
    assert ordered.dtype == np.float32 and ordered.flags["C_CONTIGUOUS"]
    for found, given_rows in zip(ordered.tolist(), datasets.tolist(), strict=True):
        assert found == sorted(given_rows)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_the_order_in_which_rows_come_leaves_no_trace(columns: int) -> None:
    rng = np.random.default_rng(columns)
    datasets = rng.choice(np.array([-1.5, -0.0, 0.0, 1e-45, 2.0], np.float32), size=(50, 40, columns))
    before = datasets.tobytes()
    shuffled = rng.permuted(datasets, axis=1) if columns == 1 else datasets[:, rng.permutation(40)]
    assert sort_rows(datasets).tobytes() == sort_rows(shuffled).tobytes()
    assert datasets.tobytes() == before, "what was given is left alone"


def test_reading_for_a_network_of_sorted_rows_sorts_them(tmp_path: Path) -> None:
    datasets = np.random.default_rng(1).normal(size=(30, 20, 2)).astype(np.float32)
    pq.write_table(pa.table({"x": encode(datasets)}), tmp_path / "d.parquet")
    as_given = read_datasets(tmp_path / "d.parquet", Spec(20, ("a", "b"), ("p",)))
    in_order = read_datasets(tmp_path / "d.parquet", Spec(20, ("a", "b"), ("p",), sorted_rows=True))
    np.testing.assert_array_equal(as_given, datasets)
    np.testing.assert_array_equal(in_order, sort_rows(datasets))


def test_estimates_of_a_sorted_network_do_not_depend_on_the_order_of_rows(sorted_model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    datasets = rng.normal(1, 0.3, size=(20, 24, 2)).astype(np.float32)
    shuffled = datasets[:, rng.permutation(24)]
    estimate = toolkit.load(sorted_model / "model.float32.onnx")
    assert estimate.spec is not None and estimate.spec.describe().startswith("24 sorted rows x ")
    alone = toolkit.load(_copied(sorted_model / "model.float32.onnx", tmp_path))  # the file's own metadata tell
    np.testing.assert_array_equal(estimate(datasets), estimate(shuffled))
    np.testing.assert_array_equal(alone(shuffled), estimate(datasets))
    for name, each in (("a", datasets), ("b", shuffled)):
        pq.write_table(pa.table({"x": encode(each)}), tmp_path / f"{name}.parquet")
        toolkit.batch_predict(
            [tmp_path / f"{name}.parquet"], model=sorted_model, output=tmp_path / f"{name}.predicted.parquet"
        )
    first, second = (pq.read_table(tmp_path / f"{name}.predicted.parquet") for name in "ab")
    for column in first.column_names:
        if column.startswith("predicted_"):
            assert first[column].equals(second[column])
            # Another engine than the one above, LiteRT for ONNX Runtime: 6e-7 measured.
            index = [f"predicted_{name}" for name in estimate.spec.parameters].index(column)
            np.testing.assert_allclose(first[column].to_numpy(), estimate(datasets)[:, index], rtol=2e-6)


def test_a_hidden_layer_is_in_every_file_and_row_order_has_no_effect(sorted_model: Path, small_datasets: Path) -> None:
    found = evaluate(sorted_model, small_datasets)
    assert {entry.file for entry in found.files} == {
        *("model.float32.tflite", "model.int8.tflite", "model.float32.onnx", "model.int8.onnx")
    }
    for entry in found.files:
        assert not entry.failures
    assert set(found.row_order.change.values()) == {0.0}
    assert found.manifest.training.configuration["hidden"] == 8
    with np.load(sorted_model / "weights.npz") as weights:
        assert any(weights[name].shape == (8, 3) for name in weights.files)


def test_rows_can_be_shuffled_instead_for_devices_that_cannot_sort(small_datasets: Path, tmp_path: Path) -> None:
    settings = Settings(epochs=1, exchangeable_rows=True, shuffled_rows=True)
    manifest = train([small_datasets], PARAMETERS, output=tmp_path / "model", settings=settings)
    assert not manifest.sorted_rows and manifest.training.configuration["shuffled_rows"] is True


def _copied(path: Path, folder: Path) -> Path:
    copy = folder / path.name
    copy.write_bytes(path.read_bytes())
    return copy
