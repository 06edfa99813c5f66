"""Copies among the datasets of files: found by their hashes, and never on both sides of a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.int64]  # (datasets,)
Mask = NDArray[np.bool_]  # (datasets,)


def hashes_of(datasets: NDArray[np.float32], targets: NDArray[np.float32]) -> Hashes:
    """One number a dataset: the same for two whose values and parameters are, to the bit; 8 bytes are all that is kept.

    Two different datasets have the same number once in 2^64 pairs; of ten million that is once in 370,000 surveys.
    Python's own hash is some twice as fast as SHA-1 here, .7 us for 1,600 bytes. Another process gives other numbers.
    """
    together = np.concatenate([datasets.reshape(len(datasets), -1), targets], axis=1)
    return np.fromiter((hash(row.tobytes()) for row in together), np.int64, len(together))


@dataclass(frozen=True)
class Split:
    """Which datasets are held out, and which are not trained on since a copy of them is.

    Attributes:
        validating, calibrating: bool (datasets,), held out; no dataset of theirs is a copy of another one of theirs.
        left_out: bool (datasets,), copies of what is held out, here or in a file to validate on.
        copies: datasets that are copies of an earlier one.
        validated: datasets that are in the file to validate on as well.
        different: datasets that are neither in that file nor copies of an earlier one; None where nobody counted.
    """

    validating: Mask
    calibrating: Mask
    left_out: Mask
    copies: int = 0
    validated: int = 0
    different: int | None = None

    @property
    def trained(self) -> Mask:
        """The datasets that remain to be trained on."""
        return ~(self.validating | self.calibrating | self.left_out)


def split(total: int, share: float, most: int, seed: int, validate: bool) -> Split:
    """Choose by `seed` which of all datasets to validate on, if any are, and which to calibrate with."""
    return _chosen(np.arange(total), total, share, most, seed, validate)


def split_apart(hashes: Hashes, validation: Hashes, share: float, most: int, seed: int, validate: bool) -> Split:
    """The same split where there are no copies. Else one of the different datasets, each copy going with its original.

    Args:
        hashes: of all datasets.
        validation: of those of a file to validate on, which are not trained on either.
    """
    in_file = np.isin(hashes, validation)
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    originals = np.sort(first[~in_file[first]])
    chosen = _chosen(originals, len(hashes), share, most, seed, validate)
    held_out = chosen.validating | chosen.calibrating
    with_copies = in_file | held_out[first][group]
    return Split(
        chosen.validating,
        chosen.calibrating,
        with_copies & ~held_out,
        copies=len(hashes) - len(first),
        validated=int(np.count_nonzero(in_file)),
        different=len(originals),
    )


def any_twice(hashes: Hashes, validation: Hashes) -> bool:
    """Whether a dataset is there more than once, here or in the file to validate on as well."""
    ordered = np.sort(hashes)
    twice = np.any(ordered[1:] == ordered[:-1])
    place = np.minimum(np.searchsorted(ordered, validation), len(ordered) - 1)
    return bool(twice or np.any(ordered[place] == validation))


def _chosen(among: NDArray[np.int_], total: int, share: float, most: int, seed: int, validate: bool) -> Split:
    each = min(most, int(len(among) * share))
    order = np.random.default_rng([seed, 0]).choice(among, 2 * each, replace=False)
    validating, calibrating = np.zeros(total, np.bool_), np.zeros(total, np.bool_)
    validating[order[:each]] = validate
    calibrating[order[each:]] = True
    return Split(validating, calibrating, np.zeros(total, np.bool_))
