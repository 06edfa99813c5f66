"""Scoring on a Ray cluster: one worker a CPU; Ray carries the model files there and receipts back, and never a row."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolkit.batch.parts import Receipt
from toolkit.batch.ray_cluster import connected
from toolkit.batch.ray_worker import Assignment, Outcome, Worker
from toolkit.batch.schedule import Positions, Schedule, stretches
from toolkit.batch.score import Job
from toolkit.batch.shards import Shard
from toolkit.batch.storage import open_folder
from toolkit.batch.work import RUN_FILE, versions
from toolkit.errors import ClusterError, reason_of

CALL_SHARDS = 8  # at most in one call: the driver handles some 1,500 calls a second
CALLS_AHEAD = 2  # of one worker: it never waits for the driver
MAX_DEATHS = 4  # workers that may die with the same shard before the shard is to blame
MAX_FAILED_STARTS = 5  # in a row, while no worker lives
NO_WORKER_SECONDS = 300.0  # a cluster that grows on demand takes minutes to start a machine
LOOK_SECONDS = 2.0  # between two looks at how large the cluster is


def score_on_ray(
    job: Job, shards: Sequence[Shard], workers: int | None, done: Callable[[Receipt], None], address: str | None = None
) -> None:
    """Score shards on a Ray cluster; `done` is called here, once for each, in no fixed order.

    A shard whose worker or machine dies is given to another worker. When a shard fails, none after it is begun, those
    before it are finished, and the error raised is that of the first in input order, as in the local engine.

    Args:
        workers: processes of one CPU each; as many as the cluster has, by default.
        address: HOST:PORT of a running cluster that this machine is part of, or 'auto' to look for it. By default the
            one that $RAY_ADDRESS names; else one is started on this machine, and ended afterwards.
    Raises:
        MissingExtra: Ray is not installed.
        InputError, OutputError: a node does not see an input or the work folder.
        ClusterError: the cluster cannot be reached or has no free CPU, a node has other versions, or workers die again
            and again.
        whatever reading or scoring raised.
    """
    if not shards:
        return
    with connected(address, workers) as ray:
        _Run(ray, job, shards, workers, done).run()


@dataclass
class _Member:
    """One worker of the pool."""

    number: int
    actor: Any
    ready: bool = False
    calls: dict[Any, Positions] = field(default_factory=dict)  # in flight


class _Run:
    def __init__(
        self, ray: Any, job: Job, shards: Sequence[Shard], workers: int | None, done: Callable[[Receipt], None]
    ) -> None:
        self.ray, self.job, self.shards, self.workers, self.done = ray, job, shards, workers, done
        self.schedule = Schedule(stretches(job.sources, shards))
        self.members: dict[int, _Member] = {}
        self.calls: dict[
            Any, tuple[_Member, Callable[[_Member, Any], None]]
        ] = {}  # in flight, and what takes the answer
        self.hired = 0
        self.failed_starts = 0
        self.last_living = self.last_look = time.monotonic()
        self.capacity = 0
        self.versions = versions()
        self.failures: list[tuple[int, Exception]] = []

    def run(self) -> None:
        ray = self.ray
        self.actor_class = ray.remote(num_cpus=1, max_restarts=0)(Worker)
        self.assignment = ray.put(_assignment(self.job, self.shards))
        self.look()
        try:
            while self.schedule.left or any(member.calls for member in self.members.values()):
                self.hire()
                self.hand_out()
                for call in self.answered(list(self.calls), LOOK_SECONDS):
                    self.take(call)
                self.look()
        finally:
            for member in self.members.values():
                ray.kill(member.actor)
        if self.failures:
            raise min(self.failures, key=lambda failure: failure[0])[1]

    def look(self) -> None:
        """How many workers there can be; machines come and go.

        Raises:
            ClusterError: for minutes there was none.
        """
        now = time.monotonic()
        if any(member.ready for member in self.members.values()):
            self.last_living = now
        if now - self.last_living > NO_WORKER_SECONDS:
            raise ClusterError(
                f"for {NO_WORKER_SECONDS:.0f} s the Ray cluster had no free CPU for a worker. Look at it with `ray "
                "status`; when there is room, run the same command with --resume."
            )
        if now - self.last_look > LOOK_SECONDS or not self.capacity:
            self.capacity = self.workers or max(int(self.ray.cluster_resources().get("CPU", 0)), 1)
            self.last_look = now

    def answered(self, calls: list[Any], wait_seconds: float) -> list[Any]:
        """Those of the calls that were answered; waits for one, but not for long."""
        if not calls:
            return []
        answered, waiting = self.ray.wait(calls, timeout=wait_seconds)
        if answered and waiting:
            answered += self.ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
        return answered

    def hire(self) -> None:
        """As many workers as there can be and are needed. Ray starts them where and when there is a free CPU."""
        busy = sum(bool(member.calls) for member in self.members.values())
        while len(self.members) < min(self.capacity, busy + self.schedule.left):
            member = _Member(self.hired, self.actor_class.remote())
            self.hired += 1
            self.members[member.number] = member
            self.call(member, member.actor.versions.remote(), self.take_versions)

    def hand_out(self) -> None:
        # While a worker may die of a shard, no other is in its hands: it would be suspected as well.
        ahead = 1 if self.schedule.suspects else CALLS_AHEAD
        for _ in range(ahead):
            for member in self.members.values():
                if not self.schedule.left:
                    return
                if member.ready and len(member.calls) < ahead:
                    count = self.schedule.left // (2 * CALLS_AHEAD * len(self.members))
                    now, later = self.schedule.take(member.number, min(max(count, 1), CALL_SHARDS))
                    if now:
                        again = self.schedule.had_died(now)
                        call = member.actor.score.remote(now.start, now.stop, later.stop, again)
                        member.calls[call] = now
                        self.call(member, call, self.take_outcome)

    def call(self, member: _Member, call: Any, take: Callable[[_Member, Any], None]) -> None:
        self.calls[call] = member, take

    def take(self, call: Any) -> None:
        if call not in self.calls:  # its worker was found dead by another answer
            return
        member, take = self.calls.pop(call)
        try:
            answer = self.ray.get(call)
        except self.ray.exceptions.RayTaskError:
            raise  # the worker returns the errors it knows
        except self.ray.exceptions.RayError as error:
            self.bury(member, error)
            return
        self.last_living, self.failed_starts = time.monotonic(), 0
        take(member, answer)
        if call in member.calls:
            self.schedule.finish(member.calls.pop(call))

    def take_versions(self, member: _Member, answer: tuple[str, dict[str, str]]) -> None:
        node, found = answer
        for package, number in self.versions.items():
            if found.get(package) != number:
                raise ClusterError(
                    f"node {node}: has {package} {found.get(package)}, here it is {number}. Install the same on every "
                    "node: others may give other bytes."
                )
        self.call(member, member.actor.start.remote(self.assignment), self.take_start)

    def take_start(self, member: _Member, error: Exception | None) -> None:
        if error is not None:
            raise error
        member.ready = True

    def take_outcome(self, member: _Member, outcome: Outcome) -> None:
        for receipt in outcome.receipts:
            self.done(receipt)
        if outcome.failed is not None:
            self.failures.append(outcome.failed)
            self.schedule.stop_at(outcome.failed[0])

    def bury(self, member: _Member, error: Exception) -> None:
        """Forget a worker that died, and put back what it had."""
        del self.members[member.number]
        self.ray.kill(member.actor)  # it may only be out of reach
        for call in self.answered(list(member.calls), 0):
            with suppress(self.ray.exceptions.RayError):  # what it answered before counts
                self.take_outcome(member, self.ray.get(call))
                self.schedule.finish(member.calls.pop(call))
        self.calls = {call: owner for call, owner in self.calls.items() if owner[0] is not member}
        position, deaths = self.schedule.lose(member.number, list(member.calls.values()))
        if self.failures:
            self.schedule.stop_at(min(self.failures, key=lambda failure: failure[0])[0])
        if deaths >= MAX_DEATHS:
            shard = self.shards[position]
            raise ClusterError(
                f"{self.job.sources[shard.source].name}, rows {shard.first_row} to {shard.first_row + shard.rows - 1}: "
                f"{deaths} workers died with them ({_last_words(error)}). Give workers more memory, or score the file "
                "with --engine local."
            ) from error
        if not member.ready:
            self.failed_starts += 1
            if self.failed_starts >= MAX_FAILED_STARTS:
                raise ClusterError(
                    f"workers die when they start ({_last_words(error)}). Install softplus-toolkit "
                    f"{self.versions['softplus-toolkit']} on every node."
                ) from error


def _last_words(error: Exception) -> str:
    """Why a worker died, of the many lines that Ray writes: the exception, or else the first of them."""
    last = str(error).strip().rpartition("\n")[2]
    return reason_of(RuntimeError(last)) if re.match(r"\w+(Error|Exception): ", last) else reason_of(error)


def _assignment(job: Job, shards: Sequence[Shard]) -> Assignment:
    models = {path.name: path.read_bytes() for path in (job.scoring, *job.others)}
    return Assignment(
        replace(job, folder=job.folder.absolute() if isinstance(job.folder, Path) else job.folder),
        tuple(shards),
        models,
        {name: hashlib.sha256(content).hexdigest() for name, content in models.items()},
        os.getcwd(),
        open_folder(job.folder).read(RUN_FILE) or b"",
    )
