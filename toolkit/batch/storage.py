"""Where parts, receipts and results are kept: a local folder, or one of an object store, behind the same few verbs.

Whatever is written appears whole or not at all, and stays. In a folder that takes a temporary name, fsync, a rename and
fsync of the folder; in an object store one PUT, or a multipart upload, which nobody sees before it is completed. Both
kinds are plain values that can be sent to another process.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow.fs as arrow_fs

from toolkit.files import appears_whole, sync
from toolkit.places import is_uri, join, open_uri, parent_and_name, plain

Place = Path | str  # a path, or the URI of something in an object store


class Folder(Protocol):
    """Files by name in one place. What goes wrong is an OSError."""

    @property
    def place(self) -> str:
        """Its path or URI, for people."""

    def names(self) -> list[str]:
        """Of all files in it, sorted; none where there is no folder."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it is not there."""

    def write(self, name: str, content: Any) -> None:
        """Write a file in the place of any other of this name."""

    def writer(self, name: str, staging: Folder) -> AbstractContextManager[Any]:
        """Yield a binary file to write to, which appears under its name at the end, and does not when it is left by an
        error. Until then it may be kept in `staging`."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


def as_place(named: str | Path) -> Place:
    """What a person or a program named, a file:// URI included."""
    return name if is_uri(name := plain(named)) else Path(name)


def open_folder(place: Place) -> Folder:
    """The folder of a path or URI; nothing is looked at."""
    return RemoteFolder(place) if isinstance(place, str) and is_uri(place) else LocalFolder(Path(place))


def folder_of(place: Place) -> tuple[Folder, str]:
    """The folder that a file is in, and its name there."""
    if isinstance(place, str) and is_uri(place):
        folder, name = parent_and_name(place)
        return RemoteFolder(folder), name
    return LocalFolder(Path(place).parent), Path(place).name


def beside(place: Place, name: str) -> Place:
    """The place of this name in the same folder."""
    if isinstance(place, str) and is_uri(place):
        return join(parent_and_name(place)[0], name)
    return Path(place).with_name(name)


def is_there(place: Place) -> bool:
    """Whether there is a file of this name."""
    if isinstance(place, str) and is_uri(place):
        filesystem, path = open_uri(place)
        return bool(filesystem.get_file_info(path).type == arrow_fs.FileType.File)
    return Path(place).is_file()


@dataclass(frozen=True)
class LocalFolder:
    path: Path

    @property
    def place(self) -> str:
        return str(self.path)

    def names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: Any) -> None:
        with appears_whole(self.path / name) as partial:
            partial.write_bytes(content)

    @contextmanager
    def writer(self, name: str, staging: Folder) -> Iterator[Any]:
        assert isinstance(staging, LocalFolder)  # on the same file system
        partial = staging.path / f"{name}.partial"
        try:
            with partial.open("wb") as sink:
                yield sink
            sync(partial)
            os.replace(partial, self.path / name)
            sync(self.path)
        finally:
            partial.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        path = self.path / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteFolder:
    """A prefix of keys in an object store. It is there as soon as something is in it."""

    place: str

    def names(self) -> list[str]:
        filesystem, path = open_uri(self.place)
        found = filesystem.get_file_info(arrow_fs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == arrow_fs.FileType.File)

    def read(self, name: str) -> bytes | None:
        filesystem, path = open_uri(join(self.place, name))
        try:
            with filesystem.open_input_file(path) as source:
                return bytes(source.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: Any) -> None:
        filesystem, path = open_uri(join(self.place, name))
        with filesystem.open_output_stream(path) as sink:
            sink.write(content)

    @contextmanager
    def writer(self, name: str, staging: Folder) -> Iterator[Any]:
        filesystem, path = open_uri(join(self.place, name))
        sink = filesystem.open_output_stream(path)
        try:
            yield sink
        except BaseException:
            # pyarrow 26 knows no way to give an upload up: closing the file completes it, and so does its destructor,
            # which waits forever when the process ends. So the file is never destroyed.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(sink))
            raise
        sink.close()

    def remove(self, name: str) -> None:
        filesystem, path = open_uri(join(self.place, name))
        with suppress(FileNotFoundError):
            filesystem.delete_file(path)
