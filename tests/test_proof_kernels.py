"""What proofs assume of kernels, checked in each runtime over float32 arguments of every size and sign.

`make prove-exhaustive` does the same over all of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prove_exhaustive import CODES, RUNTIMES, WIDTH, Result, floats, judge_head, judge_kernel, runner, write_kernel
from test_head import convert_alone

from export.head import positive_softplus
from toolkit.proof import prove

EVERY = 4001  # a prime: the low bits of the patterns take all values
# Largest relative error measured, in the rule's domain and where the result is normal; asserted is what the proofs
# grant, 3.1e-5 for each of these. The others err by less than an absolute 1.5e-7, of 1.5e-5 granted.
MEASURED = {"exp": 3.9e-6, "pow": 6e-8, "sqrt": 1.4e-7, "tanh": 1.2e-5, "floor": 0.0}


@pytest.fixture(scope="module")
def arguments() -> np.ndarray:
    """A million floats over all exponents, and half a million where most functions bend."""
    bend = np.linspace(-110, 110, 128 * WIDTH).astype(np.float32)
    return np.concatenate([floats(0, 1 << 32, EVERY), bend])


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    for kind in CODES:
        write_kernel(kind, folder)
    return folder


@pytest.mark.parametrize("runtime", [runtime for runtime in RUNTIMES if runtime != "onnx-unoptimized"])
@pytest.mark.parametrize("kind", CODES)
def test_a_kernel_stays_within_what_is_granted(kind: str, runtime: str, kernels: Path, arguments: np.ndarray) -> None:
    format, kernel = runtime.split("-")
    if kind == "softplus" and format == "tflite":
        return  # TFLite has none
    result = judge_kernel(kind, arguments, runner(kernels / f"{kind}.{format}", kernel)(arguments))
    assert result.floats > 100_000
    assert result.outside == 0, f"{result.outside} results outside, as at {result.example!r}"
    assert result.worst <= 2 * MEASURED.get(kind, np.inf)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_head_alone_stays_within_its_proved_bounds(runtime: str, tmp_path: Path, arguments: np.ndarray) -> None:
    convert_alone(positive_softplus, WIDTH, tmp_path)
    format, kernel = runtime.split("-")
    path = tmp_path / f"head.{format}"
    proof = prove(path)
    assert proof.passed, proof.failures
    result = judge_head(arguments, runner(path, kernel)(arguments), proof.lower[0], proof.upper[0])
    assert result.outside == 0, f"{result.outside} results outside, as at {result.example!r}"
    # The bound is not only right but close: the smallest output measured is 1.0006 times it.
    assert proof.lower[0] <= result.smallest <= 1.0012 * proof.lower[0]


def test_the_checks_above_can_fail(arguments: np.ndarray) -> None:
    true = np.exp(np.minimum(arguments, 88).astype(np.float64)).astype(np.float32)
    assert judge_kernel("exp", arguments, true).outside == 0
    assert judge_kernel("exp", arguments, true * np.float32(1 + 2**-14)).outside > 100_000
    assert judge_kernel("exp", arguments, np.where(arguments < -50, np.float32(0), true)).outside > 50_000
    nan = np.full_like(true, np.nan)
    assert judge_kernel("exp", arguments, nan).outside == judge_kernel("exp", arguments, true).floats
    assert judge_head(arguments, nan, 1e-38, 1e38).outside == len(arguments)


def test_chunks_cover_every_bit_pattern_once() -> None:
    whole = floats(0, 1 << 20)
    parts = [floats(first, 1 << 18) for first in range(0, 1 << 20, 1 << 18)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert len(np.unique(whole)) == 1 << 20
    assert Result(1, 0, 2.0, 0.5) + Result(2, 1, 1.0, 0.25, 7.0) == Result(3, 1, 1.0, 0.5, 7.0)
