"""Where targets keep what they download and build: whole or not at all, made again when the recipe changes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from toolkit.errors import TargetError

VARIABLE = "SOFTPLUS_TOOLKIT_CACHE"
COMPLETE = ".complete"  # written last; a folder without it is nobody's


def cache_folder() -> Path:
    """$SOFTPLUS_TOOLKIT_CACHE, or `softplus-toolkit` in the user's cache folder. It may not exist yet."""
    if given := os.environ.get(VARIABLE):
        return Path(given).absolute()
    usual = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "softplus-toolkit"


def made_once(name: str, recipe: object, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, made at the first call and found there at all others.

    Processes that ask for the same at the same time wait for the one that makes it.

    Args:
        name: what it is, as a part of the folder's name.
        recipe: all that decides what is made (versions, a number for the way it is made), as JSON; with another one
            another folder is made.
        make: fills an empty folder, which is renamed afterwards: what it writes must not hold the folder's own path.
    Raises:
        TargetError: the cache cannot be written; or whatever `make` raises, and then nothing is left of it.
    """
    written = json.dumps(recipe, sort_keys=True)
    parent = cache_folder()
    folder = parent / f"{name}-{hashlib.sha256(written.encode()).hexdigest()[:12]}"
    if (folder / COMPLETE).is_file():
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with (parent / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released with the descriptor, however the process ends
            if not (folder / COMPLETE).is_file():
                _make(folder, written, make)
    except OSError as error:
        raise TargetError(
            f"{parent}: {name} cannot be kept there ({error.strerror or error}). Name another folder with ${VARIABLE}."
        ) from error
    return folder


def _make(folder: Path, written: str, make: Callable[[Path], None]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        make(partial)
        (partial / COMPLETE).write_text(written + "\n", encoding="utf-8")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
