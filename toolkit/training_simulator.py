"""Training datasets simulated while the network trains: fresh ones in every epoch, in flat memory, with no file.

All datasets follow from the seed, what they are for, the epoch and the number of their block (see Task): neither the
number of workers nor their speed changes one, and an epoch that is repeated after an interruption is the same epoch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import InputError, SimulatorError, did_you_mean
from toolkit.files import sha256_of
from toolkit.moments import Moments, Ranges
from toolkit.simulator import BLOCK, Simulator
from toolkit.simulator.function import Purpose, split
from toolkit.spec import Spec
from toolkit.training_data import (
    FEWEST_DATASETS,
    HELD_OUT_SHARE,
    MOST_HELD_OUT,
    Pair,
    Pieces,
    TrainingData,
    training_data_of,
)
from toolkit.training_files import fingerprint_of, read_validation

DATASETS_PER_EPOCH = 100_000
SURVEYED = 20_000  # datasets whose means and deviations scale inputs and losses; or an epoch's, if these are fewer
MOST_LOST = 0.05  # share of datasets that may be left out before training stops
# A block's datasets may have something in common, so that several are to meet in a batch; the first waits for them.
POOL_BLOCKS = 8


class _Draws:
    """What a simulator gives for one seed: its good datasets, and a count of the others."""

    def __init__(self, simulator: Simulator, parameters: Sequence[str], seed: int) -> None:
        self.simulator, self.seed = simulator, seed
        self.lost = 0
        self.warnings: list[str] = []
        absent = [name for name in parameters if name not in simulator.parameters]
        if absent:
            near = did_you_mean(absent[0], simulator.parameters)
            raise SimulatorError(
                f"{simulator.name}: no parameter {absent[0]!r}.{near} It has: {', '.join(simulator.parameters)}."
            )
        self.chosen = tuple(simulator.parameters.index(name) for name in parameters)

    def draw(self, count: int, purpose: Purpose, epoch: int = 0) -> Iterator[Pair]:
        """The good ones of `count` datasets and the chosen parameters.

        Raises:
            SimulatorError: too many are no good, or the simulator ended its process.
        """
        of = f"epoch {epoch}" if purpose is Purpose.TRAINING else f"the {purpose.name.lower()}"
        lost, first = 0, ""
        # One call that fails in a small set says little of the simulator, and its block is much of the set.
        allowed = max(MOST_LOST * count, BLOCK if count >= 4 * BLOCK else 0)

        def leave_out(number: int, why: str) -> None:
            nonlocal lost, first
            lost, first = lost + number, first or why
            if lost > allowed:
                raise SimulatorError(
                    f"{first}\n{lost:,} of {count:,} datasets of {of} cannot be trained on, more than {MOST_LOST:.0%}. "
                    "Mend the simulator; an interrupted training goes on with --resume."
                )

        for datasets, parameters in self.simulator.good_blocks(
            count, leave_out, seed=self.seed, epoch=epoch, purpose=purpose, positive=self.chosen
        ):
            yield datasets, parameters[:, self.chosen]
        if lost:
            self.lost += lost
            self.warnings.append(f"warning: {lost:,} of {count:,} datasets of {of} are left out. The first: {first}")

    def survey(self, count: int) -> Iterator[Pair]:
        """The first look, for epochs of `count` datasets. It tells whether they follow from `rng`, and from it alone.

        Raises:
            SimulatorError: as `draw`; or every call gives the same datasets.
        """
        first: Pair | None = None
        for datasets, targets in self.draw(min(SURVEYED, count), Purpose.SURVEY):
            if first is None:
                first = datasets[0].copy(), targets[0].copy()
            elif np.array_equal(first[1], targets[0]) and np.array_equal(first[0], datasets[0]):
                raise SimulatorError(
                    f"{self.simulator.name}: gives the same datasets at every call. Draw all random numbers from the "
                    "generator that is handed in, rng, and seed none."
                )
            yield datasets, targets
        repeated = self.simulator.good_blocks(
            min(BLOCK, count), lambda lost, why: None, seed=self.seed, purpose=Purpose.SURVEY, positive=self.chosen
        )
        again = next(repeated, None)
        if first and not (again and np.array_equal(first[0], again[0][0])):
            self.warnings.append(
                f"warning: {self.simulator.name}: gives other datasets for the same generator, rng. Unless it draws "
                "all random numbers from it, this training can be neither repeated nor resumed."
            )


class SimulatedPieces:
    """Fresh datasets in every epoch. `ranges` grow by what is trained on."""

    def __init__(self, draws: _Draws, spec: Spec, count: int, ranges: Ranges) -> None:
        self._draws, self._ranges = draws, ranges
        self._lost_before = 0  # of the epochs before an interruption
        self.count, self.different = count, 0
        self.pool_bytes = 4 * spec.rows * len(spec.columns) * BLOCK * POOL_BLOCKS

    def of_epoch(self, epoch: int, rng: np.random.Generator) -> Iterator[Pair]:
        """The epoch's blocks in order; `rng` is not asked. Epoch 0, of before the first step, does not count."""
        for datasets, targets in self._draws.draw(self.count, Purpose.TRAINING, epoch):
            self._ranges.add(datasets, targets)
            if epoch:
                self.different += len(datasets)
            yield datasets, targets

    def configuration(self) -> dict[str, str | int | float | bool]:
        file, function = split(self._draws.simulator.name)
        return {
            "simulator": f"{file.name}:{function} (sha256 {sha256_of(file)})",
            "datasets_per_epoch": self.count,
            "datasets_left_out": self._lost_before + self._draws.lost,
        }

    def warnings(self) -> list[str]:
        said, self._draws.warnings = self._draws.warnings, []
        return said

    def state(self) -> dict[str, Any]:
        ranges = {name: bounds.tolist() for name, bounds in vars(self._ranges).items()}
        return {"different": self.different, "lost": self._lost_before + self._draws.lost, "ranges": ranges}

    def restore(self, state: dict[str, Any]) -> None:
        self.different = state["different"]
        self._lost_before = state["lost"] - self._draws.lost  # those of survey and held-out sets are in both
        for name, bounds in state["ranges"].items():
            getattr(self._ranges, name)[:] = bounds


