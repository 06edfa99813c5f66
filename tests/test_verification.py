"""`toolkit verify`: good files pass, and what is wrong with the others is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from toolkit.errors import ModelError
from toolkit.manifest import read_manifest, write_manifest
from toolkit.probes import LARGEST, extreme_inputs
from toolkit.spec import SMALLEST_NORMAL_FLOAT32, Spec
from toolkit.verification import GATES, verify


def test_verify_passes_every_exported_file_and_states_its_evidence(exported: Path) -> None:
    verdicts = verify(exported)
    assert [verdict.file for verdict in verdicts] == [entry.file for entry in read_manifest(exported).files]
    for verdict in verdicts:
        assert verdict.passed and verdict.proved, verdict.failures
        for name in ("height", "rate", "noise"):
            bound, probed, seen = (
                evidence[name] for evidence in (verdict.lower_bound, verdict.minimum_probed, verdict.minimum_seen)
            )
            assert SMALLEST_NORMAL_FLOAT32 <= bound <= probed <= seen
            error = verdict.relative_error[name]
            assert error.median <= error.p99 <= error.max <= GATES[verdict.precision]["max"]


def test_verify_reports_the_errors_that_export_reported(exported: Path) -> None:
    manifest = read_manifest(exported)
    assert [verdict.relative_error for verdict in verify(exported)] == [
        entry.relative_error for entry in manifest.files
    ]


def test_verify_fails_a_file_over_its_gate(exported: Path) -> None:
    gates = {**GATES, "float16": {"max": 1e-7}}
    passed = {verdict.file: verdict.passed for verdict in verify(exported, gates=gates)}
    assert passed == {
        "model.float32.tflite": True,
        "model.float16.tflite": False,
        "model.float32.onnx": True,
        "model.float16.onnx": False,
    }


def test_verify_command_prints_one_line_a_file_or_one_json_object(
    toolkit_command: Callable[..., Result], exported: Path, small_datasets: Path
) -> None:
    table = toolkit_command("verify", "--model", exported, small_datasets, "--column", "x")
    assert table.exit_code == 0, table.output
    assert table.stdout.count("passed") == 4
    result = json.loads(toolkit_command("verify", "--model", exported, "--json").stdout)
    assert result["passed"] is True
    assert set(result["files"][0]) == {
        *("file", "format", "precision", "passed", "proved", "lower_bound", "minimum_probed", "minimum_seen"),
        *("relative_error", "failures"),
    }


def test_verify_command_exits_with_1_when_a_file_fails(
    toolkit_command: Callable[..., Result], exported_copy: Path
) -> None:
    onnx = exported_copy / "model.float32.onnx"
    onnx.write_bytes(onnx.read_bytes()[:-1])
    result = toolkit_command("verify", "--model", exported_copy)
    assert result.exit_code == 1
    assert "model.float32.onnx: sha256 differs from manifest.json" in result.stderr


def test_verify_says_what_to_do_when_there_is_nothing_to_verify(trained: Path, exported_copy: Path) -> None:
    with pytest.raises(ModelError, match="no exported file to verify. Export first: toolkit export --format all"):
        verify(trained)
    (exported_copy / "weights.npz").unlink()
    with pytest.raises(ModelError, match=r"weights.npz: not there"):
        verify(exported_copy)


def test_verify_refuses_weights_of_another_network(exported_copy: Path) -> None:
    keras_file = exported_copy / "model.keras"
    keras_file.write_bytes(keras_file.read_bytes() + b"\0")
    write_manifest(exported_copy, read_manifest(exported_copy))
    with pytest.raises(ModelError, match=r"weights.npz: made from another model.keras"):
        verify(exported_copy)


def test_extreme_inputs_are_finite_and_reach_both_ends() -> None:
    spec = Spec(10, ("a", "b"), ("p",))
    probes = extreme_inputs(spec, np.ones((5, 10, 2), np.float32))
    assert probes.dtype == np.float32 and probes.shape[1:] == (10, 2)
    assert np.isfinite(probes).all()
    assert (probes.max(), probes.min()) == (LARGEST, -LARGEST)
    magnitudes = np.abs(probes[probes != 0])
    assert magnitudes.min() < SMALLEST_NORMAL_FLOAT32  # subnormal
    spikes = (np.abs(probes) == LARGEST).any(axis=2).sum(axis=1)
    assert 1 in spikes  # one row alone
