"""Worker processes that run a user's simulator, one block of datasets at a time.

Block i has a generator of its own, seeded with (seed, i), and blocks are yielded in order: neither the number of
workers nor their speed changes a number. A worker is a fresh Python: a fork would copy the locks that other threads
hold, and multiprocessing's spawn runs the caller's script again. Its pools also do not say of which block a process
died, and do not end at once on Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.cores import usable_cores
from toolkit.errors import SimulatorError
from toolkit.simulator.function import Kept, Pair, Purpose, Task, load, make, make_good, split

BLOCK = 256  # datasets in one call of the simulator: enough to vectorize over, few enough to hold and to share out
AHEAD = 2  # blocks per worker that are being made or wait for an earlier one: bounds the memory
DYING_SECONDS = 5.0  # from the end of its connection to that of a process; one that lives on has closed it itself
ORPHAN_SECONDS = 1.0  # between two looks of a worker whether there is still somebody to work for
# The cores are taken: more threads in a worker would only push each other aside.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@contextmanager
def open_simulator(name: str, *, workers: int | None = None, nice: int = 0) -> Iterator[Simulator]:
    """Load a user's simulator in worker processes, which end with this context.

    Args:
        name: "FILE.py:FUNCTION". FUNCTION(count, rng) returns real numbers of shape (count, rows, columns) and
            (count, parameters), rows and columns the same at every call, all finite in float32. PARAMETERS in the
            file names the parameters, COLUMNS the columns (it may be absent). The file can import modules beside it.
        workers: processes; by default one for each usable core. NumPy's libraries run one thread in each, unless the
            environment says otherwise.
        nice: how far they stand back behind other processes, 0 to 19.
    Raises:
        SimulatorError: the file, the function or PARAMETERS is not there or not usable.
    """
    path, _ = split(name)
    if not path.is_file():
        raise SimulatorError(f"{path}: no such file. Name your simulator FILE.py:FUNCTION, as in sim.py:simulate.")
    if workers is not None and workers < 1:
        raise SimulatorError(f"--workers {workers}: ask for at least 1 process.")
    started: list[_Worker] = []
    try:
        for _ in range(workers or usable_cores()):
            started.append(_start(name, nice))
        _, _, names = next(_answers(name, started))
        if isinstance(names, SimulatorError):
            raise names
        columns, parameters = names
        yield Simulator(name, columns, parameters, started)
    finally:
        for worker in started:
            worker.process.kill()  # it holds nothing that needs an orderly end, and may be deep in a slow block
        for worker in started:
            worker.process.wait()
            worker.connection.close()


@dataclass(frozen=True)
class Simulator:
    """A user's simulator in running worker processes. `columns` is None where the user's file does not name them."""

    name: str
    columns: tuple[str, ...] | None
    parameters: tuple[str, ...]
    workers: list[_Worker]
    shape: list[int] = field(default_factory=list)  # (rows, columns), known once a block was made

    def blocks(self, count: int, *, seed: int = 0) -> Iterator[Pair]:
        """Yield `count` datasets and their parameters in blocks of at most BLOCK.

        Call it as often as you like, one seed for each call; an earlier call need not have been read to its end.

        Raises:
            SimulatorError: the simulator raised, returned what it must not or ended its process; or a negative seed.
        """
        for task, made in self._made(count, Task(seed, 0, 0)):
            if isinstance(made, SimulatorError):
                raise made
            if wrong := self._misshapen(task, made[0]):
                raise wrong
            yield made

    def good_blocks(
        self,
        count: int,
        lost: Callable[[int, str], None],
        *,
        seed: int = 0,
        epoch: int = 0,
        purpose: Purpose = Purpose.FILE,
        positive: tuple[int, ...] = (),
    ) -> Iterator[Pair]:
        """Yield what is good of `count` datasets and their parameters, in blocks of at most BLOCK.

        Args:
            lost: told of each block that is not good as a whole: how many of its datasets are left out, and what is
                wrong with the first. It may raise.
            positive: parameters, by index, that must be positive.
        Raises:
            SimulatorError: the simulator ended its process; or a negative seed.
        """
        for task, made in self._made(count, Task(seed, 0, 0, epoch, purpose, positive)):
            kept: Kept = made
            if kept.lost:
                lost(kept.lost, kept.why)
            if len(kept.datasets):
                if wrong := self._misshapen(task, kept.datasets):
                    lost(len(kept.datasets), str(wrong))
                else:
                    yield kept.datasets, kept.parameters

    def _misshapen(self, task: Task, datasets: NDArray[np.float32]) -> SimulatorError | None:
        """What is wrong where datasets have not the shape of the first that were made."""
        here = datasets.shape[1:]
        if not self.shape:
            self.shape.extend(here)
        if here == tuple(self.shape):
            return None
        where, again = task.where(self.name), task.again(self.name)
        return SimulatorError(f"{where}: datasets of shape {here}, {tuple(self.shape)} before. Make all alike.{again}")

    def _made(self, count: int, of: Task) -> Iterator[tuple[Task, Any]]:
        """The blocks of `count` datasets in order: each task, otherwise like `of`, and the worker's answer to it."""
        if of.seed < 0:
            raise SimulatorError(f"--seed {of.seed}: the seed is a whole number from 0 up.")
        run = object()
        made: dict[int, Any] = {}
        given = taken = 0
        total = -(-count // BLOCK)
        while taken < total:
            for worker in self.workers:
                if not worker.busy and given < min(total, taken + AHEAD * len(self.workers)):
                    task = replace(of, block=given, count=min(BLOCK, count - given * BLOCK))
                    _give(self.name, worker, run, task)
                    given += 1
            for answered_run, task, answer in _answers(self.name, self.workers):
                if answered_run is run:  # else it was loading the file, or was at work for an earlier call
                    made[task.block] = task, answer
            while taken in made:
                taken += 1
                yield made.pop(taken - 1)


@dataclass
class _Worker:
    """One process. It answers once after loading the file, then once for each task."""

    process: subprocess.Popen[bytes]
    connection: Connection
    busy: bool
    run: object = None  # the call of Simulator.blocks that its task is for; None while it loads
    task: Task = Task(0, 0, 0)


def _start(name: str, nice: int) -> _Worker:
    ours, theirs = socket.socketpair()
    with theirs:  # the worker then holds the only copy, and its death reads as the end of the connection
        program = f"import sys; sys.path[:] = {sys.path!r}; from toolkit.simulator.workers import work; "
        process = subprocess.Popen(
            [sys.executable, "-c", program + f"work({theirs.fileno()}, {name!r}, {nice})"],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=ONE_THREAD | os.environ,
            process_group=0,  # out of reach of Ctrl-C: the command gets it, and ends its workers without a word
        )
    return _Worker(process, Connection(ours.detach()), busy=True)


def _give(name: str, worker: _Worker, run: object, task: Task) -> None:
    worker.busy, worker.run, worker.task = True, run, task
    try:
        worker.connection.send(task)
    except OSError as error:
        raise _died(name, worker) from error


def _answers(name: str, workers: list[_Worker]) -> Iterator[tuple[object, Task, Any]]:
    """Wait for the first answer; yield (run, task, answer) for each that is there, its worker being free again."""
    busy: list[Any] = [worker.connection for worker in workers if worker.busy]
    ready = wait(busy)
    for worker in workers:
        if worker.connection in ready:
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError) as error:
                raise _died(name, worker) from error
            worker.busy = False
            yield worker.run, worker.task, answer


