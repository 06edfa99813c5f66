"""`toolkit benchmark`: its numbers are those of the files, one bad file is one failed row, and people can read it."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from export.plain import RECIPES, convert_plainly
from tests.bad_files import flat_onnx, log_onnx, plain_softplus_tflite, publish_unseen
from toolkit.benchmark import Benchmark, FileResult, benchmark, print_benchmark
from toolkit.benchmark.table import percent
from toolkit.datasets import read_datasets
from toolkit.errors import InputError, ModelError
from toolkit.manifest import find_file, read_manifest, write_manifest
from toolkit.reference import load_reference
from toolkit.runtime import load

PARAMETERS = ("height", "rate", "noise")
KEYS = {
    *("file", "format", "precision", "recipe", "bytes", "start_up_seconds", "datasets_per_second"),
    *("speed_over_float32", "latency_seconds", "relative_error", "rmse", "minimum_seen", "not_positive"),
    *("not_finite", "proved", "lower_bound", "failures"),
}


@pytest.fixture(autouse=True)
def short() -> Iterator[None]:
    """Two rounds and one start-up: what is tested is not the machine."""
    with pytest.MonkeyPatch.context() as patched:
        for room in ("run", "rounds"):
            patched.setattr(f"toolkit.benchmark.{room}.ROUNDS", 2)
            patched.setattr(f"toolkit.benchmark.{room}.STARTS", 1)
        yield


@pytest.fixture(scope="module")
def found(exported: Path) -> Benchmark:
    """The exported files and every plain conversion of the same network."""
    with pytest.MonkeyPatch.context() as patched:
        for room in ("run", "rounds"):
            patched.setattr(f"toolkit.benchmark.{room}.ROUNDS", 2)
            patched.setattr(f"toolkit.benchmark.{room}.STARTS", 1)
        before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
        found = benchmark(exported, seconds=0.05, convert_plainly=convert_plainly)
        assert before == {path: path.stat().st_mtime_ns for path in exported.iterdir()}, "the model directory changed"
    return found


@pytest.fixture
def alone(exported_copy: Path) -> Path:
    """A model directory with one file, model.float32.onnx."""
    publish_unseen(exported_copy / "model.float32.onnx", alone=True)
    return exported_copy


def ours(found: Benchmark) -> list[FileResult]:
    return [file for file in found.files if not file.plain]


def test_benchmark_lists_the_manifests_files_and_then_plain_conversions(found: Benchmark, exported: Path) -> None:
    published = [entry.file for entry in read_manifest(exported).files]
    assert [file.file for file in found.files] == published + [recipe.file for recipe in RECIPES]
    assert [file.file for file in ours(found)] == published


def test_benchmark_errors_are_those_of_the_files_against_the_float64_forward_pass(
    found: Benchmark, exported: Path
) -> None:
    calibration = exported / "calibration.parquet"
    datasets = read_datasets(calibration, read_manifest(exported).spec)
    truth = load_reference(exported)(datasets)
    true = np.stack([pq.read_table(calibration)[name].to_numpy() for name in PARAMETERS], axis=1).astype(np.float64)
    assert found.datasets == len(datasets) == 200
    for file in ours(found):
        estimates = load(exported / file.file)(datasets)
        relative = np.abs(estimates - truth) / truth
        rmse = np.sqrt(np.mean((estimates - true) ** 2, axis=0))
        assert file.accuracy is not None and file.accuracy.not_positive == file.accuracy.not_finite == 0
        for index, name in enumerate(PARAMETERS):
            error = file.accuracy.relative_error[name]
            # The same files in the same kernels: the same bits.
            assert (error.median, error.max) == (np.median(relative[:, index]), relative[:, index].max()), file.file
            assert error.p99 == np.quantile(relative[:, index], 0.99)
            assert math.isclose(file.accuracy.rmse[name], rmse[index], rel_tol=1e-12)
            assert file.accuracy.minimum[name] == estimates[:, index].min()


def test_benchmark_agrees_with_the_evidence_that_the_manifest_holds(found: Benchmark, exported: Path) -> None:
    for file in ours(found):
        entry = find_file(exported, file.file)
        assert (file.bytes, file.lower_bound, file.proved) == (entry.bytes, entry.lower_bound, True)
        assert file.accuracy is not None
        for name, error in file.accuracy.relative_error.items():
            # The manifest has the largest over two kernel sets, here it is the first of them.
            assert error.max <= entry.relative_error[name].max, (file.file, name)


def test_benchmark_measures_every_file_of_every_kind(found: Benchmark) -> None:
    for file in found.files:
        assert file.speed is not None, file.failures
        for value in vars(file.speed).values():
            assert math.isfinite(value) and value > 0, (file.file, file.speed)
        assert file.speed.p50_seconds <= file.speed.p99_seconds
        assert (found.speed_over_float32(file) or 0) > 0
    for format in ("tflite", "onnx"):
        ratios = [
            found.speed_over_float32(file) or 0
            for file in found.files
            if (file.format, file.precision) == (format, "float32")
        ]
        assert max(ratios) == 1, "the fastest float32 file is the measure"


def test_benchmark_shows_what_plain_conversions_lose(found: Benchmark) -> None:
    worst = {
        file.file: max(error.median for error in file.accuracy.relative_error.values())
        for file in found.files
        if file.accuracy
    }
    # Measured: 2e-7, 2e-7, 21 %, 1.2 %, and for our float16 files .02 %.
    assert worst["plain.float32.tflite"] < 1e-6 and worst["plain.float32.onnx"] < 1e-6
    assert worst["plain.int8.tflite"] > 0.05
    assert worst["plain.int8.onnx"] > 2e-3
    assert max(worst["model.float16.tflite"], worst["model.float16.onnx"]) < 1e-3
    sizes = {file.file: file.bytes for file in found.files}
    assert sizes["plain.int8.tflite"] < sizes["plain.float32.tflite"] / 2
    for file in found.files:
        # Nothing limits their inputs, so a large one overflows; int8 gives codes that stand for 0 or less.
        refused = file.file in (
            "plain.float32.tflite",
            "plain.dynamic.tflite",
            "plain.int8.tflite",
            "plain.float32.onnx",
        )
        assert file.proved != refused or not file.plain, file.failures


def test_plain_conversions_do_not_fail_a_benchmark(found: Benchmark) -> None:
    assert any(file.failures for file in found.files if file.plain)
    assert found.passed


def test_benchmark_json_has_the_documented_keys_and_no_nan(found: Benchmark) -> None:
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content.keys() == {
        *("passed", "model", "machine", "datasets", "batch", "workers", "rounds", "seconds", "parameters", "files")
    }
    assert content["machine"].keys() == {"processor", "cores", "usable_cores", "system", "versions", "slowed"}
    assert content["machine"]["usable_cores"] == content["workers"] == len(os.sched_getaffinity(0))
    assert content["datasets"]["count"] == 200 and content["batch"] == 32
    for file in content["files"]:
        assert file.keys() == KEYS
        assert file["relative_error"].keys() == file["rmse"].keys() == set(PARAMETERS)
        assert file["datasets_per_second"].keys() == {"one_thread", "all_cores"}
        assert file["latency_seconds"].keys() == {"p50", "p99"}
    bounds = {file["file"]: file["lower_bound"] for file in content["files"]}
    assert bounds["plain.float32.tflite"] == dict.fromkeys(PARAMETERS), "its inputs overflow: there is no bound"


def test_table_has_a_block_for_every_file_and_says_where_and_how(
    found: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    print_benchmark(found)
    shown = capsys.readouterr().out
    assert found.machine.processor in shown.splitlines()[0]
    assert "batches of 32" in shown and "200 datasets" in shown
    for file in found.files:
        (block,) = (line for line in shown.splitlines() if line.strip().startswith(f"{file.file} "))
        assert len(block) <= 140 and f"{file.bytes / 1000:.0f}" in block.split() and "height" in block.split()
        if file.proved:
            assert f"{min(file.lower_bound.values()):.2e}" in block
        else:
            assert block.split()[-1] == "nothing"
    assert "plain.int8.tflite: not proved: " in shown


def test_table_becomes_two_on_a_narrow_terminal(
    found: Benchmark, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    monkeypatch.setattr("toolkit.benchmark.table.new_console", lambda: Console(width=80))
    print_benchmark(found)
    shown = capsys.readouterr().out.splitlines()
    rows = [line.rstrip() for line in shown if line.startswith(" model.float32.onnx ")]
    assert len(rows) == 2 and rows[0].split()[0] == rows[1].split()[0] == "model.float32.onnx"
    (file,) = (file for file in found.files if file.file == "model.float32.onnx")
    assert rows[1].endswith(f"{file.lower_bound['height']:.2e}"), "cut off"


def test_table_warns_that_other_programs_were_running(found: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    def with_slowed(slowed: float) -> str:
        files = [replace(file, speed=file.speed and replace(file.speed, slowed=slowed)) for file in found.files]
        print_benchmark(replace(found, files=tuple(files)))
        return capsys.readouterr().out

    assert "Other programs slowed this by 50%" in with_slowed(1.5)
    assert "Other programs" not in with_slowed(1.02)


@pytest.mark.parametrize(
    ("error", "shown"),
    [(12.31, "1,231"), (0.484, "48"), (0.0285, "2.85"), (0.00013, "0.013"), (2e-7, "<0.001"), (math.nan, "nan")],
)
def test_percent_shows_as_many_digits_as_matter(error: float, shown: str) -> None:
    assert percent(error) == shown


def test_benchmark_compares_on_other_datasets_without_true_values(alone: Path, tmp_path: Path) -> None:
    table = pq.read_table(alone / "calibration.parquet")
    pq.write_table(table.select(["x"]).slice(0, 7), tmp_path / "without.parquet")
    pq.write_table(table.slice(7, 5), tmp_path / "with.parquet")
    found = benchmark(alone, [tmp_path / "without.parquet", tmp_path / "with.parquet"], seconds=0.02)
    (file,) = found.files
    assert found.datasets == 12 and file.accuracy is not None
    assert file.accuracy.rmse == {} and file.accuracy.relative_error.keys() == set(PARAMETERS)


def test_benchmark_command_prints_json_and_draws(
    toolkit_command: Callable[..., Result], alone: Path, tmp_path: Path
) -> None:
    plot = tmp_path / "plot.png"
    result = toolkit_command("benchmark", "--model", alone, "--seconds", "0.02", "--json", "--plot", plot)
    assert result.exit_code == 0, result.output
    (file,) = json.loads(result.stdout)["files"]
    assert file["file"] == "model.float32.onnx" and file["failures"] == []
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (log_onnx, "an estimate that is NaN or infinite"),
        (flat_onnx, "gives 48 estimates for 3 parameters"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "not an ONNX file, or a damaged one"),
    ],
    ids=["nan", "other shape", "cut off"],
)
def test_benchmark_exits_with_1_for_a_bad_file_and_measures_the_others(
    make: Callable[[Path], Any], said: str, toolkit_command: Callable[..., Result], exported_copy: Path
) -> None:
    manifest = read_manifest(exported_copy)
    kept = [entry for entry in manifest.files if entry.file in ("model.float16.tflite", "model.float32.onnx")]
    write_manifest(exported_copy, replace(manifest, files=tuple(kept)))
    path = exported_copy / "model.float32.onnx"
    make(path)
    publish_unseen(path)
    result = toolkit_command("benchmark", "--model", exported_copy, "--seconds", "0.02", "--json")
    assert result.exit_code == 1
    good, bad = json.loads(result.stdout)["files"]
    assert good["failures"] == [] and good["datasets_per_second"]["one_thread"] > 0
    assert said in " ".join(bad["failures"]), bad["failures"]


def test_benchmark_counts_datasets_whose_estimates_are_not_positive(exported_copy: Path) -> None:
    path = plain_softplus_tflite(exported_copy / "model.float32.tflite")  # of minus a dataset's first value
    publish_unseen(path, alone=True)
    datasets = np.zeros((6, 24, 2), np.float32)
    datasets[:4, 0, 0] = [1, 100, -1, 200]
    table = pa.table({"x": pa.array(datasets.tolist())})
    pq.write_table(table, exported_copy / "few.parquet")
    found = benchmark(exported_copy, [exported_copy / "few.parquet"], seconds=0.02)
    (file,) = found.files
    assert file.accuracy is not None and (file.accuracy.not_positive, file.accuracy.not_finite) == (2, 0)
    assert "2 of 6 datasets have an estimate that is 0 or below." in file.failures
    assert not found.passed


def ends_its_process(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize("function", ["accuracy.estimates_of", "rounds.one_thread"])
def test_benchmark_survives_a_file_that_ends_its_process(
    function: str, alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(f"toolkit.benchmark.{function}", ends_its_process)
    found = benchmark(alone, seconds=0.02)
    (file,) = found.files
    assert not found.passed and file.speed is None and file.proved
    assert "model.float32.onnx: its process ended: SIGSEGV" in file.failures[0]
    print_benchmark(found)
    assert "its process ended: SIGSEGV" in capsys.readouterr().out


def test_benchmark_measures_no_file_that_is_not_the_published_one(alone: Path) -> None:
    path = alone / "model.float32.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    (file,) = benchmark(alone, seconds=0.02).files
    assert file.speed is None and file.accuracy is None and not file.proved
    assert "sha256 differs from manifest.json" in file.failures[0]


def test_benchmark_says_what_to_do_without_exported_files(trained_copy: Path) -> None:
    with pytest.raises(ModelError, match="no exported file to measure. Export first: toolkit export --format all"):
        benchmark(trained_copy)


def test_benchmark_refuses_datasets_without_rows(alone: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(alone / "calibration.parquet").slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(ModelError, match="empty.parquet: no datasets to compare on"):
        benchmark(alone, [tmp_path / "empty.parquet"])


def test_benchmark_refuses_true_values_that_are_none(alone: Path, tmp_path: Path) -> None:
    table = pq.read_table(alone / "calibration.parquet").slice(0, 3)
    changed = table.set_column(table.schema.get_field_index("rate"), "rate", pa.array([1.0, -1.0, 2.0]))
    pq.write_table(changed, tmp_path / "negative.parquet")
    with pytest.raises(InputError, match="negative.parquet, row 1: 'rate' is -1.0"):
        benchmark(alone, [tmp_path / "negative.parquet"])
