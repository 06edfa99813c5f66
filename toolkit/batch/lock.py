"""Who owns the work folder: one run at a time writes an output.

On a file system the operating system keeps the lock (flock), and lets go of it however the process ends. An object
store knows no locks: there the owner renews an object, and whoever finds one that is not renewed for LEASE_SECONDS, or
left by a dead process of the same machine, takes it over. Two runs that begin within the same SETTLE_SECONDS see each
other; should one of them be slower than that (a PUT that takes longer), the one that lost stops when it next renews.
Until then nothing is mixed: receipts name their run and the sha256 of their parts. No machines' clocks are compared.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.batch.storage import Place, RemoteFolder, open_folder
from toolkit.errors import OutputError

LOCK_FILE = "lock"
RENEW_SECONDS = 5.0
LEASE_SECONDS = 30.0
SETTLE_SECONDS = 1.0
LOOK_SECONDS = 0.5

CheckOwned = Callable[[], None]  # raises OutputError when the folder was taken over


@contextmanager
def owned(place: Place) -> Iterator[CheckOwned]:
    """Make the work folder and own it. Left empty, it is removed.

    Raises:
        OutputError: another process owns it.
    """
    folder = open_folder(place)
    with _leased(folder) if isinstance(folder, RemoteFolder) else _locked(Path(place)) as check_owned:
        yield check_owned


def owner_of(place: Place) -> str | None:
    """The process that owns the work folder now, as it says itself; None when nobody does. Changes nothing."""
    folder = open_folder(place)
    if isinstance(folder, RemoteFolder):
        return _living_owner(folder)
    try:
        descriptor = os.open(Path(place) / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _named_owner(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _refusal(place: Place, owner: str) -> OutputError:
    return OutputError(
        f"{place}: another batch-predict (process {owner}) is writing this output. Wait for it, or name another with "
        "--output."
    )


@contextmanager
def _locked(folder: Path) -> Iterator[CheckOwned]:
    while True:
        folder.mkdir(exist_ok=True)
        try:
            descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its owner has just finished and removed it
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _named_owner(descriptor)
            os.close(descriptor)
            raise _refusal(folder, owner) from error
        if _is_same_file(descriptor, folder / LOCK_FILE):
            break
        os.close(descriptor)

    def check_owned() -> None:
        """Nobody takes a lock that the system keeps."""

    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield check_owned
    finally:
        try:
            if folder.is_dir() and os.listdir(folder) == [LOCK_FILE]:
                shutil.rmtree(folder)
        finally:
            os.close(descriptor)


def _named_owner(descriptor: int) -> str:
    return os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Whether the lock taken is still the one that others would find: its owner may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def _leased(folder: RemoteFolder) -> Iterator[CheckOwned]:
    if owner := _living_owner(folder):
        raise _refusal(folder.place, owner)
    mine = {"owner": uuid.uuid4().hex, "machine": _machine(), "process": os.getpid()}
    folder.write(LOCK_FILE, json.dumps({**mine, "renewed": 0}).encode())
    time.sleep(SETTLE_SECONDS)
    found = _read(folder)
    if found is None or found["owner"] != mine["owner"]:
        raise _refusal(folder.place, _describe(found))
    ended, lost = threading.Event(), threading.Event()
    renewal = threading.Thread(target=_renew, args=(folder, mine, ended, lost), daemon=True)

    def check_owned() -> None:
        if lost.is_set():
            raise OutputError(f"{folder.place}: was taken over by another batch-predict. This run stops here.")

    renewal.start()
    try:
        yield check_owned
    finally:
        ended.set()
        renewal.join()
        if not lost.is_set():
            folder.remove(LOCK_FILE)


def _renew(folder: RemoteFolder, mine: dict[str, Any], ended: threading.Event, lost: threading.Event) -> None:
    """Say every few seconds that the owner lives. Failures are not the end: the store may answer next time."""
    renewed = 0
    while not ended.wait(RENEW_SECONDS):
        renewed += 1
        try:
            found = _read(folder)
            if found is not None and found["owner"] != mine["owner"]:
                lost.set()
                return
            folder.write(LOCK_FILE, json.dumps({**mine, "renewed": renewed}).encode())
        except OSError:
            continue


def _living_owner(folder: RemoteFolder) -> str | None:
    """The owner, seen to renew its lock; None when there is no lock or nobody renews it for LEASE_SECONDS."""
    first = _read(folder)
    if first is None or _is_dead_here(first):
        return None
    until = time.monotonic() + LEASE_SECONDS
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        found = _read(folder)
        if found is None:
            return None
        if found != first:
            return _describe(found)
    return None


def _read(folder: RemoteFolder) -> dict[str, Any] | None:
    try:
        content = json.loads(folder.read(LOCK_FILE) or b"null")
    except ValueError:
        return None
    return content if isinstance(content, dict) and {"owner", "machine", "process"} <= set(content) else None


def _describe(found: dict[str, Any] | None) -> str:
    return "unknown" if found is None else f"{found['process']} on {found['machine'][0]}"


def _machine() -> list[str]:
    """What tells this machine from others, and its processes from those of other containers on it."""
    told = [platform.node()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            told.append(os.readlink(source) if source.endswith("pid") else Path(source).read_text().strip())
        except OSError:
            told.append("unknown")
    return told


def _is_dead_here(found: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine and is gone."""
    if found["machine"] != _machine() or "unknown" in found["machine"]:
        return False
    return found["process"] != os.getpid() and not Path("/proc", str(found["process"])).exists()
