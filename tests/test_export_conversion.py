"""Conversion in a child process: what it writes, and how every way to fail is told."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import FILES, example, spec_of

import export.conversion as conversion
from export import Converted, convert
from export.worker import main as run_worker
from toolkit.errors import ExportError, MissingExtra
from toolkit.reference import load_reference
from toolkit.runtime import load
from toolkit.spec import Spec


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Converted]]:
    """Every file of `standard`, converted in a child process."""
    directory = tmp_path_factory.mktemp("converted")
    network = example("standard")
    shutil.copy(network.keras_file, directory / "model.keras")
    return directory, convert(directory / "model.keras", network.spec, FILES, directory)


def convert_with(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The error when the child runs `code`, which finds the request in `request`."""
    begin = "import json, os, signal, sys; from pathlib import Path; request = json.load(sys.stdin)\n"
    monkeypatch.setattr(conversion, "WORKER", ("-c", begin + code))
    network = example("flat")
    with pytest.raises(ExportError) as caught:
        convert(network.keras_file, network.spec, FILES, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{network.keras_file}: ")
    return message.removeprefix(f"{network.keras_file}: ")


def test_convert_writes_every_file_wanted(converted: tuple[Path, list[Converted]]) -> None:
    directory, files = converted
    assert [(file.format, file.precision) for file in files] == list(FILES)
    assert [file.path for file in files] == [directory / f"model.{precision}.{format}" for format, precision in FILES]
    named = {"model.keras", "weights.npz", "adversarial.npz", *(file.path.name for file in files)}
    assert {path.name for path in directory.iterdir()} == named
    assert all(file.facts == {"input_limit": 2.0**100} for file in files)


def test_convert_writes_files_that_give_the_float64_truth(converted: tuple[Path, list[Converted]]) -> None:
    directory, files = converted
    datasets = example("standard").datasets
    truth = load_reference(directory)(datasets)
    for file in files:
        # Measured 1.4e-6 in float32 (XNNPACK) and 2.4e-4 in float16.
        tolerance = 2.8e-6 if file.precision == "float32" else 5e-4
        np.testing.assert_allclose(load(file.path)(datasets), truth, rtol=tolerance)


def test_convert_writes_the_same_bytes_again(converted: tuple[Path, list[Converted]], tmp_path: Path) -> None:
    directory, files = converted
    network = example("standard")
    for file in convert(network.keras_file, network.spec, FILES, tmp_path):
        assert file.path.read_bytes() == (directory / file.path.name).read_bytes(), file.path.name
    assert (tmp_path / "weights.npz").read_bytes() == (directory / "weights.npz").read_bytes()


def test_convert_is_not_disturbed_by_what_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random.py", "export.py", "numpy.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    network = example("flat")
    shutil.copy(network.keras_file, "model.keras")
    (file,) = convert(Path("model.keras"), network.spec, [("onnx", "float32")], Path("."))
    assert file.path == tmp_path / "model.float32.onnx"


def test_convert_passes_on_why_a_network_is_refused(tmp_path: Path) -> None:
    network = example("flat")
    with pytest.raises(ExportError) as caught:
        convert(network.keras_file, spec_of(1, 12, 5), FILES, tmp_path)
    assert str(caught.value).startswith(f"{network.keras_file}: gives outputs of shape (4,) for 5 parameters")
    assert list(tmp_path.iterdir()) == []


def test_convert_names_the_file_at_which_the_converter_crashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "Path(request['stage']).write_text('writing model.float16.onnx (onnx, float16)')\n"
        "print('terminate called: Check failed', file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSEGV)"
    )
    assert convert_with(code, monkeypatch, tmp_path) == (
        "the converter was ended by SIGSEGV while writing model.float16.onnx (onnx, float16). "
        "Its last words: terminate called: Check failed"
    )


def test_convert_says_that_a_killed_converter_may_have_wanted_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = convert_with("os.kill(os.getpid(), signal.SIGKILL)", monkeypatch, tmp_path)
    assert message == (
        "the converter was ended by SIGKILL, perhaps for want of memory, while starting TensorFlow. "
        "Its last words: nothing"
    )


def test_convert_tells_an_exit_of_the_converter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    message = convert_with("os._exit(3)", monkeypatch, tmp_path)
    assert message == "the converter stopped with exit code 3 while starting TensorFlow. Its last words: nothing"


def test_convert_tells_an_exit_that_claims_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert convert_with("os._exit(0)", monkeypatch, tmp_path).startswith("the converter stopped with exit code 0 while")


def test_convert_shows_the_exception_and_not_the_noise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "print('I0000 00:00:1 devices.cc:67] Number of eligible GPUs: 0', file=sys.stderr)\n"
        "raise ValueError('tensor too large\\nby half')"
    )
    message = convert_with(code, monkeypatch, tmp_path)
    assert message == (
        "the converter stopped with exit code 1 while starting TensorFlow. "
        "Its last words: ValueError: tensor too large | by half"
    )


@pytest.mark.parametrize("package", ["tensorflow", "tf2onnx"])
def test_convert_says_how_to_install_what_is_missing(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    network = example("flat")
    with pytest.raises(MissingExtra, match=rf"toolkit export needs {package}, which is not installed. Install it: pip"):
        convert(network.keras_file, network.spec, FILES, tmp_path)


def work(monkeypatch: pytest.MonkeyPatch, keras_file: Path, spec: Spec, directory: Path) -> dict[str, Any]:
    """The worker's answer, in this process."""
    answer = directory / "answer.json"
    request = {
        "keras_file": str(keras_file),
        "rows": spec.rows,
        "columns": spec.columns,
        "parameters": spec.parameters,
        "wanted": [("onnx", "float16")],
        "datasets": None,
        "directory": str(directory),
        "answer": str(answer),
        "stage": str(directory / "stage"),
        "batch": None,
        "arithmetic": "float32",
        "first_layer": "auto",
    }
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
    run_worker()
    content: dict[str, Any] = json.loads(answer.read_text())
    return content


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (7e4, "model.float16.onnx: MatMul/b:0 holds 7e+04, beyond the largest half-precision number"),
        (1e30, "model.keras: the weights are so large that inputs of 2^30 overflow float32. Normalize the inputs"),
        (np.nan, "model.keras: kernel of a Dense layer is not finite. Train the network again."),
    ],
)
def test_worker_names_the_file_that_has_weights_it_cannot_export(
    weight: float, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import keras

    head = keras.layers.Dense(1, activation="softplus", kernel_initializer=keras.initializers.Constant(weight))
    keras.Sequential([keras.Input((2, 1)), keras.layers.Flatten(), head]).save(tmp_path / "model.keras")
    error = work(monkeypatch, tmp_path / "model.keras", spec_of(2, 1, 1), tmp_path)["error"]
    assert error.removeprefix(f"{tmp_path}/").startswith(message)


def test_worker_refuses_a_graph_that_differs_from_keras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if a layer were misread: here every leaky_relu becomes a relu."""
    import export.graph

    real = export.graph._activate

    def misread(activation: Any, values: Any, *others: Any) -> Any:
        from export.network import Activation

        return real(Activation("relu") if activation.name == "leaky_relu" else activation, values, *others)

    monkeypatch.setattr(export.graph, "_activate", misread)
    network = example("causal")
    error = work(monkeypatch, network.keras_file, network.spec, tmp_path)["error"]
    assert "the graph to convert differs from Keras by" in error
    assert not (tmp_path / "weights.npz").exists()
