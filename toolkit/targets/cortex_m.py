"""Microcontrollers: ONNX files as C, compiled for Cortex-M7 and Cortex-M4 and run under QEMU, to the last instruction.

The C is that of PyPI's emx-onnx-cgen, the compiler Debian's gcc-arm-none-eabi, the boards are Arm's MPS2 as
qemu-system-arm has them. What stands around the network is in firmware/: start-up, linker script, a loop over datasets.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import InputError, ModelError, TargetError, reason_of
from toolkit.files import sha256_of
from toolkit.targets.cache import made_once

if TYPE_CHECKING:
    from toolkit.manifest import ModelFile
    from toolkit.spec import FloatArray, Predict

FIRMWARE = Path(__file__).parent / "firmware"
COMPILER, SIZE, QEMU = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
# float16 is only stored: without a format for it, GCC has no _Float16.
FLAGS = (
    "-mthumb",
    "-mfloat-abi=hard",
    "-mfp16-format=ieee",
    "-O2",
    "-ffp-contract=off",
    "-w",
    "-ffunction-sections",
    "-fdata-sections",
)
LINKED = ("-nostartfiles", "-Wl,--gc-sections", "-Wl,--build-id=none")
PROGRAM = "firmware.elf"
BUILD_SECONDS, START_SECONDS, DATASET_SECONDS = 300.0, 60.0, 2.0  # at most; a dataset of the sample takes 0.02 s
KEPT_FORMAT = 1  # of what is kept in the cache, to be counted up with every change of how it is made


@dataclass(frozen=True)
class Processor:
    """machine: QEMU's board. flags: of the compiler."""

    machine: str
    flags: tuple[str, ...]


PROCESSORS = {
    "Cortex-M7": Processor("mps2-an500", ("-mcpu=cortex-m7", "-mfpu=fpv5-d16")),
    "Cortex-M4": Processor("mps2-an386", ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16")),
}


class _CortexM:
    name = "cortex-m"
    description = "Cortex-M7 and Cortex-M4 emulated by QEMU, the ONNX file as C"

    def why_not(self) -> str:
        if find_spec("emx_onnx_cgen") is None:
            return "emx-onnx-cgen is not installed: pip install 'softplus-toolkit[edge]'."
        return why_no_compiler()

    def runs(self, entry: ModelFile) -> str:
        if entry.format != "onnx":
            return f"emx-onnx-cgen makes C of .onnx files, not of .{entry.format}"
        if entry.batch not in (None, 1):
            return f"it takes {entry.batch} datasets a call, on a microcontroller it is one"
        return ""

    def variants(self, entry: ModelFile) -> tuple[str, ...]:
        return tuple(PROCESSORS)

    def load(self, path: Path, entry: ModelFile, variant: str, *, flush_to_zero: bool = False) -> Predict:
        """As `Target.load`.

        Args:
            flush_to_zero: whether the processor is told to make 0 of what is smaller than 2^-126.
        """
        program, shape, parameters = _built(path, variant, flush_to_zero)

        def predict(datasets: FloatArray) -> FloatArray:
            if datasets.ndim != 3 or datasets.shape[1:] != shape:
                raise InputError(
                    f"the model takes an array of shape (n, {shape[0]}, {shape[1]}), not {datasets.shape}."
                )
            content = np.ascontiguousarray(datasets, "<f4").tobytes()
            seconds = START_SECONDS + DATASET_SECONDS * len(datasets)
            given = _run(path, program, variant, content, "estimates", seconds)
            if len(given) != 4 * len(datasets) * parameters:
                raise TargetError(f"{path.name}: {variant} gave {len(given)} bytes for {len(datasets)} datasets.")
            return np.frombuffer(given, "<f4").reshape(len(datasets), parameters).astype(np.float32)

        return predict

    def memory(self, path: Path, entry: ModelFile, variant: str) -> dict[str, int]:
        program, shape, _ = _built(path, variant, False)
        zeros = np.zeros((1, *shape), "<f4").tobytes()  # no branch and no loop depends on the numbers
        found = _run(path, program, variant, zeros, "stack", START_SECONDS)
        return {"flash": flash_of(program), "stack": int(np.frombuffer(found, "<u4")[0])}


TARGET = _CortexM()


def why_no_compiler() -> str:
    """What of Debian's packages is missing to build for Cortex-M and to run it, and how to get it; empty if nothing."""
    packages = {
        "gcc-arm-none-eabi": bool(shutil.which(COMPILER)),
        "libnewlib-arm-none-eabi": not shutil.which(COMPILER) or _has_library(),
        "qemu-system-arm": bool(shutil.which(QEMU)),
    }
    if all(packages.values()):
        return ""
    if not packages["gcc-arm-none-eabi"]:
        packages["libnewlib-arm-none-eabi"] = False
    missing = " ".join(package for package, there in packages.items() if not there)
    return f"Its compiler or emulator is not installed: apt-get install --no-install-recommends {missing}."


@cache
def _has_library() -> bool:
    """The compiler without a C library answers with the bare name."""
    return Path(_output(COMPILER, "-print-file-name=libm.a")).is_absolute()


def _run(path: Path, program: Path, processor: str, datasets: bytes, wanted: str, seconds: float) -> bytes:
    try:
        return run_on_board(program, processor, {"datasets": datasets}, [wanted], seconds)[wanted]
    except TargetError as error:
        raise TargetError(f"{path.name} on {error}") from error


def run_on_board(
    program: Path, processor: str, files: dict[str, bytes], wanted: Sequence[str], seconds: float
) -> dict[str, bytes]:
    """What a program for one of PROCESSORS writes into files, by semihosting.

    Args:
        files: those that it finds.
    Raises:
        TargetError: it does not end in time, or with an error: a fault, a stack that has left the memory.
    """
    command = [QEMU, "-M", PROCESSORS[processor].machine, "-nographic", "-monitor", "none", "-serial", "none"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(program.resolve())]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
            )
        except (subprocess.TimeoutExpired, OSError) as error:
            raise TargetError(f"{processor}: QEMU did not end, or did not start ({reason_of(error)}).") from error
        if done.returncode:
            said = f" ({done.stderr.strip()})" if done.stderr.strip() else ""
            raise TargetError(
                f"{processor}: the program ended with an error{said}: the network may need more than the board's 4 MB."
            )
        return {file: (folder / file).read_bytes() for file in wanted}


