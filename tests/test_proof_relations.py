"""Differences of tensors that share an operand: what no interval sees, and what must not be seen where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_files import OnnxFile, TfliteFile, run_onnx, run_tflite

from toolkit.proof import prove

TINY = 2.0**-126


def through(make: Callable[[OnnxFile, str], str], folder: Path) -> tuple[Path, float, float]:
    """The bounds of a program of one number between -8 and 8."""
    file = OnnxFile(["batch", 1])
    limited = file.add("Clip", [file.input, file.constant(-8.0), file.constant(8.0)])
    path = file.save(folder / "model.onnx", [make(file, limited)], 1)
    proof = prove(path)
    return path, proof.lower[0], proof.upper[0]


def test_z_less_the_smaller_of_z_and_0_is_never_negative(tmp_path: Path) -> None:
    path, lower, upper = through(
        lambda file, z: file.add("Sub", [z, file.add("Min", [z, file.constant(0.0)])]), tmp_path
    )
    assert (lower, upper) == (-TINY, 8)  # a subnormal z may be flushed by one of two kernels
    (results,) = run_onnx(path, np.linspace(-9, 9, 1001, dtype=np.float32)[:, None], "optimized")
    assert results.min() >= 0


@pytest.mark.parametrize(
    ("make", "upper"),
    [
        (lambda file, x: file.add("Sub", [file.add("Max", [x, file.constant(1.0)]), x]), 9.0),
        (lambda file, x: file.add("Sub", [file.add("Relu", [x]), x]), 8.0),
        (lambda file, x: file.add("Sub", [file.add("Abs", [x]), x]), 16.0),
        (lambda file, x: file.add("Add", [x, file.add("Abs", [x])]), 16.0),
        (lambda file, x: file.add("Add", [file.add("Abs", [x]), x]), 16.0),
        (lambda file, x: file.add("Mul", [x, x]), 64.0),
        (lambda file, x: file.add("Sub", [x, x]), 0.0),
    ],
)
def test_relations_of_a_tensor_with_itself_are_seen(
    make: Callable[[OnnxFile, str], str], upper: float, tmp_path: Path
) -> None:
    _, low, high = through(make, tmp_path)
    assert low == pytest.approx(0, abs=TINY)
    assert high == pytest.approx(upper, rel=1e-6, abs=TINY)


@pytest.mark.parametrize(
    "make",
    [
        lambda file, x: file.add("Sub", [file.add("Min", [x, file.constant(0.0)]), x]),  # the wrong way round
        lambda file, x: file.add("Sub", [x, file.add("Max", [x, file.constant(0.0)])]),
        lambda file, x: file.add("Add", [x, file.add("Min", [x, file.constant(0.0)])]),
        lambda file, x: file.add("Sub", [x, file.add("Min", [file.add("Identity", [x]), file.constant(0.0)])]),
        lambda file, x: file.add("Sub", [x, file.add("Abs", [x])]),
    ],
)
def test_what_only_looks_like_a_relation_is_not_taken_for_one(
    make: Callable[[OnnxFile, str], str], tmp_path: Path
) -> None:
    _, low, _ = through(make, tmp_path)
    assert low < -0.01


def test_veltkamps_splitting_gives_back_what_it_took(tmp_path: Path) -> None:
    """c - (c - q) with c = 4097 q keeps the leading 12 bits of q: within 2^-11. Plain intervals lose a quarter."""

    def split(file: OnnxFile, x: str) -> str:
        q = file.add("Exp", [x])
        c = file.add("Mul", [q, file.constant(4097.0)])
        return file.add("Sub", [c, file.add("Sub", [c, q])])

    _, lower, upper = through(split, tmp_path)
    assert np.exp(-8) * (1 - 2**-10) < lower < np.exp(-8) < np.exp(8) < upper < np.exp(8) * (1 + 2**-10)


def test_a_fused_activation_between_hides_the_relation(tmp_path: Path) -> None:
    """x - relu(x - y) is not y: with x = 0 and y = 1 it is 0."""
    file = TfliteFile((None, 1))
    limits = [file.constant(-8.0), file.constant(8.0)]
    x = file.add("MAXIMUM", [file.input, limits[0]], file.tensor((None, 1)), kind="MaximumMinimumOptions")
    x = file.add("MINIMUM", [x, limits[1]], file.tensor((None, 1)), kind="MaximumMinimumOptions")
    one = file.constant([[1.0]])
    options = {"kind": "SubOptions", "fusedActivationFunction": 1}
    positive = file.add("SUB", [x, one], file.tensor((None, 1)), **options)
    path = file.save(
        tmp_path / "model.tflite", [file.add("SUB", [x, positive], file.tensor((None, 1)), kind="SubOptions")]
    )
    (results,) = run_tflite(path, np.linspace(-8, 8, 101, dtype=np.float32)[:, None], "builtin")
    proof = prove(path)
    assert proof.lower[0] <= results.min() == -8
    assert proof.upper[0] >= results.max()


def test_a_range_reduction_is_followed_through_its_pieces(tmp_path: Path) -> None:
    """r = a - n log(2) with n = floor(a / log(2) + 1/2): |r| <= .3466, where plain intervals say [-8, 8 + .7]."""

    def remainder(file: OnnxFile, x: str) -> str:
        a = file.add("Abs", [x])
        n = file.add("Floor", [file.add("Add", [file.add("Mul", [a, file.constant(1.442695)]), file.constant(0.5)])])
        return file.add("Sub", [a, file.add("Mul", [n, file.constant(0.6931472)])])

    _, lower, upper = through(remainder, tmp_path)
    # A piece is 1/64 wide, and where n jumps inside one, all of it is taken with either n.
    assert -0.3466 - 1 / 60 < lower <= -0.3465 and 0.3465 <= upper < 0.3466 + 1 / 60
