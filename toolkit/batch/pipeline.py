"""The local engine: one reader, workers with single-threaded interpreters of their own, and one writer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from toolkit.batch.parts import Receipt
from toolkit.batch.score import Job, Scored, load_engines, score_rows, write_shard
from toolkit.batch.shards import Shard, read_shards

SHARDS_AHEAD = 2  # read before a worker is free: enough that none waits, little memory
SHARDS_BEHIND = 2  # scored and not yet written: enough that no worker waits for the disk
POLL_SECONDS = 0.1

Task = tuple[Shard, Iterator[pa.RecordBatch]]


def score_locally(job: Job, shards: Sequence[Shard], workers: int, done: Callable[[Receipt], None]) -> None:
    """Score shards in threads; `done` is called here, once for each, in no fixed order.

    When a shard fails, those before it are still finished and none after it is begun: of several that would fail, the
    error raised is that of the first in input order, however many workers there are. On Ctrl-C what runs is abandoned.

    Raises:
        whatever reading or scoring raised.
    """
    if not shards:
        return
    _Run(job, shards, min(workers, len(shards)), done).run()


class _Abandoned(Exception):
    """Ends a worker in the middle of its shard."""


class _Run:
    def __init__(self, job: Job, shards: Sequence[Shard], workers: int, done: Callable[[Receipt], None]) -> None:
        self.job, self.shards, self.workers, self.done = job, shards, workers, done
        self.tasks: queue.Queue[Task | None] = queue.Queue(SHARDS_AHEAD)
        self.scored: queue.Queue[Scored | None] = queue.Queue(SHARDS_BEHIND)  # None: a worker has ended
        self.results: queue.Queue[Receipt | None] = queue.Queue()  # None: a thread has ended
        self.failures: list[tuple[int, BaseException]] = []  # (index of the shard, error)
        self.no_more = threading.Event()  # begin no other shard
        self.abandon = threading.Event()  # drop the one in hand as well

    def run(self) -> None:
        targets = [self.write, self.read, *[self.work] * self.workers]
        threads = [threading.Thread(target=target, daemon=True) for target in targets]
        try:
            for thread in threads:
                thread.start()
            running = len(threads)
            while running:
                receipt = self.results.get()
                if receipt is None:
                    running -= 1
                else:
                    self.done(receipt)
        except BaseException:
            self.abandon.set()
            raise
        finally:
            self.no_more.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self.failures:
            raise min(self.failures, key=lambda failure: failure[0])[1]

    def read(self) -> None:
        """Hand out the shards in order. A file that cannot be read fails the shard after the last one handed out."""
        index = self.shards[0].index
        try:
            for shard, batches in read_shards(self.job.sources, self.shards):
                if not self.put((shard, batches)):
                    break
                index = shard.index + 1
        except BaseException as error:
            self.failures.append((index, error))
        finally:
            for _ in range(self.workers):
                self.put(None)
            self.results.put(None)

    def put(self, task: Task | None) -> bool:
        while not self.no_more.is_set():
            try:
                self.tasks.put(task, timeout=POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def work(self) -> None:
        index = -1
        try:
            engines = load_engines(self.job)
            while not self.no_more.is_set():
                try:
                    task = self.tasks.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                if task is None:
                    break
                shard, batches = task
                index = shard.index
                self.hand_over(score_rows(self.job, shard, self.unless_abandoned(batches), engines))
        except _Abandoned:
            pass
        except BaseException as error:
            self.failures.append((index, error))
            self.no_more.set()
        finally:
            self.hand_over(None)
            self.results.put(None)

    def hand_over(self, scored: Scored | None) -> None:
        while not self.abandon.is_set():
            try:
                return self.scored.put(scored, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def write(self) -> None:
        """Write what is scored, in a thread of its own: a worker that waited for the disk would leave its core idle."""
        working = self.workers
        while working and not self.abandon.is_set():
            try:
                scored = self.scored.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if scored is None:
                working -= 1
                continue
            try:
                self.results.put(write_shard(self.job, scored))
            except BaseException as error:
                self.failures.append((scored.shard.index, error))
                self.no_more.set()
        self.results.put(None)

    def unless_abandoned(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if self.abandon.is_set():
                raise _Abandoned
            yield batch
