"""Where the groups of a tidy table come from: what is said of a group names a row that a person can look up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pyarrow as pa

from toolkit.batch.checks import Violation
from toolkit.batch.columns import SOURCE_FILE, SOURCE_ROW
from toolkit.batch.smallest import Smallest


@dataclass
class Origins:
    """Where the groups of one shard come from, by their place among all groups."""

    first_row: int
    batches: list[pa.RecordBatch] = field(default_factory=list)

    def of(self, row: int) -> tuple[str, int]:
        """(source_file, source_row) of a group's first row."""
        left = row - self.first_row
        for batch in self.batches:
            if left < len(batch):
                return batch.column(0)[left].as_py(), batch.column(1)[left].as_py()
            left -= len(batch)
        raise IndexError(row)

    def add(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch.select([SOURCE_FILE, SOURCE_ROW]))

    def renamed(self, smallest: Smallest) -> Smallest:
        """With the file and row that a person can look up."""
        return tuple(
            tuple(
                replace(one, source_file=file, source_row=row)
                for one in found
                for file, row in [self.of(one.source_row)]
            )
            for found in smallest
        )

    def violation(self, violation: Violation) -> Violation:
        file, row = self.of(violation.row)
        return Violation(violation.file, file, row, violation.output, violation.dataset)
