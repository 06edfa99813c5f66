"""batch-predict --interval: columns beside the predictions, each file by its own numbers, and true values inside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

import toolkit
from toolkit.batch.columns import check_interval_names
from toolkit.datasets import read_datasets
from toolkit.errors import InputError, ModelError, OutputError
from toolkit.evaluation import evaluate
from toolkit.interval_facts import interval_facts, intervals_of_file
from toolkit.manifest import read_manifest, write_manifest
from toolkit.metadata import read_metadata
from toolkit.simulate import simulate
from toolkit.spec import held_back

SMALLEST = np.float32(2.0**-126)
NAMES = ("height", "rate", "noise")
UNSEEN, CALIBRATION = 4000, 4000


@pytest.fixture(scope="module")
def unseen(small_simulator: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unseen") / "unseen.parquet"
    simulate(small_simulator, UNSEEN, path, seed=31, workers=1)
    return path


@pytest.fixture(scope="module")
def int8(exported: Path, small_simulator: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with float32 and int8 files, exported with 4,000 calibration datasets and their true values."""
    from export import convert
    from toolkit.publish import publish

    folder = tmp_path_factory.mktemp("int8")
    simulate(small_simulator, CALIBRATION, folder / "calibration.parquet", seed=32, workers=1)
    model = Path(shutil.copytree(exported, folder / "model"))
    publish(model, ("tflite",), ("float32", "int8"), convert, calibration=folder / "calibration.parquet")
    return model


def true_of(path: Path) -> np.ndarray:
    table = pq.read_table(path)
    return np.stack([table[name].to_numpy() for name in NAMES], axis=1)


@pytest.mark.parametrize(("file", "scores"), [("model.float32.tflite", 3200), ("model.int8.tflite", 1600)])
def test_unseen_datasets_are_covered_as_often_as_asked_by_each_file(
    int8: Path, unseen: Path, tmp_path: Path, file: str, scores: int
) -> None:
    summary = toolkit.batch_predict(
        unseen, model=int8, file=file, interval=0.9, output=tmp_path / "o.parquet", check="off", workers=1
    )
    assert summary.interval == 0.9 and summary.to_json()["interval"] == 0.9
    table, true = pq.read_table(tmp_path / "o.parquet"), true_of(unseen)
    added = [f"predicted_{name}{end}" for name in NAMES for end in ("", "_low", "_high")]
    assert table.column_names == [*NAMES, *added, "source_file", "source_row"]
    (entry,) = [each for each in read_manifest(int8).files if each.file == file]
    assert entry.interval is not None and entry.interval["datasets"] == scores
    # A file that is quantized to be small has none inside; the manifest beside it tells.
    assert read_metadata(int8 / file).get("interval") == (None if "int8" in file else entry.interval)
    assert toolkit.load(int8 / file).interval(np.ones((1, 3), np.float32))[0].shape == (1, 3)
    for index, name in enumerate(NAMES):
        estimate, low, high = (table[f"predicted_{name}{end}"].to_numpy() for end in ("", "_low", "_high"))
        assert low.dtype == high.dtype == np.float32 and table[f"predicted_{name}_low"].null_count == 0
        assert np.all(low >= SMALLEST) and np.all(np.isfinite(high)) and np.all((low <= estimate) & (estimate <= high))
        # sd over both samples sqrt(.09 / 1,602 + .09 / 4,000) = .9%: four of them.
        assert np.mean((low <= true[:, index]) & (true[:, index] <= high)) == pytest.approx(0.9, abs=0.036)


def test_numbers_of_an_int8_file_are_its_own_from_datasets_it_was_not_fitted_to(int8: Path) -> None:
    manifest = read_manifest(int8)
    path = int8.parent / "calibration.parquet"
    datasets, true = read_datasets(path, manifest.spec), true_of(path)
    by_name = {entry.file: entry for entry in manifest.files}
    quantized = by_name["model.int8.tflite"]
    assert quantized.interval == interval_facts(int8 / quantized.file, "int8", manifest.spec, datasets, true)
    kept = held_back(len(datasets))  # as if they were all the datasets of a float file
    alone = interval_facts(int8 / quantized.file, "float32", manifest.spec, datasets[kept], true[kept])
    assert quantized.interval == alone and quantized.int8 is not None
    assert quantized.int8["calibration_datasets"] == len(datasets) - len(datasets[kept])
    assert by_name["model.float32.tflite"].interval != quantized.interval


