"""What a manifest says must be of the kind that its place asks for: it may come from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.spec import ARITHMETICS

if TYPE_CHECKING:
    from toolkit.manifest import Manifest, Parameter, Range


def check_manifest(manifest: Manifest) -> None:
    """What is used as a path, a name or a size must be one: a manifest may come from anywhere.

    Raises:
        ValueError: it says which value is none.
    """
    if not (isinstance(manifest.rows, int) and manifest.rows > 0):
        raise ValueError(f"rows {manifest.rows!r}")
    names = {"columns": manifest.columns, "parameters": manifest.spec.parameters}
    for key, values in {**names, "files": tuple(entry.file for entry in manifest.files)}.items():
        if not all(isinstance(value, str) and value for value in values) or len(set(values)) < len(values):
            raise ValueError(f"{key} {values!r}: not different names")
    if not manifest.columns or not manifest.parameters:
        raise ValueError("no columns or no parameters")
    _check_training(manifest)
    for entry in manifest.files:
        if Path(entry.file).name != entry.file or Path(entry.file).suffix != f".{entry.format}":
            raise ValueError(f"file {entry.file!r}: no {entry.format} file in this directory")
        numbers = [
            *entry.lower_bound.values(),
            *(each for error in entry.relative_error.values() for each in vars(error).values()),
        ]
        if not isinstance(entry.sha256, str) or not all(
            isinstance(each, int | float) for each in [entry.bytes, *numbers]
        ):
            raise ValueError(f"file {entry.file!r}: evidence that is no number")
        if entry.arithmetic not in (*ARITHMETICS, "int8"):
            raise ValueError(f"file {entry.file!r}: arithmetic {entry.arithmetic!r}")
        if entry.batch is not None and not (isinstance(entry.batch, int) and entry.batch > 0):
            raise ValueError(f"file {entry.file!r}: batch {entry.batch!r}")
    for interval in (manifest.interval, *(entry.interval for entry in manifest.files)):
        if not (interval is None or isinstance(interval, dict)):
            raise ValueError(f"intervals {interval!r:.80}")


def _check_training(manifest: Manifest) -> None:
    training = manifest.training
    seen: list[Range | Parameter] = [*manifest.column_ranges, *manifest.parameters]
    numbers = [training.datasets, training.seed, *(bound for each in seen for bound in (each.minimum, each.maximum))]
    numbers += [value for each in training.metrics.values() for value in each.values()]
    if not all(isinstance(each, int | float) for each in numbers):
        raise ValueError("a range or a metric that is no number")
    if len(manifest.column_ranges) not in (0, len(manifest.columns)):
        raise ValueError(f"ranges of {len(manifest.column_ranges)} columns, not of {len(manifest.columns)}")
    plain = training.configuration
    if not all(isinstance(each, str | int | float) for each in [training.note, *plain.values()]):
        raise ValueError(f"training configuration {plain!r}")
    if not all(isinstance(each, str) for each in manifest.versions.values()):
        raise ValueError(f"versions {manifest.versions!r}")
