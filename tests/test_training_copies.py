"""Copies among training datasets: found, said, and never on both sides of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training_files import write_training_file
from toolkit.errors import InputError
from toolkit.training_copies import any_twice, hashes_of, split, split_apart
from toolkit.training_files import FilePieces, open_training_data

COUNT, ROWS = 500, 6


def fresh(count: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (count, ROWS, 2)), {"p": rng.uniform(1, 2, count)}


def joined(*parts: tuple[np.ndarray, dict[str, np.ndarray]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return np.concatenate([x for x, _ in parts]), {"p": np.concatenate([targets["p"] for _, targets in parts])}


def rows_of(datasets: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in datasets}


def sides(paths: list[Path], **options: object) -> tuple[list[set[bytes]], list[int], tuple[str, ...]]:
    """The different datasets that train, validate and calibrate, how many those are, and the warnings."""
    data = open_training_data(paths, ["p"], **options)  # type: ignore[arg-type]
    trained = np.concatenate([batch for batch, _ in data.batches(1, 64, exchangeable_rows=False)])
    assert len(trained) == data.training_count
    parts = [trained, data.validation_datasets, data.calibration_datasets]
    return [rows_of(part) for part in parts], [len(part) for part in parts], data.warnings


def test_hashes_tell_datasets_and_parameters_apart_to_the_bit() -> None:
    datasets, targets = fresh(2, 0)
    datasets = datasets.astype(np.float32)
    true = targets["p"][:, None].astype(np.float32)
    datasets[1], true[1] = datasets[0], true[0]
    assert len(set(hashes_of(datasets, true))) == 1
    for array in (datasets, true):
        kept = array[1].copy()
        array[1] = np.nextafter(array[1], np.float32(9))
        assert len(set(hashes_of(datasets, true))) == 2
        array[1] = kept
    datasets[1] = datasets[1, ::-1]
    assert len(set(hashes_of(datasets, true))) == 2, "the order of rows counts"


@pytest.mark.parametrize("validate", [True, False])
def test_split_apart_is_the_usual_split_where_there_are_no_copies(validate: bool) -> None:
    hashes, none = np.random.default_rng(0).permutation(1000), np.empty(0, np.int64)
    assert not any_twice(hashes, none) and not any_twice(hashes, np.array([-1, 5000]))
    usual = split(1000, 0.1, 60, 7, validate)
    apart = split_apart(hashes, none, 0.1, 60, 7, validate)
    assert np.count_nonzero(usual.validating) == (60 if validate else 0)
    assert np.count_nonzero(usual.calibrating) == 60
    for name in ("validating", "calibrating", "trained"):
        np.testing.assert_array_equal(getattr(usual, name), getattr(apart, name))


def test_copies_are_never_on_both_sides_of_the_split(tmp_path: Path) -> None:
    first, second = fresh(COUNT, 1), fresh(100, 2)
    paths = [
        write_training_file(tmp_path / "one.parquet", *joined(first, second)),
        write_training_file(tmp_path / "two.parquet", *first),
    ]
    (trained, validated, calibrated), counts, warnings = sides(paths)
    assert not (trained & validated or trained & calibrated or validated & calibrated)
    assert trained | validated | calibrated == rows_of(joined(first, second)[0].astype(np.float32))
    # A tenth of the 600 different ones each; of those that train, the copies train as well.
    assert [len(validated), len(calibrated)] == counts[1:] == [60, 60]
    assert len(trained) == 480 < counts[0] < 1000
    assert warnings == (
        f"warning: {paths[0]}: 500 of 1,100 datasets are copies of others, parameters included. None whose copy is "
        "held out is trained on. Simulate each with random numbers of its own.",
    )


def test_equal_datasets_of_other_parameters_are_no_copies(tmp_path: Path) -> None:
    """Few rows of zeros and ones are often the same."""
    datasets = np.random.default_rng(0).integers(0, 2, (COUNT, 3, 2)).astype(float)
    assert len(rows_of(datasets)) < 65
    path = write_training_file(tmp_path / "d.parquet", datasets, fresh(COUNT, 1)[1])
    assert open_training_data([path], ["p"]).warnings == ()


def test_datasets_of_the_file_to_validate_on_are_not_trained_on(tmp_path: Path) -> None:
    many, other = fresh(COUNT, 1), fresh(50, 2)
    path = write_training_file(tmp_path / "d.parquet", *many)
    overlap = (many[0][:70], {"p": many[1]["p"][:70]})
    validation = write_training_file(tmp_path / "v.parquet", *joined(overlap, other))
    (trained, validated, calibrated), counts, warnings = sides([path], validation=validation)
    assert not (trained & validated or trained & calibrated or validated & calibrated)
    assert counts == [430 - 43, 120, 43]
    assert warnings == (
        f"warning: {validation}: holds 70 of the 500 datasets to train on. They are not trained on, so that validation "
        "is honest. Validate on datasets of its own.",
    )


def test_files_with_too_few_different_datasets_are_refused(tmp_path: Path) -> None:
    datasets, targets = fresh(150, 1)
    path = write_training_file(tmp_path / "d.parquet", np.tile(datasets, (3, 1, 1)), {"p": np.tile(targets["p"], 3)})
    with pytest.raises(InputError, match="d.parquet: 150 different datasets among 450; training takes 200 or more."):
        open_training_data([path], ["p"])
    other = write_training_file(tmp_path / "o.parquet", *fresh(COUNT, 2))
    with pytest.raises(
        InputError, match="o.parquet: holds 500 of the 500 datasets to train on, which leaves 0 others;"
    ):
        open_training_data([other], ["p"], validation=other)


def test_many_copies_of_few_datasets_leave_some_to_train_on(tmp_path: Path) -> None:
    """Were the split to choose among all rows, hardly one of 250 datasets would have no copy that is held out."""
    datasets, targets = fresh(250, 1)
    path = write_training_file(tmp_path / "d.parquet", np.tile(datasets, (8, 1, 1)), {"p": np.tile(targets["p"], 8)})
    _, counts, _ = sides([path])
    assert counts == [200 * 8, 25, 25]


def test_the_split_is_the_same_for_a_seed_and_another_for_another(tmp_path: Path) -> None:
    path = write_training_file(tmp_path / "d.parquet", *joined(fresh(COUNT, 1), fresh(COUNT, 1)))
    kept = []
    for seed in (0, 0, 1):
        pieces = open_training_data([path], ["p"], seed=seed).pieces
        assert isinstance(pieces, FilePieces)
        kept.append(pieces.held_out)
    assert np.array_equal(kept[0], kept[1]) and not np.array_equal(kept[0], kept[2])
