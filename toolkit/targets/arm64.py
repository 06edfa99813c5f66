"""64-bit ARM under QEMU's user emulation: Cortex-A72, as in a Raspberry Pi 4, and Cortex-A76, as in a Raspberry Pi 5.

LiteRT's and ONNX Runtime's own arm64 wheels run there, so the kernels are those that phones and boards run.
"""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import TargetError, reason_of
from toolkit.runtime import BATCH
from toolkit.targets.host_side import around_codes, host_in
from toolkit.targets.sysroot import command_on, why_no_sysroot

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolkit.manifest import ModelFile
    from toolkit.spec import FloatArray, Predict

RUNNER = Path(__file__).with_name("arm64_runner.py")
A72, A76 = "cortex-a72", "cortex-a76"
A76_FLOAT16 = "cortex-a76 in float16"  # XNNPACK told to compute in half precision whatever the file says in float32
ENGINES = {".tflite": "litert", ".onnx": "onnxruntime", ".ort": "onnxruntime"}
TIMEOUT_SECONDS = 900.0  # for one call: some 4,000 datasets take a minute


class _Arm64:
    name = "arm64"
    description = "arm64, Cortex-A72 and Cortex-A76 emulated by QEMU"

    def why_not(self) -> str:
        return why_no_sysroot()

    def runs(self, entry: ModelFile) -> str:
        return ""

    def variants(self, entry: ModelFile) -> tuple[str, ...]:
        """A file for float16 arithmetic is also run in it. Others are not: what they are proved for is float32."""
        in_float16 = entry.arithmetic == "float16" and entry.format == "tflite"
        return (A72, A76, A76_FLOAT16) if in_float16 else (A72, A76)

    def memory(self, path: Path, entry: ModelFile, variant: str) -> dict[str, int]:
        return {}

    def load(self, path: Path, entry: ModelFile, variant: str) -> Predict:
        engine = ENGINES[path.suffix] + ("-float16" if variant == A76_FLOAT16 else "")
        command, environment = command_on(variant.split()[0], RUNNER)
        command += [str(path.resolve()), engine, str(BATCH)]
        host = host_in(path)

        def run(inputs: Any) -> Any:
            return _outputs(f"{path.name} on {variant}", command, environment, inputs)

        return around_codes(path, host, run) if host else _of_datasets(run)


TARGET = _Arm64()


def _of_datasets(run: Callable[[FloatArray], FloatArray]) -> Predict:
    return lambda datasets: run(np.asarray(datasets, np.float32))


def _outputs(where: str, command: list[str], environment: dict[str, str], inputs: Any) -> Any:
    """One process for each call: it starts in 1.6 s, and none is left behind."""
    sent = io.BytesIO()
    np.save(sent, np.ascontiguousarray(inputs), allow_pickle=False)
    try:
        done = subprocess.run(
            command, input=sent.getvalue(), capture_output=True, env=environment, timeout=TIMEOUT_SECONDS
        )
        if done.returncode:
            lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            raise TargetError(f"{where}: ended with exit code {done.returncode} ({(lines or ['no message'])[-1]}).")
        return np.load(io.BytesIO(done.stdout), allow_pickle=False)
    except subprocess.TimeoutExpired as error:
        raise TargetError(f"{where}: no end after {TIMEOUT_SECONDS:g} s.") from error
    except (OSError, ValueError) as error:
        raise TargetError(f"{where}: gave no array ({reason_of(error)}).") from error
