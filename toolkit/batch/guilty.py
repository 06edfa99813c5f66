"""A row with which a library raises must not cost the rows beside it: the batch is split until that row stands alone.

Nothing is known to raise so. But decoders and engines are other people's, and a run of days must not end with a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toolkit.batch.checks import Engines, Rows, ShardChecks
from toolkit.datasets import Decoded, Layout, decode, gather
from toolkit.errors import InputError, ModelError, NotPositive, ToolkitError, reason_of

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

GUILTY = "type"  # the reason of a row with which something raises
MACHINES_FAULT = (OSError, MemoryError)  # never a row's: they end the run, as they should

Mask = NDArray[np.bool_]


def decode_batch(batch: pa.RecordBatch, layout: Layout, where: str) -> Decoded:
    """`decode`, with the reason 'type' for each row that makes it raise.

    Raises:
        InputError: every row of several does.
    """
    try:
        return decode(gather(batch, layout), layout)
    except (ToolkitError, *MACHINES_FAULT):
        raise
    except Exception as error:
        known: dict[int, Decoded] = {}

        def attempt(begin: int, end: int) -> None:
            known[begin] = decode(gather(batch.slice(begin, end - begin), layout), layout)

        guilty = _guilty(attempt, len(batch))
        if guilty.all() and len(batch) > 1:
            raise InputError(f"{where}: none of {len(batch):,} rows can be decoded ({reason_of(error)}).") from error
        datasets = np.zeros((len(batch), layout.rows, layout.columns), np.float32)
        reasons: list[str | None] = [GUILTY] * len(batch)
        for begin, decoded in known.items():
            datasets[begin : begin + len(decoded.datasets)] = decoded.datasets
            reasons[begin : begin + len(decoded.datasets)] = decoded.reasons
        return Decoded(datasets, reasons)


def score_accepted(
    checks: ShardChecks, datasets: FloatArray, rows: Rows, accepted: Mask, reasons: list[str | None]
) -> FloatArray:
    """`checks.score` of the accepted datasets. A row that makes an engine raise is accepted no longer: `accepted` and
    `reasons` are changed.

    Raises:
        ModelError: an engine raises with any dataset at all, or with none alone.
        Violation: as `checks.score`.
    """
    before = replace(checks, seen=dict(checks.seen), sample=list(checks.sample), extremes=dict(checks.extremes))
    chosen, chosen_rows = (datasets, rows) if accepted.all() else (datasets[accepted], rows[accepted])
    try:
        return checks.score(chosen, chosen_rows)
    except (NotPositive, *MACHINES_FAULT):
        raise
    except Exception as error:  # a ModelError, or whatever a comparison raises
        guilty = _with_which_an_engine_raises(checks.engines, chosen, error)
        for row in np.flatnonzero(accepted)[guilty]:
            accepted[row], reasons[row] = False, GUILTY
        vars(checks).update(vars(before))  # what was seen of this batch is seen again
        return checks.score(datasets[accepted], rows[accepted])


def _with_which_an_engine_raises(engines: Engines, datasets: FloatArray, error: Exception) -> Mask:
    guilty = np.zeros(len(datasets), np.bool_)
    for file, predict in {engines.scoring_file: engines.scoring, **engines.others}.items():
        try:
            predict(np.zeros_like(datasets[:1]))
        except Exception as broken:
            raise ModelError(f"{file}: fails with any dataset ({reason_of(broken)}).") from broken
        guilty |= _guilty(lambda begin, end, run=predict: run(datasets[begin:end]), len(datasets))  # type: ignore[misc]
    if not guilty.any():
        raise ModelError(
            f"{engines.scoring_file}: a batch failed ({reason_of(error)}), and none of its rows alone does. Run the "
            "same command with --resume; if it fails again, please report it."
        ) from error
    return guilty


def _guilty(attempt: Callable[[int, int], object], count: int) -> Mask:
    """bool (count,): the rows with which `attempt(begin, end)` raises alone."""
    guilty = np.zeros(count, np.bool_)
    ranges = [(0, count)] if count else []
    while ranges:
        begin, end = ranges.pop()
        try:
            attempt(begin, end)
        except MACHINES_FAULT:
            raise
        except Exception:
            if end - begin == 1:
                guilty[begin] = True
            else:
                middle = (begin + end) // 2
                ranges += [(begin, middle), (middle, end)]
    return guilty
