"""Float32 and integer TFLite files in TensorFlow Lite Micro: the target `tflm`, and `toolkit verify --on tflm`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from tests.edge_inputs import MODEL, entries, extreme_datasets, real_datasets, require, sweep_file, truth_of
from tests.edge_web import check_extreme, check_promise, check_real, check_sweep, largest
from toolkit.errors import InputError, ModelError
from toolkit.runtime import load
from toolkit.targets.tflm import TARGET

FLOAT, INTEGER = "model.float32.tflite", "model.integer.tflite"


@pytest.fixture(scope="module", autouse=True)
def tflm() -> None:
    require(TARGET.why_not())


def test_float32_estimates_are_positive_and_those_of_the_host(tmp_path: Path) -> None:
    entry = entries()[FLOAT]
    predict = TARGET.load(MODEL / FLOAT, entry, "reference")
    check_real(predict(real_datasets()), real_datasets(), FLOAT, "float32")
    check_extreme(predict(extreme_datasets()), extreme_datasets(), FLOAT)
    head, logits = sweep_file(entry, tmp_path)
    check_sweep(TARGET.load(head, entry, "reference")(logits), logits)


def test_integer_estimates_are_those_of_litert_s_reference_kernels_to_the_bit() -> None:
    predict = TARGET.load(MODEL / INTEGER, entries()[INTEGER], "reference")
    reference = load(MODEL / INTEGER, kernels="reference")
    for datasets in (real_datasets(), extreme_datasets()):
        estimates = predict(datasets)
        check_promise(estimates)
        assert np.array_equal(estimates, reference(datasets))
    assert largest(predict(real_datasets()), truth_of(real_datasets())) <= 0.11  # measured .055, a t0


def test_integer_files_do_not_hide_a_nan() -> None:
    datasets = real_datasets()[:2].copy()
    datasets[1, -1, 0] = np.nan
    estimates = TARGET.load(MODEL / INTEGER, entries()[INTEGER], "reference")(datasets)
    assert np.isfinite(estimates[0]).all() and np.isnan(estimates[1]).all()


def test_any_number_of_datasets_has_the_same_estimates_one_by_one() -> None:
    predict = TARGET.load(MODEL / FLOAT, entries()[FLOAT], "reference")
    many = predict(real_datasets()[:3])
    assert predict(real_datasets()[:0]).shape == (0, 3)
    assert np.array_equal(predict(real_datasets()[2:3]), many[2:])


def test_files_that_the_engine_does_not_take_are_named_with_the_reason(tmp_path: Path) -> None:
    reasons = {entry.file: TARGET.runs(entry) for entry in entries().values()}
    assert [file for file, reason in reasons.items() if not reason] == [FLOAT, INTEGER]
    assert "reads no float16 weights" in reasons["model.float16.tflite"]
    assert reasons["model.float32.onnx"] == "TensorFlow Lite Micro runs .tflite files, not .onnx"
    with pytest.raises(ModelError, match=r"^model.int8.tflite: TensorFlow Lite Micro does not take it"):
        TARGET.load(MODEL / "model.int8.tflite", entries()[FLOAT], "reference")(real_datasets())
    with pytest.raises(InputError, match=r"takes float32 \(n, 200, 2\)"):
        TARGET.load(MODEL / FLOAT, entries()[FLOAT], "reference")(real_datasets()[:, 1:])
    damaged = tmp_path / FLOAT
    damaged.write_bytes((MODEL / FLOAT).read_bytes()[:1000])
    with pytest.raises(ModelError, match=FLOAT):  # it may end its process
        TARGET.load(damaged, entries()[FLOAT], "reference")(real_datasets())


def test_verify_on_tflm_judges_its_files_and_lists_the_others(toolkit_command: Callable[..., Result]) -> None:
    result = toolkit_command("verify", "--model", MODEL, "--on", "tflm", "--json")
    judged = json.loads(result.stdout)
    assert result.exit_code == 0, result.stderr
    assert judged["passed"] and [each["file"] for each in judged["files"]] == [FLOAT, INTEGER]
    assert len(judged["not_run"]) == len(entries()) - 2
    for each in judged["files"]:
        assert each["proved"] and min(each["minimum_probed"].values()) >= 2**-126
