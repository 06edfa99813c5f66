"""Files for hardware that computes float32 in half precision: the head, the limits, the proof and the arithmetic on
paper, each against something that shares nothing with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from export import convert, head
from export.half_limits import limits_in_half
from export.network import Conv1D, Dense, Network, Reshape
from toolkit.errors import ExportError, ModelError
from toolkit.half_units import check_units
from toolkit.manifest import Manifest, Parameter, Range, Training, find_file, read_manifest
from toolkit.proof import prove
from toolkit.publish import publish
from toolkit.runtime import FLOAT16, load
from toolkit.runtime.float16 import flushed
from toolkit.spec import FORMATS, SMALLEST_NORMAL_FLOAT16

Command = Callable[..., Result]
Half = NDArray[np.float16]
TFLITE, ONNX = "model.float32.fp16math.batch2.tflite", "model.float32.fp16math.batch2.onnx"


@pytest.fixture(scope="module")
def in_half(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported directory with files for float16 arithmetic, two datasets a call; also in ONNX Runtime's format."""
    directory = Path(shutil.copytree(exported, tmp_path_factory.mktemp("half") / "model"))
    publish(
        directory,
        (*FORMATS, "ort"),
        ("float32",),
        lambda *arguments: convert(*arguments, arithmetic="float16", batch=2),
        arithmetic="float16",
    )
    return directory


def test_a_parameter_that_is_nearly_0_on_random_datasets_is_no_fault_of_the_exporter(
    toolkit_command: Command, tmp_path: Path
) -> None:
    """The sample model's t0, where rows are not sorted: below 6.2e-5, which is the least that the head gives."""
    sample = Path(__file__).resolve().parent.parent / "samples" / "model"
    model = Path(shutil.copytree(sample, tmp_path / "model"))
    result = toolkit_command("export", "--model", model, "--format", "tflite", "--arithmetic", "float16", "--quiet")
    assert result.exit_code == 0, result.output
    assert find_file(model, "model.float32.fp16math.tflite").arithmetic == "float16"


def all_finite_halves() -> Half:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return every[np.isfinite(every)]


def head_in_half(z: Half) -> Half:
    """The head in NumPy's float16, written out again, every result flushed."""
    half = np.float16
    a = np.minimum(np.abs(z), half(head.CUTOFF_IN_HALF))
    u = flushed(np.exp(-a))
    u = np.minimum(np.maximum(u, half(head.SMALLEST_U_IN_HALF)), half(1))
    series = np.full_like(u, half(head.LOG1P_IN_HALF[-1]))
    for coefficient in reversed(head.LOG1P_IN_HALF[:-1]):
        series = flushed(flushed(series * u) + half(coefficient))
    return flushed((z - np.minimum(z, half(0))) + flushed(u * series))


def test_head_is_positive_and_right_for_every_float16_logit() -> None:
    z = all_finite_halves()
    estimates = head_in_half(flushed(z.copy()))
    assert np.isfinite(estimates).all() and estimates.min() >= SMALLEST_NORMAL_FLOAT16
    truth = np.logaddexp(0.0, z.astype(np.float64))
    right = z >= -head.CUTOFF_IN_HALF
    # Measured: 1.26e-3, where the logit is between 2^-1 and 1; float16 rounds by up to 4.9e-4 each time.
    assert np.max(np.abs(estimates[right] / truth[right] - 1)) < 2.5e-3


def test_head_constants_are_float16_numbers() -> None:
    for number in (*head.LOG1P_IN_HALF, head.CUTOFF_IN_HALF):
        assert float(np.float16(number)) == number


@pytest.mark.parametrize("name", [TFLITE, ONNX, "model.float32.fp16math.batch2.ort"])
def test_export_proves_and_judges_files_for_float16(in_half: Path, name: str) -> None:
    entry = find_file(in_half, name)
    assert entry.arithmetic == "float16" and entry.batch == 2
    assert entry.export_again.endswith("--precision float32 --arithmetic float16 --batch 2")
    assert min(entry.lower_bound.values()) >= SMALLEST_NORMAL_FLOAT16
    proof = prove(in_half / name, "float16")
    assert proof.passed and proof.arithmetic == "float16" and proof.required == SMALLEST_NORMAL_FLOAT16
    assert max(proof.upper) <= 65504
    assert any("within 2^-10" in sentence for sentence in proof.assumptions)


