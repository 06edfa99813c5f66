"""The strictly positive softplus on its own, converted to both formats, in every runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.head import positive_softplus
from export.onnx import to_onnx
from export.tflite import to_tflite
from toolkit.runtime import load
from toolkit.spec import INPUT_NAME, OUTPUT_NAME, SMALLEST_NORMAL_FLOAT32

Floats = NDArray[np.float32]

LOGITS_AT_ONCE = 512  # a multiple of no vector width but many, so that every kernel's main loop runs
ODD = 7  # logits in a call that has remainders only
RUNTIMES = (
    "tflite-xnnpack",
    "tflite-builtin",
    "onnx-optimized",
    "onnx-unoptimized",
    "onnx-openvino",
    "tflite-openvino",
)
# Largest error measured, in ulp of the true value, for z >= -86: XNNPACK 2.74, builtin 2.40, ONNX Runtime 2.58,
# OpenVINO 3.39. The bound is not twice that but the promise.
PROMISED_ULP = 4.0
ACCURATE_FROM = -86.0
SOAK_STRIDE = 43
SOAK_CHUNK = LOGITS_AT_ONCE << 12


def convert_alone(activation: Callable[[Any], Any], width: int, directory: Path) -> None:
    """Write head.tflite and head.onnx: float32 (batch, 1, width) -> (batch, width)."""
    import tensorflow as tf

    def estimates(datasets: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: activation(tf.reshape(datasets, (-1, width)))}

    signature = tf.TensorSpec((None, 1, width), tf.float32, name=INPUT_NAME)
    function = tf.function(estimates, input_signature=[signature], autograph=False).get_concrete_function()
    (directory / "head.tflite").write_bytes(to_tflite(function, "float32"))
    (directory / "head.onnx").write_bytes(to_onnx(function, "float32"))


def load_alone(directory: Path, runtime: str, width: int) -> Callable[[Floats], Floats]:
    """float32 (n,) -> float32 (n,), n a multiple of `width`."""
    format, kernels = runtime.split("-")
    path = directory / f"head.{format}"
    if kernels == "openvino":
        import openvino

        core = openvino.Core()
        compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda logits: np.array(compiled(logits.reshape(-1, 1, width))[0]).reshape(-1)
    predict = load(path, kernels=kernels)
    return lambda logits: predict(logits.reshape(-1, 1, width)).reshape(-1)


def check(estimates: Floats, logits: Floats, truth: NDArray[np.float64]) -> None:
    assert estimates.dtype == np.float32
    assert np.all(np.isfinite(estimates))
    assert np.all(estimates >= SMALLEST_NORMAL_FLOAT32), f"smallest output {estimates.min()}"
    accurate = logits >= ACCURATE_FROM
    if np.any(accurate):
        ulp = np.ldexp(1.0, np.frexp(truth[accurate])[1] - 24)  # float32 has 24 bits
        error = np.abs(estimates[accurate].astype(np.float64) - truth[accurate]) / ulp
        worst = int(np.argmax(error))
        assert error[worst] <= PROMISED_ULP, f"{error[worst]:.2f} ulp at {logits[accurate][worst]!r}"


@pytest.fixture(scope="module")
def logits() -> Floats:
    """Every finite bfloat16, a million from [-110, 110], the largest numbers, and the ends of what is promised."""
    patterns = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    patterns = patterns[np.isfinite(patterns)]
    random = np.random.default_rng(1).uniform(-110, 110, 1_000_000).astype(np.float32)
    ends = np.array([3e38, -3e38, np.finfo(np.float32).max, np.finfo(np.float32).min, -86, 1e-45, -1e-45], np.float32)
    every = np.concatenate([patterns, ends, random])
    return every[: len(every) // LOGITS_AT_ONCE * LOGITS_AT_ONCE]


@pytest.fixture(scope="module")
def truth(logits: Floats) -> NDArray[np.float64]:
    """Computed before any runtime has run: some set the thread's floating-point mode to flush subnormals."""
    return np.logaddexp(0.0, logits.astype(np.float64))


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, truth: NDArray[np.float64]) -> Path:
    directory = tmp_path_factory.mktemp("head")
    convert_alone(positive_softplus, LOGITS_AT_ONCE, directory)
    return directory


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_positive_softplus_is_finite_positive_and_accurate(
    runtime: str, head: Path, logits: Floats, truth: NDArray[np.float64]
) -> None:
    check(load_alone(head, runtime, LOGITS_AT_ONCE)(logits), logits, truth)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_positive_softplus_stays_at_its_floor_for_every_logit_below(runtime: str, head: Path) -> None:
    below = -np.geomspace(86.01, 3.4e38, LOGITS_AT_ONCE).astype(np.float32)
    estimates = load_alone(head, runtime, LOGITS_AT_ONCE)(below)
    # exp(-86) = 4.4738e-38; measured equal to it within 1e-6 in every runtime.
    np.testing.assert_allclose(estimates, np.exp(-86.0), rtol=2e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_positive_softplus_gives_nan_for_nan(runtime: str, head: Path) -> None:
    mixed = np.where(np.arange(LOGITS_AT_ONCE) % 2, np.float32(np.nan), np.float32(-3))
    estimates = load_alone(head, runtime, LOGITS_AT_ONCE)(mixed)
    assert np.array_equal(np.isnan(estimates), np.isnan(mixed))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_positive_softplus_is_accurate_in_the_remainder_of_a_vector_loop(
    runtime: str, tmp_path: Path, truth: NDArray[np.float64]
) -> None:
    convert_alone(positive_softplus, ODD, tmp_path)
    few = np.linspace(-86, 86, ODD * 33).astype(np.float32)
    expected = np.logaddexp(0.0, few.astype(np.float64))
    # 4 ulp are 4.8e-7 at most.
    np.testing.assert_allclose(load_alone(tmp_path, runtime, ODD)(few), expected, rtol=4.8e-7)


@pytest.mark.soak
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_positive_softplus_holds_for_a_hundred_million_floats(runtime: str, head: Path) -> None:
    """Every 43rd of all bit patterns, 100 million, evenly over every exponent; up to half a minute for each runtime."""
    run = load_alone(head, runtime, LOGITS_AT_ONCE)
    for begin in range(0, 1 << 32, SOAK_STRIDE * SOAK_CHUNK):
        patterns = begin + SOAK_STRIDE * np.arange(SOAK_CHUNK, dtype=np.int64)
        logits = (patterns % (1 << 32)).astype(np.uint32).view(np.float32)
        logits = np.where(np.isfinite(logits), logits, np.float32(0))
        check(run(logits), logits, np.logaddexp(0.0, logits.astype(np.float64)))


def test_the_checks_above_can_fail(tmp_path: Path, logits: Floats, truth: NDArray[np.float64]) -> None:
    """The softplus that TensorFlow brings is 0 and infinite in the same runtimes."""
    import tensorflow as tf

    convert_alone(tf.math.softplus, LOGITS_AT_ONCE, tmp_path)
    lite = load_alone(tmp_path, "tflite-xnnpack", LOGITS_AT_ONCE)(logits)
    ort = load_alone(tmp_path, "onnx-optimized", LOGITS_AT_ONCE)(logits)
    assert not np.all(np.isfinite(lite))
    assert np.all(lite[(logits < -17) & (logits > -100)] == 0)
    assert np.all(ort[logits < -105] == 0)
