"""What the tests of containment run in a child process: functions that end well, badly, or not at all."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import MissingExtra, ModelError, NotPositive

Function = Callable[..., Any]


def doubled(values: NDArray[Any]) -> NDArray[Any]:
    return values * 2


def process_of_it() -> int:
    return os.getpid()


def has_module(name: str) -> bool:
    return name in sys.modules


def read_null() -> None:
    ctypes.string_at(0)


def abort_with_words() -> None:
    os.write(2, b"a line before\ncorrupted size vs. prev_size\n")
    os.abort()


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)


def exit_with(code: int) -> None:
    os._exit(code)


def sleep_deeply(seconds: float) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    time.sleep(seconds)


def leave_pid_and_hang(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def allocate(count: int) -> int:
    return np.ones(count, np.uint8).size


def raise_value_error() -> None:
    raise ValueError("first line\nsecond line")


def refuse(path: Path) -> None:
    raise NotPositive(f"{path}: gives 0.")


def miss_extra() -> None:
    raise MissingExtra("export", "export", "TensorFlow")


def fail_with_row() -> None:
    error = ModelError("one row is wrong")
    error.row = 7  # type: ignore[attr-defined]
    raise error


def write_a_lot() -> str:
    print("x" * 5_000_000)
    os.write(2, b"y" * 5_000_000)
    return "done"
