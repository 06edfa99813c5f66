"""C headers of exported files: what a compiler reads in them is what is in the file and in the manifest."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from toolkit.c_header import render_header
from toolkit.errors import ModelError
from toolkit.files import sha256_of
from toolkit.integer_steps import fixed_point, read_steps
from toolkit.manifest import Manifest, ModelFile, read_manifest
from toolkit.spec import PRECISIONS

Command = Callable[..., Result]
SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "model"
STRICT = ["-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror"]
# What a program sees of a header, as functions that Python can call.
SEEN = """
#include "{header}"
const unsigned char *bytes(void) {{ return model; }}
int size(void) {{ return sizeof model; }}
const char *name(int which) {{ return which < 0 ? MODEL_FILE : model_parameters[which]; }}
const char *column(int which) {{ return model_columns[which]; }}
float bound(int which) {{ return model_lower_bounds[which]; }}
int shape(int which) {{ return which < 3 ? model_input_shape[which] : model_output_shape[which - 3]; }}
int sorted(void) {{ return MODEL_SORTED_ROWS; }}
"""
HOST = """
float minimum(int which) {{ return model_host_columns[which].minimum; }}
float multiplier(int which) {{ return model_host_columns[which].multiplier; }}
int fine(int which) {{ return model_host_columns[which].fine; }}
float scale(int which) {{ return model_host_outputs[which].scale; }}
float centre(int which) {{ return model_host_outputs[which].centre; }}
"""


def entry_of(precision: str, manifest: Manifest) -> ModelFile:
    return next(each for each in manifest.files if each.file == f"model.{precision}.tflite")


def compiled(header: Path, source: str, folder: Path) -> ctypes.CDLL:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc here")
    (folder / "seen.c").write_text(source.format(header=header))
    command = [compiler, *STRICT, "-shared", "-fPIC", folder / "seen.c", "-o", folder / "seen.so"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    library = ctypes.CDLL(str(folder / "seen.so"))
    library.bytes.restype = ctypes.c_void_p
    for name in ("name", "column"):
        getattr(library, name).restype = ctypes.c_char_p
    for name in ("bound", "minimum", "multiplier", "scale", "centre"):
        if name == "bound" or "minimum" in source:
            getattr(library, name).restype = ctypes.c_float
    return library


@pytest.mark.parametrize("precision", PRECISIONS)
def test_header_holds_the_file_byte_by_byte_and_what_the_manifest_says(precision: str, tmp_path: Path) -> None:
    manifest = read_manifest(SAMPLE)
    entry, spec = entry_of(precision, manifest), manifest.spec
    (tmp_path / "model.h").write_text(render_header(SAMPLE / entry.file, manifest.spec, entry))
    seen = compiled(tmp_path / "model.h", SEEN + (HOST if precision == "integer" else ""), tmp_path)
    assert ctypes.string_at(seen.bytes(), seen.size()) == (SAMPLE / entry.file).read_bytes()
    assert seen.bytes() % 16 == 0
    assert seen.name(-1).decode() == entry.file and seen.sorted() == int(spec.sorted_rows)
    assert [seen.name(index).decode() for index in range(len(spec.parameters))] == list(spec.parameters)
    assert [seen.column(index).decode() for index in range(len(spec.columns))] == list(spec.columns)
    bounds = [seen.bound(index) for index in range(len(spec.parameters))]
    assert bounds == [np.float32(entry.lower_bound[name]) for name in spec.parameters]
    shape = [seen.shape(index) for index in range(5)]
    if precision != "integer":
        assert shape == [1, *spec.shape, 1, len(spec.parameters)]
        return
    host = entry.integer
    assert host is not None
    assert shape == [1, spec.rows, sum(1 + (each["fine"] > 1) for each in host["columns"]), 1, 1]
    for index, column in enumerate(host["columns"]):
        stated = (seen.minimum(index), seen.multiplier(index), seen.fine(index))
        assert stated == (column["minimum"], column["multiplier"], column["fine"])
    for index, output in enumerate(host["outputs"]):
        assert (seen.scale(index), seen.centre(index)) == (output["scale"], output["centre"])


def test_header_is_cpp_too(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    manifest = read_manifest(SAMPLE)
    entry = entry_of("integer", manifest)
    (tmp_path / "model.h").write_text(render_header(SAMPLE / entry.file, manifest.spec, entry))
    (tmp_path / "seen.cc").write_text('#include "model.h"\nint main() { return model[0] + model_steps[0].rows; }\n')
    strict = ["-std=c++11", *STRICT[1:]]
    built = subprocess.run([compiler, *strict, "-c", "seen.cc"], cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr


def test_names_are_strings_and_comments_whatever_is_in_them(tmp_path: Path) -> None:
    """Quotes, trigraphs, a comment's end, what is not ASCII, digits behind it."""
    manifest = read_manifest(SAMPLE)
    entry = entry_of("float16", manifest)
    content = json.loads((SAMPLE / "manifest.json").read_text())
    odd = ['a"b\\', "*/ größe??/7"]
    content["input"]["columns"] = odd
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "model.h").write_text(render_header(SAMPLE / entry.file, read_manifest(tmp_path).spec, entry))
    seen = compiled(tmp_path / "model.h", SEEN, tmp_path)
    assert [seen.column(index).decode() for index in range(2)] == odd


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLE, tmp_path / "model"))


