"""The head in exact terms: its range and its error, proved by Gappa from the assumptions on EXP.

The scripts in tests/gappa hold one step each; Gappa and Sollya come from Debian's packages of these names. Where they
are not installed, what does not need them is still checked: constants, the splitting, the kernels' EXP.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from prove_exhaustive import RUNTIMES, WIDTH, runner, write_kernel

from export import head

FOLDER = Path(__file__).parent / "gappa"
SCRIPTS = sorted(FOLDER.glob("*.gappa"))
SERIES_ERROR = 6.4e-8  # of u * P(u) against log1p(u), as in 4_sum.gappa
EXP_ERROR = 1.8e-7  # of EXP on [-.35, .35], as there
NUMBER = re.compile(r"-?0x[0-9a-f]+(?:\.[0-9a-f]+)?p[-+]?\d+")
needs_gappa = pytest.mark.skipif(shutil.which("gappa") is None, reason="apt-get install gappa")
needs_sollya = pytest.mark.skipif(shutil.which("sollya") is None, reason="apt-get install sollya")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@needs_gappa
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_gappa_proves_a_step_of_the_head(script: Path) -> None:
    done = run("gappa", str(script))
    assert done.returncode == 0, done.stderr


@needs_gappa
@pytest.mark.parametrize(
    ("script", "claim", "stronger"),
    [
        ("1_steps", "n in [0, 124]", "n in [0, 123]"),
        ("2_remainder", "<= 3.2e-8", "<= 3.2e-9"),
        ("3_series", "s in [0.69, 1]", "s in [0.7, 1]"),
        ("4_sum", "y in [4.29e-38", "y in [4.5e-38"),
    ],
)
def test_gappa_does_not_prove_what_is_wrong(script: str, claim: str, stronger: str, tmp_path: Path) -> None:
    text = (FOLDER / f"{script}.gappa").read_text()
    assert claim in text
    changed = tmp_path / "changed.gappa"
    changed.write_text(text.replace(claim, stronger))
    done = run("gappa", str(changed))
    assert done.returncode != 0 and "not satisfied" in done.stderr


@needs_sollya
def test_sollya_bounds_the_series() -> None:
    done = run("sollya", str(FOLDER / "5_series.sollya"))
    assert done.returncode == 0, done.stderr
    assert 6.3e-8 < float(done.stdout.split()[-1]) <= SERIES_ERROR


def test_the_series_is_as_close_as_the_proof_says() -> None:
    """The same on a grid, in float64, where Sollya is not installed."""
    u = np.linspace(1e-6, 1, 1_000_001)
    series = np.polynomial.polynomial.polyval(u, np.float32(head.LOG1P).astype(np.float64))
    assert np.abs(u * series / np.log1p(u) - 1).max() < SERIES_ERROR


def test_the_scripts_hold_the_constants_of_the_head() -> None:
    def numbers(name: str) -> set[float]:
        text = re.sub(r"(?m)^(#|//).*$", "", (FOLDER / name).read_text())
        return {float.fromhex(number) for number in NUMBER.findall(text)}

    def single(*constants: float) -> set[float]:
        return {float(np.float32(constant)) for constant in constants}

    assert head.CUTOFF == 86
    assert numbers("1_steps.gappa") == single(head.LOG2_E)
    assert numbers("2_remainder.gappa") == single(head.LOG2_E, head.LN2_HIGH, head.LN2_LOW, head.LARGEST_R)
    assert numbers("3_series.gappa") == single(head.SMALLEST_U, *head.LOG1P)
    assert numbers("5_series.sollya") == single(*head.LOG1P)


def test_the_series_is_summed_in_the_order_of_the_scripts() -> None:
    """Coefficients as they are written, last first: twice in Gappa's script, rounded and exact."""
    text = re.sub(r"(?m)^#.*$", "", (FOLDER / "3_series.gappa").read_text())
    written = [float.fromhex(number) for number in NUMBER.findall(text)]
    backwards = [float(np.float32(coefficient)) for coefficient in reversed(head.LOG1P)]
    assert written[:-1] == backwards * 2
    assert Counter(written)[float(np.float32(head.SMALLEST_U))] == 1


def test_splitting_a_power_of_two_that_is_a_little_off_gives_the_power_of_two() -> None:
    """c - (c - q) with c = q * 4097 is 1 for every float32 q within 2^-13 of 1; other powers of two only shift it.

    EXP within 2^-15, n * LN2 within 2^-17 of its product, and LN2 within 2^-26 of log(2) put q within 2^-14.
    """
    near = np.arange(np.float32(1 - 2**-13).view(np.int32), np.float32(1 + 2**-13).view(np.int32) + 1, dtype=np.int32)
    q = near.view(np.float32)
    assert len(q) == 3073 and q.min() < 1 < q.max()
    for exponent in (0, -1, -63, -124):
        scaled = np.ldexp(q, exponent)
        c = scaled * np.float32(head.VELTKAMP)
        assert np.all(c - (c - scaled) == np.float32(2.0**exponent))
    n = np.arange(125, dtype=np.float32)
    argument = (n * -np.float32(head.LN2)).astype(np.float64)
    assert np.abs(np.exp(argument + n * np.log(2)) - 1).max() + 2**-15 < 2**-14


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_exp_of_a_remainder_is_as_close_as_the_proof_says(runtime: str, tmp_path: Path) -> None:
    format, kernels = runtime.split("-")
    write_kernel("exp", tmp_path)
    r = np.linspace(-0.35, 0.35, 256 * WIDTH).astype(np.float32)
    true = np.exp(r.astype(np.float64))
    assert np.abs(runner(tmp_path / f"exp.{format}", kernels)(r) / true - 1).max() <= EXP_ERROR


def test_numpy_follows_the_proof(tmp_path: Path) -> None:
    """The steps of the head in NumPy's float32: remainder and error as claimed by the scripts."""
    z = np.linspace(-86, 86, 1_000_001).astype(np.float32)
    a = np.abs(z)
    n = np.floor(a * np.float32(head.LOG2_E) + np.float32(0.5))
    r = (a - n * np.float32(head.LN2_HIGH)) - n * np.float32(head.LN2_LOW)
    assert n.min() == 0 and n.max() == 124
    assert np.abs(r).max() <= np.float32(head.LARGEST_R)
    assert np.abs(r - (a.astype(np.float64) - n * np.log(2))).max() <= 3.2e-8
    u = np.exp(-r) * np.ldexp(np.float32(1), -n.astype(np.int32))
    s = np.full_like(u, head.LOG1P[-1])
    for coefficient in head.LOG1P[-2::-1]:
        s = s * u + np.float32(coefficient)
    y = (z - np.minimum(z, np.float32(0))) + u * s
    assert y.dtype == np.float32
    assert np.abs(y / np.logaddexp(0.0, z.astype(np.float64)) - 1).max() <= 5.6e-7
    assert y.min() >= 4.29e-38
