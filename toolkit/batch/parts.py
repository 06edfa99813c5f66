"""The work folder: one part and one receipt a shard, each whole or not there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from toolkit.batch.checks import FileCheck
from toolkit.batch.ranges import RangeCount
from toolkit.batch.shards import Shard
from toolkit.batch.smallest import Small, Smallest
from toolkit.batch.storage import Place, open_folder


@dataclass(frozen=True)
class Part:
    """A file of rows in Arrow's IPC format, which keeps every type of the input and costs next to nothing to write."""

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Receipt:
    """What became of one shard.

    Attributes:
        rejected: None when no row was.
        reasons: rows rejected for each reason.
        outside: datasets outside the ranges seen in training.
        checks: one for each exported file that was run.
        smallest: predictions of each parameter; () where nothing was predicted.
        run: digest of the run's key; the receipt of another run counts for nothing.
        runtime: what ran the scoring file.
    """

    shard: int
    rows_in: int
    predicted: Part
    rejected: Part | None
    reasons: Mapping[str, int]
    outside: RangeCount
    checks: tuple[FileCheck, ...]
    smallest: Smallest
    run: str
    runtime: str

    @property
    def rows_rejected(self) -> int:
        return self.rejected.rows if self.rejected else 0


def write_part(folder: Place, name: str, table: pa.Table) -> Part:
    """Write a table as one part; it is synced before it has its name."""
    sink = pa.BufferOutputStream()
    # One dictionary a part: the IPC format has no place for another one in each batch.
    table = table.unify_dictionaries().combine_chunks()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue()
    open_folder(folder).write(name, content)
    return Part(name, table.num_rows, hashlib.sha256(content).hexdigest())


def read_part(folder: Place, part: Part) -> pa.Table | None:
    """The rows of a part; None when it is gone or its bytes are not those that were written."""
    content = open_folder(folder).read(part.file)
    if content is None or hashlib.sha256(content).hexdigest() != part.sha256:
        return None
    return pa.ipc.open_file(content).read_all()


def predicted_name(shard: Shard) -> str:
    return f"{shard.index:06d}.predicted.arrow"


def rejected_name(shard: Shard) -> str:
    return f"{shard.index:06d}.rejected.arrow"


def _receipt_name(index: int) -> str:
    return f"{index:06d}.json"


def write_receipt(folder: Place, receipt: Receipt, parameters: tuple[str, ...]) -> None:
    """Write the receipt of a shard, after its parts: with it the shard is done."""
    checks = [check.to_json(parameters) for check in receipt.checks]
    content = {**asdict(receipt), "checks": checks}
    open_folder(folder).write(_receipt_name(receipt.shard), json.dumps(content).encode())


def read_receipt(folder: Place, shard: Shard, run: str) -> Receipt | None:
    """The receipt of a shard that is done, its parts whole; None when it has to be done (again)."""
    try:
        receipt = _from_json(json.loads(open_folder(folder).read(_receipt_name(shard.index)) or b""))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    parts = [receipt.predicted, receipt.rejected]
    whole = all(part is None or read_part(folder, part) is not None for part in parts)
    same = (receipt.run, receipt.shard, receipt.rows_in) == (run, shard.index, shard.rows)
    return receipt if whole and same else None


def _from_json(content: Mapping[str, Any]) -> Receipt:
    rejected = content["rejected"]
    return Receipt(
        content["shard"],
        content["rows_in"],
        Part(**content["predicted"]),
        None if rejected is None else Part(**rejected),
        content["reasons"],
        RangeCount(**content["outside"]),
        tuple(FileCheck.from_json(check) for check in content["checks"]),
        tuple(tuple(Small(**each) for each in found) for found in content["smallest"]),
        content["run"],
        content["runtime"],
    )
