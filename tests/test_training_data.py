"""Training data: every dataset once an epoch, none that is held out, and rows that cannot be trained on named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import toolkit.training_files
from toolkit.datasets import encode, read_datasets, write_schema_metadata
from toolkit.errors import InputError
from toolkit.training_data import TrainingData
from toolkit.training_files import open_training_data

ROWS, COUNT = 6, 500


def write(path: Path, datasets: np.ndarray, targets: dict[str, object], row_group_size: int = 64) -> Path:
    table = pa.table({"x": encode(datasets.astype(np.float32)), **targets})
    table = table.cast(write_schema_metadata(table.schema, ("first", "second"), tuple(targets)))
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def numbered(first: int, count: int) -> tuple[np.ndarray, dict[str, object]]:
    """Datasets that say their own number in every row, and so does their parameter."""
    number = np.arange(first, first + count, dtype=np.float64)
    datasets = np.stack([np.broadcast_to(number[:, None], (count, ROWS)), np.tile(np.arange(ROWS), (count, 1))], axis=2)
    return datasets, {"p": number + 1}


@pytest.fixture
def two_files(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / "one.parquet", *numbered(0, 300)), write(tmp_path / "two.parquet", *numbered(300, 200))]


@pytest.fixture
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit.training_files, "POOL_BYTES", 96 * ROWS * 2 * 4)  # 96 datasets: many rounds of mixing


def numbers_of(data: TrainingData, epoch: int, exchangeable: bool = False) -> list[int]:
    numbers = []
    for datasets, targets in data.batches(epoch, 16, exchangeable):
        assert datasets.dtype == targets.dtype == np.float32
        np.testing.assert_array_equal(datasets[:, 0, 0] + 1, targets[:, 0])
        numbers += [int(value) for value in datasets[:, 0, 0]]
    return numbers


def test_batches_hold_every_training_dataset_once_and_no_held_out_one(two_files: list[Path], small_pool: None) -> None:
    data = open_training_data(two_files, ["p"])
    validating = [int(value) for value in data.validation_datasets[:, 0, 0]]
    calibrating = [int(value) for value in data.calibration_datasets[:, 0, 0]]
    assert len(validating) == len(calibrating) == 50
    np.testing.assert_array_equal(data.calibration_datasets[:, 0, 0] + 1, data.calibration_targets[:, 0])
    assert sorted(numbers_of(data, 1) + validating + calibrating) == list(range(COUNT))
    assert data.training_count == 400


def test_batches_are_the_same_for_an_epoch_and_new_in_the_next(two_files: list[Path], small_pool: None) -> None:
    data = open_training_data(two_files, ["p"])
    assert numbers_of(data, 1) == numbers_of(data, 1)
    assert numbers_of(data, 1) != numbers_of(data, 2)
    other = open_training_data(two_files, ["p"], seed=1)
    assert numbers_of(data, 1) != numbers_of(other, 1)


def test_batches_mix_datasets_of_different_files(two_files: list[Path], small_pool: None) -> None:
    numbers = np.array(numbers_of(open_training_data(two_files, ["p"]), 1))
    # Uniform mixing would put 60% of the first file's into the first half; unmixed, all or next to none.
    assert 0.2 < np.mean(numbers[: len(numbers) // 2] < 300) < 0.9
    assert not np.array_equal(np.sort(numbers[:96]), numbers[:96])


def test_batches_reorder_the_rows_of_a_dataset_only_when_they_are_exchangeable(two_files: list[Path]) -> None:
    data = open_training_data(two_files, ["p"])
    orders = set()
    for datasets, _ in data.batches(1, 16, exchangeable_rows=True):
        np.testing.assert_array_equal(np.sort(datasets[:, :, 1], axis=1), np.tile(np.arange(ROWS), (len(datasets), 1)))
        orders.add(tuple(datasets[0, :, 1]))
    assert len(orders) > 10
    for datasets, _ in data.batches(1, 16, exchangeable_rows=False):
        np.testing.assert_array_equal(datasets[0, :, 1], np.arange(ROWS))


def test_open_training_data_finds_moments_and_ranges(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    datasets = rng.normal([1e4, -2.0], [0.1, 3.0], (COUNT, ROWS, 2))  # an offset far larger than the spread
    targets = {"p": rng.uniform(1, 2, COUNT), "q": rng.uniform(1e-4, 1e-3, COUNT)}
    data = open_training_data([write(tmp_path / "d.parquet", datasets, targets)], ["p", "q"])
    stored = datasets.astype(np.float32).astype(np.float64)
    # Two roundings of float64 in sums of 3,000 values; 1e-12 is what shifting leaves of the offset's 1e4^2 / 0.1^2.
    np.testing.assert_allclose(data.column_means, stored.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(data.column_variances, stored.var(axis=(0, 1)), rtol=1e-9)
    np.testing.assert_array_equal(data.ranges.column_minima, stored.min(axis=(0, 1)))
    np.testing.assert_array_equal(data.ranges.column_maxima, stored.max(axis=(0, 1)))
    np.testing.assert_allclose(data.parameter_deviations, [t.std() for t in targets.values()], rtol=1e-6)
    np.testing.assert_allclose(data.ranges.parameter_minima, [t.min() for t in targets.values()], rtol=1e-6)
    assert data.spec.describe() == "6 rows x (first, second) -> p, q"


def test_open_training_data_takes_names_from_the_schema_and_numbers_columns_without(tmp_path: Path) -> None:
    datasets, targets = numbered(0, COUNT)
    pq.write_table(pa.table({"x": encode(datasets.astype(np.float32)), **targets}), tmp_path / "bare.parquet")
    assert open_training_data([tmp_path / "bare.parquet"], ["p"]).spec.columns == ("column_0", "column_1")


def test_open_training_data_gives_a_constant_column_variance_one(tmp_path: Path) -> None:
    datasets, targets = numbered(0, COUNT)
    datasets[:, :, 1] = 5.0
    data = open_training_data([write(tmp_path / "d.parquet", datasets, targets)], ["p"])
    assert (data.column_means[1], data.column_variances[1]) == (5.0, 1.0)


def test_open_training_data_validates_on_the_file_given(two_files: list[Path]) -> None:
    data = open_training_data(two_files[:1], ["p"], validation=two_files[1])
    np.testing.assert_array_equal(data.validation_targets[:, 0], np.arange(301, 501))
    calibrating = [int(value) for value in data.calibration_datasets[:, 0, 0]]
    assert len(calibrating) == 30 and data.training_count == 270  # held out of what is trained on in any case
    assert sorted(numbers_of(data, 1) + calibrating) == list(range(300))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.0"), (-0.3, "-0.3"), (np.nan, "nan"), (np.inf, "inf"), (1e-40, "1e-40"), (None, "None")],
)
def test_open_training_data_names_the_row_of_a_target_that_is_not_positive(
    tmp_path: Path, value: float | None, shown: str
) -> None:
    datasets, targets = numbered(0, COUNT)
    true: list[float | None] = list(targets["p"])  # type: ignore[call-overload]
    true[321] = value
    with pytest.raises(InputError, match=f"row 321: 'p' is {shown}; a parameter must be positive and finite. Remove"):
        open_training_data([write(tmp_path / "d.parquet", datasets, {"p": true})], ["p"])


def test_open_training_data_names_the_row_of_a_dataset_with_nan(tmp_path: Path) -> None:
    datasets, targets = numbered(0, COUNT)
    datasets[77, 3, 0] = np.nan
    with pytest.raises(InputError, match=r"d.parquet, row 77: 'x' cannot be trained on: nan. Remove or mend the row."):
        open_training_data([write(tmp_path / "d.parquet", datasets, targets)], ["p"])


def test_open_training_data_refuses_what_cannot_teach_anything(tmp_path: Path) -> None:
    datasets, targets = numbered(0, 199)
    with pytest.raises(InputError, match="199 datasets; training takes 200 or more. Simulate more."):
        open_training_data([write(tmp_path / "few.parquet", datasets, targets)], ["p"])
    datasets, targets = numbered(0, COUNT)
    path = write(tmp_path / "d.parquet", datasets, {"p": np.full(COUNT, 2.5), "word": ["a"] * COUNT})
    with pytest.raises(InputError, match="'p' is 2.5 in every row; there is nothing to learn. Let it vary."):
        open_training_data([path], ["p"])
    with pytest.raises(InputError, match="no column 'q' for a parameter. It has: x, p, word."):
        open_training_data([path], ["q"])
    with pytest.raises(InputError, match="parameter 'word' is string, not a number."):
        open_training_data([path], ["word"])


def test_open_training_data_refuses_files_of_different_shapes(tmp_path: Path) -> None:
    one = write(tmp_path / "one.parquet", *numbered(0, 300))
    datasets, targets = numbered(300, 200)
    two = write(tmp_path / "two.parquet", datasets[:, :5], targets)
    with pytest.raises(InputError, match=r"two.parquet"):
        open_training_data([one, two], ["p"])


def test_write_calibration_keeps_calibration_datasets_with_true_values(two_files: list[Path], tmp_path: Path) -> None:
    data = open_training_data(two_files, ["p"])
    data.write_calibration(tmp_path / "c.parquet", 20)
    datasets = read_datasets(tmp_path / "c.parquet", data.spec)
    np.testing.assert_array_equal(datasets, data.calibration_datasets[:20])
    true = pq.read_table(tmp_path / "c.parquet")["p"].to_numpy()
    np.testing.assert_array_equal(true, datasets[:, 0, 0] + 1)