def flash_of(program: Path) -> int:
    """Bytes of code and constants, those included that are copied to memory at the start."""
    text, data, *_ = _output(SIZE, str(program)).splitlines()[1].split()
    return int(text) + int(data)


def _built(path: Path, processor: str, flush_to_zero: bool) -> tuple[Path, tuple[int, int], int]:
    """The program, the shape of a dataset and the number of estimates."""
    (rows, columns), parameters = _shapes(path)
    sizes = [f"-DROWS={rows}", f"-DCOLUMNS={columns}", f"-DPARAMETERS={parameters}"]
    define = [*sizes, *(["-DFLUSH_TO_ZERO"] if flush_to_zero else [])]
    firmware = sorted(FIRMWARE.iterdir())
    recipe = {
        "format": KEPT_FORMAT,
        "file": sha256_of(path),
        "flags": [*PROCESSORS[processor].flags, *FLAGS, *LINKED, *define],
        "compiler": _output(COMPILER, "--version").splitlines()[0],
        "generator": version("emx-onnx-cgen"),
        "firmware": sha256(b"".join(file.read_bytes() for file in firmware)).hexdigest(),
    }

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as name:
            source = _as_c(path, Path(name))
            sources = [FIRMWARE / "board.c", FIRMWARE / "estimates.c", source]
            try:
                compile_for(processor, sources, folder / PROGRAM, define)
            except TargetError as error:  # of this file: another one may fit
                raise ModelError(f"{path.name} on {error}") from error

    return made_once("cortex-m", recipe, make) / PROGRAM, (rows, columns), parameters


def compile_for(processor: str, sources: Sequence[Path], program: Path, extra: Sequence[str] = ()) -> None:
    """Raises:
    TargetError: the compiler or the linker refuses: what they say, in one line.
    """
    command = [COMPILER, *PROCESSORS[processor].flags, *FLAGS, *extra, *map(str, sources)]
    command += [*LINKED, "-T", str(FIRMWARE / "board.ld"), "-lm", "-o", str(program)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise TargetError(f"{processor}: the compiler did not end, or did not start ({reason_of(error)}).") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if "error" in line or "overflowed" in line]
        told = next((line for line in lines if "overflowed" in line), (lines or ["no message"])[0])
        raise TargetError(f"{processor}: the program cannot be built ({told}).")


def _shapes(path: Path) -> tuple[tuple[int, int], int]:
    """Raises:
    ModelError: no ONNX file of one input (batch, rows, columns) and one output (batch, parameters).
    """
    import onnx

    try:
        graph = onnx.load_model_from_string(path.read_bytes()).graph
        stored = {constant.name for constant in graph.initializer}
        (given,), (made,) = [each for each in graph.input if each.name not in stored], graph.output
        _, rows, columns = (size.dim_value for size in given.type.tensor_type.shape.dim)
        _, parameters = (size.dim_value for size in made.type.tensor_type.shape.dim)
        if not (rows > 0 and columns > 0 and parameters > 0):
            raise ValueError("sizes that are not known")
    except Exception as error:  # protobuf raises whatever a broken file leads it to
        raise ModelError(f"{path.name}: not a usable onnx model ({reason_of(error)}). Export it again.") from error
    return (rows, columns), parameters


def _as_c(path: Path, folder: Path) -> Path:
    """The network as C: a function `network` of one dataset, everything in flash and on the stack, no heap.

    Raises:
        ModelError: an operation that the generator does not know.
    """
    import onnx

    model = onnx.load_model_from_string(path.read_bytes())
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    del model.metadata_props[:]  # facts of ours: the generator copies them into a comment, which their text could end
    onnx.save_model(model, folder / "network.onnx")
    command = [sys.executable, "-m", "emx_onnx_cgen", "compile", "--color", "never", "--model-name", "network"]
    command += ["--large-temp-threshold", "0", "--large-weight-threshold", "0"]
    command += ["--input-dim", f"{batch}=1"] if batch else []
    command += ["network.onnx", "network.c"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{path.name}: emx-onnx-cgen did not end in {BUILD_SECONDS:g} s.") from error
    if done.returncode or not (folder / "network.c").is_file():
        said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        raise ModelError(f"{path.name}: emx-onnx-cgen makes no C of it ({said.strip()}).")
    return folder / "network.c"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (subprocess.SubprocessError, OSError) as error:
        raise TargetError(f"{command[0]}: does not run ({reason_of(error)}).") from error
