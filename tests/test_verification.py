"""`toolkit verify`: good files pass, and what is wrong with the others is said."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from tests.bad_files import flat_onnx, log_onnx, plain_softplus_onnx, plain_softplus_tflite, publish_unseen
from toolkit.datasets import read_datasets
from toolkit.errors import ModelError
from toolkit.files import sha256_of
from toolkit.judge import DATASETS, GATES, Verdict
from toolkit.manifest import CALIBRATION_FILE, read_manifest, write_manifest
from toolkit.probes import ADVERSARIAL, EXTREME, LARGEST, WITHIN_RANGES, extreme_inputs, stored_adversarial
from toolkit.reference import load_logits
from toolkit.spec import SMALLEST_NORMAL_FLOAT32, Spec
from toolkit.trials import BIN_EDGES
from toolkit.verification import Verification, changed_gates, verify

NAMES = ("height", "rate", "noise")


def verdict_on(directory: Path) -> Verdict:
    (verdict,) = verify(directory).verdicts
    return verdict


@pytest.fixture(scope="module")
def verification(exported: Path) -> Verification:
    return verify(exported)


def test_verify_passes_every_exported_file_and_states_its_evidence(verification: Verification, exported: Path) -> None:
    assert verification.passed
    assert [each.file for each in verification.verdicts] == [each.file for each in read_manifest(exported).files]
    for verdict in verification.verdicts:
        assert verdict.passed and verdict.proved, verdict.failures
        for name in NAMES:
            bound, probed, seen = (
                evidence[name] for evidence in (verdict.lower_bound, verdict.minimum_probed, verdict.minimum_seen)
            )
            assert SMALLEST_NORMAL_FLOAT32 <= bound <= probed <= seen
            error = verdict.relative_error[name]
            assert error.median <= error.p99 <= error.max <= GATES[verdict.precision]["max"]


def test_verify_reports_the_errors_that_export_reported(verification: Verification) -> None:
    reported = [entry.relative_error for entry in verification.manifest.files]
    assert [verdict.relative_error for verdict in verification.verdicts] == reported


def test_verify_tries_every_kind_of_input_in_every_kernel_set(verification: Verification) -> None:
    for verdict in verification.verdicts:
        kernels = {"tflite": ["xnnpack", "builtin"], "onnx": ["optimized", "unoptimized"]}[verdict.format]
        assert [trial.kernels for trial in verdict.trials] == kernels
        for trial in verdict.trials:
            assert set(trial.minimum) == {EXTREME, ADVERSARIAL, WITHIN_RANGES, DATASETS}
            # A real dataset is no worse than what was made to be bad within the ranges of real ones.
            assert np.all(trial.minimum[WITHIN_RANGES] <= trial.minimum[DATASETS])


def test_verify_counts_every_relative_error_once(verification: Verification) -> None:
    for verdict in verification.verdicts:
        for trial in verdict.trials:
            assert trial.error_counts.shape == (len(NAMES), len(BIN_EDGES) - 1)
            assert (trial.error_counts.sum(axis=1) == verification.datasets).all()
            for counts, error in zip(trial.error_counts, trial.relative_error, strict=True):
                last = int(np.flatnonzero(counts)[-1])
                assert BIN_EDGES[last] <= error.max <= BIN_EDGES[last + 1]


def test_verify_knows_the_true_logits_of_the_datasets(verification: Verification, exported: Path) -> None:
    spec = verification.manifest.spec
    logits = load_logits(exported)(read_datasets(exported / CALIBRATION_FILE, spec))
    for index, name in enumerate(NAMES):
        assert verification.logits[name] == (logits[:, index].min(), logits[:, index].max())
        assert verification.logits_within_ranges[name][0] <= verification.logits[name][0]


def test_verify_fails_a_file_over_its_gate(exported: Path) -> None:
    gates = changed_gates([("float16", "max", 1e-7), ("float32", "median", 1e-4)])
    assert gates == {**GATES, "float16": {"max": 1e-7}, "float32": {"max": 1e-4, "median": 1e-4}}
    passed = {verdict.file: verdict.passed for verdict in verify(exported, gates=gates).verdicts}
    assert passed == {
        "model.float32.tflite": True,
        "model.float16.tflite": False,
        "model.float32.onnx": True,
        "model.float16.onnx": False,
    }


def test_verify_command_takes_gates(toolkit_command: Callable[..., Result], exported: Path) -> None:
    strict = toolkit_command("verify", "--model", exported, "--gate", "float16:max=1e-7", "--gate", "float16:p99=50%")
    assert strict.exit_code == 1
    assert "max relative error of height is" in strict.stdout and "the gate for float16 is 1e-07" in strict.stdout
    lax = toolkit_command("verify", "--model", exported, "--gate", "float16:max=inf", "--gate", "float32:max=.5")
    assert lax.exit_code == 0
    for wrong in ("float16", "float16:mean=1", "float64:max=1", "float16:max=-1", "float16:max=1e"):
        refused = toolkit_command("verify", "--model", exported, "--gate", wrong)
        assert refused.exit_code == 2
        assert f"{wrong!r} is not PRECISION:STATISTIC=NUMBER, like float16:max=0.01" in refused.stderr


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
        *("relative_error", "failures", "arithmetic"),
    }


def test_verify_judges_the_other_files_when_one_was_changed(
    toolkit_command: Callable[..., Result], exported_copy: Path
) -> None:
    onnx = exported_copy / "model.float32.onnx"
    onnx.write_bytes(onnx.read_bytes()[:-1])
    result = toolkit_command("verify", "--model", exported_copy)
    assert result.exit_code == 1
    assert result.stdout.count("passed") == 3 and result.stdout.count("FAILED") == 1
    assert "model.float32.onnx: sha256 differs from manifest.json" in result.stdout
    (failed,) = (
        file
        for file in json.loads(toolkit_command("verify", "--model", exported_copy, "--json").stdout)["files"]
        if not file["passed"]
    )
    assert failed["file"] == "model.float32.onnx"
    assert not failed["proved"] and failed["minimum_probed"] == failed["relative_error"] == {}


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_verify_fails_a_plain_softplus_and_names_the_operation_and_an_input(exported_copy: Path, format: str) -> None:
    path = exported_copy / f"model.float32.{format}"
    (plain_softplus_tflite if format == "tflite" else plain_softplus_onnx)(path)
    publish_unseen(path, alone=True)
    verdict = verdict_on(exported_copy)
    assert not verdict.passed and not verdict.proved
    text = "\n".join(verdict.failures)
    assert "not proved: " in text and {"tflite": "EXP", "onnx": "Softplus"}[format] in text
    assert "height = 0 for every value" in text
    assert "more of" in text and "extreme inputs" in text
    assert "the gate for float32 is 0.0001" in text
    assert verdict.minimum_probed["height"] == 0
    json.dumps(verdict.to_json(), allow_nan=False)


def test_verify_fails_a_file_that_gives_nan_and_prints_null_for_it(
    toolkit_command: Callable[..., Result], exported_copy: Path
) -> None:
    path = log_onnx(exported_copy / "model.float32.onnx")
    publish_unseen(path, alone=True)
    verdict = verdict_on(exported_copy)
    assert np.isnan(verdict.minimum_probed["height"])
    assert "height = -inf for every value 0 (and" in "\n".join(verdict.failures)
    result = toolkit_command("verify", "--model", exported_copy, "--json")
    assert result.exit_code == 1
    (failed,) = (each for each in json.loads(result.stdout)["files"] if not each["passed"])
    assert failed["minimum_probed"]["height"] is None


def test_verify_fails_a_file_with_another_number_of_estimates(exported_copy: Path) -> None:
    publish_unseen(flat_onnx(exported_copy / "model.float32.onnx"), alone=True)
    assert "gives 48 estimates for 3 parameters" in "\n".join(verdict_on(exported_copy).failures)


def test_verify_fails_a_file_that_ends_the_process_it_runs_in(
    exported_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.trials.estimates_of", ends_its_process)
    for verdict in verify(exported_copy).verdicts:
        assert verdict.proved and not verdict.passed
        assert "its process ended: SIGSEGV" in verdict.failures[0]
        assert verdict.minimum_probed == verdict.minimum_seen == verdict.relative_error == {}


def ends_its_process(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_verify_fails_a_runtime_below_the_proved_bound(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probes are a check of the proof as well."""
    monkeypatch.setattr("toolkit.judge.prove", proves_too_much)
    for verdict in verify(exported).verdicts:
        assert "is below the proved bound 1e-30: the proof is wrong" in "\n".join(verdict.failures)


