"""Files by name, wherever they are: a path on this machine, or a URI such as s3://bucket/folder/file.parquet.

What follows `?` in a URI is for pyarrow, which opens it: `endpoint_override`, `scheme`, `region` and the like.
Credentials come from the environment, as the object store's own tools take them.
"""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as arrow_fs

from toolkit.errors import InputError, reason_of

MAGIC = re.compile(r"[*\[]")  # `?` is no pattern in a URI: the query begins there


def is_uri(name: str | Path) -> bool:
    """Whether this names something in an object store or on another machine, not a path."""
    return isinstance(name, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def plain(name: str | Path) -> str:
    """The name as text; `file://` URIs become the paths they stand for."""
    text = os.fspath(name)
    return unquote(urlsplit(text).path) if text.startswith("file://") else text


def open_uri(uri: str) -> tuple[Any, str]:
    """The pyarrow file system of a URI, and the path in it.

    Raises:
        InputError: no such kind of storage, or its credentials are in the name.
    """
    parts = urlsplit(uri, allow_fragments=False)
    if "@" in parts.netloc:
        raise InputError(
            f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}: holds credentials, which would end up in the "
            "result. Put them into the environment."
        )
    filesystem, root = _filesystem(parts.scheme, parts.netloc, parts.query)
    return filesystem, "/".join([root.rstrip("/"), unquote(parts.path).strip("/")]).rstrip("/")


@lru_cache
def _filesystem(scheme: str, host: str, query: str) -> tuple[Any, str]:
    # Without delayed opening each small object would be a multipart upload of three requests, not one PUT.
    delayed = "&".join(filter(None, [query, "allow_delayed_open=true"])) if scheme == "s3" else query
    try:
        return arrow_fs.FileSystem.from_uri(f"{scheme}://{host}/" + (f"?{delayed}" if delayed else ""))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{scheme}://{host}: cannot be opened ({reason_of(error)}).") from error


def join(uri: str, name: str) -> str:
    """The URI of `name` in the folder of this URI, or '' for itself; the query stays at the end."""
    head, mark, query = uri.partition("?")
    return f"{head.rstrip('/')}/{quote(name)}{mark}{query}" if name else uri


def parent_and_name(uri: str) -> tuple[str, str]:
    """The URI of the folder that a URI is in, and its name there."""
    head, mark, query = uri.partition("?")
    folder, _, name = head.rstrip("/").rpartition("/")
    return f"{folder}{mark}{query}", unquote(name)


def open_input(name: str) -> Any:
    """The file, to be read at any position.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    if not is_uri(name):
        return open(name, "rb")
    filesystem, path = open_uri(name)
    return filesystem.open_input_file(path)


def size_and_change(name: str) -> tuple[int, int]:
    """Bytes, and when it was last written to in nanoseconds; an object store's clock tells seconds.

    Raises:
        OSError: it is not there.
    """
    if not is_uri(name):
        status = os.stat(name)
        return status.st_size, status.st_mtime_ns
    filesystem, path = open_uri(name)
    info = filesystem.get_file_info(path)
    if info.type != arrow_fs.FileType.File:
        raise FileNotFoundError(f"{name}: no such object")
    return info.size, info.mtime_ns or 0


def find_uris(uri: str) -> list[str] | None:
    """The object of this name as it stands; or those below this folder, or that match this pattern, sorted.

    None: there is nothing of this name.
    Raises:
        InputError: it cannot be searched.
    """
    head, mark, query = uri.partition("?")
    magic = MAGIC.search(head)
    folder = head[: magic.start()].rpartition("/")[0] if magic else head
    filesystem, path = open_uri(folder + mark + query)
    try:
        if not magic and filesystem.get_file_info(path).type == arrow_fs.FileType.File:
            return [uri]
        found = filesystem.get_file_info(arrow_fs.FileSelector(path, allow_not_found=True, recursive=True))
    except OSError as error:
        raise InputError(f"{uri}: cannot be searched ({reason_of(error)}).") from error
    below = sorted(info.path[len(path) :].lstrip("/") for info in found if info.type == arrow_fs.FileType.File)
    if magic:
        pattern = unquote(head[len(folder) :].lstrip("/"))
        depth = pattern.count("/")
        below = [name for name in below if fnmatchcase(name, pattern) and ("**" in pattern or name.count("/") == depth)]
    return [join(folder + mark + query, name) for name in below] or None
