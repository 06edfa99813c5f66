"""Datasets as bytes: bare little-endian numbers, or .npy and .npz files as NumPy writes them. Nothing is unpickled."""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toolkit.datasets.lists import Misfits, null_mask
from toolkit.datasets.numbers import as_float32

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

NPY_MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
LONGEST_HEADER = 10_000  # bytes, NumPy's own limit
MOST_BYTES = 64 << 20  # unpacked, of a compressed file when nobody knows the shape of a dataset
BARE: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8")}
# What NumPy writes, in any order: {'descr': '<f8', 'fortran_order': False, 'shape': (200, 2), }. It is Python's syntax,
# but matched, not evaluated; other dtypes than plain numbers do not match.
DESCR = re.compile(r"'descr' ?: ?'([<>|=]?(?:f[248]|[iu][1248]|b1))'")
FORTRAN_ORDER = re.compile(r"'fortran_order' ?: ?(True|False)")
SIZE = r"(?:0|[1-9]\d{0,17})L? ?"
SHAPE = re.compile(rf"'shape' ?: ?\( ?((?:{SIZE}, ?){{0,8}}(?:{SIZE})?)\)")
ENTRY = rf" ?(?:{DESCR.pattern}|{FORTRAN_ORDER.pattern}|{SHAPE.pattern}) ?"
WHOLE = re.compile(rf"\{{{ENTRY},{ENTRY},{ENTRY},? ?\}} ?")


@dataclass(frozen=True)
class Header:
    """What the beginning of a .npy file says about the rest."""

    dtype: np.dtype[Any]
    by_column: bool  # 'fortran_order'
    shape: tuple[int, ...]
    length: int  # bytes, after which the numbers begin

    @property
    def bytes(self) -> int:
        """Of the whole file."""
        return self.length + math.prod(self.shape) * self.dtype.itemsize


def kind_of(blobs: Iterable[bytes], rows: int | None, columns: int | None) -> tuple[str, tuple[int, ...]] | None:
    """What the first blob that can be a dataset is, and its shape.

    Args:
        rows, columns: of a dataset; None where any number would do.
    Returns:
        ('float32' | 'float64', (numbers,)) or ('npy', shape as stored); None when none can be a dataset. Bare bytes
        without both sizes could be of either kind: ('either', (bytes,)).
    """
    most_bytes = MOST_BYTES if rows is None or columns is None else LONGEST_HEADER + 8 * rows * columns
    for blob in blobs:
        if blob.startswith((NPY_MAGIC, ZIP_MAGIC)):
            array = read_file(blob, most_bytes)
            if array is not None and _fits(array.shape, rows, columns):
                return "npy", array.shape
        elif rows is None or columns is None:
            return "either", (len(blob),)
        else:
            for name, dtype in BARE.items():
                if len(blob) == rows * columns * dtype.itemsize:
                    return name, (rows * columns,)
    return None


def _fits(shape: tuple[int, ...], rows: int | None, columns: int | None) -> bool:
    if len(shape) == 1:
        return (
            shape[0] > 0
            and shape[0] % ((rows or 1) * (columns or 1)) == 0
            and (None in (rows, columns) or shape[0] == (rows or 0) * (columns or 0))
        )
    return len(shape) == 2 and all(wanted in (None, size) for size, wanted in zip(shape, (rows, columns), strict=True))


def read_bare(array: pa.Array, dtype: np.dtype[Any], numbers: int) -> tuple[FloatArray, Misfits]:
    """float32 (n, numbers), a view of the array's memory where that is clean float32; another byte count is 'rows'."""
    size = numbers * dtype.itemsize
    null = null_mask(array)
    if null.any() or not (_lengths(array) == size).all():
        other = ~null & (_lengths(array) != size)
        fitting = np.flatnonzero(~(null | other))
        found = np.zeros((len(array), numbers), np.float32)
        found[fitting] = _numbers(array.take(pa.array(fitting)), dtype, numbers)
        return found, {"null": null, "rows": other}
    return _numbers(array, dtype, numbers), {}


def _numbers(array: pa.Array, dtype: np.dtype[Any], numbers: int) -> FloatArray:
    found = as_float32(_bytes(array).view(dtype).reshape(len(array), numbers))
    return np.require(found, requirements="A")  # bytes may lie anywhere in memory


def read_npy(array: pa.Array, rows: int, columns: int, *, flat: bool, by_column: bool) -> tuple[FloatArray, Misfits]:
    """.npy files of rows x columns numbers, or flat ones.

    Args:
        flat: files of one axis, which lie as `by_column` says; otherwise of two, which say so themselves.
    Returns:
        float32 (n, rows, columns), and the rows that are null, hold another shape ('rows', 'columns') or something else
        ('type').
    """
    null = null_mask(array)
    if not null.any() and (alike := _alike(array)) is not None:
        header, numbers = alike
        why = _misfit(header.shape, rows, columns, flat)
        if why is None:
            return _arranged(numbers, rows, columns, by_column if flat else header.by_column), {}
    datasets = np.zeros((len(array), rows, columns), np.float32)
    found = {why: np.zeros(len(array), np.bool_) for why in ("null", "rows", "columns", "type")}
    for row, value in enumerate(array):
        if null[row]:
            found["null"][row] = True
            continue
        content = read_file(value.as_buffer(), LONGEST_HEADER + 8 * rows * columns)
        why = "type" if content is None else _misfit(content.shape, rows, columns, flat)
        if why is not None or content is None:
            found[why or "type"][row] = True
        else:
            values = as_float32(content)
            datasets[row] = values.reshape(columns, rows).T if flat and by_column else values.reshape(rows, columns)
    return datasets, found


