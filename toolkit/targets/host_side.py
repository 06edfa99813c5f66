"""An integer-only file on a target: its host side is computed here, as the processor beside it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import ModelError
from toolkit.integer import LOWEST, Codes, Host, host_of
from toolkit.metadata import read_metadata

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Predict


def host_in(path: Path) -> Host | None:
    """The host side that the file tells of; None for a file that takes and gives real numbers.

    Raises:
        ModelError: its numbers are damaged.
    """
    return host_of(path, read_metadata(path))


def around_codes(path: Path, host: Host, run: Callable[[Codes], Codes]) -> Predict:
    """An integer-only network between the roundings and the softplus of its host.

    Args:
        run: the file on the target, int8 (n, rows, channels) -> int8 (n, parameters).
    """
    table = host.table()

    def predict(datasets: FloatArray) -> FloatArray:
        codes = run(host.codes(datasets))
        if codes.shape != (len(datasets), len(host.outputs)) or codes.dtype != np.int8:
            raise ModelError(f"{path.name}: gives {codes.dtype} {codes.shape} for {len(datasets)} datasets, not codes.")
        estimates: FloatArray = table[codes.astype(np.intp) - LOWEST, np.arange(len(host.outputs))]
        # Float files carry NaN through; here nothing else is left of it.
        estimates[np.isnan(datasets).any(axis=(1, 2))] = np.nan
        return estimates

    return predict
