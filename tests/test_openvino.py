"""`--runtime`: another runtime runs the same file, is held to the same checks, and leaves its name behind."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from numpy.typing import NDArray

from tests.bad_files import plain_softplus_onnx, publish_unseen
from toolkit import batch_predict
from toolkit.batch.assemble import read_evidence
from toolkit.datasets import encode, read_datasets
from toolkit.errors import MissingExtra, ModelError, NotPositive, OutputError
from toolkit.manifest import read_manifest
from toolkit.reference import load_reference
from toolkit.runtime import BATCH, load, runtime_for

FloatArray = NDArray[np.float32]
NAMES = ("height", "rate", "noise")
FILES = ("model.float32.tflite", "model.float16.tflite", "model.float32.onnx", "model.float16.onnx")
# Largest relative difference from the float64 forward pass over 2,000 datasets of the small network.
# Measured: float32 6.4e-7, float16 6.3e-4, of either format.
TOLERANCE = {"float32": 1.3e-6, "float16": 1.3e-3}


@pytest.fixture(scope="module")
def datasets(small_datasets: Path, exported: Path) -> FloatArray:
    return read_datasets(small_datasets, read_manifest(exported).spec)


def write(path: Path, datasets: FloatArray) -> Path:
    pq.write_table(pa.table({"x": encode(datasets)}), path)
    return path


@pytest.mark.parametrize("file", FILES)
def test_openvino_gives_the_estimates_of_the_float64_forward_pass_in_any_company(
    file: str, exported: Path, datasets: FloatArray
) -> None:
    predict = load(exported / file, runtime="openvino")
    estimates = predict(datasets)
    truth = load_reference(exported)(datasets)
    assert estimates.dtype == np.float32 and estimates.shape == truth.shape == (2000, 3)
    assert np.max(np.abs(estimates / truth - 1)) < TOLERANCE[file.split(".")[1]]
    for begin, end in ((0, 1), (0, BATCH + 1), (5, 6), (7, 200)):
        np.testing.assert_array_equal(predict(datasets[begin:end]), estimates[begin:end])


def test_runtime_for_takes_the_one_of_the_ending_unless_another_is_asked_for() -> None:
    assert [runtime_for(f"a{ending}") for ending in (".tflite", ".onnx", ".keras")] == [
        "litert",
        "onnxruntime",
        "keras",
    ]
    assert runtime_for("a.tflite", "openvino") == runtime_for("a.onnx", "openvino") == "openvino"
    with pytest.raises(
        ModelError, match=r"^a\.onnx: litert does not run \.onnx files\. These do: onnxruntime, openvino"
    ):
        runtime_for("a.onnx", "litert")
    with pytest.raises(ModelError, match=r"^a\.tflite: onnxruntime does not run \.tflite files"):
        runtime_for("a.tflite", "onnxruntime")


def test_runtime_for_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "toolkit.runtime.loading.find_spec", lambda name: None if name == "openvino" else find_spec(name)
    )
    with pytest.raises(MissingExtra, match=r"needs OpenVINO, .* pip install 'softplus-toolkit\[openvino\]'"):
        runtime_for("a.onnx", "openvino")


def test_load_refuses_other_kernels_of_openvino(exported: Path) -> None:
    with pytest.raises(ModelError, match="no kernels 'builtin'. There are default"):
        load(exported / FILES[0], runtime="openvino", kernels="builtin")


def test_batch_predict_says_which_runtime_ran(
    tmp_path: Path, exported: Path, datasets: FloatArray, toolkit_command: Callable[..., Result]
) -> None:
    path = write(tmp_path / "a.parquet", datasets[:100])
    arguments: list[Any] = ["batch-predict", path, "--model", exported, "--check", "off", "--json", "--overwrite"]
    content = json.loads(toolkit_command(*arguments, "--runtime", "openvino").stdout)
    assert content["runtime"] == "openvino" and content["rows_predicted"] == 100
    table = pq.read_table(content["output"])
    expected = load(exported / FILES[0], runtime="openvino")(datasets[:100])
    np.testing.assert_array_equal(np.stack([table.column(f"predicted_{name}") for name in NAMES], axis=1), expected)
    evidence = read_evidence(Path(content["output"]))
    assert evidence is not None and evidence["model"]["runtime"] == "openvino"
    assert json.loads(toolkit_command(*arguments).stdout)["runtime"] == "litert"
    failed = toolkit_command(*arguments, "--runtime", "onnxruntime")
    assert failed.exit_code == 1 and "model.float32.tflite: onnxruntime does not run .tflite files" in failed.stderr


def test_batch_predict_refuses_to_resume_with_another_runtime(
    tmp_path: Path, exported: Path, datasets: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", datasets[:200])
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", 64)
    monkeypatch.setattr("toolkit.batch.shards.READ_ROWS", 64)

    def stop(done: int, total: int, rejected: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch_predict(path, model=exported, check="off", report=stop)
    receipts = list((tmp_path / "a.predictions.parquet.unfinished").glob("*.json"))
    assert any(json.loads(receipt.read_text()).get("runtime") == "litert" for receipt in receipts)
    with pytest.raises(OutputError, match="cannot resume, --runtime was litert, now it is openvino"):
        batch_predict(path, model=exported, check="off", runtime="openvino", resume=True)
    assert batch_predict(path, model=exported, check="off", resume=True).runtime == "litert"


def test_outputs_of_openvino_are_checked_on_every_row(tmp_path: Path, exported: Path, datasets: FloatArray) -> None:
    """A plain softplus at a logit of -20: OpenVINO gives -1.9e-6, ONNX Runtime the true 2.1e-9."""
    model = Path(shutil.copytree(exported, tmp_path / "model"))
    publish_unseen(plain_softplus_onnx(model / "model.float32.onnx"))
    far = np.full((50, 24, 2), -1, np.float32)
    far[37, 0, 0] = 20
    path = write(tmp_path / "a.parquet", far)
    scored = batch_predict(path, model=model, file="model.float32.onnx", check="off")
    assert scored.rows_predicted == 50
    with pytest.raises(NotPositive, match=r"row 37: model\.float32\.onnx gave height = -"):
        batch_predict(path, model=model, file="model.float32.onnx", check="off", runtime="openvino", overwrite=True)
