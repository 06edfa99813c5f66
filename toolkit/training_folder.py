"""The folder of an unfinished training run: one run at a time, and nothing of a dead one stays in a model directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from toolkit.errors import OutputError
from toolkit.manifest import KERAS_FILE

CHECKPOINT_FOLDER = ".training"


@contextmanager
def training_folder(output: Path) -> Iterator[Path]:
    """Own the folder of checkpoints in `output` for as long as the context lasts. Left empty, it is removed.

    The system keeps the lock, and lets go of it however the process ends.

    Raises:
        OutputError: another run is at work in it, or it cannot be made.
    """
    folder = output / CHECKPOINT_FOLDER
    made = not output.exists()
    with writing(output):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{output}: another toolkit train is at work here. Wait for it, or choose another --output."
            ) from None
        _remove_partial_files(output)
        yield folder
    finally:
        with suppress(OSError):  # not empty: an interrupted run is there
            folder.rmdir()
            if made:
                output.rmdir()
        os.close(descriptor)


def remove_training_folder(output: Path) -> None:
    """Once the model directory is whole."""
    folder = output / CHECKPOINT_FOLDER
    for leftover in folder.iterdir():
        leftover.unlink()
    folder.rmdir()


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """What the system refuses while `output` is written is an error of the output.

    Raises:
        OutputError: a full disk, a missing permission.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written: {error.strerror or error}. When there is room and permission, the same "
            "command with --resume goes on."
        ) from error


def _remove_partial_files(output: Path) -> None:
    """What a run that was killed had not finished writing (see `appears_whole`)."""
    for pattern in (".*.partial", f".{KERAS_FILE}.*.keras", f"{CHECKPOINT_FOLDER}/.*.partial"):
        for partial in output.glob(pattern):
            partial.unlink(missing_ok=True)
