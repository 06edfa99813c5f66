"""The user's simulator: `FUNCTION(count, rng)` in a file of its own, loaded by path, and checked at every call."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import SimulatorError
from toolkit.promise import keeps_promise

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]  # (datasets, rows, columns) and (datasets, parameters)

DATASETS_COLUMN = "x"  # the Parquet column of the datasets; no parameter may take its name


@dataclass(frozen=True)
class Function:
    """A loaded simulator. `columns` is None where the user's file does not name them."""

    name: str  # FILE.py:FUNCTION, as the user wrote it
    call: Callable[..., Any]
    columns: tuple[str, ...] | None
    parameters: tuple[str, ...]


class Purpose(IntEnum):
    """What datasets are made for. Each purpose draws from random numbers of its own, whatever the seed."""

    FILE = 0
    TRAINING = 1
    VALIDATION = 2
    SURVEY = 3
    CALIBRATION = 4


@dataclass(frozen=True)
class Task:
    """One block of datasets to make.

    Attributes:
        epoch: of training; 0 for every other purpose.
        positive: parameters, by index, that must be positive; with it, datasets that are no good are left out of the
            block. None: one that is no good spoils the block.
    """

    seed: int
    block: int
    count: int
    epoch: int = 0
    purpose: Purpose = Purpose.FILE
    positive: tuple[int, ...] | None = None

    @property
    def entropy(self) -> list[int]:
        """What its generator is seeded with: np.random.default_rng(entropy).

        NumPy pads with zeros, so [1, 2] and [1, 2, 0] are one generator. The purpose, never 0, comes last: what one
        trains on is never in a file, whatever its seed.
        """
        beyond_file = [self.epoch, int(self.purpose)] if self.purpose else []
        return [self.seed, self.block, *beyond_file]

    def where(self, name: str) -> str:
        """The beginning of every message about this block."""
        if self.purpose is Purpose.FILE:
            return f"{name}, block {self.block} of seed {self.seed}"
        of = f"epoch {self.epoch}" if self.purpose is Purpose.TRAINING else f"the {self.purpose.name.lower()} datasets"
        return f"{name}, block {self.block} of {of}, seed {self.seed}"

    def again(self, name: str) -> str:
        """A second line for such a message: how to make the block by hand."""
        function = split(name)[1]
        return f"\nTo see it again: {function}({self.count}, np.random.default_rng({self.entropy}))"


@dataclass(frozen=True)
class Kept:
    """The datasets of a block that are good.

    Attributes:
        lost: how many are not; `why` of the first.
    """

    datasets: NDArray[np.float32]
    parameters: NDArray[np.float32]
    lost: int = 0
    why: str = ""


def split(name: str) -> tuple[Path, str]:
    """File and function of FILE.py:FUNCTION."""
    file, _, function = name.rpartition(":")
    if not file or not function:
        raise SimulatorError(f"{name}: not FILE.py:FUNCTION. Name a file and a function in it, as in sim.py:simulate.")
    return Path(file), function


def load(name: str) -> Function:
    """Run the user's file and find FUNCTION, PARAMETERS and COLUMNS in it.

    Raises:
        SimulatorError: the file cannot be run, or one of them is missing (COLUMNS may be) or not usable.
    """
    path, function = split(name)
    location = os.path.abspath(path)
    sys.path.insert(0, os.path.dirname(location))  # as `python FILE.py` does: its own modules lie there
    spec = importlib.util.spec_from_file_location("simulator_file", location)
    if spec is None or spec.loader is None:
        raise SimulatorError(f"{path}: not a Python file. Give it a name that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SimulatorError(f"{path}: cannot be loaded: {_describe(error, path)}. Correct the file.") from error
    call = getattr(module, function, None)
    if not callable(call):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == spec.name]
        raise SimulatorError(f"{path}: no function {function!r}. It defines: {', '.join(own) or 'none'}.")
    parameters = _names(module, path, "PARAMETERS", reserved=DATASETS_COLUMN)
    if parameters is None:
        example = 'PARAMETERS = ("v", "a", "t0")'
        raise SimulatorError(f"{path}: PARAMETERS is missing. Name what {function} returns second: {example}.")
    return Function(name, call, _names(module, path, "COLUMNS"), parameters)


def _names(module: ModuleType, path: Path, constant: str, *, reserved: str | None = None) -> tuple[str, ...] | None:
    names = getattr(module, constant, None)
    if names is None:
        return None
    if not (
        isinstance(names, list | tuple)
        and names
        and all(isinstance(name, str) and name.strip() == name != "" and "," not in name for name in names)
        and len(set(names)) == len(names)
        and reserved not in names
    ):
        but = f", none of them {reserved!r}" if reserved else ""
        raise SimulatorError(f"{path}: {constant} is {names!r}. Make it a tuple of different names, no commas{but}.")
    return tuple(names)


