"""The C of samples/microcontroller, compiled with the PC's own compiler, against LiteRT and the Python host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_inputs import shuffled_datasets
from integer_files import FACTS, PARAMETERS, ROWS, integer_file

from export.integer import to_integer
from export.network import (
    Activation,
    Conv1D,
    Dense,
    GlobalPooling1D,
    Layer,
    Network,
    Normalization,
    Pooling1D,
    Reshape,
    ZeroPadding1D,
)
from toolkit.c_header import render_header
from toolkit.datasets import sort_rows
from toolkit.errors import ModelError
from toolkit.files import sha256_of
from toolkit.integer import Host, host_of
from toolkit.integer_steps import read_steps
from toolkit.manifest import ModelFile, read_manifest
from toolkit.metadata import read_metadata
from toolkit.runtime import load
from toolkit.spec import Spec

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "samples" / "microcontroller"
SAMPLE = ROOT / "samples" / "model"
SPEC = Spec(ROWS, ("rt", "correct"), ("v", "a", "t0"))
# -ffp-contract=fast: where a processor can fuse a product and a sum, compilers do.
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic", "-O2", "-ffp-contract=fast"]
WATCHED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

Program = Callable[[str, bytes], bytes]


def build(file: Path, spec: Spec, folder: Path) -> Program:
    """`estimator PART < bytes`, built for a file: what it prints. It ends at the first access beyond an array."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc here")
    bounds = dict.fromkeys(spec.parameters, 1e-38)
    entry = ModelFile(file.name, "tflite", "integer", file.stat().st_size, sha256_of(file), bounds, {})
    (folder / "model.integer.h").write_text(render_header(file, spec, entry))
    files = [SOURCES / name for name in ("host.c", "network.c", "estimator.c", "main.c")]
    command = [compiler, *STRICT, *WATCHED, f"-I{folder}", *files, "-lm", "-o", folder / "estimator"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr

    def run(part: str, content: bytes) -> bytes:
        done = subprocess.run([folder / "estimator", *part.split()], input=content, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr.decode())
        return done.stdout

    return run


def codes_of(path: Path, codes: np.ndarray) -> np.ndarray:
    """int8 (datasets, parameters): what LiteRT's reference kernels give for the codes of datasets."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    (taken,), given = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(taken["index"], codes.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], codes)
    interpreter.invoke()
    return np.concatenate([interpreter.get_tensor(each["index"]) for each in given], axis=1)


def numbers(printed: bytes) -> np.ndarray:
    return np.array([line.split() for line in printed.decode().splitlines()], np.float32)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Built for the file of tests/integer_files.py."""
    folder = tmp_path_factory.mktemp("microcontroller")
    return build(integer_file(folder / "model.integer.tflite"), SPEC, folder)


@pytest.fixture
def host() -> Host:
    found = host_of(Path("model.integer.tflite"), FACTS)
    assert found is not None
    return found


def test_codes_in_c_are_those_in_python_bit_for_bit(program: Program, host: Host) -> None:
    rng = np.random.default_rng(0)
    datasets = rng.normal(4, 5, (500, ROWS, 2)).astype(np.float32)
    datasets[0] = [[np.inf, -np.inf], [3e38, 1e-45]] * (ROWS // 2)
    halves = np.arange(-2, 4100, dtype=np.float64) / 819 - 0.5  # between two counts, or as near as float32 has
    datasets[1:101, :, 0] = halves[:1200].reshape(100, ROWS).astype(np.float32)
    codes = np.frombuffer(program("codes", datasets.tobytes()), np.int8).reshape(500, ROWS, 3)
    assert np.array_equal(codes, host.codes(datasets))


def test_rows_in_c_are_sorted_as_in_python_where_the_model_says_so(tmp_path: Path, host: Host) -> None:
    """Few values, so that many rows are alike in the first column, among them both zeros and both infinities."""
    run = build(integer_file(tmp_path / "model.integer.tflite"), replace(SPEC, sorted_rows=True), tmp_path)
    rng = np.random.default_rng(3)
    values = np.array([-np.inf, -2.0, -0.0, 0.0, 1e-45, 0.3, 0.30001, 7.0, np.inf], np.float32)
    datasets = rng.choice(values, (500, ROWS, 2))
    datasets[250:, :, 1] = rng.uniform(0, 1, (250, ROWS))
    codes = np.frombuffer(run("codes", datasets.tobytes()), np.int8).reshape(500, ROWS, 3)
    assert np.array_equal(codes, host.codes(sort_rows(datasets)))


def test_estimates_in_c_are_those_in_python_for_every_code(program: Program, host: Host) -> None:
    codes = np.repeat(np.arange(-128, 128, dtype=np.int8)[:, np.newaxis], PARAMETERS, axis=1)
    estimates = numbers(program("estimates", codes.tobytes()))
    assert estimates.shape == (256, PARAMETERS) and np.all(estimates > 0)
    # Measured: 2 ulp; the logit itself is off by half of one.
    ulp = np.abs(estimates.view(np.int32) - host.table().view(np.int32))
    assert ulp.max() <= 4


def test_a_dataset_with_nan_is_refused_in_c(program: Program) -> None:
    dataset = np.zeros((ROWS, 2), np.float32)
    dataset[-1, -1] = np.nan
    for part in ("codes", ""):
        with pytest.raises(RuntimeError, match="a dataset holds NaN\n"):
            program(part, dataset.tobytes())


def test_sample_network_in_c_gives_the_codes_of_the_reference_kernels(tmp_path: Path) -> None:
    """64 real and 64 extreme datasets, rows in any order; from datasets to estimates, too."""
    path, spec = SAMPLE / "model.integer.tflite", read_manifest(SAMPLE).spec
    run = build(path, spec, tmp_path)
    datasets = shuffled_datasets()
    arranged = sort_rows(datasets) if spec.sorted_rows else datasets
    host = host_of(path, read_metadata(path))
    assert host is not None and len(datasets) == 128
    codes = host.codes(arranged)
    given = np.frombuffer(run("network", codes.tobytes()), np.int8).reshape(128, -1)
    assert np.array_equal(given, codes_of(path, codes))
    assert all(len(np.unique(column)) > 30 for column in given.T)  # not all cut off at an end
    estimates, ours = numbers(run("", datasets.tobytes())), load(path, kernels="reference")(arranged)
    assert np.abs(estimates.view(np.int32) - ours.view(np.int32)).max() <= 4  # of the softplus, as above


def test_makefile_builds_a_program_that_prints_estimates_of_the_sample_model(tmp_path: Path) -> None:
    if not (shutil.which("make") and shutil.which("cc")):
        pytest.skip("no make or no C compiler here")
    model, built = shutil.copytree(SAMPLE, tmp_path / "model"), tmp_path / "build"
    command = ["make", "-C", SOURCES, f"MODEL={model}", f"BUILD={built}", f"TOOLKIT={sys.executable} -m toolkit"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    datasets = shuffled_datasets()[:34]
    printed = subprocess.run([built / "estimator"], input=datasets.tobytes(), capture_output=True, check=True).stdout
    arranged = sort_rows(datasets) if read_manifest(SAMPLE).spec.sorted_rows else datasets
    ours = load(SAMPLE / "model.integer.tflite", kernels="reference")(arranged)
    np.testing.assert_allclose(numbers(printed), ours, rtol=5e-7)  # 4 units in the last place, as above


# Right shifts from 2 to 31, none, left shifts; weights so small that the multiplier is 0.
@pytest.mark.parametrize("scales", [(1e-3, 3e-3, 0.01, 0.1), (0.2, 0.3, 1.5, 700.0), (1e-8, 1e-10, 1e-12, 1e-3)])
def test_scaling_in_c_is_that_of_the_reference_kernels(scales: Sequence[float], tmp_path: Path) -> None:
    path = integer_file(tmp_path / "model.integer.tflite", scales=scales, seed=7)
    codes = np.random.default_rng(2).integers(-128, 128, (2000, ROWS, 3)).astype(np.int8)
    given = build(path, SPEC, tmp_path)("network", codes.tobytes())
    assert np.array_equal(np.frombuffer(given, np.int8).reshape(2000, PARAMETERS), codes_of(path, codes))


def varied(flat: bool) -> Network:
    """Every kind of layer that integer-only files hold, in odd sizes, each kind of padding, strides and dilation."""
    rng = np.random.default_rng(1)

    def weights(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)

    def conv(width: int, channels: int, filters: int, *geometry: Any) -> Conv1D:
        return Conv1D(weights(width, channels, filters), weights(filters), *geometry)

    relu = Activation("relu")
    end: list[Layer] = [Pooling1D("max", 2, 1, "valid"), Reshape((5 * 7,))] if flat else [GlobalPooling1D("max", False)]
    return Network(
        (30, 2),
        3,
        (
            Normalization(np.array([[1.4, 0.7]], np.float32), np.array([[1.0, 0.2]], np.float32), 1e-7),
            conv(4, 2, 7, 1, "valid", 1),
            Activation("relu6"),
            Pooling1D("max", 3, 2, "same"),
            conv(3, 7, 9, 1, "causal", 2),
            relu,
            ZeroPadding1D(1, 2),
            conv(3, 9, 7, 3, "same", 1),
            relu,
            *end,
            Dense(weights(35 if flat else 7, 6), weights(6)),
            relu,
            Dense(weights(6, 3), np.array([0.5, -1.0, -3.0], np.float32)),
        ),
    )


@pytest.mark.parametrize("flat", [True, False])
def test_every_kind_of_layer_in_c_gives_the_codes_of_the_reference_kernels(flat: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    datasets = np.stack([rng.gamma(2.0, 0.7, (500, 30)), rng.integers(0, 2, (500, 30))], axis=-1).astype(np.float32)
    content, facts = to_integer(varied(flat), ("a", "b", "c"), datasets)
    path = tmp_path / "model.integer.tflite"
    path.write_bytes(content)
    host = host_of(path, facts)
    assert host is not None and {step.kind for step in read_steps(path).steps} == {"CONV", "POOL", "PAD"}
    codes = np.concatenate([host.codes(datasets), rng.integers(-128, 128, (500, 30, host.channels), np.int8)])
    run = build(path, Spec(30, ("x", "y"), ("a", "b", "c")), tmp_path)
    given = np.frombuffer(run("network", codes.tobytes()), np.int8).reshape(1000, 3)
    assert np.array_equal(given, codes_of(path, codes))


def test_steps_of_a_float_operation_inside_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.integer\.tflite: holds DEQUANTIZE, an operation without steps in C"):
        read_steps(integer_file(tmp_path / "model.integer.tflite", float_inside=True))


def test_a_network_of_a_few_lines_of_c_has_no_heap_and_no_double() -> None:
    for name, longest in {"host.c": 60, "network.c": 100, "estimator.c": 20}.items():
        lines = [line for line in (SOURCES / name).read_text().splitlines() if line.strip(" {}")]
        assert len(lines) <= longest
        assert not any(word in line for line in lines for word in ("malloc", "alloca(", "double", "printf"))
