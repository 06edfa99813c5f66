"""The smallest predictions of each parameter and the rows they belong to: where a person looks first."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

KEPT = 3


@dataclass(frozen=True, order=True)
class Small:
    """One prediction; of equal ones the first in input order is the smaller.

    Attributes:
        shard: its index, which is the order of the input.
    """

    value: float
    shard: int
    source_row: int
    source_file: str

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "source_file": self.source_file, "source_row": self.source_row}


Smallest = tuple[tuple[Small, ...], ...]  # for each parameter at most KEPT, in ascending order


def smallest_of(
    estimates: FloatArray, rows: NDArray[np.int64], shard: int, source_file: str, known: Smallest
) -> Smallest:
    """`known` with what these estimates add to it.

    Args:
        estimates: float32 (n, parameters), finite.
        rows: int64 (n,), their `source_row`.
        known: of the same shard; () before the first batch.
    """
    if not len(rows):
        return known
    known = known or ((),) * estimates.shape[1]
    # Most batches hold nothing below what is known: one comparison a parameter tells.
    limits = [found[-1].value if len(found) == KEPT else np.inf for found in known]
    kept = list(known)
    for column in np.flatnonzero(estimates.min(axis=0) <= limits):
        values = estimates[:, column]
        last = np.partition(values, KEPT - 1)[KEPT - 1] if len(values) > KEPT else np.inf
        chosen = np.flatnonzero(values <= min(float(last), limits[column]))
        # Of equal ones the first count: where all are equal, no more than KEPT become objects.
        chosen = chosen[np.argsort(values[chosen], kind="stable")[:KEPT]]
        found = (Small(float(values[index]), shard, int(rows[index]), source_file) for index in chosen)
        kept[column] = _first(chain(known[column], found))
    return tuple(kept)


def merge_smallest(several: Iterable[Smallest], parameters: int) -> Smallest:
    """The smallest of all; the same in whatever order they come."""
    parts: Sequence[Smallest] = [each for each in several if each]
    return tuple(_first(chain.from_iterable(part[column] for part in parts)) for column in range(parameters))


def _first(found: Iterable[Small]) -> tuple[Small, ...]:
    return tuple(heapq.nsmallest(KEPT, found))
