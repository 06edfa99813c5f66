"""Many small requests to a slow folder, several at a time: an object store takes a hundredth of a second for each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AT_ONCE = 8


def ahead(ask: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
    """`ask(item)` for each, in order, in threads: at most AT_ONCE answers are under way or wait to be taken.

    Raises:
        whatever `ask` raised, in its turn.
    """
    under_way: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(AT_ONCE, "ahead") as threads:
        try:
            for item in items:
                if len(under_way) == AT_ONCE:
                    yield under_way.popleft().result()
                under_way.append(threads.submit(ask, item))
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
