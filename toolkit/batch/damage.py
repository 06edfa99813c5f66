"""What of the inputs cannot be read: with --keep-going it is left out and named, and the rest is scored.

Every row group is decoded once before any is scored. So what is lost is known from the start and does not depend on
who reads first: a run that is interrupted, or has other workers, loses the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from toolkit.batch.sources import Source
from toolkit.datasets import iter_batches
from toolkit.errors import DamagedInput, InputError

READ_ROWS = 1024


@dataclass(frozen=True)
class Lost:
    """A row group, or a file, that cannot be read.

    Attributes:
        row_group: None where it is the whole file.
        rows: None where nobody knows how many there were.
    """

    file: str
    row_group: int | None
    rows: int | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Lost:
        return Lost(**content)

    def describe(self) -> str:
        """One line for people."""
        return self.reason if self.rows is None else f"{self.reason} {self.rows:,} rows are lost."


def open_undamaged(
    names: Sequence[str], open_file: Callable[[str], Source], workers: int
) -> tuple[tuple[Source, ...], tuple[Lost, ...]]:
    """The files that can be opened, without the row groups that cannot be decoded; and what is left out.

    Raises:
        InputError: nothing can be read; or what `open_file` raises about files that are not damaged.
    """

    def open_and_read(name: str) -> tuple[Source | None, list[Lost]]:
        try:
            source = open_file(name)
        except DamagedInput as error:
            return None, [Lost(name, None, None, str(error))]
        lost = _damaged_groups(source)
        return replace(source, lost=tuple(each.row_group for each in lost if each.row_group is not None)), lost

    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(open_and_read, names))
    sources = tuple(source for source, _ in found if source is not None)
    lost = tuple(each for _, several in found for each in several)
    if lost and not any(source.rows_kept for source in sources):
        raise InputError(f"nothing that was named can be read. The first of it: {lost[0].reason}")
    return sources, lost


def _damaged_groups(source: Source) -> list[Lost]:
    groups = range(len(source.row_groups))
    if _damage(source, groups) is None:  # one pass over the whole file, in nearly every case the only one
        return []
    reasons = {group: _damage(source, [group]) for group in groups}
    return [Lost(source.name, group, source.row_groups[group], why) for group, why in reasons.items() if why]


def _damage(source: Source, groups: Sequence[int]) -> str | None:
    read = 0
    try:
        for batch in iter_batches(source.name, None, groups, READ_ROWS):
            read += len(batch)
    except DamagedInput as error:
        return str(error)
    if read != sum(source.row_groups[group] for group in groups):
        return f"{source.name}, row group {groups[0]}: damaged (holds {read:,} rows)."
    return None
