"""A trained Keras network -> model directory, as training would have left it."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.calibration import Seen, pieces_of, random_piece, run_through
from toolkit.card import write_card
from toolkit.contained import open_child
from toolkit.datasets import Layout, layout_of_file, open_parquet, read_column_names
from toolkit.errors import InputError, MissingExtra, OutputError
from toolkit.files import sync
from toolkit.given import GivenNetwork, estimates_of, input_shape, input_statistics
from toolkit.intervals import conformal_intervals
from toolkit.keras_zip import read_keras_zip
from toolkit.manifest import (
    CALIBRATION_FILE,
    KERAS_FILE,
    MANIFEST,
    Manifest,
    Parameter,
    Range,
    Training,
    write_manifest,
)
from toolkit.recovery import recovery_of
from toolkit.spec import Spec
from toolkit.training_data import write_calibration

if TYPE_CHECKING:
    from toolkit.calibration import Estimates
    from toolkit.spec import FloatArray


def adopt(
    given: GivenNetwork,
    parameters: Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    rows: int | None = None,
    calibration: Path | None = None,
    column: str | None = None,
    order: str | None = None,
    output: Path = Path("model"),
) -> Manifest:
    """Write a model directory around a network that was trained elsewhere.

    The network is read and run in a child process. Nothing is written before all is known to be right.

    Args:
        given: one (rows, columns) input, one output for each parameter, softplus last. Its file is copied as it is.
        parameters: names of the outputs.
        columns: names of the input's columns; by default those in the calibration file's metadata, or column_0 and on.
        rows: of a dataset, where neither the network nor the calibration file tells.
        calibration: Parquet file of datasets of the kind that the network was trained for, of which up to 6,000 are
            kept. Where it has columns with the parameters' names, the estimates are compared with these true values.
            Without it the datasets kept are random.
        column, order: of the calibration file's datasets, where there is a choice.
    Raises:
        ExportError: a network that cannot be exported; the message names the layer, and the way out if there is one.
        InputError: calibration data that cannot be read, or that do not fit the network or the names.
        ModelError: the network gives an estimate that no exported file could, or its file ends the process.
        OutputError: `output` holds a model, or files of a model's names.
        MissingExtra: TensorFlow is not installed.
    """
    _check_output(output)
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingExtra("adopt", "export", "TensorFlow")
    with open_child() as child:
        inputs = child.call(input_shape, given, where=given.path)
        spec, layout = _spec_of(given.path, inputs, tuple(parameters), columns, rows, calibration, column, order)

        def estimate(datasets: FloatArray) -> Estimates:
            return child.call(estimates_of, given, spec, datasets, where=given.path)

        statistics = None
        if calibration is not None and layout is not None:
            seen = run_through(spec, estimate, pieces_of(calibration, layout, spec), str(calibration))
        else:
            statistics = child.call(input_statistics, given, spec, where=given.path)
            seen = run_through(spec, estimate, [random_piece(spec, statistics)], f"{given.path}: random datasets")
    note = _note(given, seen, calibration, statistics)
    manifest = _manifest(given, spec, seen, note, ranges_known=calibration is not None)
    _write(output, given, spec, seen, manifest)
    return manifest


def _spec_of(
    path: Path,
    shape: tuple[int | None, int],
    parameters: tuple[str, ...],
    columns: Sequence[str] | None,
    rows: int | None,
    calibration: Path | None,
    column: str | None,
    order: str | None,
) -> tuple[Spec, Layout | None]:
    """What the network takes and gives, and how the calibration file's datasets lie."""
    fixed, count = shape
    names = tuple(columns or ()) or (calibration and _stored_names(calibration)) or _numbered(count)
    if len(names) != count:
        raise InputError(
            f"{path}: takes {count} columns; {len(names)} are named ({', '.join(names)}). Name {count}: --columns."
        )
    if None not in (fixed, rows) and fixed != rows:
        raise InputError(f"{path}: takes {fixed} rows, not {rows}. Leave --rows out.")
    known = fixed or rows
    if calibration is not None:
        layout = layout_of_file(calibration, rows=known, columns=names, column=column, order=order)
        return Spec(layout.rows, names, parameters), layout
    if known is None:
        raise InputError(
            f"{path}: takes any number of rows. Say how many a dataset has: --rows N, or --calibration FILE."
        )
    return Spec(known, names, parameters), None