def read_file(content: bytes | pa.Buffer, most_bytes: int) -> NDArray[Any] | None:
    """The array in a .npy file, or in a .npz that holds one; None for anything else, pickled objects among it.

    Args:
        most_bytes: a compressed file that says it unpacks to more is not unpacked, and its shape stays unknown.
    """
    view = memoryview(content)
    if bytes(view[: len(ZIP_MAGIC)]) == ZIP_MAGIC:
        unpacked = _unpacked(view, most_bytes)
        if unpacked is None:
            return None
        view = memoryview(unpacked)
    header = header_of(view)
    if header is None or header.bytes != len(view):
        return None
    numbers = np.frombuffer(view, header.dtype, math.prod(header.shape), header.length)
    return numbers.reshape(header.shape, order="F" if header.by_column else "C")


def header_of(content: memoryview) -> Header | None:
    """The header of a .npy file; None when it is none, or describes something else than plain numbers."""
    start = bytes(content[:12])
    if len(start) < 12 or not start.startswith(NPY_MAGIC) or start[6] not in (1, 2, 3) or start[7]:
        return None
    begin = 10 if start[6] == 1 else 12
    size = int.from_bytes(start[8:begin], "little")
    if size > LONGEST_HEADER or begin + size > len(content):
        return None
    return _parsed(bytes(content[begin : begin + size]), begin + size)


@lru_cache(maxsize=64)
def _parsed(text: bytes, length: int) -> Header | None:
    described = re.sub(r"[ \t\n]+", " ", text.decode("latin-1")).lstrip(" ")
    if "'" not in described:
        described = described.replace('"', "'")
    if not WHOLE.fullmatch(described):
        return None
    found = [pattern.findall(described) for pattern in (DESCR, FORTRAN_ORDER, SHAPE)]
    if any(len(each) != 1 for each in found):
        return None
    (descr,), (fortran_order,), (sizes,) = found
    shape = tuple(int(size) for size in re.findall(r"\d+", sizes))
    if len(shape) == 1 and "," not in sizes:  # a number in brackets is no tuple
        return None
    return Header(np.dtype(descr), fortran_order == "True", shape, length)


def _unpacked(content: memoryview, most_bytes: int) -> bytes | None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (entry,) = archive.infolist()
            if not entry.filename.endswith(".npy") or entry.file_size > most_bytes:
                return None
            with archive.open(entry) as file:
                return file.read(entry.file_size)
    # What zipfile raises for damaged, encrypted and foreign archives.
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError, NotImplementedError, OSError):
        return None


def _alike(array: pa.Array) -> tuple[Header, NDArray[Any]] | None:
    """The header that all files share, and the numbers behind it: (n, numbers). None when they differ."""
    lengths = _lengths(array)
    if not len(array) or not (lengths == lengths[0]).all():
        return None
    files = _bytes(array).reshape(len(array), lengths[0])
    header = header_of(memoryview(files[0].tobytes()))
    if (
        header is None
        or header.bytes != lengths[0]
        or not (files[:, : header.length] == files[0, : header.length]).all()
    ):
        return None
    return header, np.ascontiguousarray(files[:, header.length :]).view(header.dtype)


def _misfit(shape: tuple[int, ...], rows: int, columns: int, flat: bool) -> str | None:
    if len(shape) != (1 if flat else 2):
        return "type"
    if flat:
        return None if shape == (rows * columns,) else "rows"
    if shape[0] != rows:
        return "rows"
    return None if shape[1] == columns else "columns"


def _arranged(numbers: NDArray[Any], rows: int, columns: int, by_column: bool) -> FloatArray:
    values = as_float32(numbers)
    if by_column:
        return np.ascontiguousarray(values.reshape(-1, columns, rows).transpose(0, 2, 1))
    return values.reshape(-1, rows, columns)


def _lengths(array: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_fixed_size_binary(array.type):
        return np.full(len(array), array.type.byte_width)
    return np.diff(_offsets(array))


def _offsets(array: pa.Array) -> NDArray[np.int64]:
    dtype = np.dtype(np.int64 if pa.types.is_large_binary(array.type) else np.int32)
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array) + 1, np.int64)
    return np.frombuffer(buffer, dtype, len(array) + 1, array.offset * dtype.itemsize).astype(np.int64)


def _bytes(array: pa.Array) -> NDArray[np.uint8]:
    """The bytes of all values, end to end; none of them null."""
    if pa.types.is_fixed_size_binary(array.type):
        begin, end = array.offset * array.type.byte_width, (array.offset + len(array)) * array.type.byte_width
    else:
        offsets = _offsets(array)
        begin, end = offsets[0], offsets[-1]
    buffer = array.buffers()[-1]
    return np.frombuffer(buffer, np.uint8, end - begin, begin) if end > begin else np.empty(0, np.uint8)
