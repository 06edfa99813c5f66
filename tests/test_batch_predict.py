"""Parquet in, Parquet out, through the real runtimes: every row predicted or rejected, every column kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.tiny_files import OnnxFile
from toolkit.batch import batch_predict
from toolkit.datasets import decode, encode, find_layout, read_datasets
from toolkit.errors import InputError, ModelError, NotPositive, OutputError
from toolkit.files import sha256_of
from toolkit.manifest import read_manifest, write_manifest
from toolkit.runtime import load

NAMES = ("height", "rate", "noise")
FILES = ("model.float32.tflite", "model.float16.tflite", "model.float32.onnx", "model.float16.onnx")
PREDICTED = [f"predicted_{name}" for name in NAMES]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many shards of few rows, each in several batches."""
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", 64)
    monkeypatch.setattr("toolkit.batch.shards.READ_ROWS", 16)
    monkeypatch.setattr("toolkit.batch.shards.LAST_PARTS", 1)


@pytest.fixture(scope="module")
def datasets(small_datasets: Path, exported: Path) -> NDArray[np.float32]:
    """float32 (2000, 24, 2)."""
    return read_datasets(small_datasets, read_manifest(exported).spec)


@pytest.fixture(scope="module")
def estimates(exported: Path, datasets: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (2000, 3), of the default file."""
    return load(exported / FILES[0])(datasets)


def write(path: Path, x: Any, row_group_size: int = 64, **columns: Any) -> Path:
    array = encode(x) if isinstance(x, np.ndarray) else x
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": np.arange(len(array)), "x": array, **columns}), path, row_group_size=row_group_size)
    return path


def predictions(path: Path) -> NDArray[np.float32]:
    table = pq.read_table(path)
    return np.stack([table.column(name).to_numpy() for name in PREDICTED], axis=1)


def column(path: Path, name: str) -> list[Any]:
    return list(pq.read_table(path).column(name).to_pylist())


def test_batch_predict_writes_every_column_but_the_datasets_then_predictions_and_where_each_row_came_from(
    tmp_path: Path, exported: Path, small_datasets: Path, estimates: NDArray[np.float32]
) -> None:
    path = tmp_path / "input.parquet"
    pq.write_table(pq.read_table(small_datasets), path, row_group_size=300)
    summary = batch_predict([path], model=exported)
    output = tmp_path / "input.predictions.parquet"
    schema = pq.read_schema(output)
    assert schema.names == [*NAMES, *PREDICTED, "source_file", "source_row"]
    assert all(schema.field(name) == pa.field(name, pa.float32(), nullable=False) for name in PREDICTED)
    assert schema.field("source_file").type == pa.string() and schema.field("source_row").type == pa.int64()
    np.testing.assert_array_equal(predictions(output), estimates)
    assert pq.read_table(output, columns=list(NAMES)).equals(pq.read_table(path, columns=list(NAMES)))
    assert set(column(output, "source_file")) == {str(path)} and column(output, "source_row") == list(range(2000))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["input.parquet", "input.predictions.parquet"]

    result = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert list(result) == [
        *("rows_in", "rows_predicted", "rows_rejected", "rows_lost", "seconds", "output", "rejected", "formats"),
        *("outside_training_range", "smallest", "runtime", "lost", "interval"),
    ]
    assert (result["rows_in"], result["rows_predicted"], result["rows_rejected"]) == (2000, 2000, 0)
    assert result["seconds"] > 0 and result["output"] == str(output) and result["rejected"] is None
    assert [file["file"] for file in result["formats"]] == list(FILES)


def test_batch_predict_checks_every_exported_file_against_the_scoring_file(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32], estimates: NDArray[np.float32]
) -> None:
    path = write(tmp_path / "a.parquet", datasets)
    result = batch_predict(path, model=exported, check="all").to_json()
    assert len(result["formats"]) == 4
    for file in result["formats"]:
        outputs = load(exported / file["file"])(datasets)
        difference = np.abs(outputs / estimates.astype(np.float64) - 1).max(axis=0)
        assert file["rows_checked"] == 2000 and file["violations"] == 0
        assert file["minimum"] == dict(zip(NAMES, outputs.min(axis=0).tolist(), strict=True))
        assert list(file["max_relative_difference"]) == list(NAMES)
        # The same outputs; the quotient in another order of operations: measured 7.1e-17.
        np.testing.assert_allclose(list(file["max_relative_difference"].values()), difference, rtol=0, atol=1.5e-16)
    scoring, half = result["formats"][0], result["formats"][1]
    assert set(scoring["max_relative_difference"].values()) == {0.0}
    assert all(1e-5 < value < 1e-2 for value in half["max_relative_difference"].values()), "half precision must show"


def test_batch_predict_checks_a_sample_that_holds_the_smallest_outputs(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32], estimates: NDArray[np.float32]
) -> None:
    path = write(tmp_path / "a.parquet", datasets, row_group_size=2000)
    scoring, *others = batch_predict(path, model=exported, check="sample").to_json()["formats"]
    assert scoring["rows_checked"] == 2000
    smallest = estimates.argmin(axis=0)
    for file in others:
        assert 20 + len(NAMES) < file["rows_checked"] <= 20 + len(NAMES) * 32, "the smallest of each of 32 shards"
        outputs = load(exported / file["file"])(datasets[smallest])
        assert all(file["minimum"][name] <= outputs[index, index] for index, name in enumerate(NAMES))


def test_batch_predict_runs_only_the_scoring_file_when_checks_are_off(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    summary = batch_predict(write(tmp_path / "a.parquet", datasets), model=exported, check="off")
    (file,) = summary.to_json()["formats"]
    assert file["file"] == FILES[0] and file["rows_checked"] == 2000
    with pytest.raises(ValueError, match="check is 'some', not one of all, sample, off"):
        batch_predict(tmp_path / "a.parquet", model=exported, check="some")


@pytest.mark.parametrize("file", FILES[1:])
def test_batch_predict_scores_with_the_file_that_is_named(
    file: str, tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    path = write(tmp_path / "a.parquet", datasets[:300])
    summary = batch_predict(path, model=exported, file=file, check="sample")
    assert [check["file"] for check in summary.to_json()["formats"]] == [
        file,
        *(other for other in FILES if other != file),
    ]
    np.testing.assert_array_equal(predictions(summary.output), load(exported / file)(datasets[:300]))


def test_batch_predict_gives_the_same_for_every_layout(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32], estimates: NDArray[np.float32]
) -> None:
    flat = pa.array(datasets[:100].ravel())
    by_column = pa.array(datasets[:100].transpose(0, 2, 1).ravel())
    tensor, turned = (
        pa.fixed_shape_tensor(pa.float32(), [24, 2]),
        pa.fixed_shape_tensor(pa.float32(), [2, 24], permutation=[1, 0]),
    )
    layouts: dict[str, tuple[pa.Array, str | None]] = {
        "variable": (pa.array(datasets[:100].tolist(), pa.list_(pa.list_(pa.float64()))), None),
        "large": (pa.array(datasets[:100].tolist(), pa.large_list(pa.large_list(pa.float32()))), None),
        "tensor": (pa.ExtensionArray.from_storage(tensor, pa.FixedSizeListArray.from_arrays(flat, 48)), None),
        "turned": (pa.ExtensionArray.from_storage(turned, pa.FixedSizeListArray.from_arrays(by_column, 48)), None),
        "flat": (pa.FixedSizeListArray.from_arrays(flat, 48), "row"),
        "columns": (pa.array(by_column.to_numpy().reshape(100, 48).tolist(), pa.list_(pa.float32())), "column"),
    }
    for name, (array, order) in layouts.items():
        path = write(tmp_path / f"{name}.parquet", array)
        summary = batch_predict(path, model=exported, check="off", order=order)
        np.testing.assert_array_equal(predictions(summary.output), estimates[:100], err_msg=name)


def test_batch_predict_keeps_columns_of_every_type_as_they_are(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    rng = np.random.default_rng(0)
    words = [None if rng.random() < 0.2 else "w" * int(rng.integers(5)) for _ in range(500)]
    columns = {
        "text": pa.array(words),
        "large": pa.array(words, pa.large_string()),
        "category": pa.array(words).dictionary_encode(),
        "blob": pa.array([None, b"\x00\xff"] * 250),
        "when": pa.array([datetime(2024, 1, 1, 2, 3, 4, 567)] * 500, pa.timestamp("us", tz="Europe/Oslo")),
        "price": pa.array([Decimal("1.23"), None] * 250, pa.decimal128(9, 2)),
        "yes": pa.array([True, None] * 250),
        "half": pa.array(rng.normal(size=500).astype(np.float16)),
        "nan": pa.array(np.where(rng.random(500) < 0.5, np.nan, 1.0)),
        "tags": pa.array([["a"], None, [], [None, "b"]] * 125),
        "nested": pa.array([{"a": 1, "b": [1.5]}, None] * 250),
        "nothing": pa.nulls(500),
        "other tensor": pa.array(rng.normal(size=(500, 3)).tolist(), pa.list_(pa.float64(), 3)),
    }
    x = encode(datasets[:500]).to_pylist()
    x[3] = x[77] = None
    path = write(tmp_path / "a.parquet", pa.array(x, pa.list_(pa.list_(pa.float32(), 2), 24)), **columns)
    summary = batch_predict(path, model=exported, check="off", column="x")
    given, kept = pq.read_table(path), np.delete(np.arange(500), [3, 77])
    written = pq.read_table(summary.output)
    for name in ("id", *columns):
        assert written.schema.field(name).type == given.schema.field(name).type, name
        expected = given.column(name).take(pa.array(kept)).to_pylist()
        assert repr(written.column(name).to_pylist()) == repr(expected), name  # as text: NaN is not itself
    assert summary.rejected is not None
    assert (
        pq.read_table(summary.rejected)
        .drop_columns(["source_file", "source_row", "reason"])
        .equals(given.take([3, 77]))
    )


def spoiled(datasets: NDArray[np.float32]) -> tuple[pa.Array, dict[int, str]]:
    """300 datasets as variable lists of float64, and which rows are none, and why."""
    lists: list[Any] = datasets[:300].astype(np.float64).tolist()
    lists[0] = None
    lists[10] = lists[10][:23]
    lists[63] = [*lists[63], [1.0, 2.0]]
    lists[64][5] = [1.0]
    lists[65][5][1] = None
    lists[200][23][0] = float("nan")
    lists[201][0][1] = float("-inf")
    lists[299][3][1] = 1e39
    reasons = {
        0: "null",
        10: "rows",
        63: "rows",
        64: "columns",
        65: "null",
        200: "nan",
        201: "infinite",
        299: "infinite",
    }
    return pa.array(lists, pa.list_(pa.list_(pa.float64()))), reasons


@pytest.mark.parametrize("row_group_size", [7, 64, 1000])
def test_batch_predict_sets_aside_rows_that_cannot_be_scored(
    row_group_size: int, tmp_path: Path, exported: Path, datasets: NDArray[np.float32], estimates: NDArray[np.float32]
) -> None:
    x, reasons = spoiled(datasets)
    path = write(tmp_path / "a.parquet", x, row_group_size=row_group_size)
    summary = batch_predict(path, model=exported, check="off")
    assert (summary.rows_in, summary.rows_predicted, summary.rows_rejected) == (300, 292, 8)
    assert summary.reasons == {"columns": 1, "infinite": 2, "nan": 1, "null": 2, "rows": 2}
    kept = [row for row in range(300) if row not in reasons]
    assert column(summary.output, "source_row") == column(summary.output, "id") == kept
    np.testing.assert_array_equal(predictions(summary.output), estimates[kept])
    rejected = tmp_path / "a.predictions.rejected.parquet"
    assert summary.rejected == rejected and summary.to_json()["rejected"] == str(rejected)
    table = pq.read_table(rejected)
    assert table.schema.names == ["id", "x", "source_file", "source_row", "reason"]
    assert dict(zip(table["source_row"].to_pylist(), table["reason"].to_pylist(), strict=True)) == reasons
    assert table["x"].type == x.type
    assert repr(table["x"].to_pylist()) == repr(x.take(pa.array(sorted(reasons))).to_pylist())


def test_batch_predict_sets_aside_rows_of_a_tensor_column_in_their_own_type(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32], estimates: NDArray[np.float32]
) -> None:
    values = datasets[:100].copy()
    values[70, 3, 0] = np.nan
    storage = pa.FixedSizeListArray.from_arrays(values.ravel(), 48, mask=pa.array([row == 40 for row in range(100)]))
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [24, 2]), storage)
    summary = batch_predict(
        write(tmp_path / "a.parquet", tensors, copy=tensors), model=exported, column="x", check="off"
    )
    kept = np.delete(np.arange(100), [40, 70])
    np.testing.assert_array_equal(predictions(summary.output), estimates[kept])
    assert summary.rejected is not None
    rejected, carried = pq.read_table(summary.rejected), pq.read_table(summary.output)
    assert rejected["reason"].to_pylist() == ["null", "nan"]
    assert rejected["x"].type == carried["copy"].type == tensors.type
    np.testing.assert_array_equal(rejected["x"].combine_chunks().storage[1].values.to_numpy(), values[70].ravel())
    np.testing.assert_array_equal(carried["copy"].combine_chunks().to_numpy_ndarray(), values[kept])


def test_batch_predict_takes_rejected_rows_again_once_they_are_fixed(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32], estimates: NDArray[np.float32]
) -> None:
    x, reasons = spoiled(datasets)
    first = batch_predict(write(tmp_path / "a.parquet", x), model=exported, check="off")
    assert first.rejected is not None
    still = batch_predict(first.rejected, model=exported, check="off")
    assert (still.rows_in, still.rows_predicted, still.rows_rejected) == (8, 0, 8)
    assert still.rejected is not None and pq.read_schema(still.rejected).names == pq.read_schema(first.rejected).names
    assert column(still.rejected, "source_row") == list(range(8))
    assert set(column(still.rejected, "source_file")) == {str(first.rejected)}

    table = pq.read_table(first.rejected)
    rows = sorted(reasons)
    mended = table.set_column(1, "x", pa.array(datasets[rows].tolist(), x.type))
    pq.write_table(mended, tmp_path / "mended.parquet")
    again = batch_predict(tmp_path / "mended.parquet", model=exported, check="off")
    assert (again.rows_predicted, again.rejected) == (8, None)
    assert pq.read_schema(again.output).names == ["id", *PREDICTED, "source_file", "source_row"]
    assert column(again.output, "id") == rows and column(again.output, "source_row") == list(range(8))
    np.testing.assert_array_equal(predictions(again.output), estimates[rows])


def test_batch_predict_of_no_rows_gives_an_output_of_no_rows(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    path = write(tmp_path / "a.parquet", datasets[:0], note=pa.array([], pa.string()))
    for check in ("all", "sample", "off"):
        summary = batch_predict(path, model=exported, check=check, overwrite=True)
        assert (summary.rows_in, summary.rows_predicted, summary.rows_rejected) == (0, 0, 0)
        assert pq.read_table(summary.output).num_rows == 0
        assert pq.read_schema(summary.output).names == ["id", "note", *PREDICTED, "source_file", "source_row"]
        assert summary.to_json()["formats"][0]["minimum"] == {}


def test_batch_predict_puts_several_files_one_after_the_other(
    tmp_path: Path,
    exported: Path,
    datasets: NDArray[np.float32],
    estimates: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path / "in" / "b.parquet", datasets[:100])
    write(tmp_path / "in" / "deep" / "a.parquet", datasets[100:150])
    write(tmp_path / "in" / "c.parquet", datasets[:0])
    write(tmp_path / "z.parquet", datasets[150:170])
    monkeypatch.chdir(tmp_path)
    summary = batch_predict(["z.parquet", "in"], model=exported, check="off", output="out.parquet")
    order = [*range(150, 170), *range(100), *range(100, 150)]
    np.testing.assert_array_equal(predictions(summary.output), estimates[order])
    assert column(summary.output, "source_file") == [
        *["z.parquet"] * 20,
        *["in/b.parquet"] * 100,
        *["in/deep/a.parquet"] * 50,
    ]
    assert column(summary.output, "source_row") == [*range(20), *range(100), *range(50)]
    assert batch_predict("in", model=exported, check="off").output == Path("in.predictions.parquet")
    assert batch_predict("in/b*.parquet", model=exported, check="off").output == Path("in/b.predictions.parquet")


def test_batch_predict_wants_a_name_for_the_output_of_several_inputs(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.parquet", datasets[:5])
    for inputs in ([tmp_path / "a.parquet", tmp_path / "b.parquet"], [str(tmp_path / "*.parquet")]):
        with pytest.raises(OutputError, match="several inputs. Name the file for their predictions: --output"):
            batch_predict(inputs, model=exported)


def test_batch_predict_names_the_input_it_cannot_use(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    good = write(tmp_path / "a.parquet", datasets[:50])
    longer = write(tmp_path / "b.parquet", np.zeros((5, 25, 2), np.float32))
    differing = write(tmp_path / "c.parquet", datasets[:5], note=np.arange(5))
    flat = write(tmp_path / "d.parquet", pa.array(datasets[:5].reshape(5, 48).tolist()))
    damaged = write(tmp_path / "e.parquet", datasets[:500], row_group_size=50)
    content = bytearray(damaged.read_bytes())
    content[30_000:32_000] = bytes(2000)
    damaged.write_bytes(content)
    for inputs, message in (
        ([good, longer], r"b\.parquet: no column holds datasets of 24 rows x \(time, signal\) columns"),
        ([good, differing], r"c\.parquet: column 'note' is int64, in .*a\.parquet it is absent"),
        ([flat], r"d\.parquet: column 'x' is a flat list of 24 x 2 numbers. Say how it lies: --order row"),
        ([damaged], r"e\.parquet, row groups? \d( to \d)?: damaged"),
        ([tmp_path / "none.parquet"], r"none\.parquet: no such file or folder"),
    ):
        with pytest.raises(InputError, match=message):
            batch_predict(inputs, model=exported, check="off", output=tmp_path / "out.parquet")
        assert not (tmp_path / "out.parquet").exists()


def test_batch_predict_names_the_model_it_cannot_use(
    tmp_path: Path, exported_copy: Path, datasets: NDArray[np.float32]
) -> None:
    path = write(tmp_path / "a.parquet", datasets[:5])
    with pytest.raises(ModelError, match="nowhere: no model here"):
        batch_predict(path, model=tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"no exported file 'model\.int9\.onnx'.*Files here: model\.float32\.tflite"):
        batch_predict(path, model=exported_copy, file="model.int9.onnx")
    other = exported_copy / "model.float16.onnx"
    other.write_bytes(other.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"model\.float16\.onnx: sha256 differs from manifest\.json"):
        batch_predict(path, model=exported_copy)
    assert batch_predict(path, model=exported_copy, check="off").rows_predicted == 5, "that file is not run"
    other.unlink()
    with pytest.raises(ModelError, match=r"model\.float16\.onnx: named in manifest\.json but not there"):
        batch_predict(path, model=exported_copy, check="sample")


def test_batch_predict_bytes_depend_on_neither_workers_nor_output(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    x, _ = spoiled(datasets)
    path = write(tmp_path / "a.parquet", x, row_group_size=11, note=[f"n{row % 9}" for row in range(300)])
    results = set()
    for workers in (1, 2, 4):
        output = tmp_path / f"out of {workers}" / f"{workers}.parquet"
        output.parent.mkdir()
        summary = batch_predict(path, model=exported, output=output, workers=workers)
        assert summary.rejected is not None
        results.add((sha256_of(output), sha256_of(summary.rejected)))
    assert len(results) == 1


def test_batch_predict_reports_progress_up_to_all_rows(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    path = write(tmp_path / "a.parquet", datasets[:200])
    seen: list[tuple[int, int]] = []
    batch_predict(path, model=exported, check="off", report=lambda done, total, rejected: seen.append((done, total)))
    assert sorted(seen) == seen and seen[0] == (0, 200) and seen[-1] == (200, 200) and len(seen) == 5


def test_batch_predict_leaves_evidence_in_the_output(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    summary = batch_predict(write(tmp_path / "a.parquet", datasets[:99]), model=exported)
    evidence = json.loads(pq.read_metadata(summary.output).metadata[b"softplus_toolkit.scoring"])
    sha256 = sha256_of(exported / FILES[0])
    assert evidence["model"] == {"file": FILES[0], "sha256": sha256, "runtime": "litert"}
    assert evidence["formats"] == summary.to_json()["formats"] and evidence["rows_in"] == 99


def with_bad_file(directory: Path, name: str, threshold: float) -> Path:
    """Put a model with a linear head in the place of an exported file; it gives threshold minus the last signal."""
    import onnx

    file = OnnxFile(["batch", 24, 2])
    last = file.add("Slice", [file.input, *(file.constant(at, "int64") for at in ([23, 1], [24, 2], [1, 2]))])
    flat = file.add("Reshape", [last, file.constant([-1, 1], "int64")])
    linear = file.add("Sub", [file.constant([[threshold] * 3]), flat])
    onnx.save(file.model([linear], columns=3), directory / name)
    manifest = read_manifest(directory)
    (entry,) = (entry for entry in manifest.files if entry.file == name)
    write_manifest(directory, manifest.with_file(replace(entry, sha256=sha256_of(directory / name))))
    return directory / name


@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("workers", [1, 4])
def test_batch_predict_stops_at_the_first_output_that_is_not_positive(
    scores: bool, workers: int, tmp_path: Path, exported_copy: Path, datasets: NDArray[np.float32]
) -> None:
    last = datasets[:, 23, 1]
    threshold = float(np.sort(last)[-30])  # 30 of 2,000 rows give 0 or less
    bad = with_bad_file(exported_copy, "model.float32.onnx", threshold)
    path = write(tmp_path / "a.parquet", datasets, row_group_size=100)
    row = int(np.flatnonzero(last >= np.float32(threshold))[0])
    with pytest.raises(NotPositive) as error:
        batch_predict(path, model=exported_copy, file=bad.name if scores else None, workers=workers)
    replay = tmp_path / "a.predictions.violation.parquet"
    value = np.float32(threshold) - last[row]
    assert str(error.value) == (
        f"{path}, row {row}: model.float32.onnx gave height = {value:.9g}, which is not a finite normal positive "
        f"number. Its dataset is in {replay}. Do not use this file: export it again."
    )
    assert not (tmp_path / "a.predictions.parquet").exists()
    (again,) = read_datasets(replay, read_manifest(exported_copy).spec)
    np.testing.assert_array_equal(again, datasets[row])
    assert column(replay, "source_row") == [row] and column(replay, "source_file") == [str(path)]
    assert column(replay, "reason") == [f"model.float32.onnx gave height = {value:.9g}"]
    with pytest.raises(NotPositive, match=f"violation.parquet, row 0: model.float32.onnx gave height = {value:.9g}"):
        batch_predict(replay, model=exported_copy, file=bad.name)


def test_batch_predict_with_checks_off_does_not_run_the_bad_file(
    tmp_path: Path, exported_copy: Path, datasets: NDArray[np.float32]
) -> None:
    with_bad_file(exported_copy, "model.float32.onnx", -1e9)
    path = write(tmp_path / "a.parquet", datasets[:50])
    assert batch_predict(path, model=exported_copy, check="off").rows_predicted == 50
    with pytest.raises(NotPositive, match=r"row 0: model\.float32\.onnx gave height = -1e\+09"):
        batch_predict(path, model=exported_copy, check="all", overwrite=True)


def test_batch_predict_replaces_an_output_only_when_told_to(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    x, _ = spoiled(datasets)
    path, output = write(tmp_path / "a.parquet", x), tmp_path / "out.parquet"
    first = batch_predict(path, model=exported, check="off", output=output)
    assert first.rejected == tmp_path / "out.rejected.parquet"
    before = sha256_of(output)
    with pytest.raises(OutputError, match=r"out\.parquet: exists. Replace it with --overwrite, or name another"):
        batch_predict(path, model=exported, check="off", output=output)
    assert sha256_of(output) == before
    output.unlink()
    with pytest.raises(OutputError, match=r"out\.rejected\.parquet: exists. Replace it with --overwrite"):
        batch_predict(path, model=exported, check="off", output=output)
    write(path, datasets[:10])
    clean = batch_predict(path, model=exported, check="off", output=output, overwrite=True)
    assert (clean.rows_predicted, clean.rejected) == (10, None)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.parquet", "out.parquet"]


def test_batch_predict_keeps_the_old_output_when_a_new_run_fails(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    path, output = write(tmp_path / "a.parquet", datasets[:500], row_group_size=50), tmp_path / "out.parquet"
    batch_predict(path, model=exported, check="off", output=output)
    before = sha256_of(output)
    content = bytearray(path.read_bytes())
    content[30_000:32_000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        batch_predict(path, model=exported, check="off", output=output, overwrite=True)
    assert sha256_of(output) == before


def test_batch_predict_never_writes_over_an_input(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    path = write(tmp_path / "a.parquet", datasets[:10])
    rejected = write(tmp_path / "b.rejected.parquet", datasets[:10])
    (tmp_path / "link.parquet").symlink_to(path)
    for given, output in ((path, path), (path, tmp_path / "link.parquet"), (rejected, tmp_path / "b.parquet")):
        with pytest.raises(OutputError, match="is an input, and this run would replace it"):
            batch_predict(given, model=exported, output=output, overwrite=True)


def test_batch_predict_names_an_output_that_cannot_be_written(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    path = write(tmp_path / "a.parquet", datasets[:10])
    with pytest.raises(OutputError, match=r"out\.parquet: the folder .*none does not exist. Make it"):
        batch_predict(path, model=exported, output=tmp_path / "none" / "out.parquet")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(OutputError, match=r"folder\.parquet: is a folder. Name a file with --output"):
        batch_predict(path, model=exported, output=tmp_path / "folder.parquet", overwrite=True)


def test_batch_predict_loads_only_what_it_runs(tmp_path: Path, exported: Path, datasets: NDArray[np.float32]) -> None:
    path = write(tmp_path / "a.parquet", datasets[:10])
    code = (
        "import sys\nfrom toolkit.batch import batch_predict\n"
        f"batch_predict({str(path)!r}, model={str(exported)!r}, check=sys.argv[1], overwrite=True)\n"
        "print(*sys.modules)"
    )
    heavy = {"onnx", "onnxruntime", "tensorflow", "keras", "pandas", "rich", "ray", "scipy"}
    for check, expected in (("off", set()), ("all", {"onnxruntime"})):
        done = subprocess.run([sys.executable, "-c", code, check], capture_output=True, text=True, check=True)
        assert heavy & set(done.stdout.split()) == expected
        assert done.stderr == ""


def test_batch_predict_uses_the_cores_it_may_run_on() -> None:
    from toolkit.cores import usable_cores

    code = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from toolkit.cores import usable_cores\nprint(usable_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1" and usable_cores() == len(os.sched_getaffinity(0))


def test_output_of_batch_predict_is_no_input_but_its_datasets_column_is_found(
    tmp_path: Path, exported: Path, datasets: NDArray[np.float32]
) -> None:
    """A second tensor that does not fit is carried along; predictions from before must be dropped first."""
    path = write(tmp_path / "a.parquet", datasets[:10], predicted_height=np.ones(10))
    with pytest.raises(InputError, match="has a column 'predicted_height' already, which the result needs"):
        batch_predict(path, model=exported)
    table = pq.read_table(path).drop_columns(["predicted_height"])
    pq.write_table(table.append_column("y", encode(np.zeros((10, 3, 2), np.float32))), path)
    summary = batch_predict(path, model=exported, check="off")
    schema = pq.read_schema(summary.output)
    layout = find_layout(schema, where="output", column="y")
    assert decode(pq.read_table(summary.output).column("y"), layout).datasets.shape == (10, 3, 2)
