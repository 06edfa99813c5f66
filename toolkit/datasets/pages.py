"""The pages of one clean column of float32, decoded without pyarrow's reader: two thirds of its time.

A list of lists of numbers costs a reader one level a number, which says where lists begin and what is null. In a column
whose lists all have the size that the model takes, the levels are the same bytes page after page: they are compared,
not decoded, and the numbers behind them are taken as they are. Any rows can be read, so each worker reads its own.

Whatever is not exactly as expected (nulls, other sizes, an encoding, a page of another kind, a checksum that differs)
raises Unexpected: the caller then reads with pyarrow, which knows all of Parquet and says what is wrong with a damaged
file.
"""

from __future__ import annotations

import os
import threading
import weakref
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from toolkit.datasets.chunks import Chunk, Unexpected, leaf_of, repetition_levels
from toolkit.datasets.hybrid import NotHybrid, read_hybrid
from toolkit.datasets.layout import Layout
from toolkit.datasets.page_headers import (
    DATA,
    DICTIONARY,
    PLAIN,
    PLAIN_DICTIONARY,
    RLE_DICTIONARY,
    Incomplete,
    NotAHeader,
    PageHeader,
    read_header,
)

MAX_PAGE_BYTES = 16 << 20  # writers aim at 1 MiB; a reader that streams large pages needs less memory
MAX_LEVEL_BYTES = 4  # of one number, at worst
HEADER_BYTES = 512  # read at once; longer ones are read again
MAX_HEADER_BYTES = 1 << 16
KEPT_PAGES = 24  # decoded, of which somebody will want the rest
KEPT_LEVELS = 16  # kinds of pages whose levels are known to be right

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class _Page:
    header: PageHeader
    begin: int  # in the file, behind the header
    first: int  # its first number, counted from the beginning of the row group


@dataclass(frozen=True)
class _Group:
    """The pages of the column in one row group, by their headers."""

    pages: tuple[_Page, ...]
    dictionary: _Page | None


