"""Where estimates stop being positive along the logit: ends against closed forms, cut heads against whole files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bad_files import plain_softplus_onnx, plain_softplus_tflite
from tests.tiny_files import OnnxFile, TfliteFile
from toolkit.cliffs import STEP, logits_to_try, measure_head, measure_plain, stretches
from toolkit.datasets import read_datasets
from toolkit.errors import InputError, ModelError
from toolkit.heads import write_head
from toolkit.manifest import CALIBRATION_FILE, read_manifest
from toolkit.reference import load_logits
from toolkit.runtime import load
from toolkit.spec import SMALLEST_NORMAL_FLOAT32

LARGEST = float(np.finfo(np.float32).max)


def test_logits_to_try_reach_both_ends_and_every_cliff_finely() -> None:
    logits = logits_to_try()
    assert logits.dtype == np.float32 and np.all(np.diff(logits.astype(np.float64)) > 0)
    assert (logits[0], logits[-1]) == (-LARGEST, LARGEST)
    near = logits[np.abs(logits) <= 256]
    assert np.all(np.diff(near) == STEP)


def test_stretches_sort_every_kind_of_estimate() -> None:
    logits = np.arange(-300, 200).astype(np.float32)
    truth = np.logaddexp(0, logits.astype(np.float64))
    estimates = truth.astype(np.float32)
    estimates[logits < -150] = 0
    estimates[logits < -200] = -1
    estimates[(logits >= -103) & (logits < -100)] *= 1.02
    estimates[logits > 88] = np.inf
    estimates[logits > 100] = np.nan
    found = [(each.kind, each.first, each.last) for each in stretches(logits, estimates[:, None])]
    assert found == [
        ("negative", -300, -201),
        ("zero", -200, -104),  # the truth itself rounds to 0 below -103.97
        ("subnormal", -103, -88),
        ("good", -87, 88),
        ("infinite", 89, 100),
        ("nan", 101, 199),
    ]


def test_stretches_take_the_worst_parameter() -> None:
    logits = np.array([-1.0, 0.0, 1.0], np.float32)
    good = np.logaddexp(0, logits).astype(np.float32)
    (stretch,) = stretches(logits, np.stack([good, good * 0.98], axis=1))
    assert (stretch.kind, stretch.smallest) == ("inexact", pytest.approx(0.98 * good[0]))


def test_plain_softplus_of_litert_is_0_where_1_plus_exp_rounds_to_1_and_its_exp_overflows() -> None:
    for kernels, curve in measure_plain(".tflite").items():
        assert curve[0].kind == "zero"
        assert curve[0].last == pytest.approx(np.log(2.0**-24), abs=STEP), kernels
        # float32 ends at exp(88.72). XNNPACK's exp gives infinity .3 earlier, LiteRT's own is cut off at 88.72 and
        # is 1% off from 89.6 on.
        assert curve[-1].kind == {"xnnpack": "infinite", "builtin": "inexact"}[kernels]
        assert 88 < curve[-1].first < 90


def test_plain_softplus_of_onnx_runtime_ends_where_the_exponential_does() -> None:
    for curve in measure_plain(".onnx").values():
        assert [stretch.kind for stretch in curve] == ["zero", "subnormal", "good"]
        # Half of the smallest subnormal, and the smallest normal number.
        assert curve[0].last == pytest.approx(np.log(2.0**-150), abs=STEP)
        assert curve[1].last == pytest.approx(np.log(SMALLEST_NORMAL_FLOAT32), abs=STEP)


@pytest.mark.parametrize("file", ["model.float32.tflite", "model.float16.tflite", "model.float32.onnx"])
def test_head_of_an_exported_file_is_right_and_then_held_over_all_logits(exported: Path, file: str) -> None:
    for curve in measure_head(exported / file, 3).values():
        held, good = curve
        assert (held.first, held.kind) == (-LARGEST, "inexact")
        assert held.smallest > 4e-38
        assert (good.last, good.kind) == (LARGEST, "good")
        assert held.last == pytest.approx(-86, abs=2 * STEP)


@pytest.mark.parametrize("ending", ["tflite", "onnx"])
def test_head_of_the_true_logits_gives_what_the_whole_file_gives(exported: Path, tmp_path: Path, ending: str) -> None:
    path = exported / f"model.float32.{ending}"
    datasets = read_datasets(exported / CALIBRATION_FILE, read_manifest(exported).spec)
    logits = load_logits(exported)(datasets).astype(np.float32)
    head = load(write_head(path, tmp_path))(logits[:, None, :])
    # 1.4e-6 measured: the whole file's logits are rounded once for each operation.
    np.testing.assert_allclose(head, load(path)(datasets), rtol=2.8e-6)


@pytest.mark.parametrize("ending", ["tflite", "onnx"])
def test_head_of_a_plain_softplus_falls_off_the_same_cliffs_as_plain_softplus(tmp_path: Path, ending: str) -> None:
    make = plain_softplus_tflite if ending == "tflite" else plain_softplus_onnx
    assert measure_head(make(tmp_path / f"plain_file.{ending}"), 3) == measure_plain(f".{ending}")


def test_head_is_refused_where_there_is_none(exported: Path, tmp_path: Path) -> None:
    onnx = OnnxFile(["batch", 24, 2])
    flat = onnx.save(tmp_path / "flat.onnx", [onnx.add("Flatten", [onnx.input])], 48)
    with pytest.raises(ModelError, match=r"flat.onnx: 0 tensors of logits lead to its estimates, not one"):
        measure_head(flat, 48)
    tflite = TfliteFile([None, 3])
    weights, bias = tflite.constant(np.eye(3)), tflite.constant(np.zeros(3))
    dot = tflite.tensor([None, 3])
    tflite.add("FULLY_CONNECTED", [tflite.input, weights, bias], dot, kind="FullyConnectedOptions")
    linear = tflite.save(tmp_path / "linear.tflite", [dot])
    with pytest.raises(ModelError, match=r"linear.tflite: its estimates are its logits, with no step between"):
        measure_head(linear, 3)
    with pytest.raises(InputError, match=r"takes an array of shape \(n, 1, 3\)"):
        measure_head(exported / "model.float32.onnx", 4)
