"""Every layout through batch-predict: the same predictions, without the columns that held the datasets."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from toolkit.batch import batch_predict
from toolkit.datasets import encode

COUNT, ROWS, NAMES = 50, 24, ("time", "signal")
SPOILED = 17


@pytest.fixture(scope="module")
def datasets() -> np.ndarray:
    rng = np.random.default_rng(0)
    time = np.broadcast_to(np.linspace(0, 3, ROWS), (COUNT, ROWS))
    return np.stack([time, np.exp(-time) + 0.1 * rng.random((COUNT, ROWS))], axis=2).astype(np.float32)


def separate(x: np.ndarray) -> dict[str, Any]:
    return {name: pa.array(list(x[:, :, index])) for index, name in enumerate(NAMES)}


def structs(x: np.ndarray) -> dict[str, Any]:
    observation = pa.StructArray.from_arrays([pa.array(x[:, :, i].ravel()) for i in (1, 0)], ["signal", "time"])
    return {"x": pa.FixedSizeListArray.from_arrays(observation, ROWS)}


def struct_of_lists(x: np.ndarray) -> dict[str, Any]:
    return {"x": pa.StructArray.from_arrays(list(separate(x).values()), list(NAMES))}


def tensors(x: np.ndarray) -> dict[str, Any]:
    return {"x": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x))}


def npy(x: np.ndarray) -> dict[str, Any]:
    blobs = []
    for dataset in x:
        np.save(file := io.BytesIO(), dataset)
        blobs.append(file.getvalue())
    return {"x": blobs}


LAYOUTS: list[tuple[Callable[[np.ndarray], dict[str, Any]], dict[str, Any]]] = [
    (separate, {}),
    (structs, {}),
    (struct_of_lists, {}),
    (tensors, {}),
    (npy, {}),
    (lambda x: {"x": [dataset.astype("<f8").tobytes() for dataset in x]}, {}),
    (lambda x: {"x": pa.array([dataset.tobytes() for dataset in x], pa.binary(ROWS * 8))}, {}),
    (lambda x: {"x": [dataset.ravel("F").tolist() for dataset in x]}, {"order": "column"}),
    (lambda x: {"x": x.tolist()}, {}),
]
IDS = ["separate", "structs", "struct of lists", "tensors", "npy", "float64", "float32", "flat", "lists"]


@pytest.mark.parametrize(("written_as", "options"), LAYOUTS, ids=IDS)
def test_every_layout_gives_the_same_predictions(
    written_as: Callable[[np.ndarray], dict[str, Any]],
    options: dict[str, Any],
    datasets: np.ndarray,
    exported: Path,
    tmp_path: Path,
) -> None:
    def score(name: str, columns: dict[str, Any], **options: Any) -> tuple[pa.Table, pa.Table]:
        table = pa.table({"id": np.arange(COUNT), **columns, "note": ["n"] * COUNT})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=20)
        summary = batch_predict(tmp_path / f"{name}.parquet", model=exported, check="off", **options)
        assert (summary.rows_predicted, summary.reasons) == (COUNT - 1, {"nan": 1})
        assert summary.rejected is not None
        refused = pq.read_table(summary.rejected)
        assert refused.column_names == [*table.column_names, "source_file", "source_row", "reason"]
        assert refused.column("source_row").to_pylist() == [SPOILED]
        again = batch_predict(str(summary.rejected), model=exported, check="off", **options)
        assert again.reasons == {"nan": 1}, "rejected rows are in the layout of the input"
        return pq.read_table(summary.output).drop_columns(["source_file"]), refused

    spoiled = datasets.copy()
    spoiled[SPOILED, 3, 1] = np.nan
    expected, _ = score("nested", {"x": encode(spoiled)})
    found, _ = score("other", written_as(spoiled), **options)
    assert found.column_names[:2] == ["id", "note"]
    assert found.equals(expected)
