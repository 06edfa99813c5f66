"""The judge is judged: right files pass with the bound they really have, wrong files of every kind are refused.

Files come from real conversions. The wrong ones are made by the project's own exporter with another head in place of
the strictly positive softplus, by the TensorFlow converter's own quantization, or by changing a right file by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import FILES, NETWORKS, exported
from tiny_files import run_onnx, run_tflite

from toolkit.errors import ModelError
from toolkit.proof import prove
from toolkit.spec import Spec, file_name

SPEC = Spec(24, ("time", "signal"), ("height", "rate", "noise"))
SMALLEST_NORMAL = 2.0**-126
CUTOFF = 86.5
# log1p(u) / u on [0, 1], constant term first.
LOG1P = (0.99999994, -0.4999944, 0.3331793, -0.2483395, 0.1907131, -0.135906, 0.07738074, -0.02899196, 0.0051058258)

Head = Callable[[Any], Any]


def simple_head(z: Any, cutoff: float = CUTOFF) -> Any:
    """The strictly positive softplus in its shortest form, without range reduction or limits on the exponential."""
    import tensorflow as tf

    return (z - tf.minimum(z, 0.0)) + series(tf.exp(-tf.minimum(tf.abs(z), cutoff)))


def series(u: Any) -> Any:
    result = LOG1P[-1]
    for coefficient in LOG1P[-2::-1]:
        result = result * u + coefficient
    return u * result


def _plain(z: Any) -> Any:
    import tensorflow as tf

    return tf.nn.softplus(z)


def _without_relu(z: Any) -> Any:
    import tensorflow as tf

    return z + series(tf.exp(-tf.minimum(tf.abs(z), CUTOFF)))


def _plain_on_one_output(z: Any) -> Any:
    import tensorflow as tf

    return tf.concat([simple_head(z[:, :2]), tf.nn.softplus(z[:, 2:])], axis=1)


def _by_cases(z: Any) -> Any:
    import tensorflow as tf

    return tf.where(z < -15.0, tf.exp(z), tf.math.log(1.0 + tf.exp(tf.minimum(z, 80.0))))


def _with_floor_of_0(z: Any) -> Any:
    import tensorflow as tf

    return tf.maximum(tf.nn.relu(z), 0.0)


# Head -> what the refusal must name, in TFLite and in ONNX.
WRONG_HEADS: dict[str, tuple[Head, str, str]] = {
    "plain softplus": (_plain, r"operation \d+ EXP .*exp of up to", r"outputs 0, 1, 2 .*Softplus .*may be 0"),
    "linear": (lambda z: z, r"FULLY_CONNECTED .*its result lies in \[-", r"MatMul .*its result lies in \[-"),
    "clamp at 200": (lambda z: simple_head(z, 200.0), r"EXP .*may be 0: exp\(-200\)", r"Exp .*may be 0: exp\(-200\)"),
    "relu dropped": (_without_relu, r"FULLY_CONNECTED .*lies in \[-", r"MatMul .*lies in \[-"),
    "softplus on one output": (_plain_on_one_output, r"EXP .*exp of up to", r"output 2 .*Softplus .*may be 0"),
    "by cases": (_by_cases, r"EXP .*fail above 88", r"Exp .*fail above 88"),
    "relu alone": (_with_floor_of_0, r"FULLY_CONNECTED .*its result lies in \[0,", r"MatMul .*its result lies in \[-"),
}


@pytest.fixture(scope="module")
def network() -> Any:
    """The mission's kind of network, small: logits over the whole range, as the input limit lets them."""
    import keras
    from keras import layers

    from export.keras_file import read_network

    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input(SPEC.shape),
            layers.Normalization(mean=[1.5, 1.0], variance=[0.8, 1.2]),
            layers.Conv1D(8, 3, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, activation="softplus"),
        ]
    )
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model.save(path)
        return read_network(path, SPEC)[1]


