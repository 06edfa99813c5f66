"""What an interrupted training run is taken up from: one file, written after every epoch, whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import OutputError
from toolkit.files import appears_whole

Weights = list[NDArray[Any]]


@dataclass
class Progress:
    """How far training has come. `seen` is what there is to know of the datasets that were trained on."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    path: Path, fingerprint: str, progress: Progress, network: Any, optimizer: Any, best: Weights
) -> None:
    """Write the state behind a finished epoch.

    Args:
        fingerprint: of everything that must be the same when the run is taken up.
        best: weights of the best epoch so far.
    """
    # `variables` are the weights and the states of random generators, from which dropout goes on.
    arrays = {f"variable_{i}": variable.numpy() for i, variable in enumerate(network.variables)}
    arrays |= {f"best_{i}": value for i, value in enumerate(best)}
    arrays |= {f"optimizer_{i}": variable.numpy() for i, variable in enumerate(optimizer.variables)}
    state = {**asdict(progress), "fingerprint": fingerprint}
    with appears_whole(path) as partial, partial.open("wb") as target:
        np.savez(target, state=np.array(json.dumps(state)), **arrays)


def restore_checkpoint(path: Path, fingerprint: str, network: Any, optimizer: Any) -> tuple[Progress, Weights] | None:
    """Put network and optimizer into the state of the last finished epoch; None when there is no checkpoint.

    Raises:
        OutputError: it is that of another run.
    """
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        state = json.loads(str(stored["state"]))
        if state.pop("fingerprint") != fingerprint:
            raise OutputError(
                f"{path.parent}: the interrupted run had other datasets or settings. "
                "Repeat its command, or start afresh without --resume."
            )
        for index, variable in enumerate(network.variables):
            variable.assign(stored[f"variable_{index}"])
        for index, variable in enumerate(optimizer.variables):
            variable.assign(stored[f"optimizer_{index}"])
        best = [stored[f"best_{index}"] for index in range(len(network.get_weights()))]
    return Progress(**state), best