def _died(name: str, worker: _Worker) -> SimulatorError:
    try:
        code = worker.process.wait(timeout=DYING_SECONDS)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        code, how = 0, "it closed file descriptors that are not its own"
    if worker.run is None:
        return SimulatorError(f"{name}: a worker process ended while it loaded the file ({how}).")
    advice = " Out of memory? Use fewer --workers." if code == -signal.SIGKILL else ""
    where, again = worker.task.where(name), worker.task.again(name)
    return SimulatorError(f"{where}: the worker process ended ({how}).{advice}{again}")


def work(descriptor: int, name: str, nice: int = 0) -> None:
    """What a worker process runs: load the file, send its names, make blocks until the connection closes.

    Args:
        descriptor: file descriptor of the worker's end of the connection.
        nice: how far to stand back behind other processes.
    """
    os.nice(nice)
    threading.Thread(target=_end_when_alone, args=(os.getppid(),), daemon=True).start()
    connection = Connection(descriptor)
    try:
        try:
            function = load(name)
        except SimulatorError as error:
            connection.send(error)
            return
        connection.send((function.columns, function.parameters))
        while True:
            task = connection.recv()
            try:
                connection.send(make(function, task) if task.positive is None else make_good(function, task))
            except SimulatorError as error:
                connection.send(error)
    except (EOFError, ConnectionError):
        pass  # the process that started this one has ended


def _end_when_alone(parent: int) -> None:
    """End this process, however deep in a slow block, once the one that started it has ended."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_SECONDS)
    os._exit(1)
