"""Where along the logit an estimate stops being a positive number: measured, in the runtimes of this machine."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.heads import write_head, write_plain_softplus
from toolkit.integer import Host, host_of
from toolkit.metadata import read_metadata
from toolkit.runtime import KERNELS, load
from toolkit.spec import SMALLEST_NORMAL_FLOAT32

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

STEP = 1 / 64  # of the logits tried within +-FINE
FINE = 256.0
LARGEST_GAP = 64  # logits in a row
INEXACT = 0.01  # relative error from which on a positive estimate is not what softplus should give

# What an estimate can be, from worst to best.
KINDS = ("nan", "infinite", "negative", "zero", "subnormal", "inexact", "good")


@dataclass(frozen=True)
class Stretch:
    """Neighbouring logits, first to last, whose estimates are of one kind; smallest is the smallest of these."""

    first: float
    last: float
    kind: str
    smallest: float


Curve = tuple[Stretch, ...]  # from the smallest logit to the largest


def measure_head(path: Path, parameters: int) -> dict[str, Curve]:
    """What the last step of an exported file gives, by kernel set; where parameters differ, the worst of them counts.
    Of an integer-only file the last step is its host's: a logit becomes the nearest code of an output that reaches it.

    To be run in a child process, as whatever loads a model file is.

    Raises:
        ModelError: the file has no last step of its own, or it cannot be run.
        InputError: the file gives another number of estimates.
    """
    host = host_of(path, read_metadata(path))
    if host is not None:
        logits = logits_to_try()
        return dict.fromkeys(KERNELS[path.suffix], stretches(logits, _through_codes(host, logits)))
    with tempfile.TemporaryDirectory() as folder:
        return _measure(write_head(path, Path(folder)), parameters)


def measure_plain(ending: str) -> dict[str, Curve]:
    """The same of a plain softplus, in `.tflite` or `.onnx`."""
    with tempfile.TemporaryDirectory() as folder:
        return _measure(write_plain_softplus(ending, 1, Path(folder)), 1)


def _measure(head: Path, parameters: int) -> dict[str, Curve]:
    logits = logits_to_try()
    datasets = np.repeat(logits, parameters).reshape(-1, 1, parameters)
    return {kernels: stretches(logits, load(head, kernels=kernels)(datasets)) for kernels in KERNELS[head.suffix]}


def _through_codes(host: Host, logits: FloatArray) -> FloatArray:
    """float32 (logits, 1): the worst estimate of the outputs that reach a logit; where none does, the best of all."""
    z, rows = logits.astype(np.float64)[:, np.newaxis], host.logits().astype(np.float64)
    scales = np.array([output.scale for output in host.outputs])
    codes = np.clip(np.rint((z - rows[0]) / scales), 0, len(rows) - 1).astype(np.int64)
    estimates = np.take_along_axis(host.table(), codes, axis=0)
    reaches = (z >= rows[0] - scales / 2) & (z <= rows[-1] + scales / 2)
    truth = np.logaddexp(0.0, z)
    with np.errstate(all="ignore"):  # the truth is 0 below -745
        off = np.abs(estimates - truth) / truth
    worst, best = np.where(reaches, off, -1.0).argmax(axis=1), off.argmin(axis=1)
    chosen = np.where(reaches.any(axis=1), worst, best)
    return np.take_along_axis(estimates, chosen[:, np.newaxis], axis=1)


def logits_to_try() -> FloatArray:
    """float32, ascending: every 1/64 within +-256, two an octave from there to the ends of float32, and +-0."""
    far = 2.0 ** np.arange(np.log2(FINE) + 0.5, 128, 0.5)
    far = np.append(far, np.finfo(np.float32).max)
    near = np.arange(-FINE, FINE + STEP, STEP)
    return np.concatenate([-far[::-1], near, far]).astype(np.float32)


def stretches(logits: FloatArray, estimates: FloatArray) -> Curve:
    """Sort what was given into stretches of one kind.

    Args:
        logits: float32 (logits,), ascending.
        estimates: float32 (logits, parameters) of any kind.
    """
    truth = np.logaddexp(0.0, logits.astype(np.float64))[:, None]
    with np.errstate(all="ignore"):  # NaN and infinity are what is looked for; the truth is 0 below -745
        off = np.abs(estimates - truth) > INEXACT * truth
        kinds = np.select(
            [np.isnan(estimates), np.isinf(estimates), estimates < 0, estimates == 0],
            [KINDS.index(kind) for kind in ("nan", "infinite", "negative", "zero")],
            np.where(
                estimates < SMALLEST_NORMAL_FLOAT32,
                KINDS.index("subnormal"),
                np.where(off, KINDS.index("inexact"), KINDS.index("good")),
            ),
        ).min(axis=1)
    kinds = _without_gaps(kinds)
    return tuple(
        Stretch(float(logits[begin]), float(logits[end - 1]), KINDS[kinds[begin]], float(np.min(estimates[begin:end])))
        for begin, end in _runs(kinds)
    )


def _without_gaps(kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Among inexact estimates, a right one is so by chance: a rounded value crosses the true one again and again."""
    filled, runs = kinds.copy(), _runs(kinds)
    for (_, before), (begin, end), (behind, _) in zip(runs, runs[1:], runs[2:], strict=False):
        among_inexact = kinds[before - 1] == kinds[behind] == KINDS.index("inexact")
        if kinds[begin] == KINDS.index("good") and among_inexact and end - begin < LARGEST_GAP:
            filled[begin:end] = KINDS.index("inexact")
    return filled


def _runs(kinds: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Begin and end of each run of equal numbers."""
    begins = np.flatnonzero(np.diff(kinds, prepend=-1))
    return list(zip(begins.tolist(), [*begins[1:].tolist(), len(kinds)], strict=True))
