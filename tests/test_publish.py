"""Publishing: judged first, evidence in manifest and file, and a refused file leaves what was there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from toolkit.errors import ExportError
from toolkit.files import sha256_of
from toolkit.manifest import read_manifest
from toolkit.publish import publish
from toolkit.spec import SMALLEST_NORMAL_FLOAT32, Spec


@dataclass(frozen=True)
class Copied:
    """What a converter returns, for a file made beforehand."""

    path: Path
    format: str
    precision: str
    facts: dict[str, object] = field(default_factory=dict)
    problem: str = ""


def copying(source: Path, damage: Callable[[Path], None] = lambda path: None):
    """A converter that brings files of another model directory, damaged on the way."""

    def convert(
        keras_file: Path, spec: Spec, wanted: Sequence[tuple[str, str]], directory: Path, datasets: Path
    ) -> list[Copied]:
        for name in ("weights.npz", "adversarial.npz"):
            shutil.copy(source / name, directory)
        brought = []
        for format, precision in wanted:
            path = Path(shutil.copy(source / f"model.{precision}.{format}", directory))
            damage(path)
            brought.append(Copied(path, format, precision))
        return brought

    return convert


def test_publish_puts_every_file_and_its_evidence_into_the_manifest(exported: Path) -> None:
    manifest = read_manifest(exported)
    assert [entry.file for entry in manifest.files] == [
        *("model.float32.tflite", "model.float16.tflite", "model.float32.onnx", "model.float16.onnx"),
    ]
    for entry in manifest.files:
        path = exported / entry.file
        assert (entry.bytes, entry.sha256) == (path.stat().st_size, sha256_of(path))
        assert list(entry.lower_bound) == list(entry.relative_error) == ["height", "rate", "noise"]
        assert min(entry.lower_bound.values()) >= SMALLEST_NORMAL_FLOAT32
        largest = max(error.max for error in entry.relative_error.values())
        # Bars of the export itself: 5e-5 for float32, 1e-2 for float16.
        assert 0 < largest <= {"float32": 5e-5, "float16": 1e-2}[entry.precision]
    assert not list(exported.glob(".*"))


def test_publish_refuses_a_file_whose_weights_are_not_the_trained_ones(exported_copy: Path, exported: Path) -> None:
    def with_rounded_weights(path: Path) -> None:
        shutil.copy(exported / "model.float16.tflite", path)

    before = (exported_copy / "model.float32.tflite").read_bytes(), read_manifest(exported_copy)
    with pytest.raises(
        ExportError, match=r"model.float32.tflite: refused. .*relative error of .* the gate for float32"
    ):
        publish(exported_copy, ["tflite"], ["float32"], copying(exported, with_rounded_weights))
    assert ((exported_copy / "model.float32.tflite").read_bytes(), read_manifest(exported_copy)) == before
    assert not list(exported_copy.glob(".*"))


def test_publish_refuses_a_truncated_file_and_publishes_the_others(exported: Path, trained_copy: Path) -> None:
    def truncate_onnx(path: Path) -> None:
        if path.suffix == ".onnx":
            path.write_bytes(path.read_bytes()[:5000])

    with pytest.raises(ExportError, match=r"model.float32.onnx: refused. "):
        publish(trained_copy, ["onnx", "tflite"], ["float32"], copying(exported, truncate_onnx))
    assert [entry.file for entry in read_manifest(trained_copy).files] == ["model.float32.tflite"]
    assert not (trained_copy / "model.float32.onnx").exists()


def test_publish_names_a_file_that_the_network_cannot_have_and_publishes_the_others(
    exported: Path, trained_copy: Path
) -> None:
    def convert(*arguments: Any) -> list[Copied]:
        brought = copying(exported)(*arguments)
        return [brought[0], replace(brought[1], problem="model.float16.tflite: it holds a tanh activation.")]

    with pytest.raises(ExportError, match=r"^model.float16.tflite: it holds a tanh activation.$"):
        publish(trained_copy, ["tflite"], ["float32", "float16"], convert)
    assert [entry.file for entry in read_manifest(trained_copy).files] == ["model.float32.tflite"]


def test_publish_leaves_everything_as_it_was_when_the_converter_fails(exported_copy: Path) -> None:
    def convert(*arguments: object) -> list[Copied]:
        raise ExportError("model.keras: the converter crashed.")

    before = {path.name: path.read_bytes() for path in exported_copy.iterdir()}
    with pytest.raises(ExportError, match="the converter crashed"):
        publish(exported_copy, ["tflite"], ["float32"], convert)
    assert {path.name: path.read_bytes() for path in exported_copy.iterdir()} == before


def test_export_command_publishes_what_is_asked_for(
    toolkit_command: Callable[..., Result], trained_copy: Path, small_datasets: Path
) -> None:
    arguments = ["export", "--model", trained_copy, "--format", "tflite", "--calibration", small_datasets]
    result = toolkit_command(*arguments)
    assert result.exit_code == 0, result.output
    assert "model.float32.tflite: published" in result.stderr
    assert "proved at least" in result.stdout
    assert [entry.file for entry in read_manifest(trained_copy).files] == ["model.float32.tflite"]
    quiet = toolkit_command(*arguments, "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_export_command_says_what_is_missing(
    toolkit_command: Callable[..., Result], trained_copy: Path, tmp_path: Path
) -> None:
    empty = toolkit_command("export", "--model", tmp_path / "nowhere", "--format", "all")
    assert empty.exit_code == 1
    assert "no model here" in empty.stderr
    (trained_copy / "model.keras").unlink()
    absent = toolkit_command("export", "--model", trained_copy, "--format", "all")
    assert absent.exit_code == 1
    assert "model.keras: not there. Train the network again" in absent.stderr
    assert toolkit_command("export", "--model", trained_copy).exit_code == 2
    assert toolkit_command("export", "--format", "pickle").exit_code == 2
