"""Items made ahead of time in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")

PREFETCHED_ITEMS = 16
STOPPING_SECONDS = 1.0  # for the item that is being made; a simulator's may take longer, and ends with its process


def prefetched(items: Iterator[Item], depth: int = PREFETCHED_ITEMS) -> Iterator[Item]:
    """The same items, made ahead of time in a thread; its exception is raised here."""
    made: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                made.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item, None):
                    return
            put(None, StopIteration())
        except BaseException as error:  # noqa: BLE001  handed to the consumer, whatever it is
            put(None, error)

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join(STOPPING_SECONDS)
