"""What intervals around the estimates of one exported file are made of, computed from what that very file gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.contained import open_child
from toolkit.errors import ModelError
from toolkit.intervals import Intervals, Limits, conformal_intervals, intervals_of
from toolkit.spec import QUANTIZED, Spec, held_back
from toolkit.trials import PIECE, estimates_of

if TYPE_CHECKING:
    from toolkit.manifest import ModelFile
    from toolkit.spec import FloatArray


def interval_facts(path: Path, precision: str, spec: Spec, datasets: FloatArray, true: FloatArray) -> dict[str, Any]:
    """For the file's metadata and its entry in the manifest.

    A quantized file has errors of its own, and smaller ones on the datasets it was fitted to: it is run on the others.

    Args:
        datasets, true: calibration datasets and their true values, float32 (n, parameters).
    Raises:
        ModelError: the file cannot be run.
    """
    kept = held_back(len(datasets)) if precision in QUANTIZED else slice(None)
    datasets, true = datasets[kept], true[kept]
    with open_child() as child:
        pieces = [
            child.call(estimates_of, path, "default", datasets[begin : begin + PIECE], where=path.name)
            for begin in range(0, len(datasets), PIECE)
        ]
    return conformal_intervals(np.concatenate(pieces), true).to_json(spec.parameters)


def intervals_of_file(entry: ModelFile, spec: Spec) -> Intervals:
    """Those of an exported file.

    Raises:
        ModelError: it was exported without true values, or the manifest is damaged.
    """
    intervals = intervals_of(entry.file, entry.interval, spec.parameters)
    if intervals is None:
        raise ModelError(without_intervals(entry.file, f"{entry.export_again} --calibration FILE", spec))
    return intervals


def without_intervals(file: str, again: str, spec: Spec) -> str:
    """What to say of a file that knows none."""
    return (
        f"{file}: nothing is known of intervals around its estimates. Make it again with calibration datasets whose "
        f"true values stand in columns {', '.join(spec.parameters)}: {again}"
    )


def limits_of(entry: ModelFile, spec: Spec, level: float) -> Limits:
    """The intervals of one level around a file's estimates.

    Raises:
        ModelError: as `intervals_of_file`. InputError: a level that it does not permit.
    """
    return intervals_of_file(entry, spec).at(level, entry.file)