@dataclass(frozen=True)
class JoinedPieces:
    """The same datasets of files in every epoch, and fresh simulated ones among them."""

    files: Pieces
    simulated: SimulatedPieces

    @property
    def count(self) -> int:
        return self.files.count + self.simulated.count

    @property
    def different(self) -> int:
        return self.files.different + self.simulated.different

    @property
    def pool_bytes(self) -> int:
        return self.files.pool_bytes

    def of_epoch(self, epoch: int, rng: np.random.Generator) -> Iterator[Pair]:
        """Pieces of both, in step with how many each has."""
        both = (self.files, self.simulated)
        streams = [pieces.of_epoch(epoch, rng) for pieces in both]
        given = [0, 0]
        going_on = [0, 1]
        while going_on:
            behind = min(going_on, key=lambda index: given[index] / both[index].count)
            piece = next(streams[behind], None)
            if piece is None:
                going_on.remove(behind)
            else:
                given[behind] += len(piece[0])
                yield piece

    def configuration(self) -> dict[str, str | int | float | bool]:
        return {**self.simulated.configuration(), "datasets_of_files": self.files.count}

    def warnings(self) -> list[str]:
        return [*self.files.warnings(), *self.simulated.warnings()]

    def state(self) -> dict[str, Any]:
        return self.simulated.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.simulated.restore(state)


