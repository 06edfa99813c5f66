"""The end of a run: the result appears, whole, where it was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toolkit.batch.assemble import assemble, read_evidence
from toolkit.batch.checks import Violation
from toolkit.batch.columns import ORIGIN, REASON, output_schema, rejected_schema
from toolkit.batch.parts import Receipt
from toolkit.batch.paths import Paths
from toolkit.batch.score import Job
from toolkit.batch.sources import Source
from toolkit.batch.storage import folder_of, is_there, open_folder
from toolkit.batch.tidy import is_tidy, observations_of, write_rejected
from toolkit.batch.work import unfinished_run
from toolkit.datasets import encode
from toolkit.errors import NotPositive
from toolkit.places import open_input

ROWS_REJECTED = "rows_of_rejected_groups"  # in the evidence of tidy tables, whose other counts are of groups


def publish(
    job: Job, paths: Paths, receipts: Sequence[Receipt], evidence: Mapping[str, Any], inputs: Sequence[Source]
) -> None:
    """Put the parts together. Both files are whole before either appears: rejected rows first, so that where the
    output is, all else is. A crash between the two leaves the work folder, and --resume finishes.

    Args:
        inputs: what the user named; the job's own sources, unless these are groups of the rows in tidy tables.
    """
    first, staging = job.sources[0], open_folder(paths.work)
    rejected = [receipt.rejected for receipt in receipts if receipt.rejected]
    if is_tidy(inputs):
        evidence = {**evidence, ROWS_REJECTED: observations_of(paths.work, rejected)}
    (folder, output), (_, refused) = folder_of(paths.output), folder_of(paths.rejected)
    with ExitStack() as both:  # left in reverse order
        sink = both.enter_context(folder.writer(output, staging))
        schema = output_schema(first, job.spec.parameters, job.limits is not None)
        assemble(paths.work, [receipt.predicted for receipt in receipts], schema, sink, evidence)
        if rejected:
            sink = both.enter_context(folder.writer(refused, staging))
            if is_tidy(inputs):
                write_rejected(inputs, paths.work, rejected, sink)
            else:
                assemble(paths.work, rejected, rejected_schema(first), sink)
    if not rejected:
        folder.remove(refused)  # of the output that was replaced


def published_before(run: str, paths: Paths) -> dict[str, Any] | None:
    """The evidence of this very run when its result is there already: it was stopped while it cleared up, or later."""
    evidence = read_evidence(paths.output) if is_there(paths.output) else None
    if evidence is None or evidence.get("run") != run:
        return None
    if evidence["rows_rejected"]:
        if not is_there(paths.rejected):
            return None
        with open_input(str(paths.rejected)) as file:
            if pq.read_metadata(file).num_rows != evidence.get(ROWS_REJECTED, evidence["rows_rejected"]):
                return None
    elif unfinished_run(paths.work):
        folder, refused = folder_of(paths.rejected)
        folder.remove(refused)  # of the output that was replaced
    return evidence


def with_replay(violation: Violation, paths: Paths) -> NotPositive:
    """Write the dataset that gave the output to a file that batch-predict takes, and say where."""
    schema = pa.schema([("x", (x := encode(violation.dataset[np.newaxis])).type), *ORIGIN, (REASON, pa.string())])
    reason = f"{violation.file} gave {violation.output}"
    table = pa.table([x, [violation.source], [violation.row], [reason]], schema=schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    folder, name = folder_of(paths.violation)
    folder.write(name, sink.getvalue())
    return NotPositive(f"{violation} Its dataset is in {paths.violation}. Do not use this file: export it again.")
