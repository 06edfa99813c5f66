"""The model directory and its manifest.json: what the model takes, what it gives, every file with its evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from toolkit.errors import ModelError, did_you_mean
from toolkit.files import appears_whole, sha256_of
from toolkit.json_values import readable
from toolkit.manifest_checks import check_manifest
from toolkit.spec import Spec

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
KERAS_FILE = "model.keras"
WEIGHTS_FILE = "weights.npz"  # the trained weights for the float64 forward pass, written by `export`
ADVERSARIAL_FILE = "adversarial.npz"  # datasets that make the estimates small, found by `export`
CALIBRATION_FILE = "calibration.parquet"
# files[] and every table list the formats in this order, the most precise file first.
FORMAT_ORDER = ("tflite", "onnx", "ort")
PRECISION_ORDER = ("float32", "float16", "int8", "integer")


@dataclass(frozen=True)
class Parameter:
    """One output: its name and the smallest and largest value seen in training."""

    name: str
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Range:
    """The smallest and largest value of an input column seen in training."""

    minimum: float
    maximum: float


@dataclass(frozen=True)
class RelativeError:
    """|file - truth| / truth over the datasets compared, truth being the float64 forward pass."""

    median: float
    p99: float
    max: float


@dataclass(frozen=True)
class ModelFile:
    """One exported file and the evidence for it."""

    file: str
    format: str
    precision: str
    bytes: int
    sha256: str
    lower_bound: dict[str, float]
    relative_error: dict[str, RelativeError]
    integer: dict[str, Any] | None = None  # of an integer-only file, its host side: see toolkit/integer.py
    int8: dict[str, Any] | None = None  # of an int8 file, how it was made: first_layer, why, calibration_datasets
    batch: int | None = None  # datasets in each call, where the file takes no other number
    arithmetic: str = "float32"  # that the bound is proved for: what hardware may compute the file in; int8 of integer
    interval: dict[str, Any] | None = None  # what intervals around its estimates are made of: see toolkit/intervals.py

    @property
    def export_again(self) -> str:
        """The command that writes it."""
        math = " --arithmetic float16" if self.arithmetic == "float16" else ""
        batch = f" --batch {self.batch}" if self.batch else ""
        return f"toolkit export --format {self.format} --precision {self.precision}{math}{batch}"


def int8_in_words(made: Mapping[str, Any]) -> str:
    """How an int8 file was made: its first layer, why that, and on how many datasets.

    Args:
        made: `ModelFile.int8`, or the metadata of a file, which may be anyone's.
    """
    count = made.get("calibration_datasets")
    shown = f"{count:,}" if isinstance(count, int) else "?"
    reason = f"{made.get('first_layer', '?')} ({made.get('first_layer_reason', 'no reason given')})"
    return f"first layer {reason}, fitted to {shown} calibration datasets"


@dataclass(frozen=True)
class Training:
    """How the network was trained.

    Attributes:
        datasets: how many different ones it was trained on, a simulator's of all epochs together; 0 for one that was
            trained elsewhere.
        metrics: of each parameter a Recovery (toolkit/recovery.py) on datasets held out, where true values were there
            to compare with; manifests of older toolkits have fewer of its numbers.
        note: where the weights are from, unless they are all of this training.
        configuration: what training was told and where it ended; empty for a network that was trained elsewhere, and
            in manifests of older toolkits.
    """

    datasets: int
    seed: int
    metrics: dict[str, dict[str, float]]
    note: str = ""
    configuration: dict[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json."""

    rows: int
    columns: tuple[str, ...]
    column_ranges: tuple[Range, ...]  # of each column's values in training; empty where nobody knows
    parameters: tuple[Parameter, ...]
    training: Training
    files: tuple[ModelFile, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    sorted_rows: bool = False
    interval: dict[str, Any] | None = None  # of model.keras, as `ModelFile.interval`

    @property
    def spec(self) -> Spec:
        return Spec(self.rows, self.columns, tuple(parameter.name for parameter in self.parameters), self.sorted_rows)

    def with_file(self, file: ModelFile) -> Manifest:
        """This manifest with `file` added, or put in place of the entry of the same name."""
        others = [entry for entry in self.files if entry.file != file.file]
        return replace(self, files=tuple(sorted([*others, file], key=_file_order)))


def _file_order(file: ModelFile) -> tuple[int, int, bool, int]:
    in_half = file.arithmetic == "float16"
    return FORMAT_ORDER.index(file.format), PRECISION_ORDER.index(file.precision), in_half, file.batch or 0


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a model directory.

    Raises:
        ModelError: no directory, no manifest, another schema version, a key that is missing or of another type, or a
            file named that is not in the directory itself.
    """
    path = directory / MANIFEST
    if not path.is_file():
        if directory.is_file():
            raise ModelError(f"{directory}: a file, not a model directory. Name its folder: --model {directory.parent}")
        near = next((f" There is one in {found.parent}." for found in _models_near(directory)), "")
        raise ModelError(
            f"{directory}: no model here ({MANIFEST} not found).{near} "
            "Train one with `toolkit train`, or name its folder with --model or $TOOLKIT_MODEL."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise ModelError(
                f"{path}: schema version {version}, this toolkit reads {SCHEMA_VERSION}. Update the toolkit."
            )
        return _from_json(content)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}). Change its permissions.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{path}: not a manifest this toolkit can read ({error!r:.200}). Export the model again."
        ) from error


def _models_near(directory: Path) -> Iterator[Path]:
    """Manifests below the folder, or where it would be: of somebody who named the one above, or forgot --model."""
    folder = directory if directory.is_dir() else directory.parent
    for pattern in (f"*/{MANIFEST}", f"*/*/{MANIFEST}"):
        yield from sorted(folder.glob(pattern))


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace the directory's manifest.json, whole or not at all."""
    with appears_whole(directory / MANIFEST) as partial:
        partial.write_text(readable(to_json(manifest)) + "\n", encoding="utf-8")


def find_file(directory: Path, name: str) -> ModelFile:
    """The manifest's entry for one exported file.

    Raises:
        ModelError: the manifest has no file of that name; the message lists those it has.
    """
    manifest = read_manifest(directory)
    for entry in manifest.files:
        if entry.file == name:
            return entry
    known = ", ".join(entry.file for entry in manifest.files) or "none; run `toolkit export --format all`"
    near = did_you_mean(name, (entry.file for entry in manifest.files))
    raise ModelError(f"{directory}: no exported file {name!r}.{near} Files here: {known}.")


def check_unchanged(directory: Path, entry: ModelFile) -> Path:
    """Path of an exported file whose bytes are the ones the evidence is about.

    Raises:
        ModelError: the file is gone, or its sha256 differs from the manifest's.
    """
    path = directory / entry.file
    again = f"Export it again: {entry.export_again}"
    if not path.is_file():
        raise ModelError(f"{path}: named in {MANIFEST} but not there. {again}")
    if sha256_of(path) != entry.sha256:
        raise ModelError(f"{path}: sha256 differs from {MANIFEST}. {again}")
    return path


def to_json(manifest: Manifest) -> dict[str, Any]:
    """What manifest.json holds."""
    return {
        "schema_version": SCHEMA_VERSION,
        "input": {
            "rows": manifest.rows,
            "columns": list(manifest.columns),
            "sorted_rows": manifest.sorted_rows,
            "ranges": [asdict(each) for each in manifest.column_ranges],
        },
        "parameters": [asdict(parameter) for parameter in manifest.parameters],
        "training": asdict(manifest.training),
        "files": [_file_to_json(file) for file in manifest.files],
        "versions": manifest.versions,
        **({"interval": manifest.interval} if manifest.interval else {}),
    }


def _file_to_json(file: ModelFile) -> dict[str, Any]:
    content = asdict(file)
    for key in ("integer", "int8", "batch", "interval"):
        if content[key] is None:
            del content[key]
    return content


def _from_json(content: dict[str, Any]) -> Manifest:
    if not isinstance(content["input"]["columns"], list):
        raise ValueError("columns that are no list")  # the letters of a text would do as names
    files = [
        ModelFile(**{**file, "relative_error": {k: RelativeError(**v) for k, v in file["relative_error"].items()}})
        for file in content["files"]
    ]
    manifest = Manifest(
        rows=content["input"]["rows"],
        columns=tuple(content["input"]["columns"]),
        column_ranges=tuple(Range(**each) for each in content["input"]["ranges"]),
        parameters=tuple(Parameter(**parameter) for parameter in content["parameters"]),
        training=Training(**content["training"]),
        files=tuple(sorted(files, key=_file_order)),
        versions=content["versions"],
        sorted_rows=content["input"].get("sorted_rows", False) is True,
        interval=content.get("interval"),
    )
    check_manifest(manifest)
    return manifest
