"""`batch_predict`: from what the user names to the output, the rejected rows and a summary."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toolkit.batch.assemble import assemble, check_complete, read_evidence
from toolkit.batch.checks import FileCheck, Violation
from toolkit.batch.columns import ORIGIN, REASON, output_schema, rejected_schema
from toolkit.batch.parts import Receipt, read_receipt
from toolkit.batch.paths import Paths
from toolkit.batch.pipeline import score_locally, usable_cores
from toolkit.batch.prepare import prepare
from toolkit.batch.ranges import RangeCount
from toolkit.batch.ray_engine import check_ray, score_on_ray
from toolkit.batch.score import Job
from toolkit.batch.shards import plan_shards
from toolkit.batch.smallest import merge_smallest
from toolkit.batch.sources import check_unchanged_since
from toolkit.batch.work import RunKey, begin, clear, clear_partial, owned, unfinished_run
from toolkit.datasets import encode
from toolkit.errors import NotPositive, OutputError
from toolkit.files import appears_whole, sync
from toolkit.manifest import ModelFile
from toolkit.progress import Report, silent

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        rejected: the file of rejected rows; None when there are none.
        checks: one for each exported file that was run, the scoring file first.
        reasons: rows rejected for each reason.
        outside: datasets outside the ranges seen in training, in all and by column.
        smallest: for each parameter its three smallest predictions in ascending order, each with `value`,
            `source_file` and `source_row`; of equal ones the first in input order.
    """

    parameters: tuple[str, ...]
    rows_in: int
    rows_predicted: int
    rows_rejected: int
    seconds: float
    output: Path
    rejected: Path | None
    checks: tuple[FileCheck, ...]
    reasons: dict[str, int]
    outside: RangeCount
    smallest: dict[str, list[dict[str, Any]]]

    def to_json(self) -> dict[str, Any]:
        return {
            "rows_in": self.rows_in,
            "rows_predicted": self.rows_predicted,
            "rows_rejected": self.rows_rejected,
            "seconds": self.seconds,
            "output": str(self.output),
            "rejected": None if self.rejected is None else str(self.rejected),
            "formats": [check.to_json(self.parameters) for check in self.checks],
            "outside_training_range": asdict(self.outside),
            "smallest": self.smallest,
        }


