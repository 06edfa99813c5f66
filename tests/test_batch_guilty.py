"""Rows with which a decoder or an engine raises: each is rejected alone, and costs no other row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from toolkit.batch import batch_predict
from toolkit.batch.checks import Engines
from toolkit.datasets import Decoded, decode
from toolkit.errors import InputError, ModelError, NotPositive

FloatArray = NDArray[np.float32]

ROWS, GUILTY_ROWS = 200, [0, 63, 64, 150, 199]
MARK = np.float32(12345.0)


@pytest.fixture
def given(small_datasets: Path, tmp_path: Path) -> Path:
    """200 datasets, of which five begin with a number that what follows will not take."""
    datasets = np.array(pq.read_table(small_datasets)["x"].slice(0, ROWS).to_pylist(), np.float32)
    datasets[GUILTY_ROWS, 0, 0] = MARK
    column = pa.array(datasets.tolist(), pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({"id": np.arange(ROWS), "x": column}), tmp_path / "input.parquet")
    return tmp_path / "input.parquet"


def raising(predict: Callable[[FloatArray], FloatArray]) -> Callable[[FloatArray], FloatArray]:
    def run(datasets: FloatArray) -> FloatArray:
        if (datasets[:, 0, 0] == MARK).any():
            raise RuntimeError("an engine's own words")
        return predict(datasets)

    return run


def patch_engines(monkeypatch: pytest.MonkeyPatch, change: Callable[[Engines], Engines]) -> None:
    from toolkit.batch import score

    load = score.load_engines
    monkeypatch.setattr("toolkit.batch.pipeline.load_engines", lambda job: change(load(job)))


def assert_five_are_rejected(given: Path, exported: Path, check: str, clean: Path) -> None:
    summary = batch_predict(given, model=exported, check=check)
    assert (summary.rows_in, summary.rows_predicted, summary.rows_rejected) == (ROWS, ROWS - 5, 5)
    assert summary.reasons == {"type": 5}
    assert {each.rows_checked for each in summary.checks} == {ROWS - 5}, "no row is counted twice"
    rejected = pq.read_table(str(summary.rejected))
    assert rejected["source_row"].to_pylist() == GUILTY_ROWS and set(rejected["reason"].to_pylist()) == {"type"}
    predicted = pq.read_table(str(summary.output))
    others = [row for row in range(ROWS) if row not in GUILTY_ROWS]
    assert predicted["id"].to_pylist() == others
    names = [name for name in predicted.column_names if name.startswith("predicted_")]
    alone = pq.read_table(clean).take(others)
    for name in names:
        # The same file computes the same rows in other batches: measured equal; twice float32's spacing is allowed.
        np.testing.assert_allclose(predicted[name].to_numpy(), alone[name].to_numpy(), rtol=2.4e-7)


@pytest.fixture
def clean(given: Path, exported: Path, tmp_path: Path) -> Path:
    """Predictions of all rows by engines that raise with none."""
    return Path(batch_predict(given, model=exported, check="off", output=tmp_path / "clean.parquet").output)


def test_rows_with_which_the_scoring_file_raises_are_rejected(
    given: Path, exported: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_engines(monkeypatch, lambda engines: Engines(engines.scoring_file, raising(engines.scoring), engines.others))
    assert_five_are_rejected(given, exported, "off", clean)


def test_rows_with_which_another_file_raises_are_rejected(
    given: Path, exported: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(engines: Engines) -> Engines:
        *quiet, last = engines.others
        others = {**{name: engines.others[name] for name in quiet}, last: raising(engines.others[last])}
        return Engines(engines.scoring_file, engines.scoring, others)

    patch_engines(monkeypatch, change)
    assert_five_are_rejected(given, exported, "all", clean)


def test_rows_with_which_the_decoder_raises_are_rejected(
    given: Path, exported: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising_decode(array: pa.Array, layout: Any) -> Decoded:
        decoded = decode(array, layout)
        if (decoded.datasets[:, 0, 0] == MARK).any():
            raise pa.ArrowInvalid("a decoder's own words")
        return decoded

    monkeypatch.setattr("toolkit.batch.guilty.decode", raising_decode)
    assert_five_are_rejected(given, exported, "off", clean)


def fail(*_: object) -> FloatArray:
    raise RuntimeError("always")


def test_an_engine_that_fails_with_every_dataset_is_one_error(
    given: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_engines(monkeypatch, lambda engines: Engines(engines.scoring_file, fail, engines.others))
    with pytest.raises(ModelError, match=r"model\.float32\.tflite: fails with any dataset \(always\)\."):
        batch_predict(given, model=exported, check="off")


def test_a_decoder_that_fails_with_every_row_is_one_error(
    given: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.batch.guilty.decode", fail)
    with pytest.raises(InputError, match=r"input\.parquet: none of 200 rows can be decoded \(always\)\."):
        batch_predict(given, model=exported, check="off")


def test_an_engine_that_fails_with_batches_only_is_one_error(
    given: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter([True])

    def once(predict: Callable[[FloatArray], FloatArray]) -> Callable[[FloatArray], FloatArray]:
        return lambda datasets: fail() if next(calls, False) else predict(datasets)

    patch_engines(monkeypatch, lambda engines: Engines(engines.scoring_file, once(engines.scoring), engines.others))
    with pytest.raises(ModelError, match=r"a batch failed \(always\), and none of its rows alone does"):
        batch_predict(given, model=exported, check="off", workers=1)
    assert batch_predict(given, model=exported, check="off", resume=True).rows_predicted == ROWS


def test_an_output_that_is_not_positive_is_nobodys_fault(
    given: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the run: rejecting the row would hide it."""
    patch_engines(
        monkeypatch,
        lambda engines: Engines(engines.scoring_file, lambda data: np.zeros((len(data), 3), np.float32), {}),
    )
    with pytest.raises(NotPositive, match="row 0: model.float32.tflite gave height = 0"):
        batch_predict(given, model=exported, check="off")


@pytest.mark.parametrize("error", [MemoryError("full"), OSError(28, "No space left on device")])
def test_what_the_machine_lacks_is_no_rows_fault(
    error: Exception, given: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(datasets: FloatArray) -> FloatArray:
        raise error

    patch_engines(monkeypatch, lambda engines: Engines(engines.scoring_file, lacking, engines.others))
    with pytest.raises(Exception, match="full|No space left") as raised:
        batch_predict(given, model=exported, check="off")
    assert not isinstance(raised.value, ModelError)
