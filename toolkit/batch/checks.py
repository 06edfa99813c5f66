"""Is every output positive, and do the exported files agree? Asked of every row that is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.batch.smallest import Smallest, smallest_of
from toolkit.errors import NotPositive
from toolkit.promise import keeps_promise

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Predict

CHECKS = ("all", "sample", "off")
SAMPLED_SHARE = 0.01
# Fractional parts of multiples of the golden ratio spread evenly: any run of rows holds its share of sampled ones, and
# no pattern of the data that repeats every 10 or 100 rows can hide from them.
GOLDEN_RATIO_BITS = np.uint64(0x9E3779B97F4A7C15)

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FileCheck:
    """What was seen of one exported file.

    Attributes:
        minimum: smallest output of each parameter; empty while no row was checked.
        max_relative_difference: of each parameter, largest |output - scoring file's| / scoring file's.
    """

    file: str
    rows_checked: int = 0
    minimum: tuple[float, ...] = ()
    violations: int = 0
    max_relative_difference: tuple[float, ...] = ()

    def merged(self, other: FileCheck) -> FileCheck:
        """Both taken together, whichever comes first."""
        if not (self.rows_checked and other.rows_checked):
            return self if self.rows_checked else other
        return FileCheck(
            self.file,
            self.rows_checked + other.rows_checked,
            tuple(map(min, self.minimum, other.minimum)),
            self.violations + other.violations,
            tuple(map(max, self.max_relative_difference, other.max_relative_difference)),
        )

    def to_json(self, parameters: Sequence[str]) -> dict[str, Any]:
        return {
            "file": self.file,
            "rows_checked": self.rows_checked,
            "minimum": dict(zip(parameters, self.minimum, strict=False)),
            "violations": self.violations,
            "max_relative_difference": dict(zip(parameters, self.max_relative_difference, strict=False)),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> FileCheck:
        return FileCheck(
            content["file"],
            content["rows_checked"],
            tuple(content["minimum"].values()),
            content["violations"],
            tuple(content["max_relative_difference"].values()),
        )


class Violation(NotPositive):
    """An output of an exported file that is not finite and positive, with the input that gave it."""

    def __init__(self, file: str, source: str, row: int, output: str, dataset: FloatArray) -> None:
        super().__init__(f"{source}, row {row}: {file} gave {output}, which is not a finite normal positive number.")
        self.file, self.source, self.row, self.output, self.dataset = file, source, row, output, dataset

    def __reduce__(self) -> tuple[type[Violation], tuple[Any, ...]]:  # so that it can come from another process
        return Violation, (self.file, self.source, self.row, self.output, self.dataset)


@dataclass
class Engines:
    """The exported files that one worker runs: the one that scores, and the others that are compared with it."""

    scoring_file: str
    scoring: Predict
    others: Mapping[str, Predict]


@dataclass
class ShardChecks:
    """Scores batches of one shard with an eye on every output.

    Attributes:
        check: 'all' runs the other files on every row; 'sample' on one row in a hundred, chosen by `source_row`, and on
            the rows with the smallest outputs of the shard; 'off' not at all.
        smallest: predictions so far, with their rows.
    """

    engines: Engines
    check: str
    parameters: Sequence[str]
    source: str
    shard: int = 0
    seen: dict[str, FileCheck] = field(default_factory=dict)
    sample: list[tuple[int, FloatArray, FloatArray]] = field(default_factory=list)
    extremes: dict[int, tuple[int, FloatArray, FloatArray]] = field(default_factory=dict)
    smallest: Smallest = ()

    def score(self, datasets: FloatArray, rows: Rows) -> FloatArray:
        """Estimates of the scoring file, every one of them a finite normal positive number.

        Args:
            datasets: float32 (n, rows, columns), finite.
            rows: int64 (n,), their `source_row`.
        Raises:
            Violation: an output of this or another file is not.
        """
        estimates = self.engines.scoring(datasets)
        self._check(self.engines.scoring_file, estimates, estimates, datasets, rows)
        self.smallest = smallest_of(estimates, rows, self.shard, self.source, self.smallest)
        if self.check == "all":
            for file, predict in self.engines.others.items():
                self._check(file, predict(datasets), estimates, datasets, rows)
        elif self.check == "sample" and self.engines.others:
            self._choose(datasets, estimates, rows)
        return estimates

    def finish(self) -> tuple[FileCheck, ...]:
        """What was seen, the scoring file first; runs the other files on the sample."""
        chosen = {row: (dataset, estimate) for row, dataset, estimate in [*self.sample, *self.extremes.values()]}
        if chosen:
            rows = np.array(sorted(chosen), np.int64)
            datasets = np.stack([chosen[row][0] for row in rows.tolist()])
            estimates = np.stack([chosen[row][1] for row in rows.tolist()])
            for file, predict in self.engines.others.items():
                self._check(file, predict(datasets), estimates, datasets, rows)
        files = [self.engines.scoring_file, *(self.engines.others if self.check != "off" else ())]
        return tuple(self.seen.get(file, FileCheck(file)) for file in files)

    def _check(self, file: str, outputs: FloatArray, estimates: FloatArray, datasets: FloatArray, rows: Rows) -> None:
        if not len(rows):
            return
        passed = keeps_promise(outputs)
        if not np.all(passed):
            row, column = np.argwhere(~passed)[0]
            output = f"{self.parameters[column]} = {outputs[row, column]:.9g}"
            raise Violation(file, self.source, int(rows[row]), output, datasets[row].copy())
        truth = estimates.astype(np.float64)
        difference = np.max(np.abs(outputs - truth) / truth, axis=0)
        found = FileCheck(file, len(rows), _floats(outputs.min(axis=0)), 0, _floats(difference))
        self.seen[file] = self.seen.get(file, FileCheck(file)).merged(found)

    def _choose(self, datasets: FloatArray, estimates: FloatArray, rows: Rows) -> None:
        for index in np.flatnonzero(is_sampled(rows)):
            self.sample.append((int(rows[index]), datasets[index].copy(), estimates[index]))
        for column, index in enumerate(estimates.argmin(axis=0) if len(rows) else ()):
            known = self.extremes.get(column)
            if known is None or estimates[index, column] < known[2][column]:
                self.extremes[column] = (int(rows[index]), datasets[index].copy(), estimates[index])


def is_sampled(rows: Rows) -> NDArray[np.bool_]:
    """bool (n,): which rows `--check sample` takes. Depends on `source_row` alone."""
    return np.asarray(rows.astype(np.uint64) * GOLDEN_RATIO_BITS < np.uint64(SAMPLED_SHARE * 2**64))


def _floats(values: NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
