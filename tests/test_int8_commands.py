"""int8 files through the commands: the first layer as asked for, said wherever a file is shown; scored and checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from toolkit.datasets import read_datasets
from toolkit.manifest import read_manifest
from toolkit.reference import load_reference

ROOT = Path(__file__).resolve().parent.parent
MODEL, RESPONSE_TIMES = ROOT / "samples" / "model", ROOT / "samples" / "response_times.parquet"
AS_ASKED = "first layer int8 (as asked for), fitted to 1,000 calibration datasets"


@pytest.fixture(scope="module")
def asked(exported: Path, small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A model directory with an int8 file whose first layer is int8 as asked for, and what the export said."""
    from toolkit.cli import main

    directory = Path(shutil.copytree(exported, tmp_path_factory.mktemp("int8") / "model"))
    arguments = ["export", "--model", directory, "--format", "tflite", "--precision", "int8", "--first-layer", "int8"]
    return directory, CliRunner().invoke(main, [*map(str, arguments), "--calibration", str(small_datasets)])


def test_first_layer_is_what_was_asked_for_and_said_in_words(asked: tuple[Path, Result]) -> None:
    directory, result = asked
    assert result.exit_code == 0, result.stderr
    assert f"model.int8.tflite: published; {AS_ASKED}\n" in result.stderr
    (entry,) = [entry for entry in read_manifest(directory).files if entry.precision == "int8"]
    assert entry.int8 == {"first_layer": "int8", "first_layer_reason": "as asked for", "calibration_datasets": 1000}


def test_inspect_says_how_an_int8_file_was_made(
    asked: tuple[Path, Result], toolkit_command: Callable[..., Result]
) -> None:
    directory, _ = asked
    assert f"model.int8.tflite: {AS_ASKED}\n" in toolkit_command("inspect", directory).stdout
    file = directory / "model.int8.tflite"
    (row,) = [line for line in toolkit_command("inspect", file).stdout.splitlines() if "quantized" in line]
    assert AS_ASKED in row
    (shown,) = json.loads(toolkit_command("inspect", file, "--json").stdout)["files"]
    assert shown["metadata"]["first_layer"] == "int8" and shown["proof"]["passed"]


def test_report_says_how_an_int8_file_was_made(
    asked: tuple[Path, Result], toolkit_command: Callable[..., Result], tmp_path: Path
) -> None:
    directory, _ = asked
    result = toolkit_command("verify", "--model", directory, "--report", tmp_path / "report.html")
    assert result.exit_code == 0, result.stdout
    page = (tmp_path / "report.html").read_text()
    assert page.count(AS_ASKED) == 1 and page.count("Quantized") == 1, "of one file out of five"


@pytest.mark.parametrize("name", ["model.int8.tflite", "model.int8.onnx"])
def test_batch_predict_scores_with_int8_files_and_checks_the_other(
    name: str, toolkit_command: Callable[..., Result], tmp_path: Path
) -> None:
    output = tmp_path / "estimates.parquet"
    result = toolkit_command(
        "batch-predict", RESPONSE_TIMES, "--model", MODEL, "--file", name, "--output", output, "--workers", 1
    )
    assert result.exit_code == 0, result.stderr
    manifest = read_manifest(MODEL)
    true = load_reference(MODEL)(read_datasets(RESPONSE_TIMES, manifest.spec))
    table = pq.read_table(output)
    found = np.stack([table[f"predicted_{parameter}"] for parameter in manifest.spec.parameters], axis=1)
    # Measured 4.4 % at worst, on real response times that the files were not fitted to.
    np.testing.assert_allclose(found, true, rtol=8e-2)
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip().startswith("model.")}
    assert set(lines) == {entry.file for entry in manifest.files}, "every file is checked"
    other = {"model.int8.tflite", "model.int8.onnx"} - {name}
    assert all(lines[file].split()[1] == "34" for file in other | {name})


def test_export_names_the_calibration_row_that_holds_a_nan(
    exported_copy: Path, small_datasets: Path, toolkit_command: Callable[..., Result], tmp_path: Path
) -> None:
    datasets = pq.read_table(small_datasets).slice(0, 30)["x"].to_pylist()
    datasets[17][3][1] = float("nan")
    path = tmp_path / "calibration.parquet"
    pq.write_table(pa.table({"x": datasets}), path)
    result = toolkit_command(
        *("export", "--model", exported_copy, "--format", "all", "--precision", "int8", "--calibration", path)
    )
    assert result.exit_code == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {path}, row 17: ") and "Fix the row" in line, line
    assert not (exported_copy / "model.int8.tflite").exists()
