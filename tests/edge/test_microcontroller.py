"""samples/microcontroller: the integer-only file in plain C on Cortex-M4 and M7, to the last bit of every code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.edge_inputs import MODEL, ROOT, entries, require, shuffled_datasets, truth_of
from toolkit.datasets import sort_rows
from toolkit.integer import host_of
from toolkit.manifest import read_manifest
from toolkit.metadata import read_metadata
from toolkit.targets.cortex_m import flash_of, run_on_board, why_no_compiler

SOURCES = ROOT / "samples" / "microcontroller"
FILE = "model.integer.tflite"
PROCESSORS = {"Cortex-M4": "m4", "Cortex-M7": "m7"}
SECONDS = 120.0
BEYOND_FILE = 12_000  # bytes of flash: code, tables, the C library's exp and log; measured 8,800
STACK = 600  # bytes; measured 264


@dataclass(frozen=True)
class Given:
    """What a processor gave for shuffled_datasets(), and its program."""

    outputs: NDArray[np.int8]
    estimates: NDArray[np.float32]
    stack: int
    program: Path


@pytest.fixture(scope="module", params=PROCESSORS)
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Given:
    require(why_no_compiler() or ("" if shutil.which("make") else "make is not installed."))
    folder = tmp_path_factory.mktemp(PROCESSORS[request.param])
    model = shutil.copytree(MODEL, folder / "model")
    command = ["make", "-C", SOURCES, PROCESSORS[request.param], f"MODEL={model}", f"BUILD={folder / 'build'}"]
    built = subprocess.run([*command, f"TOOLKIT={sys.executable} -m toolkit"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    program = folder / "build" / f"firmware-{PROCESSORS[request.param]}.elf"
    content = shuffled_datasets().tobytes()
    found = run_on_board(program, request.param, {"datasets": content}, ["outputs", "estimates", "stack"], SECONDS)
    parameters = len(read_manifest(MODEL).spec.parameters)
    return Given(
        np.frombuffer(found["outputs"], np.int8).reshape(-1, parameters),
        np.frombuffer(found["estimates"], "<f4").astype(np.float32).reshape(-1, parameters),
        int(np.frombuffer(found["stack"], "<u4")[0]),
        program,
    )


def arranged() -> NDArray[np.float32]:
    """The datasets as the network is to have them, by NumPy."""
    return sort_rows(shuffled_datasets()) if read_manifest(MODEL).spec.sorted_rows else shuffled_datasets()


def expected() -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The codes that LiteRT's reference kernels give, and the estimates of the Python host."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    host = host_of(MODEL / FILE, read_metadata(MODEL / FILE))
    assert host is not None
    codes = host.codes(arranged())
    reference = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(str(MODEL / FILE), experimental_op_resolver_type=reference)
    (taken,), outputs = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(taken["index"], codes.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], codes)
    interpreter.invoke()
    given = np.concatenate([interpreter.get_tensor(each["index"]) for each in outputs], axis=1)
    return given, host.table()[given.astype(int) + 128, np.arange(given.shape[1])]


def test_codes_on_the_board_are_those_of_the_reference_kernels_bit_for_bit(given: Given) -> None:
    assert given.outputs.shape == (128, given.estimates.shape[1])
    assert np.array_equal(given.outputs, expected()[0])


def test_estimates_on_the_board_are_positive_and_those_of_the_host(given: Given) -> None:
    bounds = np.array(list(entries()[FILE].lower_bound.values()), np.float32)
    assert np.all(given.estimates >= bounds) and np.all(np.isfinite(given.estimates))
    # The board's C library has an exponential and a logarithm of its own: measured 1 unit in the last place.
    ours = expected()[1]
    assert np.abs(given.estimates.view(np.int32) - ours.view(np.int32)).max() <= 4
    real, truth = given.estimates[:64], truth_of(arranged()[:64])
    # Measured: .4 to .6%.
    assert np.median(np.abs(real - truth) / truth) <= 0.01


def test_program_is_the_file_and_little_else_without_a_heap(given: Given) -> None:
    assert flash_of(given.program) <= (MODEL / FILE).stat().st_size + BEYOND_FILE
    assert 0 < given.stack <= STACK
    symbols = subprocess.run(["arm-none-eabi-nm", given.program], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in symbols.splitlines()}
    assert {"network", "host_codes", "host_estimate"} <= names
    assert names.isdisjoint({"malloc", "_malloc_r", "calloc", "free", "_free_r", "sbrk", "_sbrk_r"})
