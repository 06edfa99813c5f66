"""The C host of samples/microcontroller, compiled with the PC's own compiler, against the Python host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from integer_files import FACTS, PARAMETERS, ROWS, integer_file

from toolkit.integer import Host, host_of

SOURCES = Path(__file__).resolve().parent.parent / "samples" / "microcontroller"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`host`, built for the file of tests/integer_files.py."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("microcontroller")
    file = integer_file(folder / "model.integer.tflite")
    script = [sys.executable, SOURCES / "model_header.py", file]
    (folder / "model.h").write_text(subprocess.run(script, capture_output=True, text=True, check=True).stdout)
    # -ffp-contract=fast: where a processor can fuse a product and a sum, compilers do.
    strict = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic", "-O2", "-ffp-contract=fast"]
    files = [SOURCES / "host.c", SOURCES / "main.c"]
    command = [compiler, *strict, f"-I{folder}", *files, "-lm", "-o", folder / "host"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / "host"


@pytest.fixture
def host() -> Host:
    found = host_of(Path("model.integer.tflite"), FACTS)
    assert found is not None
    return found


def test_codes_in_c_are_those_in_python_bit_for_bit(program: Path, host: Host) -> None:
    rng = np.random.default_rng(0)
    datasets = rng.normal(4, 5, (500, ROWS, 2)).astype(np.float32)
    datasets[0] = [[np.inf, -np.inf], [3e38, 1e-45]] * (ROWS // 2)
    halves = np.arange(-2, 4100, dtype=np.float64) / 819 - 0.5  # between two counts, or as near as float32 has
    datasets[1:101, :, 0] = halves[:1200].reshape(100, ROWS).astype(np.float32)
    done = subprocess.run([program, "codes"], input=datasets.tobytes(), capture_output=True, check=True)
    codes = np.frombuffer(done.stdout, np.int8).reshape(500, ROWS, 3)
    assert np.array_equal(codes, host.codes(datasets))


def test_estimates_in_c_are_those_in_python_for_every_code(program: Path, host: Host) -> None:
    codes = np.repeat(np.arange(-128, 128, dtype=np.int8)[:, np.newaxis], PARAMETERS, axis=1)
    done = subprocess.run([program, "estimates"], input=codes.tobytes(), capture_output=True, check=True, text=False)
    estimates = np.array([line.split() for line in done.stdout.decode().splitlines()], np.float32)
    assert estimates.shape == (256, PARAMETERS) and np.all(estimates > 0)
    # Measured: 2 ulp; the logit itself is off by half of one.
    ulp = np.abs(estimates.view(np.int32) - host.table().view(np.int32))
    assert ulp.max() <= 4


def test_a_dataset_with_nan_is_refused_in_c(program: Path) -> None:
    dataset = np.zeros((ROWS, 2), np.float32)
    dataset[-1, -1] = np.nan
    done = subprocess.run([program, "codes"], input=dataset.tobytes(), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"a dataset holds NaN\n")


def test_header_refuses_a_file_without_a_host_side(tmp_path: Path) -> None:
    file = integer_file(tmp_path / "model.tflite", facts=None)
    done = subprocess.run([sys.executable, SOURCES / "model_header.py", file], capture_output=True, text=True)
    assert done.returncode == 1 and "not an integer-only file. Export one" in done.stderr


def test_host_is_about_twenty_lines_of_c_without_a_heap() -> None:
    lines = [line for line in (SOURCES / "host.c").read_text().splitlines() if line.strip(" {}")]
    assert len(lines) <= 25
    assert not any(word in line for line in lines for word in ("malloc", "double", "printf"))
