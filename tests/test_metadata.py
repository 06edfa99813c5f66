"""The facts inside exported files: written, read, and harmless to the outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.datasets import read_datasets
from toolkit.errors import ModelError
from toolkit.manifest import read_manifest
from toolkit.metadata import read_metadata, write_metadata
from toolkit.runtime import load

FILES = ["model.float32.tflite", "model.float16.tflite", "model.float32.onnx", "model.float16.onnx"]


@pytest.mark.parametrize("name", FILES)
def test_read_metadata_finds_what_the_manifest_says(exported: Path, name: str) -> None:
    facts = read_metadata(exported / name)
    manifest = read_manifest(exported)
    (entry,) = [file for file in manifest.files if file.file == name]
    assert facts["input"] == {"rows": 24, "columns": ["time", "signal"], "sorted_rows": False}
    assert facts["parameters"] == ["height", "rate", "noise"]
    assert (facts["format"], facts["precision"]) == (entry.format, entry.precision)
    assert facts["lower_bound"] == entry.lower_bound
    assert facts["relative_error"] == {name: vars(error) for name, error in entry.relative_error.items()}
    assert facts["input_limit"] > 1e6


@pytest.mark.parametrize("name", FILES)
def test_write_metadata_replaces_the_facts_and_leaves_the_outputs_alone(exported_copy: Path, name: str) -> None:
    path = exported_copy / name
    datasets = read_datasets(exported_copy / "calibration.parquet", read_manifest(exported_copy).spec)
    before = load(path)(datasets)
    for facts in ({"note": "straße, 測"}, {"note": "twice", "more": [1, 2.5]}):
        write_metadata(path, facts)
        assert read_metadata(path) == facts
    np.testing.assert_array_equal(load(path)(datasets), before)


def test_read_metadata_gives_nothing_for_a_file_of_somebody_else(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    ])  # fmt: skip
    (tmp_path / "other.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    assert read_metadata(tmp_path / "other.onnx") == {}


@pytest.mark.parametrize("name", ["broken.tflite", "broken.onnx"])
@pytest.mark.parametrize("content", [b"", b"hello, world", b"\x00" * 400])
def test_read_metadata_refuses_what_is_no_model(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    if name.endswith("onnx") and not content:
        return  # an empty file is a valid, empty protobuf message
    with pytest.raises(ModelError, match=f"{name}: not a readable {name.split('.')[1]} model"):
        read_metadata(tmp_path / name)


def test_read_metadata_says_so_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent.tflite: cannot be read \(No such file or directory\)"):
        read_metadata(tmp_path / "absent.tflite")


def test_read_metadata_refuses_facts_that_are_no_object(exported_copy: Path) -> None:
    for name in ("model.float32.tflite", "model.float32.onnx"):
        write_metadata(exported_copy / name, [1, 2])  # type: ignore[arg-type]
        with pytest.raises(ModelError, match=f"{name}: not a readable"):
            read_metadata(exported_copy / name)
