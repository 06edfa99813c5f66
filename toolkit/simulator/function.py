"""The user's simulator: `FUNCTION(count, rng)` in a file of its own, loaded by path, and checked at every call."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import SimulatorError

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]  # (datasets, rows, columns) and (datasets, parameters)

DATASETS_COLUMN = "x"  # the Parquet column of the datasets; no parameter may take its name


@dataclass(frozen=True)
class Function:
    """A loaded simulator. `columns` is None where the user's file does not name them."""

    name: str  # FILE.py:FUNCTION, as the user wrote it
    call: Callable[..., Any]
    columns: tuple[str, ...] | None
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One block of datasets to make. Its generator is np.random.default_rng([seed, block])."""

    seed: int
    block: int
    count: int

    def where(self, name: str) -> str:
        """The beginning of every message about this block."""
        return f"{name}, block {self.block} of seed {self.seed}"

    def again(self, name: str) -> str:
        """A second line for such a message: how to make the block by hand."""
        function = split(name)[1]
        return f"\nTo see it again: {function}({self.count}, np.random.default_rng([{self.seed}, {self.block}]))"


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
    columns = len(function.columns) if function.columns else "columns"
    try:
        try:
            returned = function.call(task.count, np.random.default_rng([task.seed, task.block]))
        except (Exception, SystemExit) as error:
            raise SimulatorError(f"raised {_describe(error, split(function.name)[0])}.") from error
        if not (isinstance(returned, list | tuple) and len(returned) == 2):
            raise SimulatorError(f"returned {type(returned).__name__}. Return two arrays: datasets and parameters.")
        return (
            _as_float32("datasets", returned[0], (task.count, "rows", columns)),
            _as_float32("parameters", returned[1], (task.count, len(function.parameters))),
        )
    except SimulatorError as error:
        raise SimulatorError(f"{task.where(function.name)}: {error}{task.again(function.name)}") from error


def _as_float32(what: str, returned: Any, wanted: tuple[int | str, ...]) -> NDArray[np.float32]:
    """`returned` as a C-contiguous float32 array of the wanted shape, in which a name is any length from 1."""
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
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is named below
        numbers = np.ascontiguousarray(array, np.float32)
    if not np.all(np.isfinite(numbers)):
        place = tuple(int(axis) for axis in np.argwhere(~np.isfinite(numbers))[0])
        index = ", ".join(map(str, place))
        raise SimulatorError(f"{what}[{index}] is {array[place]}. Return numbers that are finite in float32.")
    return numbers


def _describe(error: BaseException, path: Path) -> str:
    """`ValueError: first line of what it says (sim.py, line 12)`, the last line that ran in the user's file."""
    message = str(error).partition("\n")[0]
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == os.path.abspath(path)]
    return f"{text} ({path.name}, line {lines[-1]})" if lines else text
