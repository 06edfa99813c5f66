"""ONNX files in onnxruntime-web under Node.js: the target `node`, and `toolkit verify --on node`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from export.ort import to_ort
from tests.edge_inputs import MODEL, entries, extreme_datasets, real_datasets, require, sweep_file
from tests.edge_web import check_extreme, check_real, check_sweep
from toolkit.errors import InputError, ModelError
from toolkit.targets.node import TARGET

FILES = [entry.file for entry in entries().values() if entry.format == "onnx"]


@pytest.fixture(scope="module", autouse=True)
def node() -> None:
    require(TARGET.why_not())


@pytest.mark.parametrize("variant", TARGET.variants(entries()[FILES[0]]))
@pytest.mark.parametrize("file", FILES)
def test_estimates_in_node_are_positive_and_those_of_the_host(file: str, variant: str, tmp_path: Path) -> None:
    entry = entries()[file]
    predict = TARGET.load(MODEL / file, entry, variant)
    check_real(predict(real_datasets()), real_datasets(), file, entry.precision)
    check_extreme(predict(extreme_datasets()), extreme_datasets(), file)
    head, logits = sweep_file(entry, tmp_path)
    check_sweep(TARGET.load(head, entry, variant)(logits), logits)


def test_files_of_onnx_runtimes_own_format_give_the_same(tmp_path: Path) -> None:
    entry = replace(entries()[FILES[0]], file="model.float32.ort", format="ort")
    assert TARGET.runs(entry) == "" and TARGET.variants(entry) == ("saved",)
    path = tmp_path / entry.file
    path.write_bytes(to_ort((MODEL / FILES[0]).read_bytes(), "float32", 3))
    check_real(TARGET.load(path, entry, "saved")(real_datasets()), real_datasets(), FILES[0], "float32")


def test_any_number_of_datasets_has_the_same_estimates_one_by_one() -> None:
    predict = TARGET.load(MODEL / FILES[0], entries()[FILES[0]], "optimized")
    many = predict(real_datasets()[:33])
    assert predict(real_datasets()[:0]).shape == (0, 3) and many.shape == (33, 3)
    assert np.array_equal(predict(real_datasets()[32:33]), many[32:])


def test_files_that_node_does_not_take_are_named_with_the_reason(tmp_path: Path) -> None:
    tflite = next(entry for entry in entries().values() if entry.format == "tflite")
    assert TARGET.runs(tflite) == "onnxruntime-web runs .onnx and .ort files, not .tflite"
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08nothing")
    entry = entries()[FILES[0]]
    with pytest.raises(ModelError, match=r"^damaged.onnx: onnxruntime-web does not take it \(.*\). Export it again"):
        TARGET.load(damaged, entry, "optimized")(real_datasets())
    with pytest.raises(InputError, match=r"takes an array of shape \(n, 200, 2\), not \(64, 199, 2\)"):
        TARGET.load(MODEL / entry.file, entry, "optimized")(real_datasets()[:, 1:])


def test_verify_on_node_judges_the_onnx_files_and_lists_the_others(toolkit_command: Callable[..., Result]) -> None:
    result = toolkit_command("verify", "--model", MODEL, "--on", "node", "--json")
    judged = json.loads(result.stdout)
    assert result.exit_code == 0, result.stderr
    assert judged["passed"] and [each["file"] for each in judged["files"] if each["passed"]] == FILES
    for each in judged["files"]:
        assert each["proved"] and min(each["minimum_probed"].values()) >= 2**-126
