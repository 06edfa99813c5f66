"""Who scores which shard: each is given out and done once, however workers come, go and die."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.batch.schedule import Schedule, stretches
from toolkit.batch.shards import Shard


def sources(*row_groups: list[int]) -> Any:
    return [SimpleNamespace(row_groups=tuple(groups)) for groups in row_groups]


def shards(rows: int, size: int, source: int = 0) -> list[Shard]:
    return [Shard(at, source, first, min(size, rows - first)) for at, first in enumerate(range(0, rows, size))]


@pytest.mark.parametrize(
    ("row_groups", "size", "expected"),
    [
        ([100], 10, [range(10)]),  # one row group: one worker reads it
        ([40, 40, 20], 10, [range(4), range(4, 8), range(8, 10)]),
        ([25, 75], 10, [range(3), range(3, 10)]),  # the third shard spans both
        ([10] * 4, 10, [range(1), range(1, 2), range(2, 3), range(3, 4)]),
        ([1] * 40, 10, [range(1), range(1, 2), range(2, 3), range(3, 4)]),  # a shard of many small groups
        ([], 10, []),
    ],
)
def test_stretches_are_cut_where_row_groups_begin(row_groups: list[int], size: int, expected: list[range]) -> None:
    assert stretches(sources(row_groups), shards(sum(row_groups), size)) == expected


def test_stretches_are_cut_between_files_and_know_only_the_shards_that_are_wanted() -> None:
    first = shards(40, 10)
    second = [Shard(4 + shard.index, 1, shard.first_row, shard.rows) for shard in shards(20, 10)]
    wanted = [first[0], first[3], *second]
    assert stretches(sources([40], [20]), wanted) == [range(2), range(2, 4)]


def test_schedule_begins_stretches_in_order_and_keeps_a_worker_in_its_own() -> None:
    schedule = Schedule([range(3), range(3, 6)])
    assert schedule.take(7, 2) == (range(2), range(3))
    assert schedule.take(8, 2) == (range(3, 5), range(3, 6))
    assert schedule.take(7, 2) == (range(2, 3), range(2, 3))
    assert schedule.left == 1


def test_schedule_lets_idle_workers_take_half_of_what_the_busiest_has_not_begun() -> None:
    schedule = Schedule([range(10)])
    assert schedule.take(1, 2)[0] == range(2)
    assert schedule.take(2, 1) == (range(6, 7), range(6, 10))
    assert schedule.take(3, 1) == (range(4, 5), range(4, 6))
    assert [schedule.take(1, 9)[0], schedule.take(2, 9)[0], schedule.take(3, 9)[0]] == [
        range(2, 4),
        range(7, 10),
        range(5, 6),
    ]
    assert (schedule.left, len(schedule.take(1, 1)[0])) == (0, 0)


def test_schedule_gives_shards_that_a_worker_died_with_to_another_one_by_one_and_counts() -> None:
    schedule = Schedule([range(9)])
    begun = [schedule.take(1, 4)[0], schedule.take(1, 2)[0]]
    assert schedule.lose(1, begun) == (0, 1) and schedule.left == 9
    assert schedule.lose(2, []) == (-1, 0)
    assert schedule.take(3, 4)[0] == range(1) and schedule.had_died(range(1))
    assert schedule.take(3, 4)[0] == range(1, 2)
    assert schedule.lose(3, [range(1, 2)]) == (1, 2)
    assert schedule.suspects and Schedule([range(9)]).suspects is False
    alone = [range(position, position + 1) for position in range(1, 6)]
    assert [schedule.take(4, 4)[0] for _ in range(6)] == [*alone, range(6, 9)]
    assert not schedule.had_died(range(6, 9))
    for positions in alone:
        assert schedule.suspects
        schedule.finish(positions)
    schedule.finish(range(1))
    assert not schedule.suspects and not schedule.had_died(range(9))


def test_schedule_stops_before_the_shard_that_failed() -> None:
    schedule = Schedule([range(4), range(4, 8), range(8, 12)])
    schedule.take(1, 1), schedule.take(2, 1)
    schedule.stop_at(6)
    rest = [schedule.take(1, 9)[0], schedule.take(2, 9)[0], schedule.take(3, 9)[0]]
    assert [position for positions in rest for position in positions] == [1, 2, 3, 5] and schedule.left == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=6), st.integers(1, 5), st.integers(1, 8), st.integers(0, 2**32))
def test_every_shard_is_done_once_whatever_workers_do(sizes: list[int], workers: int, most: int, seed: int) -> None:
    """Workers answer in any order and die at any moment; a dead one is followed by a new one."""
    random = Random(seed)
    ends = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
    schedule = Schedule([range(begin, end) for begin, end in zip(ends, ends[1:], strict=False)])
    in_flight: dict[int, list[range]] = {worker: [] for worker in range(workers)}
    done: list[int] = []
    newest, deaths = workers, 0
    while schedule.left or any(in_flight.values()):
        worker = random.choice(list(in_flight))
        if random.random() < 0.1 and deaths < 20:
            schedule.lose(worker, in_flight.pop(worker))
            in_flight[newest], newest, deaths = [], newest + 1, deaths + 1
        elif in_flight[worker] and random.random() < 0.5:
            done += in_flight[worker].pop(0)
        elif len(in_flight[worker]) < 2:
            now, later = schedule.take(worker, random.randint(1, most))
            assert len(now) <= most and now == later[: len(now)]
            in_flight[worker] += [now] if now else []
        assert schedule.left == ends[-1] - len(done) - sum(len(each) for calls in in_flight.values() for each in calls)
    assert sorted(done) == list(range(ends[-1]))
