"""Files for a fixed number of datasets a call: the same network, the same promise, its sizes all known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from export import convert
from export.batch import with_batch
from toolkit.datasets import read_datasets
from toolkit.manifest import find_file, read_manifest
from toolkit.publish import publish
from toolkit.runtime import load
from toolkit.spec import FORMATS

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def fixed(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported directory with files for one dataset a call, and for three, beside the others."""
    directory = Path(shutil.copytree(exported, tmp_path_factory.mktemp("fixed") / "model"))
    publish(directory, FORMATS, ("float32",), lambda *arguments: convert(*arguments, batch=1))
    publish(directory, ("tflite",), ("integer",), lambda *arguments: convert(*arguments, batch=3))
    return directory


NAMES = {
    "model.float32.batch1.tflite": 1,
    "model.integer.batch3.tflite": 3,
    "model.float32.batch1.onnx": 1,
}


@pytest.mark.parametrize("name", NAMES)
def test_export_writes_a_fixed_batch_into_name_manifest_and_file(
    fixed: Path, toolkit_command: Command, name: str
) -> None:
    entry = find_file(fixed, name)
    assert entry.batch == NAMES[name] and f" --batch {NAMES[name]}" in entry.export_again
    (written,) = [each for each in json.loads((fixed / "manifest.json").read_text())["files"] if each["file"] == name]
    assert written["batch"] == NAMES[name]
    found = json.loads(toolkit_command("inspect", fixed / name, "--json").stdout)["files"][0]
    assert (
        found["metadata"]["batch"] == NAMES[name] == found["inputs"][0]["shape"][0] == found["outputs"][0]["shape"][0]
    )
    assert found["proof"]["passed"] and not found["problems"]


def test_export_fixes_the_size_of_every_tensor_of_a_tflite_file(fixed: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    for name in ("model.float32.batch1.tflite", "model.integer.batch3.tflite"):
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((fixed / name).read_bytes(), 0))
        for tensor in model.subgraphs[0].tensors:
            assert tensor.shapeSignature is None, (name, tensor.name)
        (source,) = model.subgraphs[0].inputs
        assert model.subgraphs[0].tensors[source].shape[0] == NAMES[name]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_load_takes_any_number_of_datasets_for_a_fixed_batch(fixed: Path, count: int) -> None:
    spec = read_manifest(fixed).spec
    datasets = read_datasets(fixed / "calibration.parquet", spec)[:count]
    for format in FORMATS:
        of_one = load(fixed / f"model.float32.batch1.{format}")(datasets)
        of_many = load(fixed / f"model.float32.{format}")(datasets)
        # The same kernels sum in another order: measured 2.4e-7.
        np.testing.assert_allclose(of_one, of_many, rtol=5e-7)


def test_export_keeps_files_of_an_open_batch_beside_those_of_a_fixed_one(fixed: Path, exported: Path) -> None:
    before = {entry.file: entry.sha256 for entry in read_manifest(exported).files}
    now = [entry.file for entry in read_manifest(fixed).files]
    assert now.index("model.float32.tflite") + 1 == now.index("model.float32.batch1.tflite")
    assert {name: find_file(fixed, name).sha256 for name in before} == before
    assert all(find_file(fixed, name).batch is None for name in before)


def test_manifest_without_the_key_has_an_open_batch_and_one_that_is_no_size_is_refused(
    exported_copy: Path, toolkit_command: Command
) -> None:
    path = exported_copy / "manifest.json"
    content = json.loads(path.read_text())
    assert all("batch" not in file for file in content["files"])
    content["files"][0]["batch"] = -1
    path.write_text(json.dumps(content))
    result = toolkit_command("inspect", exported_copy)
    assert result.exit_code == 1 and "batch -1" in result.stderr


def test_batch_predict_scores_with_a_fixed_batch_and_checks_the_others(
    fixed: Path, toolkit_command: Command, tmp_path: Path
) -> None:
    output = tmp_path / "predictions.parquet"
    result = toolkit_command(
        *("batch-predict", fixed / "calibration.parquet", "--model", fixed, "--output", output, "--json"),
        *("--file", "model.float32.batch1.tflite", "--overwrite"),
    )
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    rows = pq.read_metadata(fixed / "calibration.parquet").num_rows
    assert summary["rows_predicted"] == rows
    checked = {each["file"]: each for each in summary["formats"]}
    assert set(NAMES) <= set(checked)
    assert all(each["rows_checked"] == rows and each["violations"] == 0 for each in checked.values())


def test_verify_judges_files_of_a_fixed_batch(fixed: Path, toolkit_command: Command) -> None:
    result = toolkit_command("verify", "--model", fixed, "--json")
    verdicts = {each["file"]: each for each in json.loads(result.stdout)["files"]}
    assert result.exit_code == 0 and all(verdicts[name]["proved"] for name in NAMES)


def test_export_refuses_a_batch_that_is_no_size(toolkit_command: Command, trained: Path) -> None:
    for batch in ("0", "-1", "2000"):
        result = toolkit_command("export", "--model", trained, "--format", "tflite", "--batch", batch)
        assert result.exit_code == 2 and "1<=x<=1024" in result.stderr


@pytest.mark.parametrize("format", FORMATS)
def test_with_batch_leaves_the_estimates_of_an_int8_file_as_they_are(tmp_path: Path, format: str) -> None:
    source = Path(__file__).resolve().parent.parent / "samples" / "model" / f"model.int8.{format}"
    path = tmp_path / source.name
    path.write_bytes(with_batch(source.read_bytes(), format, 2))
    datasets = np.random.default_rng(1).uniform(0.2, 2.0, size=(5, 200, 2)).astype(np.float32)
    # The float end sums in another order: measured 1.3e-7.
    np.testing.assert_allclose(load(path)(datasets), load(source)(datasets), rtol=5e-7)
