"""What an interrupted training run is taken up from: one file, written after every epoch, whole or not at all."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import OutputError
from toolkit.files import appears_whole
from toolkit.training_folder import writing

Weights = list[NDArray[Any]]
Facts = dict[str, Any]  # of JSON's types
# What is not the value of an option.
IN_WORDS = {"data": "other datasets, parameters or columns", "start": "another network to start from"}


@dataclass
class Progress:
    """How far training has come. `seen` is what there is to know of the datasets that were trained on."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, facts: Facts, progress: Progress, network: Any, optimizer: Any, best: Weights) -> None:
    """Write the state behind a finished epoch.

    Args:
        facts: everything that must be the same when the run is taken up.
        best: weights of the best epoch so far.
    Raises:
        OutputError: it cannot be written; the one of the epoch before is still there.
    """
    # `variables` are the weights and the states of random generators, from which dropout goes on.
    arrays = {f"variable_{i}": variable.numpy() for i, variable in enumerate(network.variables)}
    arrays |= {f"best_{i}": value for i, value in enumerate(best)}
    arrays |= {f"optimizer_{i}": variable.numpy() for i, variable in enumerate(optimizer.variables)}
    state = {**asdict(progress), "facts": facts}
    with writing(path.parent.parent), appears_whole(path) as partial, partial.open("wb") as target:
        np.savez(target, state=np.array(json.dumps(state)), **arrays)


def restore_checkpoint(path: Path, facts: Facts, network: Any, optimizer: Any) -> tuple[Progress, Weights] | None:
    """Put network and optimizer into the state of the last finished epoch; None when there is no checkpoint.

    Raises:
        OutputError: it is that of another run, or damaged.
    """
    if not path.is_file():
        return None
    try:
        # Opened here: np.load leaves open what turns out to be half a file (NumPy 2.4).
        with path.open("rb") as source, np.load(source, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        state = json.loads(str(arrays.pop("state")))
        before = state.pop("facts")
        progress = Progress(**state)
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error) as error:
        raise OutputError(f"{path}: damaged, or of another version. Start afresh without --resume.") from error
    if said := _differences(before, facts):
        raise OutputError(
            f"{path.parent}: the interrupted run had {said}. Repeat its command, or start afresh without --resume."
        )
    best = [f"best_{index}" for index in range(len(network.get_weights()))]
    states = {
        f"{kind}_{index}": variable
        for kind, variables in (("variable", network.variables), ("optimizer", optimizer.variables))
        for index, variable in enumerate(variables)
    }
    wanted = {name: tuple(variable.shape) for name, variable in states.items()}
    wanted |= {name: weights.shape for name, weights in zip(best, network.get_weights(), strict=True)}
    if wanted != {name: array.shape for name, array in arrays.items()}:
        raise OutputError(f"{path}: is of another network. Start afresh without --resume.")
    for name, variable in states.items():
        variable.assign(arrays[name])
    return progress, [arrays[name] for name in best]


def _differences(before: Facts, now: Facts) -> str:
    """What a run is told apart by, in words; empty where it is the same."""
    found = []
    for name in [*now, *(name for name in before if name not in now)]:
        # What was written has been through JSON, which makes lists of tuples.
        then, here = (json.loads(json.dumps(facts.get(name))) for facts in (before, now))
        if then != here and name in IN_WORDS:
            found.append(IN_WORDS[name])
        elif then != here:
            option = f"--{name.replace('_', '-')}"
            found.append(f"{option} {_shown(then)}, not {_shown(here)}")
    return "; ".join(found)


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
