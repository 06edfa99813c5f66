"""Files that are damaged, foreign, or of a form that cannot be judged: one clear message, or a refusal with why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_files import OnnxFile, TfliteFile

from toolkit.errors import ModelError
from toolkit.proof import prove
from toolkit.proof.verdict import Proof


def small_tflite(path: Path) -> Path:
    """exp(min(|x|, 1)) of a Dense layer: always between 1 and e, and a file that proves."""
    file = TfliteFile((None, 2, 3))
    limited = file.tensor((None, 2, 3))
    key = file.add("RELU_N1_TO_1", [file.input], limited)
    key = file.add("RESHAPE", [key, file.constant([-1, 6], "int32")], file.tensor((None, 6)), kind="ReshapeOptions")
    weights = file.constant(np.random.default_rng(0).normal(size=(2, 6)))
    key = file.add("FULLY_CONNECTED", [key, weights, -1], file.tensor((None, 2)), kind="FullyConnectedOptions")
    key = file.add("ABS", [key], file.tensor((None, 2)))
    key = file.add("MINIMUM", [key, file.constant(1.0)], file.tensor((None, 2)), kind="MaximumMinimumOptions")
    return file.save(path, [file.add("EXP", [key], file.tensor((None, 2)), kind="ExpOptions")])


def small_onnx(path: Path, **arguments: Any) -> Path:
    file = OnnxFile(["batch", 2, 3], **arguments)
    key = file.add("Clip", [file.input, file.constant(-1.0), file.constant(1.0)])
    key = file.add("Flatten", [key])
    key = file.add("MatMul", [key, file.constant(np.random.default_rng(0).normal(size=(6, 2)))])
    key = file.add("Min", [file.add("Abs", [key]), file.constant(1.0)])
    return file.save(path, [file.add("Exp", [key])], 2)


SMALL = {"tflite": small_tflite, "onnx": small_onnx}


@pytest.mark.parametrize("format", SMALL)
def test_the_small_file_proves_and_its_facts_are_read(format: str, tmp_path: Path) -> None:
    proof = prove(SMALL[format](tmp_path / f"model.{format}"))
    assert proof.passed, proof.failures
    assert proof.lower == pytest.approx((1, 1), rel=1e-4)
    assert proof.upper == pytest.approx((np.e, np.e), rel=1e-4)
    assert proof.input_limit == 1 or format == "tflite"  # RELU_N1_TO_1 is not the form the exporter writes
    assert proof.required == 2.0**-126
    assert proof.operations == 6


@pytest.mark.parametrize("format", SMALL)
def test_a_truncated_file_is_one_clear_error(format: str, tmp_path: Path) -> None:
    """Wherever it ends; a TFLite file that lost only unread bytes at its end may still prove."""
    path = SMALL[format](tmp_path / f"model.{format}")
    content = path.read_bytes()
    refused = 0
    for length in [0, 1, 4, 8, *range(20, len(content) - 1, max(1, len(content) // 40))]:
        path.write_bytes(content[:length])
        try:
            prove(path)
        except ModelError as error:
            refused += 1
            assert str(error).startswith(str(path)) and len(str(error).splitlines()) <= 2
    assert refused >= 35


@pytest.mark.parametrize("format", SMALL)
def test_flipped_bits_never_get_past_the_reader_as_another_exception(format: str, tmp_path: Path) -> None:
    path = SMALL[format](tmp_path / f"model.{format}")
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert isinstance(prove(path), Proof)
        except ModelError as error:
            assert str(error).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.tflite", b"", "not a TFLite file"),
        ("model.tflite", b"PK\x03\x04 a zip file, perhaps a .keras file", "not a TFLite file"),
        ("model.onnx", b"\x00\xff\xff\xff not a protobuf", "not an ONNX file"),
        ("model.keras", b"", r"a proof reads \.tflite, \.onnx and \.ort files"),
    ],
)
def test_a_foreign_file_is_one_clear_error(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        prove(path)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: cannot be read \(No such file"):
        prove(tmp_path / "none.onnx")


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd"])
def test_onnx_weights_outside_the_file_are_refused_unread(location: str, tmp_path: Path) -> None:
    import onnx

    path = small_onnx(tmp_path / "model.onnx")
    model = onnx.load(path)
    weights = next(one for one in model.graph.initializer if len(one.dims) == 2)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="keeps its weights outside the file"):
        prove(path)


def with_function(model: Any) -> None:
    """A function of the file's own may call itself Relu and be anything."""
    import onnx

    model.functions.append(onnx.helper.make_function("own", "F", ["x"], ["y"], [], [onnx.helper.make_opsetid("", 18)]))


def with_input(model: Any) -> None:
    import onnx

    model.graph.input.append(onnx.helper.make_tensor_value_info("more", 1, [1]))


