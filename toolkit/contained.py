"""Functions run in a child process: what crashes, hangs or eats memory there is one error here.

The native runtimes trust the files they are given, and a damaged one can end the process that loads it. The child is a
fresh Python: a fork would copy the locks that other threads hold, and multiprocessing's spawn runs the caller's script
again. It contains accidents; it is no sandbox against code.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, TypeVar

from toolkit.errors import ModelError, ToolkitError, reason_of

Result = TypeVar("Result")

TIMEOUT_SECONDS = 120.0
MEMORY_BYTES = 8 << 30  # of address space; TensorFlow alone takes 3 GiB of it
# Each thread of NumPy's libraries, and each arena of malloc, reserves address space: on a machine of many cores, all.
FEW_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
SMALL = {**FEW_THREADS, "MALLOC_ARENA_MAX": "2"}
DYING_SECONDS = 5.0  # from the end of its connection to that of the process
LAST_WORDS = 120  # characters shown of the last line that a dead child wrote
ADVICE = "The file is damaged, or no model for this engine. Export it again."
PICKLE_PROTOCOL = 5  # the first in which an array's bytes are copied once


def run_contained(
    function: Callable[..., Result],
    *arguments: Any,
    where: Path | str,
    timeout_seconds: float = TIMEOUT_SECONDS,
    memory_bytes: int = MEMORY_BYTES,
) -> Result:
    """function(*arguments), computed in a child process of its own. See `Child.call`."""
    with open_child(timeout_seconds=timeout_seconds, memory_bytes=memory_bytes) as child:
        return child.call(function, *arguments, where=where)


@contextmanager
def open_child(*, timeout_seconds: float = TIMEOUT_SECONDS, memory_bytes: int = MEMORY_BYTES) -> Iterator[Child]:
    """A child process for many calls, started at the first, and again after one that ended it; it ends with this
    context. What a call leaves in memory, imported modules say, the next one finds.

    Args:
        timeout_seconds: for one call.
        memory_bytes: address space of the child. More is a MemoryError in it, or whatever a native library does then.
    """
    child = Child(timeout_seconds, memory_bytes)
    try:
        yield child
    finally:
        child.stop()


@dataclass
class Child:
    """One child process at a time. Not for several threads at once."""

    timeout_seconds: float
    memory_bytes: int
    starts: int = 0  # children so far: one more than those that were lost
    _running: _Process | None = field(default=None, repr=False)

    def call(self, function: Callable[..., Result], *arguments: Any, where: Path | str) -> Result:
        """function(*arguments), computed in the child.

        Args:
            function: at the top level of a module that can be imported (not of a script that is being run).
            arguments: can be pickled, as can the result; arrays travel as they are.
            where: the file it is about: how the errors begin.
        Raises:
            ToolkitError: the function raised it; it is raised here as it was there.
            ModelError: the function raised anything else, ended its process, or took longer than `timeout_seconds`.
        """
        request = pickle.dumps((function, arguments), PICKLE_PROTOCOL)
        if self._running is None:
            self._running = _start(self.timeout_seconds, self.memory_bytes)
            self.starts += 1
        process = self._running
        try:
            process.connection.send_bytes(request)
            if not process.connection.poll(self.timeout_seconds):
                self.stop()
                raise ModelError(f"{where}: no end after {self.timeout_seconds:g} s. {ADVICE}")
            kind, content = pickle.loads(process.connection.recv_bytes())
        except (EOFError, OSError) as error:
            how = _how_it_ended(process)
            self.stop()
            raise ModelError(f"{where}: {how}. {ADVICE}") from error
        except BaseException:  # an answer that nobody waits for any more must not be taken for the next one
            self.stop()
            raise
        if kind == "result":
            return content
        if kind == "error":
            raise _restored(*content)
        raise ModelError(f"{where}: {content}. {ADVICE}")

    def stop(self) -> None:
        """End the child, whatever it is doing."""
        if self._running is not None:
            process, self._running = self._running, None
            process.popen.kill()
            process.popen.wait()
            process.connection.close()
            process.output.close()


@dataclass(frozen=True)
class _Process:
    popen: subprocess.Popen[bytes]
    connection: Connection
    output: IO[bytes]


def _start(timeout_seconds: float, memory_bytes: int) -> _Process:
    ours, theirs = socket.socketpair()
    output = tempfile.TemporaryFile()  # noqa: SIM115  # closed by Child.stop
    with theirs:  # the child then holds the only copy, and its death reads as the end of the connection
        program = f"import sys; sys.path[:] = {sys.path!r}; from toolkit.contained import serve; "
        popen = subprocess.Popen(
            [sys.executable, "-c", program + f"serve({theirs.fileno()}, {timeout_seconds!r}, {memory_bytes!r})"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[theirs.fileno()],
            env=SMALL | os.environ,
            process_group=0,  # out of reach of Ctrl-C: the command gets it, and ends its child without a word
        )
    return _Process(popen, Connection(ours.detach()), output)


def _how_it_ended(process: _Process) -> str:
    try:
        code = process.popen.wait(timeout=DYING_SECONDS)
    except subprocess.TimeoutExpired:
        return "its process closed file descriptors that are not its own"
    process.output.seek(max(0, process.output.seek(0, os.SEEK_END) - 4096))
    lines = process.output.read().decode(errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")[:LAST_WORDS]
    if code >= 0:
        ended = f"exit code {code}"
    else:
        names = {each.value: each.name for each in signal.Signals}
        ended = names.get(-code, f"signal {-code}")
        ended += ", perhaps for want of memory" if -code == signal.SIGKILL else ""
    return f"its process ended: {ended}" + (f" ({said.rstrip('.')})" if said else "")


def _restored(kind: type[ToolkitError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> ToolkitError:
    """The exception without its __init__, which may take other arguments than those it keeps."""
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


def serve(descriptor: int, timeout_seconds: float, memory_bytes: int) -> None:
    """What the child process runs: call functions until the connection closes.

    Args:
        descriptor: file descriptor of the child's end of the connection.
    """
    _limit_itself(memory_bytes)
    connection = Connection(descriptor)
    while True:
        try:
            request = connection.recv_bytes()
        except (EOFError, OSError):
            return  # the process that started this one is done, or has ended
        # The parent's patience ends first. Should it have died, this ends the child, inside native code too.
        signal.setitimer(signal.ITIMER_REAL, timeout_seconds + DYING_SECONDS)
        answer = _answer(request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            connection.send_bytes(answer)
        except OSError:
            return


def _answer(request: bytes) -> bytes:
    try:
        function, arguments = pickle.loads(request)
        content: tuple[str, Any] = ("result", function(*arguments))
    except ToolkitError as error:
        content = ("error", (type(error), error.args, error.__dict__))
    except MemoryError:
        content = ("failure", "it asks for more memory than a model needs")
    except Exception as error:  # the boundary: any other exception is reported in the caller's process
        content = ("failure", f"{type(error).__name__}: {reason_of(error)}")
    return pickle.dumps(content, PICKLE_PROTOCOL)


def _limit_itself(memory_bytes: int) -> None:
    """Bounded memory, no core dumps, and first in line where the machine runs out of memory."""
    import resource

    # macOS knows the limit and refuses to set it.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
