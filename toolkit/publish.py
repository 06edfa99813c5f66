"""Converted files -> model directory: judged first, then put under their names with their evidence."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from toolkit.calibration import true_values_of
from toolkit.card import write_card
from toolkit.errors import ExportError
from toolkit.files import sha256_of, sync
from toolkit.half_units import check_units
from toolkit.integer import host_of
from toolkit.interval_facts import interval_facts
from toolkit.intervals import FACT
from toolkit.judge import Judge, Verdict
from toolkit.manifest import (
    ADVERSARIAL_FILE,
    CALIBRATION_FILE,
    KERAS_FILE,
    WEIGHTS_FILE,
    Manifest,
    ModelFile,
    read_manifest,
    write_manifest,
)
from toolkit.metadata import write_metadata
from toolkit.spec import QUANTIZED, Spec, combinations
from toolkit.verification import datasets_to_compare_on

INT8_FACTS = ("first_layer", "first_layer_reason", "calibration_datasets")


class Converted(Protocol):
    """One file that a converter has written; `facts` are what it can say about it, for the metadata; `problem` is
    why there is no such file, empty where there is."""

    @property
    def path(self) -> Path: ...
    @property
    def format(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def facts(self) -> dict[str, object]: ...
    @property
    def problem(self) -> str: ...


Convert = Callable[[Path, Spec, Sequence[tuple[str, str]], Path, Path], Sequence[Converted]]


def publish(
    directory: Path,
    formats: Sequence[str],
    precisions: Sequence[str],
    convert: Convert,
    *,
    arithmetic: str = "float32",
    calibration: Path | None = None,
    optional: Collection[str] = (),
    say: Callable[[ModelFile], None] = lambda file: None,
    say_lacking: Callable[[str], None] = lambda problem: None,
) -> tuple[ModelFile, ...]:
    """Convert the trained network, judge every file, and publish those that pass.

    A file that is refused leaves the one of that name, if any, as it was.

    Args:
        directory: the model directory.
        formats, precisions: every combination that there is is exported.
        arithmetic: what `convert` makes files for. With float16 the model's numbers must be of a size that it holds.
        convert: the exporter. It is handed in because a judge does not import the one it judges.
        calibration: datasets to judge parity on, and to make adversarial ones from; the model directory's own by
            default. With a true value of each parameter beside them, files know the intervals around their estimates.
        optional: precisions that not every network can have. Where this one cannot, that is no error.
        say: told each file once it is published.
        say_lacking: told of each optional file why there is none.
    Raises:
        ModelError: the directory holds no trained network.
        ExportError: the conversion failed, a unit is not for float16, or a file was refused; the message names each
            with the reason.
    """
    manifest = read_manifest(directory)
    keras_file = directory / KERAS_FILE
    if not keras_file.is_file():
        raise ExportError(f"{keras_file}: not there. Train the network again with `toolkit train`.")
    if arithmetic == "float16":
        check_units(manifest)
    known = calibration or directory / CALIBRATION_FILE
    datasets = datasets_to_compare_on(manifest.spec, [known])
    true = true_values_of(known, manifest.spec)
    wanted = combinations(formats, precisions)
    if not wanted:
        raise ExportError(f"there are no {' or '.join(precisions)} files of {' or '.join(formats)}. Take tflite.")
    published, refused = [], []
    with tempfile.TemporaryDirectory(dir=directory, prefix=".export-") as folder:
        staging = Path(folder)
        np.save(staging / "datasets.npy", datasets)
        converted = convert(keras_file, manifest.spec, wanted, staging, staging / "datasets.npy")
        for name in (WEIGHTS_FILE, ADVERSARIAL_FILE):
            (staging / name).replace(directory / name)
        judge = Judge(manifest.spec, directory, datasets, fitted=True)
        for file in converted:
            if file.problem and file.precision in optional:
                say_lacking(file.problem)
                continue
            if file.problem:
                refused.append(file.problem)
                continue
            verdict = judge(file.path, file.precision, arithmetic=str(file.facts.get("arithmetic", "float32")))
            if not verdict.passed:
                refused.append(f"{file.path.name}: refused. {' '.join(verdict.failures)}")
                continue
            interval = None
            if true is not None:
                interval = interval_facts(file.path, file.precision, manifest.spec, datasets, true)
            manifest, entry = _publish_one(directory, manifest, file, verdict, interval)
            published.append(entry)
            say(entry)
    if refused:
        raise ExportError("\n".join(refused))
    return tuple(published)


def _batch_of(file: Converted) -> int | None:
    batch = file.facts.get("batch")
    return batch if isinstance(batch, int) else None


def _publish_one(
    directory: Path, manifest: Manifest, file: Converted, verdict: Verdict, interval: dict[str, Any] | None
) -> tuple[Manifest, ModelFile]:
    facts = {
        **manifest.spec.to_json(),
        "format": file.format,
        "precision": file.precision,
        **file.facts,
        "lower_bound": verdict.lower_bound,
        "relative_error": {name: vars(error) for name, error in verdict.relative_error.items()},
        # Files that are quantized to be small do without; the manifest has it of all.
        **({FACT: interval} if interval and file.precision not in QUANTIZED else {}),
    }
    write_metadata(file.path, facts)
    host = host_of(file.path, facts)
    entry = ModelFile(
        file=file.path.name,
        format=file.format,
        precision=file.precision,
        bytes=file.path.stat().st_size,
        sha256=sha256_of(file.path),
        lower_bound=verdict.lower_bound,
        relative_error=verdict.relative_error,
        integer=host.to_json() if host else None,
        batch=_batch_of(file),
        arithmetic=verdict.arithmetic,
        interval=interval,
        int8={key: file.facts.get(key) for key in INT8_FACTS} if file.precision == "int8" else None,
    )
    manifest = manifest.with_file(entry)
    sync(file.path)
    file.path.replace(directory / entry.file)
    write_manifest(directory, manifest)
    write_card(directory, manifest)
    return manifest, entry
