"""`toolkit inspect`: what is said of files is what they hold, checked against the networks they were made from."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_files
from click.testing import Result

from toolkit.errors import ModelError
from toolkit.files import sha256_of
from toolkit.inspection import inspect
from toolkit.manifest import read_manifest
from toolkit.metadata import read_metadata, write_metadata
from toolkit.proof import prove

NAMES = ("height", "rate", "noise")
FILES = ["model.float32.tflite", "model.float16.tflite", "model.float32.onnx", "model.float16.onnx"]
# The usual network on 24 x 2: kernels and biases of three convolutions, and of Dense on 2 x 128 features.
WEIGHTS = (3 * 2 * 32 + 32) + (3 * 32 * 64 + 64) + (3 * 64 * 128 + 128) + (2 * 128 * 3 + 3)


def test_inspect_shows_every_file_of_a_directory_with_its_evidence(exported: Path) -> None:
    inspection = inspect(exported)
    assert inspection.manifest == read_manifest(exported)
    assert [file.file for file in inspection.files] == [*FILES, "model.keras"]
    for file, entry in zip(inspection.files, inspection.manifest.files, strict=False):
        assert (file.format, file.precision, file.bytes) == (entry.format, entry.precision, entry.bytes)
        assert (file.sha256, file.unchanged, file.problems) == (entry.sha256, True, ())
        assert file.lower_bound == pytest.approx(entry.lower_bound, rel=1e-12)
        assert tuple(file.lower_bound) == NAMES
        assert file.metadata == read_metadata(exported / file.file)


@pytest.mark.parametrize("name", FILES)
def test_inspect_shows_what_one_file_takes_gives_and_holds(exported: Path, name: str) -> None:
    (file,) = inspect(exported / name).files
    batch = None if name.endswith("tflite") else "batch"
    assert file.contents is not None and file.batch == batch
    assert [(port.name, port.dtype, port.shape) for port in file.contents.inputs] == [
        ("datasets", "float32", (batch, 24, 2))
    ]
    assert [(port.name, port.dtype, port.shape) for port in file.contents.outputs] == [
        ("estimates", "float32", (batch, 3))
    ]
    assert file.unchanged is True and file.problems == ()
    proof = prove(exported / name)
    assert file.proof == proof and file.lower_bound == dict(zip(NAMES, proof.lower, strict=True))
    convolution, dense = ("CONV_2D", "FULLY_CONNECTED") if batch is None else ("Conv", "MatMul")
    assert (file.contents.operations[convolution], file.contents.operations[dense]) == (3, 1)
    assert sum(file.contents.operations.values()) >= proof.operations
    numbers = file.contents.weights
    half = numbers.get("float16", 0)
    assert (half >= WEIGHTS - 3 * 128 - 300) if "float16" in name else (half == 0), numbers
    assert WEIGHTS <= numbers["float32"] + half <= WEIGHTS + 1200, numbers  # constants of the head and the scaling


def test_inspect_reads_the_layers_of_a_keras_file(exported: Path) -> None:
    (file,) = inspect(exported / "model.keras").files
    assert file.contents is not None and file.proof is None and file.problems == ()
    layers = [(layer.kind, layer.input_shape) for layer in file.contents.layers if layer.kind in ("Conv1D", "Dense")]
    assert layers == [
        *(("Conv1D", (None, 24, 2)), ("Conv1D", (None, 11, 32)), ("Conv1D", (None, 4, 64)), ("Dense", (None, 256))),
    ]
    assert file.contents.layers[-1].options == {"units": 3, "activation": "softplus"}
    assert file.contents.inputs[0].shape == (None, 24, 2)
    assert file.contents.versions["keras_version"]


def test_inspect_names_a_file_that_is_not_the_manifests(exported_copy: Path) -> None:
    path = exported_copy / "model.float32.onnx"
    write_metadata(path, {**read_metadata(path), "note": "changed"})
    (file,) = inspect(path).files
    assert file.unchanged is False
    assert file.problems == ("sha256 differs from manifest.json: the evidence there is about another file.",)
    assert {each.file: each.unchanged for each in inspect(exported_copy).files} == {
        **dict.fromkeys(FILES, True),
        "model.float32.onnx": False,
        "model.keras": None,
    }


def test_inspect_names_bounds_that_a_file_states_and_does_not_prove(exported_copy: Path) -> None:
    path = exported_copy / "model.float16.tflite"
    facts = read_metadata(path)
    write_metadata(path, {**facts, "lower_bound": {**facts["lower_bound"], "rate": 0.5}})
    (file,) = inspect(path).files
    assert any("its metadata states rate >= 0.5, its graph proves" in problem for problem in file.problems)
    write_metadata(path, {**facts, "lower_bound": "none"})
    (file,) = inspect(path).files
    assert any("states bounds for other parameters" in problem for problem in file.problems)


def test_inspect_goes_on_after_a_file_that_is_damaged_or_gone(exported_copy: Path) -> None:
    damaged, gone = exported_copy / "model.float32.tflite", exported_copy / "model.float16.onnx"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    gone.unlink()
    files = {file.file: file for file in inspect(exported_copy).files}
    assert files[damaged.name].contents is None and files[damaged.name].sha256 == sha256_of(damaged)
    assert any("not a readable tflite model" in problem for problem in files[damaged.name].problems)
    assert any("cannot be read (No such file" in problem for problem in files[gone.name].problems)
    assert [name for name, file in files.items() if not file.problems] == [
        *("model.float16.tflite", "model.float32.onnx", "model.keras"),
    ]


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("ending", ["tflite", "onnx"])
def test_inspect_says_whether_a_file_of_somebody_else_proves_positive(
    tmp_path: Path, ending: str, positive: bool
) -> None:
    """max(x, 0.25), clipped above, or just clipped: written by hand, without metadata."""
    low = 0.25 if positive else -1.0
    path = tmp_path / f"foreign.{ending}"
    if ending == "tflite":
        made = tiny_files.TfliteFile([None, 1, 3])
        largest = made.add(
            "MAXIMUM", [made.input, made.constant(low)], made.tensor([None, 1, 3]), kind="MaximumMinimumOptions"
        )
        given = made.add(
            "MINIMUM", [largest, made.constant(9.0)], made.tensor([None, 1, 3]), kind="MaximumMinimumOptions"
        )
        flat = made.add(
            "RESHAPE", [given, made.constant([-1, 3], "int32")], made.tensor([None, 3]), kind="ReshapeOptions"
        )
        made.save(path, [flat])
    else:
        graph = tiny_files.OnnxFile(["n", 1, 3])
        given = graph.add("Min", [graph.add("Max", [graph.input, graph.constant(low)]), graph.constant(9.0)])
        graph.save(path, [graph.add("Reshape", [given, graph.constant([-1, 3], "int64")])], 3)
    (file,) = inspect(path).files
    assert file.proof is not None and file.proof.passed is positive
    assert list(file.lower_bound.values()) == [low] * 3 and list(file.upper_bound.values()) == [9.0] * 3
    assert file.contents is not None
    (output,) = file.contents.outputs
    assert list(file.lower_bound) == [f"{output.name}[{index}]" for index in range(3)]
    assert (file.unchanged, file.precision, file.metadata) == (None, None, {})
    assert bool(file.problems) is not positive
    assert all(problem.startswith("not proved: ") for problem in file.problems)


def test_inspect_says_what_it_can_of_a_file_that_no_proof_reads(tmp_path: Path) -> None:
    from onnx import helper

    ports = [helper.make_tensor_value_info(name, 1, ["n", 4]) for name in ("a", "b", "c")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "two inputs", ports[:2], ports[2:])
    path = tmp_path / "two.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())
    (file,) = inspect(path).files
    assert file.contents is not None and [port.name for port in file.contents.inputs] == ["a", "b"]
    assert file.proof is None and file.contents.operations == {"Add": 1}
    assert file.problems[0].startswith("takes 2 inputs (a, b), gives 1 outputs")


def test_inspect_shows_a_keras_file_with_code_in_it_and_names_the_code(tmp_path: Path) -> None:
    import keras

    network = keras.Sequential([keras.Input((4, 1)), keras.layers.Lambda(lambda x: x), keras.layers.Flatten()])
    network.save(tmp_path / "net.keras")
    (file,) = inspect(tmp_path / "net.keras").files
    assert file.contents is not None and [layer.kind for layer in file.contents.layers] == [
        *("InputLayer", "Lambda", "Flatten"),
    ]
    assert "holds 'Lambda', which is none of the plain layers" in file.problems[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent", "no such file or directory. Name a model directory or a model file."),
        ("notes.txt", r"not a model file \(.tflite, .onnx, .ort, .keras\). Name a model directory or a model file."),
        (".", "no model here"),
        ("broken.tflite", "not a readable tflite model"),
        ("broken.keras", "not a .keras file"),
    ],
)
def test_inspect_refuses_what_is_no_model_in_one_line(tmp_path: Path, name: str, said: str) -> None:
    for file in ("notes.txt", "broken.tflite", "broken.keras"):
        (tmp_path / file).write_text("no model")
    with pytest.raises(ModelError, match=said) as caught:
        inspect(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_inspect_command_prints_tables(toolkit_command: Callable[..., Result], exported: Path) -> None:
    directory = toolkit_command("inspect", exported)
    assert directory.exit_code == 0, directory.output
    assert "24 rows x (time, signal) -> height, rate, noise" in directory.stdout
    for name in FILES:
        (line,) = [line for line in directory.stdout.splitlines() if name in line]
        assert "as in the manifest" in line and "e-38" in line
    single = toolkit_command("inspect", exported / "model.float16.onnx").stdout
    for said in (
        "datasets: float32 (batch, 24, 2)",
        "estimates: float32 (batch, 3)",
        "exp: within 2^-15",
        "onnx, float16",
    ):
        assert said in single
    assert sha256_of(exported / "model.float16.onnx") + ", as in the manifest" in single
    assert "Conv1D filters 32" in toolkit_command("inspect", exported / "model.keras").stdout


def test_inspect_command_prints_one_json_object(toolkit_command: Callable[..., Result], exported: Path) -> None:
    printed = json.loads(toolkit_command("inspect", exported, "--json").stdout)
    assert set(printed) == {"path", "model", "files"}
    assert printed["model"]["input"]["rows"] == 24
    assert [parameter["name"] for parameter in printed["model"]["parameters"]] == list(NAMES)
    first = printed["files"][0]
    assert set(first) == {
        *("file", "format", "precision", "bytes", "sha256", "unchanged", "batch", "inputs", "outputs", "operations"),
        *("weights", "versions", "layers", "proof", "metadata", "problems"),
    }
    assert set(first["proof"]) == {
        *("passed", "arithmetic", "required", "lower_bound", "upper_bound", "input_limit", "failures", "assumptions"),
    }
    assert first["inputs"] == [{"name": "datasets", "dtype": "float32", "shape": [None, 24, 2]}]
    assert all(1.17e-38 < first["proof"]["lower_bound"][name] < 1e-37 for name in NAMES)
    single = json.loads(toolkit_command("inspect", exported / FILES[0], "--json").stdout)
    assert single["model"] is None and single["files"] == [first]


def test_inspect_command_prints_valid_json_whatever_a_file_says_of_itself(
    toolkit_command: Callable[..., Result], tmp_path: Path
) -> None:
    graph = tiny_files.OnnxFile(["n", 2, 3])
    path = graph.save(tmp_path / "odd.onnx", [graph.add("Exp", [graph.input])], 3)
    write_metadata(path, {"bound": float("nan"), "more": [float("inf")], "name": "\x1b[31mred\x07", "parameters": 3})
    printed = json.loads(toolkit_command("inspect", path, "--json").stdout, parse_constant=pytest.fail)
    assert printed["files"][0]["metadata"]["bound"] is None
    assert None in printed["files"][0]["proof"]["upper_bound"].values()  # infinite
    table = toolkit_command("inspect", path).stdout
    assert "\x1b" not in table and "\x07" not in table


def test_inspect_keeps_control_characters_in_names_off_the_terminal(
    toolkit_command: Callable[..., Result], tmp_path: Path
) -> None:
    graph = tiny_files.OnnxFile(["n", 2, 3])
    graph.input = "\x1b]0;title\x07[bold]x"
    path = graph.save(tmp_path / "odd.onnx", [graph.add("Log", [graph.input])], 3)
    table = toolkit_command("inspect", path).stdout
    assert "?]0;title?[bold]x" in table
    assert "\x1b" not in table and "\x07" not in table


def test_inspect_needs_no_tensorflow(exported: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'h5py', 'onnxruntime'): sys.modules[name] = None\n"
        "from toolkit.inspection import examine\n"
        "from pathlib import Path\n"
        f"for name in {[*FILES, 'model.keras']!r}: print(examine(Path({str(exported)!r}, name)).problems)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["()"] * 5, done.stderr


def test_inspect_reports_a_file_that_takes_too_much_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of a wide, valid file may need more than there is: that is a problem of the file, not of the caller."""
    from toolkit import contained

    graph = tiny_files.OnnxFile(["n", 2800, 2800])
    path = graph.save(tmp_path / "wide.onnx", [graph.add("Exp", [graph.input])], 3)
    original: Any = contained.open_child
    monkeypatch.setattr("toolkit.inspection.open_child", lambda: original(memory_bytes=1 << 30))
    (file,) = inspect(path).files
    assert file.proof is None and "MemoryError" in file.problems[0], file.problems