def with_open_rows(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "rows"


def with_strings(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 8


def with_future_opset(model: Any) -> None:
    model.opset_import[0].version = 99


def out_of_order(model: Any) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_function, "1 functions of its own"),
        (with_input, r"takes 2 inputs \(datasets, more\)"),
        (with_open_rows, r"float32 \(\?, \?, 3\).*fixed rows and columns"),
        (with_strings, "of another type"),
        (with_future_opset, "opset 99"),
        (out_of_order, "out of order"),
    ],
)
def test_an_onnx_file_of_another_form_is_one_clear_error(
    change: Callable[[Any], None], message: str, tmp_path: Path
) -> None:
    import onnx

    path = small_onnx(tmp_path / "model.onnx")
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=message):
        prove(path)


# A file that runs, and is not judged positive: which operation is named, and as what.
REFUSED: dict[str, tuple[Callable[[OnnxFile], str], str]] = {
    "an operation without a rule": (
        lambda file: file.add("Sin", [file.input]),
        r"operation 0 Sin \(t0\): no rule for it",
    ),
    "an operation of another domain": (
        lambda file: file.add("Gelu", [file.input], domain="com.microsoft"),
        r"com\.microsoft\.Gelu .*no rule for it",
    ),
    "a form without a rule": (
        lambda file: file.add("MaxPool", [file.input], kernel_shape=[2], ceil_mode=1),
        "MaxPool .*no rule for this form of it",
    ),
    "a mean over the batch": (
        lambda file: file.add("ReduceMean", [file.input, file.constant([0], "int64")]),
        "ReduceMean .*reduces the batch",
    ),
    "a mean over everything": (lambda file: file.add("ReduceMean", [file.input]), "ReduceMean .*reduces the batch"),
    "a batch moved aside": (
        lambda file: file.add("Transpose", [file.input], perm=[1, 0, 2]),
        "Transpose .*mixes the datasets of a batch",
    ),
    "a batch poured into columns": (
        lambda file: file.add("Reshape", [file.input, file.constant([1, -1], "int64")]),
        "Reshape .*mixes the datasets of a batch",
    ),
    "a number made from the batch size": (
        lambda file: file.add("Mul", [file.input, file.add("Cast", [file.add("Shape", [file.input])], to=1)]),
        "Cast .*computes with the batch size",
    ),
    "a product of the input with itself": (
        lambda file: file.add("MatMul", [file.input, file.add("Transpose", [file.input], perm=[0, 2, 1])]),
        "MatMul .*multiplies two tensors that both depend on the input",
    ),
    "shapes that do not fit": (
        lambda file: file.add("MatMul", [file.input, file.constant(np.ones((7, 2)))]),
        "MatMul .*does not fit its input",
    ),
    "doubles": (lambda file: file.add("Cast", [file.input], to=11), "Cast .*casts float32 to float64"),
    "a square root of what may be negative": (
        lambda file: file.add("Sqrt", [file.add("Clip", [file.input, file.constant(-1.0), file.constant(1.0)])]),
        r"Sqrt .*sqrt of down to -1",
    ),
    "a division by what may be 0": (
        lambda file: file.add(
            "Div", [file.constant(1.0), file.add("Clip", [file.input, file.constant(-1.0), file.constant(1.0)])]
        ),
        r"Div .*may be infinite or NaN: its operand lies in \[-1, 1\]",
    ),
    "an output that ignores the input": (
        lambda file: file.add("Exp", [file.constant(np.ones((1, 3)))]),
        "does not depend on the input",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_bounded_is_refused_by_name(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    file = OnnxFile(["batch", 4, 3])
    key = make(file)
    proof = prove(file.save(tmp_path / "model.onnx", [key], 3))
    assert not proof.passed
    assert len(proof.failures) == 1, proof.failures
    import re

    assert re.search(message, proof.failures[0]), proof.failures
    assert len(proof.lower) == len(proof.upper)


def test_every_output_has_its_own_bounds(tmp_path: Path) -> None:
    file = OnnxFile(["batch", 4, 3], opset=13)
    limited = file.add("Clip", [file.input, file.constant(0.5), file.constant(1.0)])
    one = file.add("ReduceMax", [limited], axes=[1], keepdims=0)
    other = file.add("Neg", [one])
    proof = prove(file.save(tmp_path / "model.onnx", [one, other], 3))
    assert proof.lower == (0.5, 0.5, 0.5, -1, -1, -1)
    assert proof.upper == (1, 1, 1, -0.5, -0.5, -0.5)
    assert not proof.passed and "outputs 3, 4, 5 may be -1" in proof.failures[0]


def test_the_batch_may_be_fixed(tmp_path: Path) -> None:
    file = OnnxFile([1, 4, 3])
    flat = file.add("Reshape", [file.add("Sigmoid", [file.input]), file.constant([1, 12], "int64")])
    proof = prove(file.save(tmp_path / "model.onnx", [file.add("Exp", [flat])], 12))
    assert "sigmoid" in proof.failures[0], "beyond 2^80 it may be NaN"
    file = OnnxFile([1, 4, 3])
    flat = file.add("Reshape", [file.add("Tanh", [file.input]), file.constant([1, 12], "int64")])
    assert prove(file.save(tmp_path / "model.onnx", [file.add("Exp", [flat])], 12)).passed


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18])
def test_older_opsets_are_read_with_attributes_in_place_of_inputs(opset: int, tmp_path: Path) -> None:
    file = OnnxFile(["batch", 4, 3], opset=opset)
    if opset < 11:
        key = file.add("Clip", [file.input], min=0.5, max=2.0)
    else:
        key = file.add("Clip", [file.input, file.constant(0.5), file.constant(2.0)])
    if opset < 18:
        key = file.add("ReduceMean", [key], axes=[1], keepdims=1)
    else:
        key = file.add("ReduceMean", [key, file.constant([1], "int64")], keepdims=1)
    key = (
        file.add("Squeeze", [key], axes=[1]) if opset < 13 else file.add("Squeeze", [key, file.constant([1], "int64")])
    )
    proof = prove(file.save(tmp_path / "model.onnx", [key], 3))
    assert proof.passed, proof.failures
    assert proof.lower == pytest.approx((0.5,) * 3, rel=1e-5) and proof.upper == pytest.approx((2,) * 3, rel=1e-5)


def test_half_precision_arithmetic_is_held_to_its_own_smallest_normal(tmp_path: Path) -> None:
    """2e-5 is fine in float32 and subnormal in float16: hardware may flush it."""
    for lowest, passed in ((2e-5, False), (1e-4, True)):
        file = OnnxFile(["batch", 4, 3], dtype="float16")
        key = file.add("Clip", [file.input, file.constant(lowest, "float16"), file.constant(2.0, "float16")])
        key = file.add("Flatten", [file.add("Mul", [key, file.constant(1.0, "float16")])])
        proof = prove(file.save(tmp_path / "model.onnx", [key], 12, dtype="float16"))
        assert (proof.arithmetic, proof.required, proof.passed) == ("float16", 2.0**-14, passed)


def test_a_tflite_file_with_a_custom_operation_is_refused_by_name(tmp_path: Path) -> None:
    file = TfliteFile((None, 2, 3))
    key = file.add("CUSTOM", [file.input], file.tensor((None, 3)))
    file.model.operatorCodes[-1].customCode = b"Mystery"
    proof = prove(file.save(tmp_path / "model.tflite", [key]))
    assert proof.failures == ("operation 0 CUSTOM Mystery (t1): no rule for it; its result is unknown",)
    assert proof.lower == (-np.inf,) * 3 and proof.upper == (np.inf,) * 3


def test_a_tflite_constant_of_another_type_is_refused_by_name(tmp_path: Path) -> None:
    file = TfliteFile((None, 3))
    doubles = file.constant(np.ones(3), "float64")
    proof = prove(file.save(tmp_path / "m.tflite", [file.add("ADD", [file.input, doubles], file.tensor((None, 3)))]))
    assert proof.failures == ("operation 0 ADD (t2): its constant t1 is of another type; its result is unknown",)


def test_a_tflite_input_that_is_stored_in_the_file_is_one_clear_error(tmp_path: Path) -> None:
    """The interpreter would let it be overwritten; nothing says what is meant."""
    file = TfliteFile((None, 3))
    constant = file.constant(np.ones((1, 3)))
    key = file.add("EXP", [constant], file.tensor((None, 3)), kind="ExpOptions")
    file.input = constant
    with pytest.raises(ModelError, match="its input is stored in it"):
        prove(file.save(tmp_path / "model.tflite", [key]))


def test_sizes_beyond_memory_are_refused_by_name(tmp_path: Path) -> None:
    for code, sizes in (("Expand", [1, 1 << 40, 3]), ("Pad", [0, 1 << 40, 0, 0, 0, 0])):
        file = OnnxFile(["batch", 1, 3])
        key = file.add(code, [file.input, file.constant(sizes, "int64")])
        proof = prove(file.save(tmp_path / "model.onnx", [key], 3))
        assert not proof.passed and "more than" in proof.failures[0], proof.failures


def test_int8_outputs_are_bounded_by_their_codes(tmp_path: Path) -> None:
    """A MAXIMUM with a positive code guards the outputs; without it code -128 is 0."""
    for guarded in (True, False):
        scale = (0.5, -128)
        file = TfliteFile((None, 1, 3), "int8", (0.1, 0))
        key = file.add(
            "RESHAPE", [file.input, file.constant([-1, 3], "int32")], file.tensor((None, 3), "int8", (0.1, 0))
        )
        weights = file.constant(np.eye(3) * 100, "int8", (0.01, 0))
        output = file.tensor((None, 3), "int8", scale)
        key = file.add("FULLY_CONNECTED", [key, weights, -1], output, version=4, kind="FullyConnectedOptions")
        if guarded:
            floor = file.constant(np.full((1, 3), -127), "int8", scale)
            output = file.tensor((None, 3), "int8", scale)
            key = file.add("MAXIMUM", [key, floor], output, version=2, kind="MaximumMinimumOptions")
        proof = prove(file.save(tmp_path / "model.tflite", [key]))
        assert proof.arithmetic == "int8"
        assert proof.passed == guarded, proof.failures
        assert proof.lower == ((0.5,) * 3 if guarded else (0.0,) * 3)