def batch_predict(
    inputs: str | Path | Sequence[str | Path],
    *,
    model: Path | str = Path("model"),
    output: Path | str | None = None,
    file: str | None = None,
    check: str = "all",
    column: str | None = None,
    order: str | None = None,
    strict_range: bool = False,
    workers: int | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Score Parquet files of datasets, with an eye on every output.

    The output holds every input column but the datasets, `predicted_<parameter>`, `source_file` (the path as named in
    `inputs`, or found below the folder named) and `source_row`, in input order. Rows that cannot be scored go to a file
    of their own. Both appear whole, when every row is accounted for, or not at all. The bytes depend on the inputs (as
    named), the model and the options, not on `workers`, `output` or how often the run was interrupted.

    Args:
        inputs: files, folders and globs.
        output: `<input>.predictions.parquet` by default; has to be named when there are several inputs.
        file: the exported file that scores, model.float32.tflite by default.
        check: 'all' runs every exported file on every row, 'sample' on one in a hundred and on those with the smallest
            outputs, 'off' runs only the one that scores. Its outputs are checked on every row in any case.
        column: the column of the datasets, where several could be.
        order: 'row' or 'column', how flat lists lie.
        strict_range: reject datasets with a value outside the range seen in training, instead of counting them.
        workers: threads; one for each usable core by default. With Ray processes; one for each CPU of the cluster.
        engine: 'local', or 'ray' for a cluster whose nodes all see the inputs and the output's folder.
        ray_address: HOST:PORT of the cluster that this machine is part of, or 'auto' to look for it. By default the one
            that $RAY_ADDRESS names; else one is started on this machine, and ended afterwards.
        resume: go on with the unfinished run to the same output, if there is one.
        overwrite: replace a finished output.
        report: told of rows done, rows in all and rows rejected so far, after each shard.
        say: told, once and before the first row is read, where the datasets are and how they lie.
    Raises:
        InputError: files that cannot be read or do not fit the model.
        ModelError: a model that is absent or changed.
        NotPositive: an exported file gave an output that is not finite and positive; the message names the row, and the
            file that holds its dataset.
        OutputError: the output exists, or cannot be written; or the unfinished run is another one.
        ClusterError: the Ray cluster cannot be reached, or its nodes differ from this machine or die again and again.
        MissingExtra: Ray is to be used and not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}, not one of {', '.join(ENGINES)}")
    if engine == "ray":
        check_ray()
    begun = time.monotonic()
    prepared = prepare(
        inputs,
        model=model,
        output=output,
        file=file,
        check=check,
        column=column,
        order=order,
        strict_range=strict_range,
    )
    for line in prepared.describe_layouts():
        say(line)
    paths, key = prepared.paths, prepared.key
    run = _Run(prepared.job, key, paths, prepared.scoring)
    if not resume:
        paths.check_free(overwrite)
    try:
        with owned(paths.work):
            if resume and (summary := run.finished_before(begun)):
                return summary
            going_on = resume and run.can_go_on()
            paths.check_free(overwrite, unpublished=going_on)
            if going_on:
                clear_partial(paths.work)
            else:
                begin(paths.work, key)
            score = (
                partial(score_on_ray, run.job, workers=workers, address=ray_address)
                if engine == "ray"
                else partial(score_locally, run.job, workers=workers or usable_cores())
            )
            return run.finish(score, report, begun)
    except OSError as error:
        raise OutputError(
            f"{error.filename or paths.output}: {error.strerror or error}. When there is room and permission to write, "
            "run the same command with --resume."
        ) from error


