"""How far a file's estimates are from what the trained weights give, and from the true values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.contained import Child
from toolkit.datasets import iter_batches, open_parquet
from toolkit.errors import ModelError
from toolkit.manifest import RelativeError
from toolkit.spec import Spec
from toolkit.training_files import true_values
from toolkit.trials import estimates_of, summarized
from toolkit.verification import datasets_to_compare_on

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

PIECE = 1024  # datasets sent to the child at once: a slow file has a minute for them
READ_ROWS = 1024


@dataclass(frozen=True)
class Compared:
    """Datasets that every file is compared on.

    Attributes:
        datasets: float32 (datasets, rows, columns), at least one.
        true: the true values of the parameters that all the sources have, float32 (datasets,) each.
    """

    sources: tuple[Path, ...]
    datasets: FloatArray
    true: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Accuracy:
    """Of one file, by parameter.

    Attributes:
        relative_error: |estimate - truth| / truth, truth being the float64 forward pass.
        rmse: against the true values, in the parameter's unit; of those parameters that have any.
        minimum: the smallest estimate.
        not_positive: datasets with an estimate that is 0 or below.
        not_finite: datasets with one that is NaN or infinite.
    """

    relative_error: dict[str, RelativeError]
    rmse: dict[str, float]
    minimum: dict[str, float]
    not_positive: int
    not_finite: int


def read_compared(spec: Spec, sources: Sequence[Path], column: str | None) -> Compared:
    """All datasets of Parquet files, and their true values where they have any.

    Raises:
        InputError: a file that cannot be read, a row that is no dataset of `spec`, or a true value not above 0.
        ModelError: no dataset in any of them.
    """
    datasets = datasets_to_compare_on(spec, sources, column=column)
    known = set(spec.parameters)
    for source in sources:
        with open_parquet(source) as file:
            known &= set(file.schema_arrow.names) - {column}
    names = [name for name in spec.parameters if name in known]
    return Compared(tuple(sources), datasets, {name: _true_values(sources, name) for name in names})


def _true_values(sources: Sequence[Path], name: str) -> NDArray[np.float32]:
    pieces = []
    for source in sources:
        row = 0
        for batch in iter_batches(source, [name], None, READ_ROWS):
            pieces.append(true_values(batch, name, source, row))
            row += len(batch)
    return np.concatenate(pieces)


def accuracy_of(
    child: Child, path: Path, parameters: Sequence[str], compared: Compared, truth: NDArray[np.float64]
) -> Accuracy:
    """Run the file over all datasets, in the child.

    Args:
        truth: float64 (datasets, parameters).
    Raises:
        ModelError: the file cannot be run, ends its process, or gives another number of estimates.
    """
    pieces = [
        child.call(estimates_of, path, "default", compared.datasets[begin : begin + PIECE], where=path.name)
        for begin in range(0, len(compared.datasets), PIECE)
    ]
    estimates = np.concatenate(pieces)
    if estimates.shape != truth.shape:
        raise ModelError(f"{path.name}: gives {estimates.shape[-1]} estimates for {len(parameters)} parameters.")
    with np.errstate(all="ignore"):  # NaN and infinity are results here
        errors = summarized(np.abs(estimates - truth) / truth)
        rmse = {
            name: float(np.sqrt(np.mean((estimates[:, index].astype(np.float64) - compared.true[name]) ** 2)))
            for index, name in enumerate(parameters)
            if name in compared.true
        }
    finite = np.isfinite(estimates)
    return Accuracy(
        relative_error=dict(zip(parameters, errors, strict=True)),
        rmse=rmse,
        minimum=dict(zip(parameters, estimates.min(axis=0).tolist(), strict=True)),
        not_positive=int((finite & (estimates <= 0)).any(axis=1).sum()),
        not_finite=int((~finite).any(axis=1).sum()),
    )
