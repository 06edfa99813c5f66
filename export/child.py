"""A converter in a child process: run to its end, and what became of it in words."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import MissingExtra

LINES_SHOWN = 3  # of the child's stderr
MODULE = ("-P", "-m")  # -P: what lies in the current folder cannot get in the way of the imports
NEEDED = ("tensorflow", "tf2onnx")
CHILD_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "KERAS_BACKEND": "tensorflow",
}
NOISE = (" ", "Traceback", "I0000", "W0000", "E0000", "WARNING", "INFO", "DEBUG")


def check_installed(command: str) -> None:
    """Raise MissingExtra where the libraries that convert are not installed; none is imported."""
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(command, "export", package)


def run_worker(worker: Sequence[str], request: str) -> subprocess.CompletedProcess[str]:
    """`python WORKER` with the request on stdin, and this package on its path."""
    here = str(Path(__file__).parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **CHILD_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, *worker], input=request, capture_output=True, text=True, errors="replace", env=environment
    )


def what_happened(child: subprocess.CompletedProcess[str]) -> str:
    """`the converter was ended by SIGSEGV`."""
    if child.returncode >= 0:
        return f"the converter stopped with exit code {child.returncode}"
    try:
        name = signal.Signals(-child.returncode).name
    except ValueError:
        name = f"signal {-child.returncode}"
    return f"the converter was ended by {name}" + (", perhaps for want of memory," if name == "SIGKILL" else "")


def last_words(child: subprocess.CompletedProcess[str]) -> str:
    """The last lines of its stderr that matter."""
    lines = [line.rstrip() for line in child.stderr.splitlines() if line.strip()]
    matter = [line for line in lines if not line.startswith(NOISE)]  # a traceback's own lines are indented
    said = " | ".join(matter[-LINES_SHOWN:]) or "nothing"
    return f"Its last words: {said}"