def test_export_writes_headers_of_the_files_that_are_there_and_nothing_else(
    model: Path, toolkit_command: Command
) -> None:
    before = {path.name: sha256_of(path) for path in model.iterdir()}
    result = toolkit_command("export", "--model", model, "--format", "c")
    assert result.exit_code == 0, result.stderr
    after = {path.name: sha256_of(path) for path in model.iterdir()}
    assert set(after) - set(before) == {f"model.{precision}.h" for precision in PRECISIONS}
    assert before.items() <= after.items()
    assert all(f"{model}/model.{precision}.h: written" in result.stderr for precision in PRECISIONS)
    assert toolkit_command("export", "--model", model, "--format", "c", "--precision", "integer").exit_code == 0
    assert {path.name: sha256_of(path) for path in model.iterdir()} == after


def test_export_refuses_a_header_of_a_file_with_other_bytes(model: Path, toolkit_command: Command) -> None:
    (model / "model.int8.tflite").write_bytes(b"other")
    result = toolkit_command("export", "--model", model, "--format", "c", "--precision", "int8")
    assert result.exit_code == 1 and "sha256 differs from manifest.json" in result.stderr
    assert not (model / "model.int8.h").exists()


def test_export_makes_the_file_first_where_it_is_missing_and_its_header_anew_with_it(
    trained_copy: Path, toolkit_command: Command
) -> None:
    result = toolkit_command("export", "--model", trained_copy, "--format", "c")
    assert result.exit_code == 0, result.stderr
    (entry,) = read_manifest(trained_copy).files
    assert entry.file == "model.float32.tflite"
    header = trained_copy / "model.float32.h"
    assert entry.sha256 in header.read_text()
    header.write_text("of another file")
    result = toolkit_command("export", "--model", trained_copy, "--format", "tflite", "--quiet")
    assert result.exit_code == 0 and result.stderr == ""
    (entry,) = read_manifest(trained_copy).files
    assert entry.sha256 in header.read_text()


def test_steps_of_a_file_without_integers_are_refused() -> None:
    with pytest.raises(ModelError, match=r"model\.float32\.tflite: "):
        read_steps(SAMPLE / "model.float32.tflite")


def test_fixed_point_is_nearest_and_its_multiplier_uses_all_bits() -> None:
    rng = np.random.default_rng(0)
    for factor in (*np.exp(rng.uniform(-20, 5, 1000)), 1.0, 0.5, 1 - 2.0**-40, 2.0**-31):
        multiplier, shift = fixed_point(float(factor))
        assert 2**30 <= multiplier < 2**31
        assert abs(multiplier * 2.0 ** (shift - 31) / factor - 1) <= 2.0**-31
    assert fixed_point(2.0**-33) == (0, 0)
