"""Trained network -> exported files, in a child process."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import ExportError, MissingExtra
from toolkit.spec import Spec

LINES_SHOWN = 3  # of the child's stderr
WORKER = ("-P", "-m", "export.worker")  # -P: what lies in the current folder cannot get in the way of the imports
NEEDED = ("tensorflow", "tf2onnx")
CHILD_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "KERAS_BACKEND": "tensorflow",
}
NOISE = (" ", "Traceback", "I0000", "W0000", "E0000", "WARNING", "INFO", "DEBUG")


@dataclass(frozen=True)
class Converted:
    """One exported file. facts: what the converter knows of it, for its metadata: `input_limit`."""

    path: Path
    format: str
    precision: str
    facts: dict[str, object] = field(default_factory=dict)


def convert(
    keras_file: Path,
    spec: Spec,
    wanted: Sequence[tuple[str, str]],
    directory: Path,
    datasets: Path | None = None,
) -> list[Converted]:
    """Write `directory/model.<precision>.<format>` for every (format, precision) wanted, `directory/weights.npz` and
    `directory/adversarial.npz`.

    It overwrites what is there, checks the graph against Keras but not the files, and publishes nothing: give it a
    folder of its own, and judge the files before they go where anyone uses them.

    Args:
        datasets: .npy file, float32 (datasets, rows, columns), of real datasets, from which the adversarial ones are
            made; random ones of the scale that the network was made for by default.
    Raises:
        ExportError: the network cannot be exported, or the converter failed or crashed.
        MissingExtra: TensorFlow or tf2onnx is not installed.
    """
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra("export", "export", package)
    with tempfile.TemporaryDirectory(prefix="toolkit-export-") as folder:
        answer, stage = Path(folder, "answer.json"), Path(folder, "stage")
        request = {
            "keras_file": str(keras_file.absolute()),
            "rows": spec.rows,
            "columns": spec.columns,
            "parameters": spec.parameters,
            "wanted": list(wanted),
            "datasets": str(datasets.absolute()) if datasets else None,
            "directory": str(directory.absolute()),
            "answer": str(answer),
            "stage": str(stage),
        }
        child = _run_worker(json.dumps(request))
        if child.returncode != 0 or not answer.is_file():
            reached = stage.read_text(encoding="utf-8") if stage.is_file() else "starting TensorFlow"
            raise ExportError(f"{keras_file}: {_what_happened(child)} while {reached}. {_advice(child)}")
        content = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in content:
        raise ExportError(content["error"])
    return [Converted(Path(entry.pop("path")), **entry) for entry in content["converted"]]


def _run_worker(request: str) -> subprocess.CompletedProcess[str]:
    here = str(Path(__file__).parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **CHILD_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, *WORKER], input=request, capture_output=True, text=True, errors="replace", env=environment
    )


def _what_happened(child: subprocess.CompletedProcess[str]) -> str:
    if child.returncode >= 0:
        return f"the converter stopped with exit code {child.returncode}"
    try:
        name = signal.Signals(-child.returncode).name
    except ValueError:
        name = f"signal {-child.returncode}"
    return f"the converter was ended by {name}" + (", perhaps for want of memory," if name == "SIGKILL" else "")


def _advice(child: subprocess.CompletedProcess[str]) -> str:
    lines = [line.rstrip() for line in child.stderr.splitlines() if line.strip()]
    matter = [line for line in lines if not line.startswith(NOISE)]  # a traceback's own lines are indented
    said = " | ".join(matter[-LINES_SHOWN:]) or "nothing"
    return f"Its last words: {said}"
