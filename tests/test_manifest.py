"""manifest.json: read, written, refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from toolkit.errors import ModelError
from toolkit.manifest import (
    Manifest,
    ModelFile,
    Parameter,
    Range,
    RelativeError,
    Training,
    check_unchanged,
    find_file,
    read_manifest,
    write_manifest,
)


def entry(file: str, format: str, precision: str, sha256: str = "0" * 64) -> ModelFile:
    return ModelFile(file, format, precision, 3, sha256, {"v": 1.3e-38}, {"v": RelativeError(1e-7, 2e-7, 3e-7)})


MANIFEST = Manifest(
    rows=200,
    columns=("rt", "correct"),
    column_ranges=(Range(0.1, 3.0), Range(0.0, 1.0)),
    parameters=(Parameter("v", 0.5, 3.5),),
    training=Training(1000, 7, {"v": {"r2": 0.9, "rmse": 0.1, "median_relative_error": 0.05}}),
    files=(entry("model.float32.tflite", "tflite", "float32"),),
    versions={"tensorflow": "2.21.0"},
)


def test_read_manifest_returns_what_write_manifest_was_given(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST


def test_write_manifest_holds_the_keys_that_scripts_read(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert set(content) == {"schema_version", "input", "parameters", "training", "files", "versions"}
    assert content["input"] == {
        "rows": 200,
        "columns": ["rt", "correct"],
        "sorted_rows": False,
        "ranges": [{"minimum": 0.1, "maximum": 3.0}, {"minimum": 0.0, "maximum": 1.0}],
    }
    assert content["parameters"] == [{"name": "v", "minimum": 0.5, "maximum": 3.5}]
    assert set(content["files"][0]) == {
        *("file", "format", "precision", "bytes", "sha256", "lower_bound", "relative_error", "arithmetic"),
    }
    assert content["files"][0]["relative_error"]["v"] == {"median": 1e-7, "p99": 2e-7, "max": 3e-7}


def test_read_manifest_says_how_to_get_a_model_when_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model here .*toolkit train.*--model or \$TOOLKIT_MODEL"):
        read_manifest(tmp_path)


def test_read_manifest_refuses_another_schema_version(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema_version": 2}')
    with pytest.raises(ModelError, match="schema version 2, this toolkit reads 1. Update the toolkit."):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema_version": 1}', '{"schema_version": 1, "input": 3}', "[" * 100_000, "\udcff\x00"]
)
def test_read_manifest_refuses_what_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match="not a manifest this toolkit can read"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "name", ["../x.tflite", "/etc/x.tflite", "a/b.tflite", "..", ".", "", ".tflite", "model.onnx", "x.tflite/", None, 3]
)
def test_read_manifest_refuses_a_file_that_is_not_in_its_directory(tmp_path: Path, name: object) -> None:
    (tmp_path.parent / "x.tflite").write_bytes(b"out of bounds")
    write_manifest(tmp_path, dataclasses.replace(MANIFEST, files=(entry("model.float32.tflite", "tflite", "float32"),)))
    content = json.loads((tmp_path / "manifest.json").read_text())
    content["files"][0]["file"] = name
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"manifest.json: not a manifest .*(no tflite file in this directory|names)"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("input", "rows"), 0),
        (("input", "rows"), "200"),
        (("input", "columns"), "ab"),
        (("input", "columns"), ["a", "a"]),
        (("input", "columns"), []),
        (("input", "columns"), [["a"]]),
        (("parameters", 0, "name"), None),
        (("parameters", 0, "wrong"), 1),
        (("parameters",), []),
        (("files", 0, "relative_error"), []),
        (("files", 0, "relative_error"), {"v": {"median": "small", "p99": 0, "max": 0}}),
        (("files", 0, "lower_bound"), {"v": "1e-38"}),
        (("files", 0, "lower_bound"), [1e-38]),
        (("files", 0, "sha256"), None),
        (("files", 0, "bytes"), "3"),
        (("files", 0, "precision"), "float8"),
        (("files",), {"file": 1}),
        (("training",), None),
        (("training", "metrics"), {"v": {"r2": "good"}}),
        (("training", "datasets"), "many"),
        (("input", "ranges"), [{"minimum": 0.1, "maximum": 3.0}]),
        (("input", "ranges", 0, "minimum"), None),
        (("parameters", 0, "maximum"), "3"),
        (("versions",), {"keras": [3]}),
    ],
)
def test_read_manifest_refuses_a_value_of_another_kind(
    tmp_path: Path, place: tuple[str | int, ...], value: object
) -> None:
    write_manifest(tmp_path, MANIFEST)
    content = json.loads((tmp_path / "manifest.json").read_text())
    target = content
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="not a manifest this toolkit can read"):
        read_manifest(tmp_path)


def test_with_file_replaces_the_entry_of_the_same_name_and_keeps_the_order() -> None:
    added = MANIFEST.with_file(entry("model.float32.onnx", "onnx", "float32")).with_file(
        entry("model.float16.tflite", "tflite", "float16")
    )
    assert [file.file for file in added.files] == [
        *("model.float32.tflite", "model.float16.tflite", "model.float32.onnx"),
    ]
    again = added.with_file(dataclasses.replace(added.files[1], bytes=9))
    assert [file.bytes for file in again.files] == [3, 9, 3]


def test_find_file_lists_the_files_there_are_when_the_name_is_another(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert find_file(tmp_path, "model.float32.tflite") == MANIFEST.files[0]
    with pytest.raises(ModelError, match="no exported file 'model.int8.onnx'. Files here: model.float32.tflite."):
        find_file(tmp_path, "model.int8.onnx")


def test_check_unchanged_refuses_a_file_whose_bytes_are_not_those_of_the_evidence(tmp_path: Path) -> None:
    import hashlib

    file = entry("model.float32.tflite", "tflite", "float32", hashlib.sha256(b"abc").hexdigest())
    with pytest.raises(ModelError, match=r"named in manifest.json but not there. Export it again: toolkit export"):
        check_unchanged(tmp_path, file)
    (tmp_path / file.file).write_bytes(b"abc")
    assert check_unchanged(tmp_path, file) == tmp_path / file.file
    (tmp_path / file.file).write_bytes(b"abd")
    with pytest.raises(ModelError, match=r"sha256 differs.*toolkit export --format tflite --precision float32"):
        check_unchanged(tmp_path, file)
