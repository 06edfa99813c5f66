"""`toolkit evaluate`: its numbers are those of closed forms and of the files, and one bad file is one failed row."""

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
from tests.bad_files import plain_softplus_tflite, publish_unseen
from toolkit.datasets import read_datasets
from toolkit.errors import InputError, ModelError
from toolkit.evaluation import Evaluation, evaluate
from toolkit.evaluation.measures import edges_of, measure
from toolkit.manifest import Range, read_manifest, write_manifest
from toolkit.recovery import recovery_of
from toolkit.runtime import load

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "model"
COUNT = 300


@pytest.fixture(scope="module")
def unseen(small_simulator: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from toolkit.simulate import simulate

    path = tmp_path_factory.mktemp("unseen") / "unseen.parquet"
    simulate(small_simulator, COUNT, path, seed=5, workers=1)
    return path


@pytest.fixture(scope="module")
def found(exported: Path, unseen: Path) -> Evaluation:
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    found = evaluate(exported, [unseen])
    assert before == {path: path.stat().st_mtime_ns for path in exported.iterdir()}, "the model directory changed"
    return found


def true_of(path: Path, model: Path) -> np.ndarray:
    table = pq.read_table(path)
    return np.stack([table[name].to_numpy() for name in read_manifest(model).spec.parameters], axis=1)


def test_recovery_of_agrees_with_numbers_worked_out_by_hand() -> None:
    true = np.array([1, 2, 4, 5], np.float32)
    found = recovery_of(true, np.array([2.0, 2.0, 2.0, 5.0]))
    # Errors 1, 0, -2, 0; deviations from the mean 3 are -2, -1, 1, 2; relative errors 1, 0, .5, 0.
    assert found.r2 == 1 - 5 / 10
    assert found.rmse == np.sqrt(5 / 4)
    assert found.bias == -1 / 4
    assert found.median_relative_error == 0.25
    assert found.p90_relative_error == pytest.approx(0.5 + 0.7 * 0.5)  # between the third and the fourth, at 2.7


def test_recovery_of_tells_a_constant_and_what_is_no_number_from_a_good_fit() -> None:
    constant = recovery_of(np.full(4, 2.0, np.float32), np.array([2.0, 2.0, 2.0, 3.0]))
    assert np.isnan(constant.r2) and constant.rmse == 0.5
    broken = recovery_of(np.array([1, 2, 3], np.float32), np.array([1.0, np.nan, np.inf]))
    assert np.isnan(broken.rmse) and np.isnan(broken.median_relative_error) and not broken.r2 > 0


def test_measure_finds_the_error_that_the_small_end_suffers() -> None:
    true = np.linspace(1, 101, 1001, dtype=np.float32)[:-1]
    estimates = true + np.where(true < 11, 2.0, 0.0)  # only the tenth with the smallest values is off
    found = measure(true, estimates)
    assert [each.datasets for each in found.bins] == [100] * 10
    assert [each.bias for each in found.bins] == pytest.approx([2, *[0] * 9])
    assert found.bins[0].median_relative_error == pytest.approx(np.median(2 / true[:100]))
    assert found.bins[0].rmse == pytest.approx(2) and found.bins[1].p90_relative_error == 0
    assert found.recovery.bias == pytest.approx(0.2) and found.recovery.median_relative_error == 0
    assert (found.bins[0].low, found.bins[-1].high) == (1.0, float(true[-1]))
    assert [each.high for each in found.bins[:-1]] == [each.low for each in found.bins[1:]]


@pytest.mark.parametrize(
    ("true", "bins"),
    [
        (np.arange(1, 61), 3),  # at least 20 in each
        (np.arange(1, 6), 1),
        (np.full(1000, 3.0), 1),
        (np.repeat([1.0, 2.0], 500), 2),
        (np.repeat([1.0, 2.0, 3.0], 500), 2),
        (np.array([7.0]), 1),
    ],
)
def test_bins_hold_every_dataset_once_however_few_values_there_are(true: np.ndarray, bins: int) -> None:
    assert len(edges_of(true)) - 1 == bins
    found = measure(true.astype(np.float32), true.astype(np.float64))
    assert sum(each.datasets for each in found.bins) == len(true)


def test_evaluate_gives_every_file_the_errors_of_its_own_estimates(
    found: Evaluation, exported: Path, unseen: Path
) -> None:
    manifest = read_manifest(exported)
    datasets, true = read_datasets(unseen, manifest.spec), true_of(unseen, exported).astype(np.float64)
    assert [each.file for each in found.files] == [entry.file for entry in manifest.files]
    assert found.passed and found.datasets == COUNT
    for each in found.files:
        errors = load(exported / each.file)(datasets) - true
        spread = true - true.mean(axis=0)
        for index, name in enumerate(manifest.spec.parameters):
            recovery, mine = each.measures[name].recovery, errors[:, index]
            # The same estimates; what differs is the order of sums.
            assert recovery.rmse == pytest.approx(np.sqrt(np.mean(mine**2)), rel=1e-12)
            assert recovery.r2 == pytest.approx(1 - (mine @ mine) / (spread[:, index] @ spread[:, index]), rel=1e-12)
            assert recovery.bias == pytest.approx(mine.sum() / COUNT, rel=1e-9)
            relative = np.sort(np.abs(mine) / true[:, index])
            assert recovery.median_relative_error == pytest.approx((relative[149] + relative[150]) / 2, rel=1e-12)
            assert recovery.p90_relative_error == pytest.approx(0.9 * relative[269] + 0.1 * relative[270], rel=1e-12)


def test_evaluate_takes_the_network_in_float64_for_its_truth(found: Evaluation) -> None:
    assert (found.network.file, found.network.precision) == ("weights.npz", "float64")
    float32 = next(each for each in found.files if each.file == "model.float32.onnx")
    for name, measures in found.network.measures.items():
        # Measured 5.1e-8: the rounding of one float32.
        assert float32.measures[name].recovery.rmse == pytest.approx(measures.recovery.rmse, rel=2e-7)


def test_evaluate_measures_how_much_the_order_of_rows_matters(found: Evaluation, exported: Path, unseen: Path) -> None:
    datasets = read_datasets(unseen, read_manifest(exported).spec)
    predict, rng = load(exported / "model.float32.onnx"), np.random.default_rng(99)
    squares = []
    for _ in range(20):  # other orders than those of `evaluate`, in another runtime
        order = np.argsort(rng.random(datasets.shape[:2]), axis=1)
        other = np.stack([dataset[rows] for dataset, rows in zip(datasets, order, strict=True)])
        squares.append(np.mean((predict(other).astype(np.float64) - predict(datasets)) ** 2, axis=0))
    change = np.sqrt(np.mean(squares, axis=0))
    assert found.row_order.datasets == COUNT
    # Measured 1.7%. Of these 20, single ones differ from their mean by up to 5.8% (standard deviation 3.1%).
    assert list(found.row_order.change.values()) == pytest.approx(change, rel=0.1)
    for name, relative in found.row_order.relative_to_rmse.items():
        assert relative == found.row_order.change[name] / found.network.measures[name].recovery.rmse


def test_evaluate_gives_the_same_numbers_again(found: Evaluation, exported: Path, unseen: Path) -> None:
    assert evaluate(exported, unseen).to_json() == found.to_json()


def test_evaluate_counts_what_lies_outside_the_training_ranges(exported_copy: Path, unseen: Path) -> None:
    manifest = read_manifest(exported_copy)
    datasets, true = read_datasets(unseen, manifest.spec), true_of(unseen, exported_copy)
    high, middle = float(np.quantile(datasets[:, :, 1].max(axis=1), 0.75)), float(np.median(true[:, 0]))
    ranges = (Range(-1.0, 4.0), Range(-100.0, high))
    parameters = (replace(manifest.parameters[0], minimum=middle, maximum=100.0), *manifest.parameters[1:])
    write_manifest(exported_copy, replace(manifest, column_ranges=ranges, parameters=parameters, files=()))
    found = evaluate(exported_copy, unseen)
    assert found.outside is not None and (found.outside.rows, found.outside.columns) == (75, {"signal": 75})
    assert found.true_outside[manifest.parameters[0].name] == 150
    content = found.to_json()
    assert content["outside_training_range"] == {"datasets": 75, "fraction": 0.25, "columns": {"signal": 75}}
    write_manifest(exported_copy, replace(manifest, column_ranges=(), files=()))
    assert evaluate(exported_copy, unseen).to_json()["outside_training_range"] is None


def test_evaluate_reads_several_files_as_one(exported: Path, unseen: Path, found: Evaluation, tmp_path: Path) -> None:
    table = pq.read_table(unseen)
    pq.write_table(table.slice(0, 100), tmp_path / "a.parquet")
    pq.write_table(table.slice(100), tmp_path / "b.parquet", row_group_size=7)
    together = evaluate(exported, [tmp_path / "a.parquet", tmp_path / "b.parquet"]).to_json()
    whole = found.to_json()
    for name in ("datasets", "outside_training_range", "files"):
        assert together[name] == whole[name], name


def test_evaluate_takes_tidy_tables(exported: Path, unseen: Path, found: Evaluation, tmp_path: Path) -> None:
    datasets, true = read_datasets(unseen, read_manifest(exported).spec), true_of(unseen, exported)
    rows = datasets.shape[1]
    tidy = pa.table(
        {
            "id": np.repeat(np.arange(COUNT), rows),
            "y": datasets[:, :, 1].reshape(-1),
            "t": datasets[:, :, 0].reshape(-1),
            **{name: np.repeat(true[:, index], rows) for index, name in enumerate(found.manifest.spec.parameters)},
        }
    )
    pq.write_table(tidy, tmp_path / "tidy.parquet")
    grouped = evaluate(exported, tmp_path / "tidy.parquet", group_by="id", columns=("t", "y"))
    assert grouped.to_json() == found.to_json() and grouped.sources == (tmp_path / "tidy.parquet",)
    with pytest.raises(InputError, match=r"no column 'time', or several, for --columns"):  # the model's names
        evaluate(exported, tmp_path / "tidy.parquet", group_by="id")
    with pytest.raises(InputError, match=r"--columns names 1 columns, the model takes 2"):
        evaluate(exported, tmp_path / "tidy.parquet", group_by="id", columns=("t",))
    pq.write_table(tidy.slice(1), tmp_path / "short.parquet")
    with pytest.raises(InputError, match="short.parquet, row 0: the group that begins here has 23 rows, not 24"):
        evaluate(exported, tmp_path / "short.parquet", group_by="id", columns=("t", "y"))
    pq.write_table(tidy.drop_columns(["rate"]), tmp_path / "bad.parquet")
    with pytest.raises(InputError, match="bad.parquet: no column 'rate': evaluating needs the true value"):
        evaluate(exported, tmp_path / "bad.parquet", group_by="id", columns=("t", "y"))


def test_evaluate_names_all_missing_true_values_at_once(exported: Path, unseen: Path, tmp_path: Path) -> None:
    table = pq.read_table(unseen).drop_columns(["rate"]).rename_columns(["x", "height", "noize"])
    pq.write_table(table, tmp_path / "bad.parquet")
    message = (
        r"bad.parquet: no column 'rate', 'noise': evaluating needs the true value of every parameter \(height, rate, "
        r"noise\), in a column of its name. It has: x, height, noize."
    )
    with pytest.raises(InputError, match=message):
        evaluate(exported, tmp_path / "bad.parquet")


def test_evaluate_refuses_a_true_value_that_is_none_and_a_file_without_rows(
    exported: Path, unseen: Path, tmp_path: Path
) -> None:
    table = pq.read_table(unseen)
    rates = table["rate"].to_pylist()
    rates[7] = 0.0
    place = table.schema.get_field_index("rate")
    pq.write_table(table.set_column(place, "rate", pa.array(rates, pa.float32())), tmp_path / "bad.parquet")
    with pytest.raises(InputError, match="bad.parquet, row 7: 'rate' is 0.0; a parameter must be positive"):
        evaluate(exported, tmp_path / "bad.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="empty.parquet: no datasets to evaluate on."):
        evaluate(exported, tmp_path / "empty.parquet")


def test_evaluate_goes_on_after_a_file_that_fails(
    exported_copy: Path, unseen: Path, toolkit_command: Callable[..., Result]
) -> None:
    publish_unseen(plain_softplus_tflite(exported_copy / "model.float32.tflite"))
    with (exported_copy / "model.float16.onnx").open("ab") as file:
        file.write(b"\0")
    result = toolkit_command("evaluate", unseen, "--model", exported_copy, "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    content = json.loads(result.stdout)
    failures = {each["file"]: " ".join(each["failures"]) for each in content["files"]}
    assert not content["passed"] and content["network"]["failures"] == []
    # It gives log(1 + exp(-first value)), of times that begin at 0: positive, but no estimate of anything.
    assert failures["model.float32.tflite"] == ""
    assert "sha256 differs from manifest.json" in failures["model.float16.onnx"]
    assert failures["model.float16.tflite"] == failures["model.float32.onnx"] == ""
    text = toolkit_command("evaluate", unseen, "--model", exported_copy)
    assert text.exit_code == 1 and "model.float16.onnx: " in text.stdout and "not run" in text.stdout


def test_evaluate_says_which_estimates_are_not_positive(exported_copy: Path, unseen: Path, tmp_path: Path) -> None:
    publish_unseen(plain_softplus_tflite(exported_copy / "model.float32.tflite"), alone=True)
    table = pq.read_table(unseen)
    datasets = read_datasets(unseen, read_manifest(exported_copy).spec).copy()
    datasets[41:43, 0, 0] = 200.0  # the plain softplus of -200 is 0
    from toolkit.datasets import encode

    pq.write_table(table.set_column(table.schema.get_field_index("x"), "x", encode(datasets)), tmp_path / "x.parquet")
    found = evaluate(exported_copy, tmp_path / "x.parquet")
    assert not found.passed
    assert found.files[0].failures[0] == (
        "2 of 300 estimates of height are not finite and positive; the first is 0, of dataset 41."
    )


def test_evaluate_runs_a_model_that_was_not_exported_yet(trained: Path, unseen: Path) -> None:
    found = evaluate(trained, unseen)
    assert (found.network.file, found.network.precision, found.files) == ("model.keras", "float32", ())
    datasets, true = read_datasets(unseen, read_manifest(trained).spec), true_of(unseen, trained)
    errors = load(trained / "model.keras")(datasets).astype(np.float64) - true
    for index, measures in enumerate(found.network.measures.values()):
        # Two processes may take other kernels; measured 0.
        assert measures.recovery.rmse == pytest.approx(np.sqrt(np.mean(errors[:, index] ** 2)), rel=1e-5)


def test_evaluate_says_that_there_is_no_network(exported_copy: Path, unseen: Path) -> None:
    for name in ("weights.npz", "model.keras"):
        (exported_copy / name).unlink()
    with pytest.raises(ModelError, match="weights.npz: not there. Export the model again"):
        evaluate(exported_copy, unseen)


def test_evaluate_runs_integer_only_files_on_the_sample_model(toolkit_command: Callable[..., Result]) -> None:
    result = toolkit_command("evaluate", SAMPLE / "calibration.parquet", "--model", SAMPLE, "--quiet", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    content = json.loads(result.stdout)
    rmse = {
        each["file"]: [found["rmse"] for found in each["parameters"].values()]
        for each in [content["network"], *content["files"]]
    }
    assert "model.integer.tflite" in rmse
    for file, values in rmse.items():
        # Measured 1.6%, integer-only: the errors of a file are small beside those of the network.
        assert values == pytest.approx(rmse["weights.npz"], rel=0.03), file
    assert content["row_order"]["relative_to_rmse"]["a"] == 0  # its rows are sorted


def test_evaluate_command_prints_the_small_end_and_the_order_of_rows(
    exported: Path, unseen: Path, found: Evaluation, toolkit_command: Callable[..., Result]
) -> None:
    result = toolkit_command("evaluate", unseen, "--model", exported)
    assert result.exit_code == 0
    for name, measures in found.network.measures.items():
        assert f"{name} {measures.recovery.rmse:.4g}" in result.stdout
        assert f"{measures.bins[0].low:.3g} to {measures.bins[0].high:.3g}" in result.stdout
        assert f"{found.row_order.relative_to_rmse[name]:.2g} of RMSE" in result.stdout
    assert f"{COUNT} datasets." in result.stdout
    quiet = toolkit_command("evaluate", unseen, "--model", exported, "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_evaluate_is_a_verb_of_the_package(exported: Path, unseen: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(exported, tmp_path / "model"))
    manifest = read_manifest(model)
    write_manifest(model, replace(manifest, files=manifest.files[:1]))
    assert [each.file for each in toolkit.evaluate(str(model), [str(unseen)]).files] == [manifest.files[0].file]