def proves_too_much(path: Path, arithmetic: str):
    from toolkit.proof import prove

    proof = prove(path, arithmetic)
    return replace(proof, lower=tuple(1e-30 for _ in proof.lower))


def test_verify_says_what_to_do_when_there_is_nothing_to_verify(trained: Path, exported_copy: Path) -> None:
    with pytest.raises(ModelError, match="no exported file to verify. Export first: toolkit export --format all"):
        verify(trained)
    (exported_copy / "adversarial.npz").unlink()
    with pytest.raises(ModelError, match=r"adversarial.npz: not there, so the files cannot be probed. Export the mod"):
        verify(exported_copy)
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
    datasets = probes.datasets
    assert datasets.dtype == np.float32 and datasets.shape[1:] == (10, 2)
    assert len(probes.names) == len(set(probes.names)) == len(datasets)
    assert np.isfinite(datasets).all()
    assert (datasets.max(), datasets.min()) == (LARGEST, -LARGEST)
    magnitudes = np.abs(datasets[datasets != 0])
    assert magnitudes.min() < SMALLEST_NORMAL_FLOAT32  # subnormal
    spikes = (np.abs(datasets) == LARGEST).any(axis=2).sum(axis=1)
    assert 1 in spikes  # one row alone


def test_adversarial_inputs_make_the_parameter_they_are_for_smaller_than_any_dataset_does(exported: Path) -> None:
    spec = read_manifest(exported).spec
    real = read_datasets(exported / CALIBRATION_FILE, spec)
    logits = load_logits(exported)
    smallest = logits(real).min(axis=0)
    beyond, within = stored_adversarial(exported, spec)
    low, high = real.min(axis=(0, 1)), real.max(axis=(0, 1))
    assert np.all(within.datasets >= low) and np.all(within.datasets <= high)
    for probes in (beyond, within):
        for index, name in enumerate(NAMES):
            mine = [place for place, each in enumerate(probes.names) if f"a small {name}" in each]
            assert len(mine) == 2
            assert np.all(logits(probes.datasets[mine])[:, index] < smallest[index])
    # Without limits, far into where a plain softplus is 0 in every runtime.
    assert np.all(logits(beyond.datasets).min(axis=0) < -1000)
    assert (exported / "adversarial.npz").stat().st_size < 30_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": np.full((1, 24, 2), np.nan, np.float32)}, "holds no finite float32 datasets of 24 rows x"),
        ({"datasets": np.ones((1, 24, 3), np.float32)}, "holds no finite float32 datasets of 24 rows x"),
        ({"inside": np.array([True, False])}, "holds no finite float32 datasets of 24 rows x"),
        ({"parameters": np.array([3])}, "cannot be read"),
        ({"parameters": None}, "cannot be read"),
        ({"datasets": np.array([object()])}, "cannot be read"),
        ({"keras_sha256": np.array("0" * 64)}, "made from another model.keras than the one beside it"),
    ],
)
def test_adversarial_inputs_that_are_not_of_this_network_are_refused(
    exported_copy: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    path = exported_copy / "adversarial.npz"
    arrays = {
        "datasets": np.ones((1, 24, 2), np.float32),
        "parameters": np.array([0]),
        "inside": np.array([True]),
        "keras_sha256": np.array(sha256_of(exported_copy / "model.keras")),
    }
    np.savez(path, **{name: value for name, value in {**arrays, **change}.items() if value is not None})
    with pytest.raises(ModelError, match=message):
        stored_adversarial(exported_copy, read_manifest(exported_copy).spec)


def test_adversarial_inputs_that_were_cut_short_are_refused(exported_copy: Path) -> None:
    path = exported_copy / "adversarial.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be read"):
        stored_adversarial(exported_copy, read_manifest(exported_copy).spec)