@pytest.mark.parametrize("name", [TFLITE, ONNX])
def test_no_input_makes_an_estimate_that_float16_cannot_hold(in_half: Path, name: str) -> None:
    predict = load(in_half / name, kernels=FLOAT16)
    rng = np.random.default_rng(3)
    datasets = rng.normal(size=(64, 24, 2)) * 10.0 ** rng.uniform(-40, 38, size=(64, 1, 1))
    limit = np.finfo(np.float32).max
    estimates = predict(np.clip(datasets, -limit, limit).astype(np.float32))
    assert np.isfinite(estimates).all() and estimates.min() >= SMALLEST_NORMAL_FLOAT16
    assert np.array_equal(estimates, estimates.astype(np.float16).astype(np.float32))


def test_a_file_for_float32_is_no_file_for_float16(in_half: Path) -> None:
    """The proof refuses it, and the arithmetic on paper shows why: what it gives is 0, infinite or NaN there."""
    path = in_half / "model.float32.tflite"
    proof = prove(path, "float16")
    assert not proof.passed and any("in float16 arithmetic" in failure for failure in proof.failures)
    datasets = np.full((2, 24, 2), 1e30, np.float32) * np.array([1, -1], np.float32)[:, None, None]
    estimates = load(path, kernels=FLOAT16)(datasets)
    assert not np.all(np.isfinite(estimates) & (estimates >= SMALLEST_NORMAL_FLOAT16))


def test_proof_refuses_inputs_that_are_infinite_in_float16_and_not_cut(tmp_path: Path) -> None:
    import onnx

    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Abs", ["x"], ["y"]), onnx.helper.make_node("Add", ["y", "one"], ["z"])],
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3])],
        [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    with pytest.raises(ModelError, match=r"beyond 65504 are infinite there, and operation 0 Abs"):
        prove(path, "float16")


def test_emulation_rounds_as_a_scalar_loop_does(tmp_path: Path) -> None:
    """One Dense layer, one number at a time in NumPy's float16: an independent order of the same roundings."""
    import onnx

    rng = np.random.default_rng(5)
    kernel, bias = rng.normal(size=(40, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Reshape", ["x", "flat"], ["f"]),
            onnx.helper.make_node("Gemm", ["f", "kernel", "bias"], ["y"]),
        ],
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 20, 2])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 3])],
        [
            onnx.numpy_helper.from_array(np.array([-1, 40]), "flat"),
            onnx.numpy_helper.from_array(kernel, "kernel"),
            onnx.numpy_helper.from_array(bias, "bias"),
        ],
    )
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    datasets = rng.normal(size=(4, 20, 2)).astype(np.float32)
    expected = np.zeros((4, 3))
    for row, values in enumerate(datasets.reshape(4, 40).astype(np.float16)):
        for column in range(3):
            total = np.float16(bias[column])
            for value, weight in zip(values, kernel[:, column].astype(np.float16), strict=True):
                total = np.float16(float(value) * float(weight) + float(total))
            expected[row, column] = total
    np.testing.assert_array_equal(load(path, kernels=FLOAT16)(datasets), expected)


def test_emulation_comes_close_to_onnx_runtime_in_float16(in_half: Path, tmp_path: Path) -> None:
    """ONNX Runtime has float16 kernels of its own, which add up in other orders and in float32."""
    import onnx
    import onnxruntime
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from toolkit.datasets import read_datasets

    model = onnx.load(in_half / ONNX)
    half = convert_float_to_float16(model, keep_io_types=True)
    session = onnxruntime.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    datasets = read_datasets(in_half / "calibration.parquet", read_manifest(in_half).spec)[:40]
    theirs = np.concatenate([session.run(None, {"datasets": datasets[i : i + 2]})[0] for i in range(0, 40, 2)])
    ours = load(in_half / ONNX, kernels=FLOAT16)(datasets)
    difference = np.abs(ours / theirs - 1)
    # Measured on the sample model: 4e-4 in the median, 5.6e-3 at most. This network has been trained for seconds.
    assert np.median(difference) < 5e-3 and difference.max() < 5e-2


def test_verify_states_the_arithmetic_and_holds_float16_files_to_a_gate_of_their_own(
    in_half: Path, toolkit_command: Command
) -> None:
    result = toolkit_command("verify", "--model", in_half, "--gate", "fp16math:max=1e-6", "--json")
    verdicts = json.loads(result.stdout)["files"]
    assert {each["file"]: each["arithmetic"] for each in verdicts}[TFLITE] == "float16"
    assert result.exit_code == 1
    for verdict in verdicts:
        assert verdict["passed"] == (verdict["arithmetic"] == "float32") != ("fp16math" in verdict["file"])
        assert verdict["proved"]