@dataclass(frozen=True)
class _Run:
    job: Job
    key: RunKey
    paths: Paths
    scoring: ModelFile

    def finished_before(self, begun: float) -> Summary | None:
        """The summary of this very run when its output is there: it was stopped while it cleared up, or later."""
        evidence = read_evidence(self.paths.output) if self.paths.output.is_file() else None
        if evidence is None or evidence.get("run") != self.key.digest:
            return None
        if evidence["rows_rejected"]:
            if (
                not self.paths.rejected.is_file()
                or pq.read_metadata(self.paths.rejected).num_rows != evidence["rows_rejected"]
            ):
                return None
        elif unfinished_run(self.paths.work):
            self.paths.rejected.unlink(missing_ok=True)  # of the output that was replaced
        clear(self.paths.work)
        return self._summary(evidence, begun)

    def can_go_on(self) -> bool:
        """Whether the work folder holds parts of this run.

        Raises:
            OutputError: it holds parts of another one; the message names the difference.
        """
        earlier = unfinished_run(self.paths.work)
        if earlier is None:
            return False
        if difference := self.key.difference(earlier):
            raise OutputError(
                f"{self.paths.work}: cannot resume, {difference}. Start afresh without --resume, or undo the change."
            )
        return True

    def finish(self, score: Callable[..., None], report: Report, begun: float) -> Summary:
        """Score what is not scored yet, put the parts together, publish, and clear the work folder."""
        shards = plan_shards(self.job.sources)
        total = sum(source.rows for source in self.job.sources)
        receipts: dict[int, Receipt] = {}
        for shard in shards:
            if receipt := read_receipt(self.paths.work, shard):
                receipts[shard.index] = receipt
        rows_done = sum(receipt.rows_in for receipt in receipts.values())
        rejected = sum(receipt.rows_rejected for receipt in receipts.values())
        report(rows_done, total, rejected)

        def done(receipt: Receipt) -> None:
            nonlocal rows_done, rejected
            receipts[receipt.shard] = receipt
            rows_done += receipt.rows_in
            rejected += receipt.rows_rejected
            report(rows_done, total, rejected)

        try:
            score([shard for shard in shards if shard.index not in receipts], done=done)
        except Violation as violation:
            raise self._with_replay(violation) from violation
        for source in self.job.sources:
            check_unchanged_since(source)
        in_order = [receipts[shard.index] for shard in shards if shard.index in receipts]
        check_complete(shards, in_order, total)
        evidence = self._evidence(in_order)
        self._publish(in_order, evidence)
        clear(self.paths.work)
        return self._summary(evidence, begun)

    def _evidence(self, receipts: Sequence[Receipt]) -> dict[str, Any]:
        """What the output's metadata says about it; the same for any order in which the shards were done."""
        names = [self.scoring.file, *(path.name for path in self.job.others)]
        checks = {name: FileCheck(name) for name in names}
        reasons: dict[str, int] = {}
        parameters = self.job.spec.parameters
        smallest = merge_smallest((receipt.smallest for receipt in receipts), len(parameters))
        for receipt in receipts:
            for check in receipt.checks:
                checks[check.file] = checks[check.file].merged(check)
            for reason, count in receipt.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + count
        return {
            "run": self.key.digest,
            "model": {"file": self.scoring.file, "sha256": self.scoring.sha256},
            "rows_in": sum(receipt.rows_in for receipt in receipts),
            "rows_predicted": sum(receipt.predicted.rows for receipt in receipts),
            "rows_rejected": sum(receipt.rows_rejected for receipt in receipts),
            "reasons": dict(sorted(reasons.items())),
            "outside_training_range": asdict(reduce(RangeCount.merged, (r.outside for r in receipts), RangeCount())),
            "formats": [check.to_json(parameters) for check in checks.values()],
            "smallest": {
                name: [one.to_json() for one in found] for name, found in zip(parameters, smallest, strict=True)
            },
        }

    def _publish(self, receipts: Sequence[Receipt], evidence: dict[str, Any]) -> None:
        """Rejected rows first: where the output is, all else is."""
        work, first = self.paths.work, self.job.sources[0]
        rejected = [receipt.rejected for receipt in receipts if receipt.rejected]
        # Assembled inside the work folder: a crash leaves nothing beside the output that is not known as unfinished.
        whole, refused = work / "output.partial", work / "rejected.partial"
        schema = output_schema(first, self.job.spec.parameters)
        assemble(work, [receipt.predicted for receipt in receipts], schema, whole, evidence)
        sync(whole)
        if rejected:
            assemble(work, rejected, rejected_schema(first), refused)
            sync(refused)
            os.replace(refused, self.paths.rejected)
            sync(self.paths.rejected.parent)
        os.replace(whole, self.paths.output)
        sync(self.paths.output.parent)
        if not rejected:
            self.paths.rejected.unlink(missing_ok=True)  # of the output that was replaced

    def _summary(self, evidence: dict[str, Any], begun: float) -> Summary:
        return Summary(
            self.job.spec.parameters,
            evidence["rows_in"],
            evidence["rows_predicted"],
            evidence["rows_rejected"],
            time.monotonic() - begun,
            self.paths.output,
            self.paths.rejected if evidence["rows_rejected"] else None,
            tuple(FileCheck.from_json(check) for check in evidence["formats"]),
            evidence["reasons"],
            RangeCount(**evidence["outside_training_range"]),
            evidence["smallest"],
        )

    def _with_replay(self, violation: Violation) -> NotPositive:
        """Write the dataset that gave the output to a file that batch-predict takes, and say where."""
        schema = pa.schema([("x", (x := encode(violation.dataset[np.newaxis])).type), *ORIGIN, (REASON, pa.string())])
        reason = f"{violation.file} gave {violation.output}"
        table = pa.table([x, [violation.source], [violation.row], [reason]], schema=schema)
        with appears_whole(self.paths.violation) as partial:
            pq.write_table(table, partial)
        return NotPositive(
            f"{violation} Its dataset is in {self.paths.violation}. Do not use this file: export it again."
        )