def test_training_leaves_the_intervals_of_the_network_and_evaluate_measures_all(int8: Path, unseen: Path) -> None:
    found = evaluate(int8, unseen)
    assert read_manifest(int8).interval is not None
    for each in (found.network, *found.files):
        assert set(each.coverage) == set(NAMES)
        for coverage in each.coverage.values():
            # The network's own and files exported before are from 200 datasets: sd 2.1%, of which four.
            assert coverage.coverage == pytest.approx(0.9, abs=0.085) and coverage.mean_width_ratio > 1
            assert np.mean(coverage.thirds) == pytest.approx(coverage.coverage, abs=1e-3)
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["files"][0]["intervals"]["noise"]["level"] == 0.9
    half = evaluate(int8, unseen, interval=0.5).files[0].coverage["rate"]
    assert half.coverage == pytest.approx(0.5, abs=0.06)  # sd 1.2% over both samples
    with pytest.raises(InputError, match="between 0 and 1"):
        evaluate(int8, unseen, interval=1.5)


def test_the_command_adds_intervals_and_says_so(
    toolkit_command: Callable[..., Result], exported: Path, unseen: Path, tmp_path: Path
) -> None:
    output = tmp_path / "o.parquet"
    arguments = ["batch-predict", unseen, "--model", exported, "--output", output, "--check", "off"]
    planned = toolkit_command(*arguments, "--interval", 0.8, "--dry-run", "--json")
    assert "predicted_noise_high" in json.loads(planned.stdout)["predicted"] and not output.exists()
    done = toolkit_command(*arguments, "--interval", 0.8)
    assert done.exit_code == 0 and "intervals:   of level 0.8, for datasets like those of training" in done.stdout
    with pytest.raises(OutputError, match="already|exists"):
        toolkit.batch_predict(unseen, model=exported, output=output, check="off", interval=0.9, resume=True)
    assert toolkit_command(*arguments, "--interval", 1).exit_code == 2
    refused = toolkit_command(*arguments, "--overwrite", "--interval", 0.999)
    assert refused.exit_code == 1
    assert "intervals of level 0.999 take 1,249 calibration datasets with true values" in refused.stderr


def test_resume_is_refused_when_the_level_changed(exported: Path, unseen: Path, tmp_path: Path) -> None:
    from toolkit.batch.prepare import prepare
    from toolkit.batch.work import begin

    options = {"model": exported, "output": tmp_path / "o.parquet", "file": None, "check": "off", "column": None}
    prepared = prepare(unseen, **options, order=None, strict_range=False, interval=0.9)  # type: ignore[arg-type]
    Path(prepared.paths.work).mkdir()
    begin(prepared.paths.work, prepared.key)
    with pytest.raises(OutputError, match=r"cannot resume, --interval was 0.9, now it is 0.8"):
        toolkit.batch_predict(unseen, **options, interval=0.8, resume=True)  # type: ignore[arg-type]


def test_a_model_from_before_says_what_to_do(exported_copy: Path, unseen: Path, tmp_path: Path) -> None:
    manifest = read_manifest(exported_copy)
    files = tuple(replace(entry, interval=None) for entry in manifest.files)
    write_manifest(exported_copy, replace(manifest, files=files, interval=None))
    wanted = "model.float32.tflite: nothing is known of intervals.*columns height, rate, noise: toolkit export --format"
    with pytest.raises(ModelError, match=wanted):
        toolkit.batch_predict(unseen, model=exported_copy, output=tmp_path / "o.parquet", interval=0.9)
    assert not evaluate(exported_copy, unseen).files[0].coverage
    with pytest.raises(ModelError, match="nothing is known of intervals"):
        intervals_of_file(files[0], manifest.spec)


def test_columns_that_clash_with_the_ends_are_refused(exported: Path, unseen: Path, tmp_path: Path) -> None:
    table = pq.read_table(unseen).slice(0, 40)
    path = tmp_path / "in.parquet"
    pq.write_table(table.append_column("predicted_rate_low", pa.array(np.zeros(40))), path)
    with pytest.raises(InputError, match="has a column 'predicted_rate_low' already, which the result needs"):
        toolkit.batch_predict(path, model=exported, interval=0.9)
    assert toolkit.batch_predict(path, model=exported, check="off").rows_predicted == 40
    with pytest.raises(InputError, match="predicted_v_low would be both the estimate of v_low and an end"):
        check_interval_names(["v", "v_low"])


def test_an_estimator_gives_the_intervals_that_batch_predict_writes(int8: Path, unseen: Path, tmp_path: Path) -> None:
    toolkit.batch_predict(unseen, model=int8, interval=0.9, output=tmp_path / "o.parquet", check="off", workers=1)
    table = pq.read_table(tmp_path / "o.parquet")
    estimate = toolkit.load(int8)
    estimates = estimate(read_datasets(unseen, read_manifest(int8).spec))
    low, high = estimate.interval(estimates)
    for index, name in enumerate(NAMES):
        np.testing.assert_array_equal(low[:, index], table[f"predicted_{name}_low"].to_numpy())
        np.testing.assert_array_equal(high[:, index], table[f"predicted_{name}_high"].to_numpy())
    with pytest.raises(InputError, match="intervals are made around estimates of this file"):
        estimate.interval([[1.0, np.nan, 1.0]])