def test_inspect_and_the_card_state_the_arithmetic(in_half: Path, toolkit_command: Command) -> None:
    for path in (in_half, in_half / TFLITE):
        assert "float16" in toolkit_command("inspect", path).stdout
    found = json.loads(toolkit_command("inspect", in_half / TFLITE, "--json").stdout)["files"][0]
    assert found["proof"]["arithmetic"] == "float16" and found["proof"]["required"] == SMALLEST_NORMAL_FLOAT16
    assert "In float16 arithmetic" in (in_half / "README.md").read_text()


def manifest(*parameters: Parameter, column: Range = Range(0.1, 3.0)) -> Manifest:  # noqa: B008
    return Manifest(8, ("rt",), (column,), parameters, Training(1, 0, {}))


def test_units_that_float16_holds_pass() -> None:
    check_units(manifest(Parameter("t0", 0.1, 0.6), Parameter("t", 100.0, 600.0)))
    check_units(replace(manifest(Parameter("t0", float("nan"), float("nan"))), column_ranges=()))


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        (Parameter("t0", 1e-4, 0.6), r"parameter t0: 0.0001 to 0.6 .* 1,000 times smaller .* then it is 0.1 to 600"),
        (Parameter("k", 50.0, 2e5), r"parameter k: 50 to 2e\+05 .* 1,000 times larger .* then it is 0.05 to 200"),
        (Parameter("k", 1e-6, 1e3), r"no unit brings all of it there"),
    ],
)
def test_units_that_float16_does_not_hold_are_named_with_one_that_it_does(parameter: Parameter, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        check_units(manifest(Parameter("a", 0.5, 2.0), parameter))


def test_columns_are_looked_at_by_their_largest_magnitude() -> None:
    with pytest.raises(ExportError, match="column rt: 0 to 1e-05 .* 1,000 times smaller"):
        check_units(manifest(Parameter("a", 0.5, 2.0), column=Range(0.0, 1e-5)))


def test_export_says_the_unit_before_it_converts(exported_copy: Path, toolkit_command: Command) -> None:
    path = exported_copy / "manifest.json"
    content = json.loads(path.read_text())
    content["parameters"][2]["minimum"] = 1e-5
    path.write_text(json.dumps(content))
    before = sorted(each.name for each in exported_copy.iterdir())
    result = toolkit_command("export", "--model", exported_copy, "--format", "tflite", "--arithmetic", "float16")
    assert result.exit_code == 1 and "parameter noise: 1e-05 to" in result.stderr and "Train it in" in result.stderr
    assert sorted(each.name for each in exported_copy.iterdir()) == before


def test_quantized_files_have_no_float16_arithmetic(trained: Path, toolkit_command: Command) -> None:
    arguments = ("export", "--model", trained, "--format", "tflite", "--precision", "int8", "--arithmetic", "float16")
    result = toolkit_command(*arguments)
    assert result.exit_code == 2 and "not computed in float16" in result.stderr


def test_limits_keep_every_sum_below_the_end_of_float16() -> None:
    """The largest that float64 reaches where every input and every cut number has the worst sign."""
    rng = np.random.default_rng(7)
    conv = Conv1D(rng.normal(size=(3, 2, 16)).astype(np.float32), np.ones(16, np.float32), 1, "same", 1)
    dense = Dense(rng.normal(size=(160, 3)).astype(np.float32), np.ones(3, np.float32))
    network = Network((10, 2), 3, (conv, Reshape((160,)), dense))
    limit, cuts = limits_in_half(network)
    inside = limit * np.abs(conv.kernel).sum(axis=(0, 1)).max() + 1
    behind = min(inside, cuts[2]) * np.abs(dense.kernel).sum(axis=0).max() + 1
    assert inside < 65504 and behind < 65504 and limit >= 16 and set(cuts) == {2}


def test_limits_refuse_weights_that_leave_no_room() -> None:
    dense = Dense(np.full((20, 3), 1e3, np.float32), np.zeros(3, np.float32))
    with pytest.raises(ExportError, match="float16 arithmetic ends at 65504"):
        limits_in_half(Network((10, 2), 3, (Reshape((20,)), dense)))
