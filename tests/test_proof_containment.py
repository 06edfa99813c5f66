"""Bounds against what runs: whatever a runtime computes lies inside them, in every kernel set there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import quantized_programs
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from quantized_programs import write_hybrid_tflite, write_quantized_onnx, write_quantized_tflite
from random_programs import COLUMNS, ROWS, Program, extreme_datasets, random_program, write_onnx, write_tflite
from tiny_files import run_onnx, run_tflite

from toolkit.proof import apply, dots, linear, prove, values
from toolkit.proof.intervals import Bounds

DATASETS = 64
SEEDS = st.integers(0, 2**32 - 1)
# The same examples each time; the soak below takes new ones.
QUICK = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(seed=SEEDS)
def test_tflite_results_lie_within_the_proved_bounds(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    path = write_tflite(random_program(rng), tmp_path / "program.tflite")
    check(path, extreme_datasets(rng, DATASETS), ("xnnpack", "builtin"))


@QUICK
@given(seed=SEEDS)
def test_onnx_results_lie_within_the_proved_bounds(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    path = write_onnx(random_program(rng), tmp_path / "program.onnx")
    check(path, extreme_datasets(rng, DATASETS), ("optimized", "unoptimized"))


@QUICK
@given(seed=SEEDS)
@example(seed=163877)  # a MUL that wraps at 16 bits before its fused activation cuts it
@example(seed=83)  # a MUL that wraps, without activation
def test_results_of_integer_kernels_lie_within_the_proved_bounds(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    datasets = ordinary_datasets(rng)
    codes = bool(rng.integers(2))
    path = write_quantized_tflite(rng, tmp_path / "codes.tflite", ends_in_codes=codes)
    check(path, datasets, ("xnnpack", "builtin"))
    check(write_quantized_onnx(rng, tmp_path / "codes.onnx"), datasets, ("optimized", "unoptimized"))


@QUICK
@given(seed=SEEDS)
def test_results_of_float_kernels_with_int8_weights_lie_within_the_proved_bounds(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    path = write_hybrid_tflite(rng, tmp_path / "hybrid.tflite")
    check(path, ordinary_datasets(rng), ("xnnpack", "builtin"))


@pytest.mark.soak
def test_results_of_thousands_of_new_programs_lie_within_the_proved_bounds(tmp_path: Path) -> None:
    """About five minutes."""
    first = int(np.random.default_rng().integers(2**40))
    for seed in range(first, first + 3000):
        rng = np.random.default_rng(seed)
        program = random_program(rng)
        datasets, codes = extreme_datasets(rng, DATASETS), ordinary_datasets(rng)
        for path, run_on, kernels in (
            (write_tflite(program, tmp_path / "program.tflite"), datasets, ("xnnpack", "builtin")),
            (write_onnx(program, tmp_path / "program.onnx"), datasets, ("optimized", "unoptimized")),
            (write_quantized_tflite(rng, tmp_path / "c.tflite", ends_in_codes=False), codes, ("xnnpack", "builtin")),
            (write_quantized_onnx(rng, tmp_path / "codes.onnx"), codes, ("optimized", "unoptimized")),
            (write_hybrid_tflite(rng, tmp_path / "hybrid.tflite"), codes, ("xnnpack", "builtin")),
        ):
            try:
                check(path, run_on, kernels)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, {path.name}: {error}") from error


def ordinary_datasets(rng: np.random.Generator) -> np.ndarray:
    datasets = rng.normal(size=(DATASETS, quantized_programs.ROWS, quantized_programs.COLUMNS))
    datasets *= 10.0 ** rng.uniform(-1, 2, (DATASETS, 1, 1))
    datasets[0], datasets[1], datasets[2] = 3e38, -3e38, 0
    return datasets.astype(np.float32)


def check(path: Path, datasets: np.ndarray, kernels: tuple[str, ...]) -> None:
    """Finite bounds hold; where there are none, nothing is claimed of the file, and the reason is named."""
    proof = prove(path)
    lower, upper = np.array(proof.lower), np.array(proof.upper)
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        assert not proof.passed and proof.failures
        return
    run = run_tflite if path.suffix == ".tflite" else run_onnx
    for one in kernels:
        (estimates,) = run(path, datasets, one)
        inside = (estimates >= lower) & (estimates <= upper)  # NaN is not inside
        assert inside.all(), f"{one}: {estimates[~inside.all(axis=1)][:3]} outside [{lower}, {upper}]"


def test_bounds_of_a_dense_layer_hold_where_they_are_attained(tmp_path: Path) -> None:
    """The corner of the input box at which a sum is largest; random datasets never come close."""
    for seed in range(20):
        check(*attaining(np.random.default_rng(seed), tmp_path), ("xnnpack", "builtin"))


def attaining(rng: np.random.Generator, folder: Path) -> tuple[Path, np.ndarray]:
    """A Dense layer behind a limit, and the datasets that make each of its outputs smallest and largest."""
    limit = float(np.float32(rng.uniform(0.5, 2)))
    weights = rng.normal(size=(ROWS * COLUMNS, 3))
    path = write_tflite(Program(limit, layers=[("dense", weights, rng.normal(size=3))]), folder / "dense.tflite")
    corners = limit * np.sign(weights.T).reshape(3, ROWS, COLUMNS)
    return path, np.concatenate([corners, -corners]).astype(np.float32)


def _break(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if mutant == "sums without rounding":
        monkeypatch.setattr(linear.Dot, "rounded", lambda sums, arithmetic: sums.exact)
    elif mutant == "sums of half the width":
        monkeypatch.setattr(linear.Dot, "rounded", lambda sums, _: Bounds(sums.exact.low / 2, sums.exact.high / 2))
    elif mutant == "elementwise steps without rounding":
        monkeypatch.setattr(apply, "_rounded", lambda exact, rule, dtype: exact)
    else:
        narrow = values.quantized
        monkeypatch.setattr(dots, "quantized", lambda *arguments: narrow(*arguments, step=0.0))


@pytest.mark.parametrize(
    "mutant",
    ["sums without rounding", "sums of half the width", "elementwise steps without rounding", "codes without step"],
)
def test_the_check_above_can_fail(mutant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that are wrong in one place are caught within a hundred programs."""
    _break(mutant, monkeypatch)
    with pytest.raises(AssertionError, match="outside"):
        for seed in range(100):
            rng = np.random.default_rng(seed)
            if "without rounding" in mutant and "sums" in mutant:
                check(*attaining(rng, tmp_path), ("xnnpack",))
            elif "codes" in mutant:
                path = write_quantized_tflite(rng, tmp_path / "program.tflite", ends_in_codes=True)
                check(path, ordinary_datasets(rng), ("builtin",))
            else:
                path = write_tflite(random_program(rng), tmp_path / "program.tflite")
                check(path, extreme_datasets(rng, DATASETS), ("builtin",))
