"""ONNX files: what is in them, and what they give in ONNX Runtime and OpenVINO."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import NETWORKS, exported, extreme_datasets
from numpy.typing import NDArray

from export.graph import build_function
from export.network import Dense, Network, Reshape
from export.onnx import OPSET, to_onnx
from toolkit.errors import ExportError
from toolkit.reference import load_reference
from toolkit.runtime import load
from toolkit.spec import SMALLEST_NORMAL_FLOAT32

# Largest relative difference from the float64 forward pass. The promise is 5e-5 and 1e-2; measured, over all networks
# and runtimes: float32 5.6e-7 (`standard`, OpenVINO), float16 4.5e-4 (`residue_of_strides`).
TOLERANCE = {"float32": 1.2e-6, "float16": 9e-4}
RUNTIMES = ("optimized", "unoptimized", "openvino")


def run(path: Path, runtime: str, datasets: NDArray[np.float32]) -> NDArray[np.float32]:
    if runtime != "openvino":
        return load(path, kernels=runtime)(datasets)
    import openvino

    core = openvino.Core()
    # OpenVINO's own choice is bfloat16 on processors that have it.
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(datasets)[0])


@pytest.fixture(scope="module")
def standard() -> Path:
    return exported("standard").directory


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", NETWORKS)
def test_to_onnx_gives_the_float64_truth(name: str, precision: str, runtime: str) -> None:
    network = exported(name)
    truth = load_reference(network.directory)(network.datasets)
    estimates = run(network.directory / f"model.{precision}.onnx", runtime, network.datasets)
    assert estimates.shape == (len(network.datasets), len(network.spec.parameters))
    np.testing.assert_allclose(estimates, truth, rtol=TOLERANCE[precision])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", NETWORKS)
def test_to_onnx_is_finite_and_positive_for_extreme_datasets(name: str, precision: str, runtime: str) -> None:
    network = exported(name)
    estimates = run(network.directory / f"model.{precision}.onnx", runtime, extreme_datasets(network.spec))
    assert np.all(np.isfinite(estimates))
    assert np.all(estimates >= SMALLEST_NORMAL_FLOAT32)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_to_onnx_names_input_output_and_batch(precision: str, standard: Path) -> None:
    model = onnx.load(standard / f"model.{precision}.onnx")
    onnx.checker.check_model(model, full_check=True)
    (model_input,), (model_output,) = model.graph.input, model.graph.output
    for value, name, sizes in ((model_input, "datasets", [200, 2]), (model_output, "estimates", [3])):
        dimensions = value.type.tensor_type.shape.dim
        assert value.name == name
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert dimensions[0].dim_param == "batch"
        assert [dimension.dim_value for dimension in dimensions[1:]] == sizes
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]


def test_to_onnx_writes_no_operation_that_is_not_needed(standard: Path) -> None:
    kinds = [node.op_type for node in onnx.load(standard / "model.float32.onnx").graph.node]
    assert kinds[:17] == [
        *(
            "Min",
            "Max",
            "Reshape",
            "Sub",
            "Mul",
            "Transpose",
        ),  # limit, normalization, and rows x columns -> channels first
        *("Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool", "Conv", "Relu"),
        *("Transpose", "Reshape", "MatMul"),  # ONNX Runtime makes this Transpose part of its own last reordering
    ]
    assert set(kinds[17:]) == {"Abs", "Add", "Exp", "Floor", "Max", "Min", "Mul", "Neg", "Sub"}


def test_to_onnx_keeps_two_dimensional_convolutions(standard: Path) -> None:
    graph = onnx.load(standard / "model.float32.onnx").graph
    shapes = [list(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 4]
    assert sorted(shapes) == [[32, 2, 1, 3], [64, 32, 1, 3], [128, 64, 1, 3]]


def test_to_onnx_halves_the_weights_and_nothing_else(standard: Path) -> None:
    graph = onnx.load(standard / "model.float16.onnx").graph
    halves = [list(tensor.dims) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16]
    assert sorted(halves) == [[32, 2, 1, 3], [64, 32, 1, 3], [128, 64, 1, 3], [46 * 128, 3]]
    assert Counter(node.op_type for node in graph.node)["Cast"] == 4


def test_to_onnx_lets_onnx_runtime_fold_the_widening_away(standard: Path, tmp_path: Path) -> None:
    import onnxruntime

    kinds = []
    for precision in TOLERANCE:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3  # it warns that such a file is for this machine alone
        onnxruntime.InferenceSession(standard / f"model.{precision}.onnx", options, providers=["CPUExecutionProvider"])
        kinds.append([node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node])
    assert kinds[0] == kinds[1]


def test_to_onnx_takes_half_the_space_in_half_precision(standard: Path) -> None:
    whole, half = ((standard / f"model.{precision}.onnx").stat().st_size for precision in TOLERANCE)
    # 97,000 bytes of 205,200 are saved; the rest is the graph itself.
    assert half < 0.55 * whole


def test_to_onnx_refuses_a_weight_beyond_half_precision() -> None:
    dense = Dense(np.full((4, 2), -7e4, np.float32), np.zeros(2, np.float32))
    function = build_function(Network((2, 2), 2, (Reshape((4,)), dense)), 2.0**60)
    with pytest.raises(
        ExportError, match=r"holds 7e\+04, beyond the largest half-precision number, 65504. Export it as"
    ):
        to_onnx(function, "float16")