def simulated_data(
    simulator: Simulator,
    parameters: Sequence[str] = (),
    *,
    count: int = DATASETS_PER_EPOCH,
    seed: int = 0,
    validation: Path | str | None = None,
    column: str | None = None,
) -> TrainingData:
    """Training data that `simulator` makes, `count` fresh datasets in every epoch.

    Means and deviations are those of a survey of 20,000 datasets, or an epoch's if these are fewer. A tenth of an
    epoch, at most 10,000, is simulated to validate on, and another to calibrate with; all of them with random numbers
    of their own.

    Args:
        parameters: those of the simulator's that are to be estimated, in the order of the outputs; by default all.
        validation: a file to validate on.
    Raises:
        InputError: too few datasets, or a parameter that never varies.
        SimulatorError: an unknown parameter, or more than 5% of the datasets cannot be trained on.
    """
    _check_count(count)
    names = tuple(parameters) or simulator.parameters
    draws = _Draws(simulator, names, seed)
    digest = hashlib.sha256()
    moments: Moments | None = None
    for datasets, targets in _digested(draws.survey(count), digest):
        moments = moments or Moments(_spec_of(simulator, names, datasets))
        moments.add(datasets, targets)
    assert moments is not None  # no datasets would have been too few good ones
    share = min(MOST_HELD_OUT, int(count * HELD_OUT_SHARE))
    held_out = [
        list(_digested(draws.draw(share, purpose), digest)) for purpose in (Purpose.VALIDATION, Purpose.CALIBRATION)
    ]
    for datasets, targets in (*held_out[0], *held_out[1]):
        moments.ranges.add(datasets, targets)
    if validation is not None:
        held_out[0] = read_validation(validation, moments.spec, column)
        digest.update(fingerprint_of([Path(validation)], names).encode())
    return training_data_of(
        SimulatedPieces(draws, moments.spec, count, moments.ranges),
        moments,
        *held_out,
        source=simulator.name,
        seed=seed,
        fingerprint=_fingerprint(digest, count, names),
    )


def with_simulated(data: TrainingData, simulator: Simulator, *, count: int = DATASETS_PER_EPOCH) -> TrainingData:
    """The training data of files, and in every epoch `count` fresh simulated datasets among them.

    Means, deviations and the sets that are held out remain those of the files.

    Raises:
        SimulatorError: the simulator's datasets are not like those of the files, or cannot be trained on.
    """
    _check_count(count)
    draws = _Draws(simulator, data.spec.parameters, data.seed)
    digest = hashlib.sha256(data.fingerprint.encode())
    for datasets, targets in _digested(draws.survey(count), digest):
        spec = _spec_of(simulator, data.spec.parameters, datasets)
        if spec.shape != data.spec.shape or (simulator.columns and simulator.columns != data.spec.columns):
            raise SimulatorError(
                f"{simulator.name}: makes {spec.describe()}, the files hold {data.spec.describe()}. "
                "Train on one of the two, or make them alike."
            )
        data.ranges.add(datasets, targets)
    simulated = SimulatedPieces(draws, data.spec, count, data.ranges)
    joined = JoinedPieces(data.pieces, simulated)
    return replace(data, pieces=joined, fingerprint=_fingerprint(digest, count, data.spec.parameters))


def _check_count(count: int) -> None:
    if count < FEWEST_DATASETS:
        raise InputError(f"--datasets-per-epoch {count}: training takes {FEWEST_DATASETS} or more.")


def _digested(pairs: Iterator[Pair], digest: Any) -> Iterator[Pair]:
    for datasets, targets in pairs:
        digest.update(datasets)
        digest.update(np.ascontiguousarray(targets))
        yield datasets, targets


def _fingerprint(digest: Any, count: int, parameters: Sequence[str]) -> str:
    """Of what the simulator gives, not of its file: one whose rare failures were mended goes on where it stopped."""
    digest.update(json.dumps([count, BLOCK, list(parameters)]).encode())
    return str(digest.hexdigest())


def _spec_of(simulator: Simulator, parameters: Sequence[str], datasets: Any) -> Spec:
    _, rows, columns = datasets.shape
    return Spec(rows, simulator.columns or tuple(f"column_{index}" for index in range(columns)), tuple(parameters))