class Pages:
    """One column of one open file. Several threads may read at once.

    Attributes:
        failed: somebody met a page that is not as expected: better read the rest of the file otherwise.
    """

    failed = False

    def __init__(self, name: str, layout: Layout, row_groups: Sequence[int]) -> None:
        """Look at the footer.

        Args:
            row_groups: rows in each of them, by the footer that the caller has seen.

        Raises:
            Unexpected: it tells that this column is not to be read here.
            OSError, pa.ArrowException: the file cannot be opened.
        """
        if layout.kind != "lists" or layout.by_column:
            raise Unexpected("another layout")
        metadata = pq.read_metadata(name)
        self.type = metadata.schema.to_arrow_schema().field(layout.column).type
        self.sizes = (layout.rows, layout.columns) if layout.nested else (layout.rows * layout.columns,)
        self.row_numbers = layout.rows * layout.columns
        self.column = leaf_of(metadata, layout, self.type, self.sizes)
        leaf = metadata.schema.column(self.column)
        self.max_levels = leaf.max_repetition_level, leaf.max_definition_level
        if leaf.physical_type != "FLOAT" or self.max_levels[0] != len(self.sizes):
            raise Unexpected("another type")
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        if [group.num_rows for group in groups] != list(row_groups):
            raise Unexpected("another file than before")
        self.chunks = [Chunk.of(group.column(self.column), group.num_rows * self.row_numbers) for group in groups]
        self.ends = list(accumulate(group.num_rows for group in groups))
        self.repetition = repetition_levels(self.sizes)
        self.groups: dict[int, _Group] = {}
        self.dictionaries: dict[int, Numbers] = {}
        self.pages: dict[
            tuple[int, int], list[Any]
        ] = {}  # (row group, page) -> [its numbers, how many are not yet taken]
        self.levels: dict[tuple[int, int], bytes] = {}  # (phase, numbers) -> the bytes that say so
        self.lock = threading.Lock()
        self.descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)

    def read(self, first_row: int, rows: int) -> pa.Array:
        """Rows of the file as an array of the column's type.

        Raises:
            Unexpected: they have to be read otherwise.
        """
        buffer = pa.allocate_buffer(rows * self.row_numbers * 4)
        numbers = np.frombuffer(buffer, np.float32)
        done = 0
        while done < rows:
            index = bisect_right(self.ends, first_row + done)
            if index == len(self.ends):
                raise Unexpected("rows behind the end")
            begin = self.ends[index - 1] if index else 0
            count = min(rows - done, self.ends[index] - first_row - done)
            at = (first_row + done - begin) * self.row_numbers
            self._fill(numbers[done * self.row_numbers : (done + count) * self.row_numbers], index, at)
            done += count
        return self._as_array(buffer, rows)

    def _as_array(self, buffer: pa.Buffer, rows: int) -> pa.Array:
        tensor = isinstance(self.type, pa.BaseExtensionType)
        type = self.type.storage_type if tensor else self.type
        types = [type] if len(self.sizes) == 1 else [type, type.value_type]
        array = pa.Array.from_buffers(pa.float32(), rows * self.row_numbers, [None, buffer])
        for level in reversed(types):
            array = pa.FixedSizeListArray.from_arrays(array, type=level)
        return pa.ExtensionArray.from_storage(self.type, array) if tensor else array

    def _fill(self, numbers: Numbers, index: int, at: int) -> None:
        """Numbers from `at` on in a row group."""
        group = self._group(index)
        page = bisect_right(group.pages, at, key=lambda page: page.first) - 1
        done = 0
        while done < len(numbers):
            found = self._take(index, group, page, at + done, len(numbers) - done)
            numbers[done : done + len(found)] = found
            done += len(found)
            page += 1

    def _take(self, index: int, group: _Group, number: int, at: int, count: int) -> Numbers:
        """At most `count` numbers of a page, from `at` on. What is left of it is kept for who wants the rest."""
        page = group.pages[number]
        with self.lock:
            kept = self.pages.get((index, number))
        decoded = self._decode(index, group, page) if kept is None else kept[0]
        taken = decoded[at - page.first :][:count]
        with self.lock:
            kept = self.pages.setdefault((index, number), [decoded, len(decoded)])
            kept[1] -= len(taken)
            if kept[1] <= 0:
                del self.pages[index, number]
            while len(self.pages) > KEPT_PAGES:
                del self.pages[next(iter(self.pages))]
        return taken

    def _group(self, index: int) -> _Group:
        known = self.groups.get(index)
        return known or self.groups.setdefault(index, self._scan(self.chunks[index]))

    def _scan(self, chunk: Chunk) -> _Group:
        """Walk from header to header."""
        at, first = chunk.begin, 0
        pages: list[_Page] = []
        dictionary = None
        while at < chunk.end:
            header = self._header(at, chunk.end)
            page = _Page(header, at + header.bytes, first)
            at = page.begin + header.compressed
            most = 4 * header.values + (MAX_LEVEL_BYTES * header.values + 64) * (header.type != DICTIONARY)
            if at > chunk.end or header.uncompressed > min(most, MAX_PAGE_BYTES) or header.nulls:
                raise Unexpected("sizes that do not add up")
            if header.type == DICTIONARY:
                if dictionary is not None or pages or header.encoding not in (PLAIN, PLAIN_DICTIONARY):
                    raise Unexpected("another dictionary")
                dictionary = page
            else:
                pages.append(page)
                first += header.values
        if first != chunk.values:
            raise Unexpected("another count of numbers")
        return _Group(tuple(page for page in pages if page.header.values), dictionary)

    def _header(self, at: int, end: int) -> PageHeader:
        size = HEADER_BYTES
        while True:
            content = os.pread(self.descriptor, min(size, end - at), at)
            try:
                return read_header(content)
            except Incomplete as error:
                if len(content) < size or size > MAX_HEADER_BYTES:
                    raise Unexpected("a header that is cut off") from error
                size *= 16
            except NotAHeader as error:
                raise Unexpected(str(error)) from error

    def _decode(self, index: int, group: _Group, page: _Page) -> Numbers:
        """The numbers of a data page, its levels compared with those of a clean one."""
        header = page.header
        raw = self._raw(page)
        if header.type == DATA:
            content = self._decompress(index, raw, header.uncompressed)
            levels, content = self._split(content)
        else:
            repetition, definition = header.level_bytes or (0, 0)
            split = repetition + definition
            if split > min(len(raw), header.uncompressed):
                raise Unexpected("levels longer than their page")
            levels = (raw[:repetition], raw[repetition:split])
            content = raw[split:]
            if header.is_compressed:
                content = self._decompress(index, content, header.uncompressed - split)
        self._check_levels(levels, page.first % self.row_numbers, header.values)
        if header.encoding == PLAIN:
            if len(content) != 4 * header.values:
                raise Unexpected("another count of bytes")
            return np.frombuffer(content, "<f4")
        if header.encoding in (PLAIN_DICTIONARY, RLE_DICTIONARY) and len(content):
            dictionary = self._dictionary(index, group)
            try:
                places = read_hybrid(content[1:], content[0], header.values)
            except NotHybrid as error:
                raise Unexpected(str(error)) from error
            if len(places) and places.max() >= len(dictionary):
                raise Unexpected("an index beyond the dictionary")
            return dictionary[places]
        raise Unexpected(f"encoding {header.encoding}")

    def _raw(self, page: _Page) -> memoryview:
        raw = os.pread(self.descriptor, page.header.compressed, page.begin)
        if len(raw) != page.header.compressed:
            raise Unexpected("the file ends inside a page")
        if page.header.crc is not None and zlib.crc32(raw) != page.header.crc:
            raise Unexpected("a checksum that differs")
        return memoryview(raw)

    def _decompress(self, index: int, raw: memoryview, size: int) -> memoryview:
        codec = self.chunks[index].codec
        try:
            content = raw if codec is None else memoryview(pa.Codec(codec).decompress(raw, size)).cast("B")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise Unexpected("not to be decompressed") from error
        if len(content) != size:
            raise Unexpected("another size than its header says")
        return content

    def _split(self, content: memoryview) -> tuple[tuple[memoryview, memoryview], memoryview]:
        """Repetition levels, definition levels and the rest of a page of the first kind."""
        levels = []
        for most in self.max_levels:
            length = int.from_bytes(content[:4], "little") if most else 0
            begin = 4 if most else 0
            if begin + length > len(content):
                raise Unexpected("levels longer than their page")
            levels.append(content[begin : begin + length])
            content = content[begin + length :]
        return (levels[0], levels[1]), content

    def _check_levels(self, levels: tuple[memoryview, memoryview], phase: int, count: int) -> None:
        """Whether every list has its size and nothing is null.

        Args:
            phase: place in its dataset of the page's first number.
        """
        found = bytes(levels[0]) + bytes(levels[1])
        if self.levels.get((phase, count)) == found:
            return
        repetition, definition = self.max_levels
        try:
            starts = read_hybrid(levels[0], repetition.bit_length(), count)
            depths = read_hybrid(levels[1], definition.bit_length(), count) if definition else None
        except NotHybrid as error:
            raise Unexpected(str(error)) from error
        expected = np.resize(np.roll(self.repetition, -phase), count)
        if not np.array_equal(starts, expected) or (depths is not None and (depths != definition).any()):
            raise Unexpected("a null or a list of another size")
        with self.lock:
            if len(self.levels) < KEPT_LEVELS:
                self.levels[phase, count] = found

    def _dictionary(self, index: int, group: _Group) -> Numbers:
        known = self.dictionaries.get(index)
        if known is not None:
            return known
        page = group.dictionary
        if page is None:
            raise Unexpected("no dictionary")
        content = self._decompress(index, self._raw(page), page.header.uncompressed)
        if len(content) != 4 * page.header.values:
            raise Unexpected("another count of bytes")
        with self.lock:
            self.dictionaries = {**dict(list(self.dictionaries.items())[-2:]), index: np.frombuffer(content, "<f4")}
            return self.dictionaries[index]
