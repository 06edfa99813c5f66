"""What one worker of a cluster does: it reads, scores and writes shards, and returns receipts."""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import tempfile
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from toolkit.batch.parts import Receipt, read_receipt
from toolkit.batch.score import Job, load_engines, score_rows, write_shard
from toolkit.batch.shards import Shard, read_shards
from toolkit.batch.sources import check_unchanged_since
from toolkit.batch.storage import open_folder
from toolkit.batch.work import RUN_FILE, versions
from toolkit.errors import InputError, ModelError, OutputError, ToolkitError
from toolkit.places import is_uri

SHARDS_BEHIND = 2  # scored and not yet written


@dataclass(frozen=True)
class Assignment:
    """What every worker of a run is told, once.

    Attributes:
        shards: those to be scored, in order; afterwards they are named by their position here.
        models: content of each model file by its name, so that nodes need not share the model directory.
        sha256: of each of them.
        here: the current folder of the process that was started; relative names mean what they mean there.
        run: content of the work folder's run.json.
    """

    job: Job
    shards: tuple[Shard, ...]
    models: Mapping[str, bytes]
    sha256: Mapping[str, str]
    here: str
    run: bytes


@dataclass(frozen=True)
class Outcome:
    """Receipts of the shards that were done, and the error that ended the rest."""

    receipts: tuple[Receipt, ...]
    failed: tuple[int, Exception] | None = None  # (position, error)


class Worker:
    """One process with engines of its own. Errors are returned, not raised: what a process raises means that it died.

    It keeps its place in the file from one call to the next: to go on there costs nothing, to start in the middle of a
    row group costs decoding what is before.
    """

    def versions(self) -> tuple[str, dict[str, str]]:
        """The machine's name and what is installed there. Asked first: other versions might not read the assignment."""
        return platform.node(), versions()

    def start(self, assignment: Assignment) -> Exception | None:
        """Load the model files and look whether this machine sees the folders; the error if it does not."""
        self.assignment = assignment
        self.reading: Iterator[tuple[Shard, Iterator[pa.RecordBatch]]] = iter(())
        self.next = -1  # position of the shard that `reading` yields next
        self.checked: set[int] = set()  # sources that this machine is known to read
        self.writer = ThreadPoolExecutor(1, "writer")
        try:
            _enter(assignment)
            _check_work_folder(assignment)
            with tempfile.TemporaryDirectory(prefix="toolkit-") as folder:
                self.engines = load_engines(_with_models(assignment, Path(folder)))
        except ToolkitError as error:
            return _portable(error)
        return None

    def score(self, begin: int, end: int, until: int, again: bool) -> Outcome:
        """Score the shards begin..end; those up to `until` will probably be asked for next.

        Args:
            again: a worker died with these; what it finished is not done twice.
        """
        receipts: list[Receipt] = []
        behind: deque[tuple[int, Future[Receipt]]] = deque()
        shards = self._scored(begin, end, until, again)
        while (shard := next(shards, None)) or behind:
            if shard:
                behind.append(shard)
            if not shard or len(behind) > SHARDS_BEHIND:
                position, written = behind.popleft()
                try:
                    receipts.append(written.result())
                except Exception as error:  # noqa: BLE001  every error has to come back, in its place
                    return Outcome(tuple(receipts), (position, _portable(error)))
        return Outcome(tuple(receipts))

    def _scored(self, begin: int, end: int, until: int, again: bool) -> Iterator[tuple[int, Future[Receipt]]]:
        """Positions, each with what becomes of its shard, up to the first that cannot be read or scored.

        A thread writes: shared disks and object stores take their time.
        """
        job = self.assignment.job
        for position in range(begin, end):
            written: Future[Receipt] = Future()
            try:
                shard = self.assignment.shards[position]
                receipt = read_receipt(job.folder, shard, job.run) if again else None
                if receipt is not None:
                    written.set_result(receipt)
                else:
                    scored = score_rows(job, shard, self._read(position, until), self.engines)
                    written = self.writer.submit(write_shard, job, scored)
            except Exception as error:  # noqa: BLE001  as above
                written.set_exception(error)
                yield position, written
                return
            yield position, written

    def _read(self, position: int, until: int) -> Iterator[pa.RecordBatch]:
        shard = self.assignment.shards[position]
        if shard.source not in self.checked:
            source = self.assignment.job.sources[shard.source]
            try:
                check_unchanged_since(source)
            except InputError as error:
                raise InputError(
                    f"node {platform.node()}: {error} Inputs have to be where every node reads the same: on a file "
                    "system that all share, or in an object store."
                ) from error
            self.checked.add(shard.source)
        if self.next != position:
            self.reading = read_shards(self.assignment.job.sources, self.assignment.shards[position:until])
        self.next = -1  # until the shard is read: whatever was raised on the way is not gone on with
        _, batches = next(self.reading)
        self.next = position + 1 if position + 1 < until else -1
        return batches


def _portable(error: Exception) -> Exception:
    """The error, or what it says where it cannot be sent; one that nobody foresaw tells where it was raised."""
    if not isinstance(error, ToolkitError | OSError):
        error.add_note(f"on node {platform.node()}: {traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # noqa: BLE001  whatever an exception's own constructor raises
        return ToolkitError(f"node {platform.node()}: {type(error).__name__}: {error}")


def _enter(assignment: Assignment) -> None:
    names = [source.name for source in assignment.job.sources]
    relative = [name for name in names if not os.path.isabs(name) and not is_uri(name)]
    if not relative:
        return
    try:
        os.chdir(assignment.here)
    except OSError as error:
        raise InputError(
            f"node {platform.node()}: has no folder {assignment.here}, in which {relative[0]} should be. Name inputs "
            "by absolute paths, on a file system that all nodes share."
        ) from error


def _check_work_folder(assignment: Assignment) -> None:
    """A folder of the same name on the node's own disk would swallow the parts."""
    try:
        same = open_folder(assignment.job.folder).read(RUN_FILE) == assignment.run
    except OSError:
        same = False
    if not same:
        raise OutputError(
            f"node {platform.node()}: does not see {assignment.job.folder}. The output has to be on a file system that "
            "all nodes share, or in an object store."
        )


def _with_models(assignment: Assignment, folder: Path) -> Job:
    """The job with its model files in `folder`."""
    for name, content in assignment.models.items():
        if hashlib.sha256(content).hexdigest() != assignment.sha256[name]:
            raise ModelError(f"node {platform.node()}: {name} arrived damaged. Run the same command with --resume.")
        (folder / name).write_bytes(content)
    job = assignment.job
    return replace(job, scoring=folder / job.scoring.name, others=tuple(folder / path.name for path in job.others))
