"""Trained network -> exported files, in a child process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from export.child import MODULE, check_installed, last_words, run_worker, what_happened
from toolkit.errors import ExportError
from toolkit.spec import Spec

WORKER = (*MODULE, "export.worker")


@dataclass(frozen=True)
class Converted:
    """One exported file.

    Attributes:
        facts: what the converter knows of it, for its metadata: `input_limit`, `batch` where it is fixed,
            `arithmetic` where it is not float32, how an int8 file was made, an integer-only file's host side.
        problem: why the network has no such file; empty where `path` is there.
    """

    path: Path
    format: str
    precision: str
    facts: dict[str, object] = field(default_factory=dict)
    problem: str = ""


def convert(
    keras_file: Path,
    spec: Spec,
    wanted: Sequence[tuple[str, str]],
    directory: Path,
    datasets: Path | None = None,
    *,
    first_layer: str = "auto",
    arithmetic: str = "float32",
    batch: int | None = None,
) -> list[Converted]:
    """Write `directory/model.<precision>.<format>` for every (format, precision) wanted, `directory/weights.npz` and
    `directory/adversarial.npz`.

    It overwrites what is there, checks the graph against Keras but not the files, and publishes nothing: give it a
    folder of its own, and judge the files before they go where anyone uses them.

    Args:
        datasets: .npy file, float32 (datasets, rows, columns), of real datasets, from which the adversarial ones are
            made; random ones of the scale that the network was made for by default. Quantized files are fitted to
            all of them but those that `held_back` names.
        first_layer: of int8 files, int8, float or auto.
        arithmetic: of the hardware that the files are meant for, float32 or float16; quantized files have no other than
            float32.
        batch: datasets in each call of the files, which then take no other number; None leaves it open.
    Raises:
        ExportError: the network cannot be exported in any way that was wanted, or the converter failed or crashed.
        MissingExtra: TensorFlow or tf2onnx is not installed.
    """
    check_installed("export")
    with tempfile.TemporaryDirectory(prefix="toolkit-export-") as folder:
        answer, stage = Path(folder, "answer.json"), Path(folder, "stage")
        request = {
            "keras_file": str(keras_file.absolute()),
            "rows": spec.rows,
            "columns": spec.columns,
            "parameters": spec.parameters,
            "wanted": list(wanted),
            "datasets": str(datasets.absolute()) if datasets else None,
            "first_layer": first_layer,
            "arithmetic": arithmetic,
            "batch": batch,
            "directory": str(directory.absolute()),
            "answer": str(answer),
            "stage": str(stage),
        }
        child = run_worker(WORKER, json.dumps(request))
        if child.returncode != 0 or not answer.is_file():
            reached = stage.read_text(encoding="utf-8") if stage.is_file() else "starting TensorFlow"
            raise ExportError(f"{keras_file}: {what_happened(child)} while {reached}. {last_words(child)}")
        content = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in content:
        raise ExportError(content["error"])
    return [Converted(Path(entry.pop("path")), **entry) for entry in content["converted"]]
