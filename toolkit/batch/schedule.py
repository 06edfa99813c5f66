"""Which shards go to which worker, when workers are many, come and go, and each keeps a file open."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from itertools import accumulate

from toolkit.batch.shards import Shard
from toolkit.batch.sources import Source

Positions = range  # of consecutive shards among those wanted


def stretches(sources: Sequence[Source], shards: Sequence[Shard]) -> list[Positions]:
    """The shards, cut wherever one is the first that begins in its row group.

    A reader cannot start in the middle of a row group but by decoding what is before it, so those of one row group are
    for one worker, one after the other.
    """
    ends = {index: list(accumulate(sources[index].row_groups)) for index in {shard.source for shard in shards}}
    groups = [(shard.source, bisect_right(ends[shard.source], shard.first_row)) for shard in shards]
    cuts = [at for at in range(1, len(shards)) if groups[at] != groups[at - 1]]
    return [range(begin, end) for begin, end in zip([0, *cuts], [*cuts, len(shards)], strict=True) if begin < end]


class Schedule:
    """Stretches are begun in input order. When none is left, half of what the busiest worker has not begun is taken
    from it: one file with one row group must not occupy one worker and leave the others idle.

    Attributes:
        left: shards that were not taken yet.
    """

    def __init__(self, stretches: Sequence[Positions]) -> None:
        self._untouched = deque(stretches)
        self._hands: dict[int, Positions] = {}  # worker -> what it has not begun of its stretch
        self._lost: Counter[int] = Counter()  # position -> workers that died with it, until it is done
        self.left = sum(map(len, stretches))

    def take(self, worker: int, count: int) -> tuple[Positions, Positions]:
        """At most `count` shards for a worker to score next, and beyond them those it will be given if nobody else
        takes them. A shard that a worker died with comes alone: it may be its fault.

        Returns:
            (now, now and later); empty when there is nothing to do.
        """
        rest = self._hands.get(worker) or self._next()
        count = 1 if rest and self._lost[rest[0]] else count
        now, self._hands[worker] = rest[:count], rest[count:]
        self.left -= len(now)
        return now, rest

    def lose(self, worker: int, begun: Sequence[Positions]) -> tuple[int, int]:
        """Put back what a dead worker had: `begun` is what it took and did not return.

        Returns:
            (position, deaths) of the shard with which most workers died; (-1, 0) when it had begun none.
        """
        for positions in reversed([*begun, self._hands.pop(worker, range(0))]):
            if positions:
                self._untouched.appendleft(positions)
        self.left += sum(map(len, begun))
        dead = [position for positions in begun for position in positions]
        self._lost.update(dead)
        return max(((position, self._lost[position]) for position in dead), key=lambda each: each[1], default=(-1, 0))

    @property
    def suspects(self) -> bool:
        """Whether there are shards that a worker died with, and nobody has done since."""
        return bool(self._lost)

    def finish(self, positions: Positions) -> None:
        """These were done: no worker dies of them."""
        for position in positions:
            self._lost.pop(position, None)

    def had_died(self, positions: Positions) -> bool:
        """Whether a worker died with one of these: it may be done all the same."""
        return any(self._lost[position] for position in positions)

    def stop_at(self, position: int) -> None:
        """Hand out no shard from this one on."""
        self._untouched = deque(kept for each in self._untouched if (kept := _before(each, position)))
        self._hands = {worker: _before(each, position) for worker, each in self._hands.items()}
        self.left = sum(map(len, (*self._untouched, *self._hands.values())))

    def _next(self) -> Positions:
        if self._untouched:
            return self._untouched.popleft()
        busiest = max(self._hands, key=lambda worker: len(self._hands[worker]), default=None)
        if busiest is None:
            return range(0)
        rest = self._hands[busiest]
        self._hands[busiest] = rest[: len(rest) // 2]
        return rest[len(rest) // 2 :]


def _before(positions: Positions, end: int) -> Positions:
    return range(positions.start, min(positions.stop, end))
