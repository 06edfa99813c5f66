"""Network -> int8 file: equalized, rounded, its head refitted, with the first layer int8 or float."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.equalize import equalize
from export.forward import run
from export.network import Dense, Layer, Network
from export.onnx_int8 import write_onnx
from export.quantize import WITHIN, Trunk, features, quantize
from export.refit import HELD_OUT, refit, relative_weights
from export.region import fold, split
from export.tflite_int8 import write_tflite
from toolkit.errors import ExportError

LEAST_DATASETS = 2 * HELD_OUT
MOST_DATASETS = 6000


@dataclass(frozen=True)
class Fitted:
    """A network in int8. error: of each parameter's estimates, relative, root mean square over datasets that the head
    was not fitted to. within: one of WITHIN, the share of datasets that a layer's codes have room for."""

    within: float
    trunk: Trunk
    behind: tuple[Layer, ...]
    error: NDArray[np.float64]


class Int8:
    """int8 files of one network.

    Args:
        datasets: float32 (datasets, rows, columns), some thousands, like those that the files are for. At most
            MOST_DATASETS are used.
        first_layer: int8, float, or auto: whichever has the smaller error.
        limit: inputs are cut off at +-limit.
    Raises:
        ExportError: too few datasets, or (from `write`) nothing in the network that integer kernels compute.
    """

    def __init__(self, network: Network, datasets: NDArray[np.float32], first_layer: str, limit: float) -> None:
        if len(datasets) < LEAST_DATASETS:
            raise ExportError(
                f"int8 files are made with calibration datasets, at least {LEAST_DATASETS}; here are {len(datasets)}. "
                "Give some thousands: toolkit export --calibration FILE"
            )
        self.datasets = datasets[:: -(-len(datasets) // MOST_DATASETS)]
        self._within: tuple[float, ...] = WITHIN
        self.network, self.first_layer, self.limit = equalize(fold(network), self.datasets), first_layer, limit

    def write(self, format: str) -> tuple[bytes, dict[str, Any]]:
        """The file, and what its metadata say of its making: `first_layer`, `first_layer_reason`,
        `calibration_datasets`."""
        chosen, reason = self._choose()
        fitted = self._float if chosen == "float" else self._int8
        writer = write_tflite if format == "tflite" else write_onnx
        content = writer(fitted.trunk, fitted.behind, self.network.shape, self.limit)
        facts = {
            "input_limit": self.limit,
            "first_layer": chosen,
            "first_layer_reason": reason,
            "calibration_datasets": len(self.datasets),
        }
        return content, facts

    def _choose(self) -> tuple[str, str]:
        """The first layer has few columns to work on, which integer kernels are no faster for: one batch of the usual
        network takes LiteRT 269 us with a float one, 386 with an int8 one, ONNX Runtime 402 and 408."""
        if self.first_layer != "auto":
            return self.first_layer, "as asked for"
        try:
            of_float = self._float.error
        except ExportError:
            return "int8", "there is no other layer for int8"
        of_int8 = self._int8.error
        errors = f"relative error {_percent(of_int8)} with an int8 first layer, {_percent(of_float)} with a float one"
        better = "float" if np.max(of_float) <= np.max(of_int8) else "int8"
        return better, f"{errors}, and float is not slower"

    @cached_property
    def _float(self) -> Fitted:
        return self._fit(first_layer_float=True)

    @cached_property
    def _int8(self) -> Fitted:
        return self._fit(first_layer_float=False)

    def _fit(self, *, first_layer_float: bool) -> Fitted:
        """With as much room for rare datasets as makes the largest of the errors smallest; as much as was best with
        the other first layer, where that was tried."""
        tried = [
            fit(self.network, self.datasets, first_layer_float=first_layer_float, within=within)
            for within in self._within
        ]
        best = min(tried, key=lambda fitted: float(np.max(fitted.error)))
        self._within = (best.within,)
        return best


def fit(network: Network, datasets: NDArray[np.float32], *, first_layer_float: bool, within: float) -> Fitted:
    """Round the network's integer part and refit its head.

    Args:
        network: equalized.
        within: see Fitted.
    """
    parts = split(network, first_layer_float=first_layer_float)
    trunk = quantize(parts, datasets, within)
    logits = run(network.layers, datasets[:, np.newaxis])
    *between, head = parts.behind
    assert isinstance(head, Dense)
    found = refit(head, run(between, features(trunk, datasets)), logits, relative_weights(logits))
    return Fitted(within, trunk, (*between, found.head), found.after)


def _percent(errors: NDArray[np.float64]) -> str:
    return "/".join(f"{100 * error:.2g}" for error in errors) + "%"