def make(function: Function, task: Task) -> Pair:
    """Call the simulator for one block.

    Returns:
        float32 (task.count, rows, columns) and (task.count, parameters), C-contiguous and finite.
    Raises:
        SimulatorError: it raised, or returned anything else; the message says how to make the block by hand.
    """
    with _named(function, task):
        arrays = _call(function, task)
        datasets, parameters = map(_as_float32, arrays)
        _check_finite("datasets", arrays[0], datasets)
        _check_finite("parameters", arrays[1], parameters)
        return datasets, parameters


def make_good(function: Function, task: Task) -> Kept:
    """Call the simulator for one block, and keep what is good of it.

    Returns:
        Datasets and parameters as `make` returns them, of those alone that are finite and whose parameters
        `task.positive` are positive. None are, where it raised or returned anything else than arrays of such shapes.
    """
    try:
        with _named(function, task):
            arrays = _call(function, task)
    except SimulatorError as error:
        return Kept(np.empty((0, 0, 0), np.float32), np.empty((0, 0), np.float32), task.count, str(error))
    datasets, parameters = map(_as_float32, arrays)
    chosen = list(task.positive or ())
    good = np.isfinite(datasets).all(axis=(1, 2)) & np.isfinite(parameters).all(axis=1)
    good &= keeps_promise(parameters[:, chosen]).all(axis=1)
    if good.all():
        return Kept(datasets, parameters)
    try:
        with _named(function, task):
            first = int(np.argmin(good))
            _check_finite("datasets", arrays[0], datasets)
            _check_finite("parameters", arrays[1], parameters)
            index = next(index for index in chosen if not keeps_promise(parameters[first, index]))
            raise SimulatorError(
                f"parameters[{first}, {index}], {function.parameters[index]!r}, is {arrays[1][first, index]}. "
                "A parameter must be positive in float32."
            )
    except SimulatorError as error:
        return Kept(datasets[good], parameters[good], int(np.sum(~good)), str(error))


@contextmanager
def _named(function: Function, task: Task) -> Iterator[None]:
    """What is wrong with the block, with its name and how to make it by hand."""
    try:
        yield
    except SimulatorError as error:
        raise SimulatorError(f"{task.where(function.name)}: {error}{task.again(function.name)}") from error


def _call(function: Function, task: Task) -> tuple[NDArray[Any], NDArray[Any]]:
    columns = len(function.columns) if function.columns else "columns"
    try:
        returned = function.call(task.count, np.random.default_rng(task.entropy))
    except (Exception, SystemExit) as error:
        raise SimulatorError(f"raised {_describe(error, split(function.name)[0])}.") from error
    if not (isinstance(returned, list | tuple) and len(returned) == 2):
        raise SimulatorError(f"returned {type(returned).__name__}. Return two arrays: datasets and parameters.")
    return (
        _as_real("datasets", returned[0], (task.count, "rows", columns)),
        _as_real("parameters", returned[1], (task.count, len(function.parameters))),
    )


def _as_real(what: str, returned: Any, wanted: tuple[int | str, ...]) -> NDArray[Any]:
    """`returned` as an array of real numbers of the wanted shape, in which a name is any length from 1."""
    try:
        array = np.asarray(returned)
    except ValueError as error:  # lists of different lengths
        raise SimulatorError(f"{what} are not one array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise SimulatorError(f"{what} have dtype {array.dtype}. Return real numbers.")
    pairs = zip(wanted, array.shape, strict=False)
    fits = all(have >= 1 if isinstance(want, str) else have == want for want, have in pairs)
    if array.ndim != len(wanted) or not fits:
        raise SimulatorError(f"{what} have shape {array.shape}. Return ({', '.join(map(str, wanted))}).")
    return array


def _as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is not finite then
        return np.ascontiguousarray(array, np.float32)


def _check_finite(what: str, array: NDArray[Any], numbers: NDArray[np.float32]) -> None:
    """Args: numbers: `array` in float32."""
    if not np.all(np.isfinite(numbers)):
        place = tuple(int(axis) for axis in np.argwhere(~np.isfinite(numbers))[0])
        index = ", ".join(map(str, place))
        raise SimulatorError(f"{what}[{index}] is {array[place]}. Return numbers that are finite in float32.")


def _describe(error: BaseException, path: Path) -> str:
    """`ValueError: first line of what it says (sim.py, line 12)`, the last line that ran in the user's file."""
    message = str(error).partition("\n")[0]
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == os.path.abspath(path)]
    return f"{text} ({path.name}, line {lines[-1]})" if lines else text
