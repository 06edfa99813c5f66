"""One exported file on trial: what it gives when it is run in one way, and how that compares with the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.contained import Child
from toolkit.errors import ModelError
from toolkit.manifest import RelativeError
from toolkit.promise import keeps_promise
from toolkit.runtime import load

if TYPE_CHECKING:
    from toolkit.probes import Probes
    from toolkit.spec import FloatArray, Predict

PIECE = 4096  # datasets sent to the child at once: 6.5 MB of 200 x 2

# Relative errors are counted in these bins, ten a decade: the first holds all below, the last all above, and NaN.
BIN_EDGES = np.concatenate([[0.0], np.logspace(-9, 2, 111), [np.inf]])


@dataclass(frozen=True)
class Trial:
    """What a file gave in one kernel set.

    Attributes:
        minimum: smallest estimate of each parameter, float64 (parameters,), by kind of input; NaN where one was.
        relative_error: over the datasets compared, one for each parameter.
        error_counts: int64 (parameters, bins) of BIN_EDGES.
        failures: estimates that are not finite or too small, in words that do not name the kernels.
    """

    kernels: str
    minimum: dict[str, NDArray[np.float64]]
    relative_error: tuple[RelativeError, ...]
    error_counts: NDArray[np.int64]
    failures: tuple[str, ...]


def try_file(
    file: str,
    kernels: str,
    run: Predict,
    parameters: Sequence[str],
    probes: Sequence[Probes],
    datasets: Probes,
    truth: NDArray[np.float64],
    required: float,
) -> Trial:
    """Run a file over probes and datasets.

    Args:
        file: its name, for errors.
        kernels: the way in which `run` runs it.
        datasets: those whose estimates are compared with `truth`, float64 (datasets, parameters).
        required: the smallest estimate that passes.
    Raises:
        ModelError: it gives another number of estimates.
        ToolkitError: whatever `run` raises.
    """
    minimum, failures = {}, []
    tried = [inputs for inputs in (*probes, datasets) if len(inputs.datasets)]
    for inputs, estimates in zip(tried, _run(file, run, tried, len(parameters)), strict=True):
        minimum[inputs.kind] = estimates.min(axis=0).astype(np.float64)
        failures += _not_positive(estimates, inputs, parameters, required)
    with np.errstate(all="ignore"):  # NaN and infinity are results here
        relative = np.abs(estimates - truth) / truth
        summary = summarized(relative)
    return Trial(kernels, minimum, summary, _counted(relative), tuple(failures))


def run_in_child(child: Child, path: Path, kernels: str) -> Predict:
    """The file as a function that is computed by a runtime of this machine, in a process that it can take down."""
    where = f"{path.name} with {kernels} kernels"
    return lambda datasets: child.call(estimates_of, path, kernels, datasets, where=where)


def summarized(relative: NDArray[np.float64]) -> tuple[RelativeError, ...]:
    """Median, 99th percentile and largest of relative errors (datasets, parameters), for each parameter."""
    return tuple(
        RelativeError(float(np.median(each)), float(np.quantile(each, 0.99)), float(each.max())) for each in relative.T
    )


def _run(file: str, run: Predict, tried: Sequence[Probes], parameters: int) -> list[FloatArray]:
    """The estimates of each. Few calls: where files run on an emulated machine, each begins with starting it."""
    estimates = np.concatenate([run(piece) for piece in _pieces([inputs.datasets for inputs in tried])])
    count = sum(len(inputs.datasets) for inputs in tried)
    if estimates.shape != (count, parameters):
        raise ModelError(f"{file}: gives {estimates.shape[-1]} estimates for {parameters} parameters.")
    return np.split(estimates, np.cumsum([len(inputs.datasets) for inputs in tried])[:-1])


def _pieces(arrays: Sequence[FloatArray]) -> Iterator[FloatArray]:
    """All of them one behind the other, cut into arrays of at most PIECE datasets."""
    waiting: list[FloatArray] = []
    room = PIECE
    for array in arrays:
        while len(array):
            waiting.append(array[:room])
            array, room = array[room:], room - len(waiting[-1])
            if not room:
                yield np.concatenate(waiting)
                waiting, room = [], PIECE
    if waiting:
        yield np.concatenate(waiting)


def estimates_of(path: Path, kernels: str, datasets: FloatArray) -> FloatArray:
    """What the child computes; the file stays loaded for the next call."""
    return _loaded(path, kernels)(datasets)


@lru_cache(maxsize=1)
def _loaded(path: Path, kernels: str) -> Predict:
    return load(path, kernels=kernels)


def _not_positive(estimates: FloatArray, inputs: Probes, parameters: Sequence[str], required: float) -> list[str]:
    good = keeps_promise(estimates, required)
    if good.all():
        return []
    row, index = (int(i) for i in np.argwhere(~good)[0])
    count = int((~good).any(axis=1).sum())
    others = f" (and {count - 1} more of {len(good)} {inputs.kind})" if count > 1 else ""
    return [f"{parameters[index]} = {estimates[row, index]:.3g} for {inputs.names[row]}{others}"]


def _counted(relative: NDArray[np.float64]) -> NDArray[np.int64]:
    known = np.nan_to_num(relative, nan=np.inf, posinf=np.inf)
    places = np.minimum(np.searchsorted(BIN_EDGES, known, side="right") - 1, len(BIN_EDGES) - 2)
    return np.stack([np.bincount(each, minlength=len(BIN_EDGES) - 1) for each in places.T])
