"""Ids of any type: which rows of a table belong together, and a hash that is the same in every table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toolkit.datasets.lists import null_mask
from toolkit.datasets.numbers import plain

Codes = NDArray[np.int64]
Hashes = NDArray[np.uint64]

HASHED_BYTES = 256  # of a text; longer ones that differ only after these share a hash, which costs time, not truth
GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
POWERS = np.cumprod(np.full(HASHED_BYTES, 0x100000001B3, np.uint64))  # modulo 2^64


def is_id(type: pa.DataType) -> bool:
    """Whether values of this type can name a group."""
    types = pa.types
    if isinstance(type, pa.BaseExtensionType):
        return is_id(type.storage_type)
    if types.is_dictionary(type):
        return is_id(type.value_type)
    text = types.is_string(type) or types.is_large_string(type) or types.is_string_view(type)
    binary = types.is_binary(type) or types.is_large_binary(type) or types.is_fixed_size_binary(type)
    number = types.is_integer(type) or types.is_floating(type) or types.is_decimal(type) or types.is_boolean(type)
    return bool(text or binary or number or types.is_temporal(type) or types.is_binary_view(type))


def plain_id(array: pa.Array) -> pa.Array:
    """The same ids as one type for each kind: no dictionary, no view; a NaN, which equals nothing, is null; no -0."""
    array = plain(array)
    if pa.types.is_string_view(array.type):
        return array.cast(pa.large_string())
    if pa.types.is_floating(array.type):
        import pyarrow.compute as pc  # 25 ms, which other layouts should not wait for

        array = pc.add(array, pa.scalar(0.0, array.type))
        return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array


def codes_of(ids: Sequence[pa.Array]) -> tuple[Codes, Codes]:
    """Which rows have the same ids.

    Args:
        ids: plain, one array a column, of equal length. A null equals a null.
    Returns:
        int64 (n,), a number for each row, from 0 in order of first appearance; int64 (groups,), the first row of each.
    """
    codes = _codes(ids[0])
    for column in ids[1:]:
        other = _codes(column)
        codes = _codes(pa.array(codes * (int(other.max(initial=0)) + 1) + other))
    first = np.empty(int(codes.max(initial=-1)) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # of several assignments the last one stays
    return codes, first


def hashes_of(ids: Sequence[pa.Array], salt: int = 0) -> Hashes:
    """uint64 (n,): equal for rows of equal ids, in whatever table, and evenly spread for others."""
    found = np.full(len(ids[0]), salt + 1, np.uint64)
    for column in ids:
        words = _words(column)
        words[null_mask(column)] = GOLDEN_RATIO
        found = _mixed(found * GOLDEN_RATIO ^ words)
    return found


def _codes(array: pa.Array) -> Codes:
    return np.asarray(array.dictionary_encode(null_encoding="encode").indices.to_numpy(), np.int64)


def _mixed(values: Hashes) -> Hashes:
    """Every bit of a value into every bit of the result. Source: the finalizer of SplitMix64, Steele et al. 2014."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _words(array: pa.Array) -> Hashes:
    """uint64 (n,), a new array: a number for each value; what it is for a null is anything."""
    type = array.type
    if pa.types.is_boolean(type):
        array, type = array.cast(pa.uint8()), pa.uint8()
    if pa.types.is_string(type) or pa.types.is_binary(type):
        array = array.cast(pa.large_binary())
    if pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type):
        return _hashed_text(array)
    width = type.bit_width // 8
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array), np.uint64)
    content = np.frombuffer(buffer, np.uint8, len(array) * width, array.offset * width).reshape(len(array), width)
    words = np.zeros((len(array), -(-width // 8) * 8), np.uint8)
    words[:, :width] = content
    return _folded(words.view("<u8"))


def _folded(words: NDArray[Any]) -> Hashes:
    found = words[:, 0].astype(np.uint64)
    for word in words.T[1:]:
        found = _mixed(found) ^ word
    return found


def _hashed_text(array: pa.Array) -> Hashes:
    """A polynomial in a text's first bytes, by differences of cumulative sums: no loop over rows."""
    offsets = np.frombuffer(array.buffers()[1], np.int64, len(array) + 1, array.offset * 8)
    begin, end = offsets[:-1] - offsets[0], offsets[1:] - offsets[0]
    data = array.buffers()[2]
    content = np.frombuffer(data, np.uint8, end[-1], offsets[0]) if len(array) and end[-1] else np.empty(0, np.uint8)
    position = np.arange(len(content)) - np.repeat(begin, end - begin)
    weighted = (content.astype(np.uint64) + np.uint64(1)) * POWERS[np.minimum(position, HASHED_BYTES - 1)]
    weighted[position >= HASHED_BYTES] = 0
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weighted, dtype=np.uint64)])
    return before[end] - before[begin]
