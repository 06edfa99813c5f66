"""The plain conversions that a benchmark compares with: made as the guides say, and contained."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

import export.plain as plain
from export.plain import RECIPES, convert_plainly
from tests.bad_files import publish_unseen
from toolkit.benchmark import benchmark
from toolkit.errors import ModelError
from toolkit.spec import Spec

SPEC = Spec(24, ("a", "b"), ("c",))
INT16X8 = next(recipe for recipe in RECIPES if recipe.precision == "int16x8")


@pytest.fixture
def alone(exported_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model directory with one file, measured in one round: what is tested is not the machine."""
    for room in ("run", "rounds"):
        monkeypatch.setattr(f"toolkit.benchmark.{room}.ROUNDS", 1)
        monkeypatch.setattr(f"toolkit.benchmark.{room}.STARTS", 1)
    publish_unseen(exported_copy / "model.float32.onnx", alone=True)
    return exported_copy


def test_int16x8_of_a_small_parameter_is_negative_in_most_rows(alone: Path, tmp_path: Path) -> None:
    """The network's third parameter becomes 160 times smaller, .0006 to .004: then the step of int16 is too coarse."""
    import keras

    network = keras.saving.load_model(alone / "model.keras", compile=False)
    bias = network.layers[-1].bias
    bias.assign(bias - np.array([0, 0, 5], np.float32))
    network.save(tmp_path / "small.keras")

    def convert(keras_file: Path, spec: Spec, folder: Path, datasets: Path) -> list[plain.Attempt]:
        return convert_plainly(tmp_path / "small.keras", spec, folder, datasets, [INT16X8])

    found = benchmark(alone, seconds=0.02, convert_plainly=convert)
    file = found.files[-1]
    assert file.file == "plain.int16x8.tflite" and file.accuracy is not None
    # Measured: 166 of 200, down to -.003; all 200 with weights of another training.
    assert file.accuracy.not_positive > 100
    assert file.accuracy.minimum["noise"] < 0
    assert not file.proved, "the proof must not accept it"
    assert f"{file.accuracy.not_positive} of 200 datasets have an estimate that is 0 or below." in file.failures


def run_instead(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is this code, told which recipes are wanted and where the answer goes."""
    begin = (
        "import json, os, signal, sys\n"
        "request = json.load(sys.stdin)\n"
        "wanted, answer = request['wanted'], open(request['answer'], 'w')\n"
        "def done(failure=''): answer.write(json.dumps(failure) + '\\n'); answer.flush()\n"
    )
    monkeypatch.setattr(plain, "WORKER", ("-c", begin + code))


def attempts(tmp_path: Path, spec: Spec) -> dict[str, str]:
    found = convert_plainly(tmp_path / "model.keras", spec, tmp_path, tmp_path / "datasets.npy")
    assert [attempt.recipe for attempt in found] == list(RECIPES)
    return {attempt.recipe.file: attempt.failure for attempt in found}


def test_a_recipe_that_crashes_is_one_failure_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(
        "for format, precision, file in wanted:\n"
        "    if precision == 'int16x8': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    done('ValueError: no' if precision == 'dynamic' else '')\n",
        monkeypatch,
    )
    found = attempts(tmp_path, SPEC)
    assert found.pop("plain.int16x8.tflite").startswith("the converter was ended by SIGSEGV.")
    assert found.pop("plain.dynamic.tflite") == "ValueError: no"
    assert set(found.values()) == {""}


def test_a_worker_that_never_begins_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plain, "WORKER", ("-c", f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); raise OSError('no')")
    )
    found = attempts(tmp_path, SPEC)
    assert set(found.values()) == {"the converter stopped with exit code 1. Its last words: OSError: no"}
    assert (tmp_path / "runs").read_text() == "x"


def test_a_recipe_without_a_file_is_a_row_of_its_own(
    alone: Path, toolkit_command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead("for _ in wanted: done('ValueError: this network is not for me')\n", monkeypatch)
    result = toolkit_command("benchmark", "--model", alone, "--vs", "--seconds", "0.01")
    assert result.exit_code == 0, result.output
    assert "plain.int8.tflite: ValueError: this network is not for me" in result.stdout


@pytest.mark.parametrize("package", ["tensorflow", "tf2onnx"])
def test_vs_says_which_extra_is_missing(
    package: str, exported: Path, toolkit_command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    result = toolkit_command("benchmark", "--model", exported, "--vs")
    assert result.exit_code == 1 and result.stdout == ""
    assert f"Error: toolkit benchmark --vs needs {package}, which is not installed." in result.stderr
    assert "pip install 'softplus-toolkit[export]'" in result.stderr


def test_vs_says_that_the_trained_network_is_missing(exported_copy: Path) -> None:
    (exported_copy / "model.keras").unlink()
    with pytest.raises(ModelError, match="model.keras: not there, so there is nothing to convert. Leave --vs out."):
        benchmark(exported_copy, convert_plainly=convert_plainly)
