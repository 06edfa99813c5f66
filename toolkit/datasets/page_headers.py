"""The header in front of each page of a Parquet file: a Thrift struct in its compact form, of which a few fields count.

Nothing here trusts the bytes: every read is inside the bytes given, every struct is of bounded depth and size.
Source: parquet-format, parquet.thrift (PageHeader); Thrift's compact protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # PageType
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY = 0, 2, 3, 8  # Encoding
MAX_DEPTH = 4  # header, its data page header, statistics; one to spare
MAX_FIELDS = 64

# Types of the compact protocol.
STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(13)

Field = int | bool | bytes | dict[int, "Field"]


class NotAHeader(Exception):
    """Bytes that are no page header, or one with what this reader does not know."""


class Incomplete(NotAHeader):
    """The bytes end inside the header."""


@dataclass(frozen=True)
class PageHeader:
    """What a reader of pages has to know.

    Attributes:
        type: DATA, DICTIONARY or DATA_V2.
        bytes: of the header itself.
        uncompressed, compressed: bytes of the page behind it.
        crc: of the page as it is in the file; None when the writer left it out.
        values: numbers in it, nulls counted.
        nulls: None where the header does not say.
        level_bytes: of repetition and definition levels, which are not compressed; None where they are in the page.
        is_compressed: a page of the second kind may say that it is not.
    """

    type: int
    bytes: int
    uncompressed: int
    compressed: int
    crc: int | None
    values: int
    encoding: int
    nulls: int | None = None
    level_bytes: tuple[int, int] | None = None
    is_compressed: bool = True


def read_header(content: bytes) -> PageHeader:
    """The header at the beginning of `content`.

    Raises:
        Incomplete: there has to be more of it.
        NotAHeader: this is none, or a page of another type.
    """
    try:
        header, end = _read_struct(content, 0, MAX_DEPTH)
    except IndexError as error:
        raise Incomplete from error
    type = _number(header, 1)
    uncompressed, compressed = _number(header, 2), _number(header, 3)
    crc = _number(header, 4) & 0xFFFFFFFF if 4 in header else None
    if type == DATA:
        page = _struct(header, 5)
        if _number(page, 3) != RLE or _number(page, 4) != RLE:
            raise NotAHeader("levels of another encoding")
        return PageHeader(type, end, uncompressed, compressed, crc, _number(page, 1), _number(page, 2))
    if type == DICTIONARY:
        page = _struct(header, 7)
        return PageHeader(type, end, uncompressed, compressed, crc, _number(page, 1), _number(page, 2))
    if type == DATA_V2:
        page = _struct(header, 8)
        return PageHeader(
            type,
            end,
            uncompressed,
            compressed,
            crc,
            _number(page, 1),
            _number(page, 4),
            nulls=_number(page, 2),
            level_bytes=(_number(page, 6), _number(page, 5)),
            is_compressed=page.get(7, True) is True,
        )
    raise NotAHeader(f"a page of type {type}")


def _number(struct: dict[int, Field], field: int) -> int:
    value = struct.get(field)
    if type(value) is not int or not -(2**31) <= value < 2**31 or (value < 0 and field != 4):
        raise NotAHeader(f"field {field} is {value!r}")
    return value


def _struct(struct: dict[int, Field], field: int) -> dict[int, Field]:
    value = struct.get(field)
    if not isinstance(value, dict):
        raise NotAHeader(f"field {field} is no struct")
    return value


def _read_struct(content: bytes, at: int, depth: int) -> tuple[dict[int, Field], int]:
    """The fields of a struct by their number, and where it ends."""
    if not depth:
        raise NotAHeader("nested too deeply")
    fields: dict[int, Field] = {}
    number = 0
    for _ in range(MAX_FIELDS):
        head = content[at]
        at += 1
        kind = head & 15
        if kind == STOP:
            return fields, at
        if head >> 4:
            number += head >> 4
        else:
            number, at = _zigzag(content, at)
        if kind in (TRUE, FALSE):
            fields[number] = kind == TRUE
        elif kind == BYTE:
            fields[number] = content[at]
            at += 1
        elif kind in (I16, I32, I64):
            fields[number], at = _zigzag(content, at)
        elif kind == BINARY:
            length, at = _varint(content, at)
            if at + length > len(content):
                raise Incomplete
            at += length  # statistics: their bounds are of no use here
        elif kind == STRUCT:
            fields[number], at = _read_struct(content, at, depth - 1)
        else:
            raise NotAHeader(f"a field of type {kind}")
    raise NotAHeader("too many fields")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise NotAHeader("a number without end")


def _zigzag(content: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(content, at)
    return (value >> 1) ^ -(value & 1), at
