"""ONNX Runtime's own format: the file itself is read, proved and run, and damage is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from export.ort import to_ort
from toolkit.errors import ModelError
from toolkit.metadata import read_metadata, write_metadata
from toolkit.ort_file import as_onnx
from toolkit.proof import prove
from toolkit.runtime import load

Command = Callable[..., Result]
SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "model"


@pytest.fixture(scope="module", params=["float32", "float16"])
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file in this format, and the ONNX file that it was made from. Do not write into it: copy it."""
    source = SAMPLE / f"model.{request.param}.onnx"
    path = tmp_path_factory.mktemp("ort") / f"model.{request.param}.ort"
    path.write_bytes(to_ort(source.read_bytes(), request.param, 3))
    return path, source


@pytest.fixture
def copied(converted: tuple[Path, Path], tmp_path: Path) -> Path:
    path = tmp_path / converted[0].name
    path.write_bytes(converted[0].read_bytes())
    return path


def datasets() -> np.ndarray:
    rng = np.random.default_rng(2)
    return rng.uniform(0.2, 2.0, size=(5, 200, 2)).astype(np.float32)


def test_converting_twice_gives_the_same_graph_and_weights(converted: tuple[Path, Path]) -> None:
    """Not the same bytes: ONNX Runtime 1.32 writes its tables in the order of a hash map."""
    path, source = converted
    again = path.with_name("again.ort")
    again.write_bytes(to_ort(source.read_bytes(), path.name.split(".")[1], 3))
    one, other = (as_onnx(each, each.read_bytes()).graph for each in (path, again))
    assert list(one.node) == list(other.node)
    stored, stored_again = (
        {tensor.name: tensor.SerializeToString(deterministic=True) for tensor in graph.initializer}
        for graph in (one, other)
    )
    assert stored == stored_again


def test_what_is_read_back_computes_what_onnx_runtime_computes_from_the_file(
    converted: tuple[Path, Path], tmp_path: Path
) -> None:
    """The proof is of what is read: it must be what the runtime runs. Without its optimizer both do the same."""
    path, _ = converted
    read = tmp_path / "read.onnx"
    read.write_bytes(as_onnx(path, path.read_bytes()).SerializeToString())
    np.testing.assert_array_equal(load(path)(datasets()), load(read, kernels="unoptimized")(datasets()))


def test_proof_of_the_file_is_that_of_the_onnx_file(converted: tuple[Path, Path]) -> None:
    path, source = converted
    ours, theirs = prove(path), prove(source)
    assert ours.passed and theirs.passed
    assert ours.lower == theirs.lower and ours.input_limit == theirs.input_limit


def test_weights_stay_in_half_precision(converted: tuple[Path, Path]) -> None:
    path, source = converted
    assert path.stat().st_size < source.stat().st_size + 60_000  # measured: 44 kB, 20 of it room for metadata


def test_metadata_is_written_into_its_room_and_nothing_else_changes(copied: Path) -> None:
    before, facts = copied.read_bytes(), {"precision": "float32", "parameters": ["größe"]}
    assert read_metadata(copied) == {}
    write_metadata(copied, facts)
    assert read_metadata(copied) == facts
    now = copied.read_bytes()
    different = np.flatnonzero(np.frombuffer(before, np.uint8) != np.frombuffer(now, np.uint8))
    assert len(before) == len(now) and len(different) <= different[-1] - different[0] + 1 <= 100
    write_metadata(copied, {"a": 1})
    assert read_metadata(copied) == {"a": 1}


def test_metadata_without_room_is_refused(copied: Path) -> None:
    before = copied.read_bytes()
    with pytest.raises(ModelError, match=r"room for 20,480 bytes of metadata, not for 30,0\d\d"):
        write_metadata(copied, {"long": "x" * 30_000})
    assert copied.read_bytes() == before


def test_damaged_files_are_named_in_one_line(copied: Path, toolkit_command: Command) -> None:
    content = copied.read_bytes()
    for damaged in (b"", content[:3], content[:200], b"\0" * 4 + b"TFL3" + content[8:], content[:1000] + bytes(3000)):
        with pytest.raises(ModelError, match=r"not a (readable ort model|file in ONNX Runtime's format)"):
            as_onnx(copied, damaged)
    copied.write_bytes(content[:200])
    result = toolkit_command("inspect", copied)
    assert result.exit_code == 1 and str(copied) in result.stderr and len(result.stderr.splitlines()) == 1


def test_inspect_shows_the_graph_of_the_file(converted: tuple[Path, Path], toolkit_command: Command) -> None:
    found = json.loads(toolkit_command("inspect", converted[0], "--json").stdout)["files"][0]
    assert found["format"] == "ort" and found["batch"] == "batch"
    assert found["inputs"] == [{"name": "datasets", "dtype": "float32", "shape": ["batch", 200, 2]}]
    assert found["operations"]["Conv"] == 3 and found["proof"]["passed"]


def test_export_refuses_quantized_files_in_this_format(tmp_path: Path, toolkit_command: Command) -> None:
    model = shutil.copytree(SAMPLE, tmp_path / "model")
    result = toolkit_command("export", "--model", model, "--format", "ort", "--precision", "int8")
    assert result.exit_code == 1 and "no int8 files of ort" in result.stderr