def _stored_names(calibration: Path) -> tuple[str, ...] | None:
    with open_parquet(calibration) as source:
        return read_column_names(source.schema_arrow)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"column_{index}" for index in range(count))


def _manifest(given: GivenNetwork, spec: Spec, seen: Seen, note: str, ranges_known: bool) -> Manifest:
    columns = list(spec.parameters)
    values = {name: seen.true.get(name, seen.estimates[:, columns.index(name)]) for name in columns}
    metrics = {
        name: asdict(recovery_of(true, seen.estimates[:, columns.index(name)].astype(np.float32)))
        for name, true in seen.true.items()
        if np.ptp(true) > 0  # R2 compares with the spread of the true values
    }
    return Manifest(
        rows=spec.rows,
        columns=spec.columns,
        column_ranges=tuple(Range(float(low), float(high)) for low, high in zip(seen.lowest, seen.highest, strict=True))
        if ranges_known
        else (),
        parameters=tuple(Parameter(name, float(each.min()), float(each.max())) for name, each in values.items()),
        training=Training(datasets=0, seed=0, metrics=metrics, note=note),
        versions=_versions(given.path),
        interval=_interval(spec, seen),
    )


def _interval(spec: Spec, seen: Seen) -> dict[str, Any] | None:
    if not all(name in seen.true for name in spec.parameters):
        return None
    true = np.stack([seen.true[name] for name in spec.parameters], axis=1)
    return conformal_intervals(seen.estimates, true).to_json(spec.parameters)


def _note(given: GivenNetwork, seen: Seen, calibration: Path | None, statistics: object) -> str:
    """Where everything in the model directory is from, in words for people."""
    adopted = f"Adopted from {given.path.name}"
    if calibration is not None:
        compared = f", compared with its true {', '.join(seen.true)}" if seen.true else ""
        return f"{adopted} with {len(seen.estimates):,} datasets of {calibration.name}{compared}."
    kind = "of its first layer's mean and spread" if statistics else "of mean 0 and spread 1"
    return (
        f"{adopted} without datasets: {CALIBRATION_FILE} holds random ones {kind}, "
        "and the ranges are those of the estimates for them."
    )


def _versions(path: Path) -> dict[str, str]:
    """Of what made the weights, as far as the file tells."""
    from toolkit import __version__

    keras_version = read_keras_zip(path).metadata.get("keras_version")
    return {"softplus-toolkit": __version__, **({"keras": str(keras_version)[:40]} if keras_version else {})}


def _check_output(output: Path) -> None:
    if (output / MANIFEST).exists():
        raise OutputError(f"{output}: already holds a model. Choose another --output, or move it away.")
    for name in (KERAS_FILE, CALIBRATION_FILE):
        if (output / name).exists():
            raise OutputError(f"{output / name}: is there already. Choose another --output, or move it away.")


def _write(output: Path, given: GivenNetwork, spec: Spec, seen: Seen, manifest: Manifest) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".adopt-") as folder:
        staging = Path(folder)
        shutil.copyfile(given.path, staging / KERAS_FILE)
        sync(staging / KERAS_FILE)
        write_calibration(staging / CALIBRATION_FILE, spec, seen.kept, seen.kept_true)
        write_manifest(staging, manifest)
        write_card(output, manifest)
        for name in (KERAS_FILE, CALIBRATION_FILE, MANIFEST):  # last: a directory without it is no model
            (staging / name).replace(output / name)
