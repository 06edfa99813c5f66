"""Integer-only files: proved over all codes, run behind their host, the same in TensorFlow Lite Micro."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integer_files import FACTS, ROWS, integer_file

from toolkit.cliffs import measure_head
from toolkit.errors import ModelError
from toolkit.inspection import inspect
from toolkit.integer import host_of
from toolkit.metadata import write_metadata
from toolkit.proof import prove
from toolkit.runtime import load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return integer_file(tmp_path / "model.integer.tflite")


def datasets(count: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.stack([rng.gamma(2.0, 0.7, (count, ROWS)), rng.integers(0, 2, (count, ROWS))], axis=-1).astype(np.float32)


def altered(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    facts = copy.deepcopy(FACTS)
    change(facts["integer"])
    return facts


def test_proof_bounds_are_those_of_all_256_codes(file: Path) -> None:
    proof = prove(file)
    assert proof.passed and not proof.failures and proof.arithmetic == "int8"
    for index, output in enumerate(FACTS["integer"]["outputs"]):
        codes = np.arange(-128, 128)
        estimates = np.logaddexp(0.0, output["scale"] * (codes - output["zero_point"]) + output["centre"])
        # The table is rounded to float32.
        assert proof.lower[index] == pytest.approx(estimates.min(), rel=1e-7)
        assert proof.upper[index] == pytest.approx(estimates.max(), rel=1e-7)
    assert proof.logit_lower[2] >= -2.5 - 128 * 0.03125 and proof.logit_upper[2] <= -2.5 + 127 * 0.03125


def test_proof_refuses_a_float_operation_inside(tmp_path: Path) -> None:
    proof = prove(integer_file(tmp_path / "file.tflite", float_inside=True))
    assert not proof.passed
    assert any("DEQUANTIZE" in failure and "computes with float32" in failure for failure in proof.failures)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda host: host["outputs"][0].update(scale=0.03125),
            r"output t\d+: its host reads one int8 code of scale 0.03125",
        ),
        (lambda host: host["outputs"][1].update(zero_point=0), "zero point 0, it is int8"),
        (lambda host: host["outputs"].pop(), "its host reads 2 outputs, it gives 3"),
        (lambda host: host["outputs"].reverse(), "its host reads one int8 code"),
        (lambda host: host["columns"].pop(), "int8 codes from -128 in 2 channels"),
        (lambda host: host["outputs"][2].update(centre=0.0, scale=2.0**127), "output 2 may be inf"),
    ],
    ids=["scale", "zero point", "fewer outputs", "other order", "fewer columns", "overflow"],
)
def test_proof_refuses_a_host_that_is_not_the_file_s(
    file: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    write_metadata(file, altered(change))
    proof = prove(file)
    assert not proof.passed
    assert any(re.search(said, failure) for failure in proof.failures), proof.failures


def test_proof_and_runtime_refuse_a_file_without_its_host(tmp_path: Path) -> None:
    path = integer_file(tmp_path / "file.tflite", facts=None)
    proof = prove(path)
    assert not proof.passed and min(proof.lower) < 0  # codes stand for logits, and those may be negative
    with pytest.raises(ModelError, match="takes int8 codes, and does not say how datasets become codes"):
        load(path)


def test_proof_and_runtime_refuse_damaged_numbers(file: Path) -> None:
    write_metadata(file, altered(lambda host: host["outputs"][0].update(centre=float("nan"))))
    for read in (prove, load):
        with pytest.raises(ModelError, match="the numbers of its host side are damaged"):
            read(file)


def test_load_refuses_a_host_that_is_not_the_file_s(file: Path) -> None:
    write_metadata(file, altered(lambda host: host["outputs"][0].update(scale=0.03125)))
    with pytest.raises(ModelError, match=r"its host side is for 3 and \[\(0\.03125, 0\)"):
        load(file)


def test_openvino_is_not_given_integer_files(file: Path) -> None:
    with pytest.raises(ModelError, match="an integer-only file, which OpenVINO is not given. LiteRT runs it"):
        load(file, runtime="openvino")


def micro_codes(file: Path, codes: np.ndarray) -> np.ndarray:
    """What TensorFlow Lite Micro gives, one dataset after the other: int8 (datasets, parameters)."""
    runtime = pytest.importorskip(
        "tflite_micro.python.tflite_micro.runtime", reason="tflite-micro has no wheel for this machine"
    )
    interpreter = runtime.Interpreter.from_bytes(file.read_bytes(), arena_size=1 << 17)
    given = []
    for each in codes:
        interpreter.set_input(each[np.newaxis], 0)
        interpreter.invoke()
        given.append([interpreter.get_output(index).item() for index in range(3)])
    return np.array(given, np.int8)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reference_kernels_give_what_tensorflow_lite_micro_gives(tmp_path: Path, seed: int) -> None:
    file = integer_file(tmp_path / "file.tflite", seed=seed)
    host = host_of(file, FACTS)
    assert host is not None
    some = datasets(70)
    codes = micro_codes(file, host.codes(some))
    assert len(np.unique(codes)) > 30  # they do not all saturate
    expected = host.table()[codes.astype(int) + 128, np.arange(3)]
    assert np.array_equal(load(file, kernels="reference")(some), expected)


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_other_kernels_are_at_most_a_code_off_for_each_layer(file: Path, kernels: str) -> None:
    host = host_of(file, FACTS)
    assert host is not None
    some, table = datasets(70), host.table()
    found, reference = load(file, kernels=kernels)(some), load(file, kernels="reference")(some)
    for index in range(3):
        places = [np.searchsorted(table[:, index], each[:, index]) for each in (found, reference)]
        assert np.max(np.abs(places[0] - places[1])) <= 1  # measured: 1 and 0


def test_load_gives_nan_for_nan_and_takes_infinities(file: Path) -> None:
    some = datasets(40)
    predict = load(file)
    clean = predict(some)
    spoilt = some.copy()
    spoilt[3, 5, 0], spoilt[35, 0, 1], spoilt[7, 2, 0] = np.nan, np.nan, np.inf
    estimates = predict(spoilt)
    assert np.isnan(estimates[[3, 35]]).all()
    assert np.all(np.isfinite(estimates[7]) & (estimates[7] > 0))
    others = [row for row in range(40) if row not in (3, 7, 35)]
    assert np.array_equal(estimates[others], clean[others])


@pytest.mark.parametrize("count", [0, 1, 33])
def test_load_gives_float32_estimates_for_any_number_of_datasets(file: Path, count: int) -> None:
    estimates = load(file)(datasets(count))
    assert estimates.dtype == np.float32 and estimates.shape == (count, 3)
    assert np.array_equal(estimates, load(file, batch=1)(datasets(count)))


def test_inspect_shows_an_integer_file_with_its_bounds(file: Path) -> None:
    (found,) = inspect(file).files
    assert found.contents is not None and found.proof is not None
    assert [port.dtype for port in found.contents.outputs] == ["int8"] * 3
    assert set(found.lower_bound) == {"v", "a", "t0"} and found.proof.passed
    assert "float32" not in found.contents.weights


def test_measure_head_shows_where_codes_end(file: Path) -> None:
    curves = measure_head(file, 3)
    for curve in curves.values():
        assert {stretch.kind for stretch in curve} <= {"good", "inexact"}
        assert curve[0].kind == curve[-1].kind == "inexact"  # beyond the codes, estimates stay where they are
        assert min(stretch.smallest for stretch in curve) == pytest.approx(min(prove(file).lower))
