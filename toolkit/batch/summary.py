"""What a run says of itself: in the metadata of its output, as JSON, and to whoever called it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

from toolkit.batch.checks import FileCheck
from toolkit.batch.damage import Lost
from toolkit.batch.parts import Receipt
from toolkit.batch.paths import Paths
from toolkit.batch.ranges import RangeCount
from toolkit.batch.score import Job
from toolkit.batch.smallest import merge_smallest
from toolkit.batch.storage import Place
from toolkit.batch.work import RunKey
from toolkit.manifest import ModelFile
from toolkit.runtime import runtime_for


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
        runtime: what ran the scoring file.
        interval: level of the intervals around the predictions; None without any.
        lost: row groups and files that could not be read and were left out; rows in = predicted + rejected + lost.
    """

    parameters: tuple[str, ...]
    rows_in: int
    rows_predicted: int
    rows_rejected: int
    seconds: float
    output: Place
    rejected: Place | None
    checks: tuple[FileCheck, ...]
    reasons: dict[str, int]
    outside: RangeCount
    smallest: dict[str, list[dict[str, Any]]]
    runtime: str
    lost: tuple[Lost, ...] = ()
    interval: float | None = None

    @property
    def rows_lost(self) -> int:
        """Rows that could not be read; those of files whose footer cannot be read are not known."""
        return sum(each.rows or 0 for each in self.lost)

    def to_json(self) -> dict[str, Any]:
        return {
            "rows_in": self.rows_in,
            "rows_predicted": self.rows_predicted,
            "rows_rejected": self.rows_rejected,
            "rows_lost": self.rows_lost,
            "seconds": self.seconds,
            "output": str(self.output),
            "rejected": None if self.rejected is None else str(self.rejected),
            "formats": [check.to_json(self.parameters) for check in self.checks],
            "outside_training_range": asdict(self.outside),
            "smallest": self.smallest,
            "runtime": self.runtime,
            "lost": [each.to_json() for each in self.lost],
            "interval": self.interval,
        }


def evidence_of(
    job: Job, key: RunKey, scoring: ModelFile, receipts: Sequence[Receipt], lost: Sequence[Lost] = ()
) -> dict[str, Any]:
    """What the output's metadata says about it; the same for any order in which the shards were done."""
    names = [scoring.file, *(path.name for path in job.others)]
    checks = {name: FileCheck(name) for name in names}
    reasons: dict[str, int] = {}
    parameters = job.spec.parameters
    smallest = merge_smallest((receipt.smallest for receipt in receipts), len(parameters))
    for receipt in receipts:
        for check in receipt.checks:
            checks[check.file] = checks[check.file].merged(check)
        for reason, count in receipt.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return {
        "run": key.digest,
        "model": {"file": scoring.file, "sha256": scoring.sha256, "runtime": runtime_for(job.scoring, job.runtime)},
        "rows_in": sum(receipt.rows_in for receipt in receipts) + sum(each.rows or 0 for each in lost),
        "rows_predicted": sum(receipt.predicted.rows for receipt in receipts),
        "rows_rejected": sum(receipt.rows_rejected for receipt in receipts),
        "reasons": dict(sorted(reasons.items())),
        "outside_training_range": asdict(reduce(RangeCount.merged, (r.outside for r in receipts), RangeCount())),
        "formats": [check.to_json(parameters) for check in checks.values()],
        "smallest": {name: [one.to_json() for one in found] for name, found in zip(parameters, smallest, strict=True)},
        "lost": [each.to_json() for each in lost],
        "interval": job.limits.level if job.limits else None,
    }


def summary_of(evidence: Mapping[str, Any], parameters: tuple[str, ...], paths: Paths, seconds: float) -> Summary:
    return Summary(
        parameters,
        evidence["rows_in"],
        evidence["rows_predicted"],
        evidence["rows_rejected"],
        seconds,
        paths.output,
        paths.rejected if evidence["rows_rejected"] else None,
        tuple(FileCheck.from_json(check) for check in evidence["formats"]),
        evidence["reasons"],
        RangeCount(**evidence["outside_training_range"]),
        evidence["smallest"],
        evidence["model"]["runtime"],
        tuple(map(Lost.from_json, evidence["lost"])),
        evidence["interval"],
    )
