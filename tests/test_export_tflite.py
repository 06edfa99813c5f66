"""TFLite files: what is in them, and what they give in LiteRT with both of its kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from networks import NETWORKS, exported, extreme_datasets

from export.graph import build_function
from export.network import Dense, Network, Reshape
from export.tflite import to_tflite
from toolkit.errors import ExportError
from toolkit.reference import load_reference
from toolkit.runtime import load
from toolkit.spec import SMALLEST_NORMAL_FLOAT32

# Largest relative difference from the float64 forward pass. The promise is 5e-5 and 1e-2; measured, over all networks
# and both kernels: float32 1.4e-6 (`standard`, XNNPACK), float16 5.3e-4 (`functional`).
TOLERANCE = {"float32": 2.8e-6, "float16": 1.1e-3}
KERNELS = ("xnnpack", "builtin")
FLOAT16, FLOAT32 = schema.TensorType.FLOAT16, schema.TensorType.FLOAT32


def read(path: Path) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))


def op_names(model: Any) -> list[str]:
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [names[codes[operator.opcodeIndex]] for operator in model.subgraphs[0].operators]


@pytest.fixture(scope="module")
def standard() -> Path:
    return exported("standard").directory


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", NETWORKS)
def test_to_tflite_gives_the_float64_truth(name: str, precision: str, kernels: str) -> None:
    network = exported(name)
    truth = load_reference(network.directory)(network.datasets)
    estimates = load(network.directory / f"model.{precision}.tflite", kernels=kernels)(network.datasets)
    assert estimates.shape == (len(network.datasets), len(network.spec.parameters))
    np.testing.assert_allclose(estimates, truth, rtol=TOLERANCE[precision])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", NETWORKS)
def test_to_tflite_is_finite_and_positive_for_extreme_datasets(name: str, precision: str, kernels: str) -> None:
    network = exported(name)
    estimates = load(network.directory / f"model.{precision}.tflite", kernels=kernels)(extreme_datasets(network.spec))
    assert np.all(np.isfinite(estimates))
    assert np.all(estimates >= SMALLEST_NORMAL_FLOAT32)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_to_tflite_names_input_and_output(precision: str, standard: Path) -> None:
    interpreter = Interpreter(str(standard / f"model.{precision}.tflite"))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["datasets"], "outputs": ["estimates"]}}
    (model_input,), (model_output,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (model_input["name"], model_input["dtype"]) == ("datasets", np.float32)
    assert (model_output["name"], model_output["dtype"]) == ("estimates", np.float32)
    assert model_input["shape_signature"].tolist() == [-1, 200, 2]
    assert model_output["shape_signature"].tolist() == [-1, 3]


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_to_tflite_takes_any_batch_through_its_signature(batch: int, standard: Path) -> None:
    network = exported("standard")
    path = standard / "model.float32.tflite"
    interpreter = Interpreter(str(path))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], [batch, 200, 2])
    estimates = interpreter.get_signature_runner()(datasets=network.datasets[:batch])["estimates"]
    # Another batch size takes other XNNPACK kernels: measured 2.4e-7.
    np.testing.assert_allclose(estimates, load(path)(network.datasets[:batch]), rtol=5e-7)


def test_to_tflite_writes_no_operation_that_is_not_needed(standard: Path) -> None:
    trunk = op_names(read(standard / "model.float32.tflite"))[:12]
    assert trunk == [
        *("MINIMUM", "MAXIMUM", "RESHAPE", "SUB", "MUL"),  # limit, normalization
        *("CONV_2D", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D", "CONV_2D", "RESHAPE", "FULLY_CONNECTED"),
    ]


def test_to_tflite_writes_a_head_of_plain_float_operations(standard: Path) -> None:
    # The set is what XNNPACK delegates and TFLite Micro has; POW is in neither.
    head = op_names(read(standard / "model.float32.tflite"))[12:]
    assert set(head) == {"ABS", "ADD", "EXP", "FLOOR", "MAXIMUM", "MINIMUM", "MUL", "NEG", "SUB"}


@pytest.mark.parametrize("precision", TOLERANCE)
def test_to_tflite_is_delegated_whole(precision: str, standard: Path) -> None:
    interpreter = Interpreter(str(standard / f"model.{precision}.tflite"))
    interpreter.allocate_tensors()
    delegated = [op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
    (model_input,), (model_output,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert len(delegated) == 1
    assert model_input["index"] in delegated[0]["inputs"]
    assert delegated[0]["outputs"].tolist() == [model_output["index"]]


def test_to_tflite_halves_the_weights_and_nothing_else(standard: Path) -> None:
    model = read(standard / "model.float16.tflite")
    (graph,) = model.subgraphs
    halves = [tensor for tensor in graph.tensors if tensor.type == FLOAT16]
    assert sorted(tuple(tensor.shape.tolist()) for tensor in halves) == [
        *((3, 46 * 128), (32, 1, 3, 2), (64, 1, 3, 32), (128, 1, 3, 64))
    ]
    stored = [
        tensor for tensor in graph.tensors if tensor.type == FLOAT32 and model.buffers[tensor.buffer].data is not None
    ]
    limits = [np.asarray(model.buffers[tensor.buffer].data).view(np.float32) for tensor in stored]
    assert any(np.array_equal(values, [np.float32(2.0**100)]) for values in limits), "the input limit is not float32"
    assert op_names(model).count("DEQUANTIZE") == 4


def test_to_tflite_takes_half_the_space_in_half_precision(standard: Path) -> None:
    whole, half = ((standard / f"model.{precision}.tflite").stat().st_size for precision in TOLERANCE)
    # 97,000 bytes of 208,900 are saved; the rest is the graph itself.
    assert half < 0.55 * whole


@pytest.mark.parametrize("precision", TOLERANCE)
def test_to_tflite_aligns_its_weights(precision: str, standard: Path) -> None:
    content = (standard / f"model.{precision}.tflite").read_bytes()
    root = schema.Model.GetRootAs(content, 0)
    filled = [root.Buffers(i) for i in range(root.BuffersLength()) if root.Buffers(i).DataLength()]
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in filled]  # field 0, data
    assert len(starts) > 20
    assert all(start % 16 == 0 for start in starts)


def test_to_tflite_refuses_a_weight_beyond_half_precision() -> None:
    dense = Dense(np.full((4, 2), 7e4, np.float32), np.zeros(2, np.float32))
    function = build_function(Network((2, 2), 2, (Reshape((4,)), dense)), 2.0**60)
    with pytest.raises(
        ExportError, match=r"holds 7e\+04, beyond the largest half-precision number, 65504. Export it as"
    ):
        to_tflite(function, "float16")
