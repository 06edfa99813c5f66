"""Parts -> one file, in input order, once the receipts prove that no row is lost or doubled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from toolkit.batch.ahead import ahead
from toolkit.batch.parts import Part, Receipt, read_part
from toolkit.batch.shards import Shard
from toolkit.batch.storage import Place
from toolkit.errors import OutputError
from toolkit.places import open_input

ROW_GROUP_ROWS = 65_536  # with twice as many, putting together is what takes the most memory of a run
ROW_GROUP_BYTES = 64 << 20  # before compression: fewer rows when the other columns are large
EVIDENCE_KEY = b"softplus_toolkit.scoring"  # in the output's metadata: which run it is of, and what was checked


def check_complete(shards: Sequence[Shard], receipts: Sequence[Receipt], rows: int) -> None:
    """Whether each shard has one receipt and rows in = predicted + rejected.

    Args:
        receipts: in the order of the shards.
        rows: in all files, by their footers.
    Raises:
        OutputError: a number does not add up.
    """
    rows_in = sum(receipt.rows_in for receipt in receipts)
    rows_out = sum(receipt.predicted.rows + receipt.rows_rejected for receipt in receipts)
    same_shards = [shard.index for shard in shards] == [receipt.shard for receipt in receipts]
    if not same_shards or not rows == rows_in == rows_out:
        raise OutputError(
            f"{rows:,} rows are in the files, {rows_in:,} were read and {rows_out:,} predicted or rejected, by "
            f"{len(receipts):,} receipts for {len(shards):,} shards. Nothing is written; please report this."
        )


def assemble(
    folder: Place, parts: Iterable[Part], schema: pa.Schema, sink: Any, evidence: Mapping[str, Any] | None = None
) -> None:
    """Write the rows of all parts, in order, as one Parquet file. Its bytes depend on nothing but the rows.

    Args:
        sink: a binary file to write to; it stays open.
    Raises:
        OutputError: a part is gone or damaged.
    """
    pa.default_memory_pool().release_unused()  # what scoring has left: putting together needs memory of its own
    flat = pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_dictionary
    repetitive = [field.name for field in schema if any(is_type(field.type) for is_type in flat)]
    with pq.ParquetWriter(sink, schema, use_dictionary=repetitive) as writer:
        waiting: list[pa.Table] = []
        for part, table in ahead(lambda part: (part, read_part(folder, part)), parts):
            if table is None or table.num_rows != part.rows:
                raise OutputError(f"{folder}, {part.file}: gone or damaged. Run the same command with --resume.")
            waiting.append(table)
            full = sum(table.num_rows for table in waiting) >= ROW_GROUP_ROWS
            if full or sum(table.nbytes for table in waiting) >= ROW_GROUP_BYTES:
                _write(writer, waiting)
                waiting = []
        if waiting:
            _write(writer, waiting)
        if evidence is not None:
            writer.add_key_value_metadata({EVIDENCE_KEY: json.dumps(evidence)})


def read_evidence(place: Place) -> dict[str, Any] | None:
    """What `assemble` left in a file; None in a file that it did not write."""
    try:
        with open_input(str(place)) as file:
            metadata = pq.read_metadata(file).metadata or {}
        evidence = json.loads(metadata[EVIDENCE_KEY])
        return evidence if isinstance(evidence, dict) else None
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def _write(writer: pq.ParquetWriter, tables: Sequence[pa.Table]) -> None:
    table = pa.concat_tables(tables)
    writer.write_table(table, row_group_size=max(table.num_rows, 1))