@pytest.fixture(scope="module")
def build(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """build(head, format): the network exported with another head; each pair once."""
    from export.graph import build_function
    from export.onnx import to_onnx
    from export.tflite import to_tflite

    folder = tmp_path_factory.mktemp("gallery")
    made: dict[tuple[Head, str], Path] = {}

    def make(head: Head, format: str, limit: float = 2.0**60) -> Path:
        if (head, format) not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("export.graph.positive_softplus", head)
                function = build_function(network, limit)
            path = folder / f"{len(made)}.{format}"
            path.write_bytes((to_tflite if format == "tflite" else to_onnx)(function, "float32"))
            made[head, format] = path
        return made[head, format]

    return make


@pytest.mark.parametrize("name", NETWORKS)
def test_every_exported_file_is_proved_and_gives_no_less(name: str) -> None:
    made = exported(name)
    for format, precision in FILES:
        path = made.directory / file_name(format, precision)
        proof = prove(path)
        assert proof.passed, (path.name, proof.failures)
        lower, upper = np.array(proof.lower), np.array(proof.upper)
        assert len(lower) == len(made.spec.parameters)
        assert np.all(lower >= SMALLEST_NORMAL) and np.all(np.isfinite(upper))
        assert (proof.format, proof.arithmetic, proof.failures) == (format, "float32", ())
        assert proof.input_limit is not None and proof.input_limit >= 2.0**30
        datasets = np.concatenate(
            [made.datasets[:32], -1e6 * made.datasets[:32], np.full_like(made.datasets[:1], 3e38)]
        )
        for kernels in ("xnnpack", "builtin") if format == "tflite" else ("optimized", "unoptimized"):
            (estimates,) = (run_tflite if format == "tflite" else run_onnx)(path, datasets, kernels)
            assert np.all((estimates >= lower) & (estimates <= upper)), (path.name, kernels)


def test_a_proof_says_what_it_rests_on_and_where_the_logits_lie() -> None:
    made = exported("standard")
    proof = prove(made.directory / "model.float32.tflite")
    assert any("2^-15" in sentence and "exp" in sentence for sentence in proof.assumptions)
    assert any("NaN" in sentence for sentence in proof.assumptions)
    assert len(proof.logit_lower) == len(proof.logit_upper) == 3
    assert all(low < -1e6 and high > 1e6 for low, high in zip(proof.logit_lower, proof.logit_upper, strict=True))
    # Beyond a logit of 100 the softplus is the logit: the bounds of both agree but for rounding.
    np.testing.assert_allclose(proof.upper, proof.logit_upper, rtol=1e-5)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("wrong", WRONG_HEADS)
def test_a_file_with_another_head_is_refused(wrong: str, format: str, build: Callable[..., Path]) -> None:
    head, tflite_reason, onnx_reason = WRONG_HEADS[wrong]
    proof = prove(build(head, format))
    assert not proof.passed
    expected = tflite_reason if format == "tflite" else onnx_reason
    assert_matches(expected, proof.failures)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_the_same_head_without_the_mistake_passes(format: str, build: Callable[..., Path]) -> None:
    """Else the refusals above would say nothing."""
    proof = prove(build(simple_head, format))
    assert proof.passed, proof.failures
    # exp(-86.5) = 2.7134e-38; granted are 2^-15 for EXP and 2^-23 for each product.
    assert all(2.713e-38 < bound < 2.7135e-38 for bound in proof.lower)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_file_without_an_input_limit_is_refused(format: str, network: Any, tmp_path: Path) -> None:
    from export.graph import build_function
    from export.onnx import to_onnx
    from export.tflite import to_tflite

    function = build_function(network, float(np.finfo(np.float32).max))
    path = tmp_path / f"model.{format}"
    path.write_bytes((to_tflite if format == "tflite" else to_onnx)(function, "float32"))
    proof = prove(path)
    assert not proof.passed and proof.input_limit is None
    assert_matches(r"may overflow: .*float32 ends at 3.4e\+38", proof.failures)


def assert_matches(pattern: str, failures: tuple[str, ...]) -> None:
    import re

    assert any(re.search(pattern, failure) for failure in failures), failures


# Right files, changed by hand.


def change_tflite(path: Path, change: Callable[[Any], None]) -> Path:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    changed = path.with_name(f"changed-{path.name}")
    changed.write_bytes(bytes(builder.Output()))
    return changed


def change_onnx(path: Path, change: Callable[[Any], None]) -> Path:
    import onnx

    model = onnx.load(path)
    change(model)
    changed = path.with_name(f"changed-{path.name}")
    onnx.save(model, changed)
    return changed


def replace_constant(old: float, new: float) -> dict[str, Callable[[Any], None]]:
    """Every scalar constant `old` becomes `new`, in a TFLite model and in an ONNX model."""

    def in_tflite(model: Any) -> None:
        wanted = np.float32(old).tobytes()
        found = [buffer for buffer in model.buffers if buffer.data is not None and bytes(buffer.data) == wanted]
        assert found
        for buffer in found:
            buffer.data = np.frombuffer(np.float32(new).tobytes(), np.uint8)

    def in_onnx(model: Any) -> None:
        from onnx import numpy_helper

        found = [one for one in model.graph.initializer if np.array_equal(numpy_helper.to_array(one), np.float32(old))]
        assert found
        for one in found:
            one.CopyFrom(numpy_helper.from_array(np.full(one.dims, new, np.float32), one.name))

    return {"tflite": in_tflite, "onnx": in_onnx}


def changed(path: Path, changes: dict[str, Callable[[Any], None]]) -> Path:
    format = path.suffix[1:]
    return (change_tflite if format == "tflite" else change_onnx)(path, changes[format])


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_clamp_altered_by_hand_is_refused(format: str, build: Callable[..., Path]) -> None:
    proof = prove(changed(build(simple_head, format), replace_constant(CUTOFF, 87.5)))
    assert not proof.passed
    assert_matches(r"(?i)outputs 0, 1, 2 may be .*exp\(-87\.5\) = 9\.98e-39 is below 2\^-126", proof.failures)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_both_guards_of_an_exported_file_altered_by_hand_are_refused(format: str) -> None:
    """The exported head has two: the cutoff of the argument, and a floor under the exponential. One is enough."""
    path = exported("standard").directory / f"model.float32.{format}"
    without_floor = changed(path, replace_constant(4e-38, 0.0))
    assert prove(without_floor).passed
    without_both = changed(without_floor, replace_constant(86.0, 200.0))
    proof = prove(without_both)
    assert not proof.passed
    assert_matches("(?i)may be 0: exp", proof.failures)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(format: str, poison: float, build: Callable[..., Path]) -> None:
    def in_tflite(model: Any) -> None:
        largest = max((one for one in model.buffers if one.data is not None), key=lambda one: len(one.data))
        weights = np.frombuffer(bytes(largest.data), np.float32).copy()
        weights[len(weights) // 2] = poison
        largest.data = np.frombuffer(weights.tobytes(), np.uint8)

    def in_onnx(model: Any) -> None:
        from onnx import numpy_helper

        largest = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        weights = numpy_helper.to_array(largest).copy()
        weights.flat[weights.size // 2] = poison
        largest.CopyFrom(numpy_helper.from_array(weights, largest.name))

    proof = prove(changed(build(simple_head, format), {"tflite": in_tflite, "onnx": in_onnx}))
    assert not proof.passed
    assert_matches("holds NaN or infinity", proof.failures)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_head_fused_over_two_copies_of_the_last_layer_is_refused(format: str, build: Callable[..., Path]) -> None:
    """z - min(z', 0) with z' computed by an operation of its own: two kernels may round z and z' apart."""

    def in_tflite(model: Any) -> None:
        import copy

        from ai_edge_litert import schema_py_generated as schema

        graph, builtin = model.subgraphs[0], schema.BuiltinOperator
        codes = [model.operatorCodes[one.opcodeIndex].builtinCode for one in graph.operators]
        place = codes.index(builtin.FULLY_CONNECTED)
        twin = copy.deepcopy(graph.operators[place])
        logits = graph.operators[place].outputs[0]
        graph.tensors.append(copy.deepcopy(graph.tensors[logits]))
        twin.outputs = [len(graph.tensors) - 1]
        (cut,) = [
            operator
            for operator, code in zip(graph.operators, codes, strict=True)
            if code == builtin.MINIMUM and logits in operator.inputs
        ]
        cut.inputs = [len(graph.tensors) - 1 if one == logits else one for one in cut.inputs]
        graph.operators.insert(place, twin)

    def in_onnx(model: Any) -> None:
        import copy

        nodes = model.graph.node
        (difference,) = [node for node in nodes if node.op_type == "Sub" and _makes(model, node.input[1], "Min")]
        logits = difference.input[0]
        place = next(index for index, node in enumerate(nodes) if logits in node.output)
        twin = copy.deepcopy(nodes[place])
        twin.output[0], twin.name = "twin", "twin"
        (cut,) = [node for node in nodes if difference.input[1] in node.output]
        cut.input[list(cut.input).index(logits)] = "twin"
        nodes.insert(place, twin)

    path = changed(build(simple_head, format), {"tflite": in_tflite, "onnx": in_onnx})
    runs = run_tflite(path, np.zeros((1, *SPEC.shape), np.float32), "builtin") if format == "tflite" else None
    assert runs is None or np.isfinite(runs[0]).all()  # it is a file that runs
    proof = prove(path)
    assert not proof.passed
    assert_matches(r"outputs 0, 1, 2 may be -", proof.failures)


def _makes(model: Any, tensor: str, code: str) -> bool:
    return any(tensor in node.output and node.op_type == code for node in model.graph.node)


# The TensorFlow converter's own quantization.


@pytest.fixture(scope="module")
def quantize(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """quantize(kind): a plain softplus through the converter's `int8`, `int16x8` or `dynamic` quantization."""
    import tensorflow as tf

    from export.graph import build_function

    folder = tmp_path_factory.mktemp("quantized")

    def make(kind: str, head: Head = _plain) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("export.graph.positive_softplus", head)
            function = build_function(network, 64.0)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind != "dynamic":
            rng = np.random.default_rng(0)
            samples = [rng.normal(0, 20, (1, *SPEC.shape)).astype(np.float32) for _ in range(50)]
            converter.representative_dataset = lambda: ([sample] for sample in samples)
            kinds = {"int8": "TFLITE_BUILTINS_INT8"}
            kinds["int16x8"] = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
            converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, kinds[kind])]
        path = folder / f"{kind}-{head.__name__}.tflite"
        path.write_bytes(converter.convert())
        return path

    return make


@pytest.mark.parametrize("kind", ["int8", "int16x8"])
def test_a_softplus_on_integers_that_really_gives_0_is_refused(kind: str, quantize: Callable[..., Path]) -> None:
    path = quantize(kind)
    datasets = np.random.default_rng(1).normal(0, 20, (256, *SPEC.shape)).astype(np.float32)
    (estimates,) = run_tflite(path, datasets, "builtin")
    assert np.any(estimates <= 0), "the file is meant to be wrong"
    proof = prove(path)
    assert not proof.passed and proof.failures
    assert np.all(estimates >= np.array(proof.lower)) and np.all(estimates <= np.array(proof.upper))


@pytest.mark.parametrize("head", [_plain, simple_head])
def test_dynamic_range_weights_are_judged_by_their_head(head: Head, quantize: Callable[..., Path]) -> None:
    """Weights in int8, activations in float32: the strictly positive softplus stays what it is."""
    proof = prove(quantize("dynamic", head))
    assert proof.passed == (head is simple_head), proof.failures


@pytest.mark.parametrize("head", [_plain, simple_head])
def test_static_quantization_of_onnx_runtime_is_judged_by_the_head(head: Head, network: Any, tmp_path: Path) -> None:
    """A trunk in int8: refused before a plain softplus, proved before a positive one that is left in float32."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    from export.graph import build_function
    from export.onnx import to_onnx

    datasets = np.random.default_rng(1).normal(0, 20, (256, *SPEC.shape)).astype(np.float32)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"datasets": datasets}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.graph.positive_softplus", head)
        function = build_function(network, 64.0)
    source, path = tmp_path / "float.onnx", tmp_path / "model.onnx"
    source.write_bytes(to_onnx(function, "float32"))
    nodes = onnx.load(source).graph.node
    last = next(place for place, node in enumerate(nodes) if node.op_type == "MatMul")
    kept = [] if head is _plain else [node.name for node in nodes][last + 2 :]
    int8 = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(source, path, Reader(), per_channel=True, nodes_to_exclude=kept, **int8)
    proof = prove(path)
    assert proof.passed == (head is simple_head), proof.failures
    (estimates,) = run_onnx(path, datasets, "optimized")
    assert np.all(estimates >= np.array(proof.lower)) and np.all(estimates <= np.array(proof.upper))


def test_a_file_of_another_format_is_refused_with_one_message(build: Callable[..., Path], tmp_path: Path) -> None:
    swapped = tmp_path / "model.onnx"
    swapped.write_bytes(build(simple_head, "tflite").read_bytes())
    with pytest.raises(ModelError, match="not an ONNX file"):
        prove(swapped)
    swapped = tmp_path / "model.tflite"
    swapped.write_bytes(build(simple_head, "onnx").read_bytes())
    with pytest.raises(ModelError, match="not a TFLite file"):
        prove(swapped)
