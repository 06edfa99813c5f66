"""What an evaluation has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.batch.ranges import RangeCount
from toolkit.evaluation.coverage import Coverage
from toolkit.evaluation.measures import Measures
from toolkit.json_values import jsonable
from toolkit.manifest import Manifest

if TYPE_CHECKING:
    from toolkit.spec import FloatArray


@dataclass(frozen=True)
class Evaluated:
    """The network, or one exported file.

    Attributes:
        file: its name; that of the file that holds the weights for the network.
        measures: by parameter; empty where it could not be run.
        shown: float64 (points, parameters), the estimates that plots show.
        coverage: of its intervals, by parameter; empty where it knows none of the level asked for.
        failures: why it could not be run, or that estimates are not finite and positive.
    """

    file: str
    format: str
    precision: str
    measures: Mapping[str, Measures]
    shown: NDArray[np.float64]
    failures: tuple[str, ...]
    coverage: Mapping[str, Coverage] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "format": self.format,
            "precision": self.precision,
            "parameters": {name: each.to_json() for name, each in self.measures.items()},
            "intervals": {name: each.to_json() for name, each in self.coverage.items()},
            "failures": list(self.failures),
        }


@dataclass(frozen=True)
class RowOrder:
    """How much the network's estimates change when the rows of each dataset are put into another order.

    Attributes:
        datasets: how many were tried.
        change: by parameter, root of the mean squared change, in its unit.
        relative_to_rmse: that over the RMSE against the true values.
    """

    datasets: int
    change: Mapping[str, float]
    relative_to_rmse: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        relative = jsonable(self.relative_to_rmse)
        return {"datasets": self.datasets, "change": jsonable(self.change), "relative_to_rmse": relative}


@dataclass(frozen=True)
class Evaluation:
    """How well the true values of datasets are recovered, by the network and by every exported file.

    Attributes:
        sources: the files that the datasets are from.
        outside: datasets with a value outside the model's training ranges; None where nobody knows these.
        true_outside: by parameter, datasets whose true value is outside the range seen in training.
        shown_true: float32 (points, parameters), the true values that plots show.
    """

    model: Path
    manifest: Manifest
    sources: tuple[Path, ...]
    datasets: int
    outside: RangeCount | None
    true_outside: Mapping[str, int]
    row_order: RowOrder
    network: Evaluated
    files: tuple[Evaluated, ...]
    shown_true: FloatArray

    @property
    def passed(self) -> bool:
        """Whether everything could be run, and gave finite positive estimates. How good they are is no matter of it."""
        return not any(each.failures for each in (self.network, *self.files))

    def to_json(self) -> dict[str, Any]:
        """The object that `evaluate --json` prints."""
        outside = self.outside and {
            "datasets": self.outside.rows,
            "fraction": self.outside.rows / self.datasets,
            "columns": dict(self.outside.columns),
        }
        return {
            "passed": self.passed,
            "datasets": self.datasets,
            "outside_training_range": outside,
            "true_values_outside_training_range": dict(self.true_outside),
            "row_order": self.row_order.to_json(),
            "network": self.network.to_json(),
            "files": [file.to_json() for file in self.files],
        }
