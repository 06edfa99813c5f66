"""Parquet's run-length and bit-packed hybrid: how levels and the indices into a dictionary are written.

Source: parquet-format, Encodings.md, "Run Length Encoding / Bit-Packing Hybrid".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_BITS = 25  # of one number: with the 7 bits before it, it lies within 4 bytes
MAX_STEPS = 20_000  # runs handled one by one in one page: more, and another reader is faster


class NotHybrid(Exception):
    """Bytes that are not such runs, or too many short ones."""


def read_hybrid(content: memoryview, bits: int, count: int) -> NDArray[np.uint32]:
    """The `count` numbers of `bits` bits each that the bytes hold: uint32 (count,).

    Writers put equally long bit-packed runs one behind the other: those are unpacked as one.

    Raises:
        NotHybrid: the bytes end too early, or go on.
    """
    if not 0 <= bits <= MAX_BITS:
        raise NotHybrid(f"numbers of {bits} bits")
    octets = np.frombuffer(content, np.uint8)
    numbers = np.empty(count, np.uint32)
    at = done = 0
    for _ in range(MAX_STEPS):
        if done == count:
            if at != len(octets):
                raise NotHybrid("bytes behind the last run")
            return numbers
        head, begin = _varint(octets, at)
        length = head >> 1
        if not length:
            raise NotHybrid("an empty run")
        if head & 1 and not bits and 8 * length > count - done + 7:  # nothing else bounds numbers that take no bytes
            raise NotHybrid("a run that is too long")
        if head & 1:
            size = length * bits
            runs = _alike(octets, at, head, 1 + size) if begin == at + 1 else 1
            needed = -(-(count - done) // (8 * length))
            runs = min(runs, needed)
            end = begin + size if runs == 1 else at + runs * (1 + size)
            if end > len(octets):
                raise NotHybrid("a run that is cut off")
            packed = octets[begin:end] if runs == 1 else octets[at:end].reshape(runs, 1 + size)[:, 1:]
            found = unpack(np.ascontiguousarray(packed).reshape(-1), bits, runs * length * 8)
            used = min(len(found), count - done)  # the last group is filled up
            numbers[done : done + used] = found[:used]
        else:
            width = (bits + 7) // 8
            end = begin + width
            value = int.from_bytes(octets[begin:end].tobytes(), "little")
            if end > len(octets) or length > count - done or value >> bits:
                raise NotHybrid("a run that is too long")
            used = length
            numbers[done : done + used] = value
        done += used
        at = end
    raise NotHybrid("too many runs")


def unpack(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint32]:
    """Numbers of `bits` bits, one behind the other, the lowest bit first: uint32 (count,), `count` a multiple of 8."""
    numbers = np.zeros(count, np.uint32)
    if not bits:
        return numbers
    room = np.concatenate([packed, np.zeros(4, np.uint8)])
    mask = np.uint32((1 << bits) - 1)
    for place in range(8):  # of eight numbers, which take `bits` whole bytes
        bit = place * bits
        words = np.ndarray((count // 8,), "<u4", room, bit >> 3, (bits,))
        numbers[place::8] = (words >> np.uint32(bit & 7)) & mask
    return numbers


def _alike(octets: NDArray[np.uint8], at: int, head: int, stride: int) -> int:
    """How many runs from `at` on begin with the same byte and so are equally long."""
    heads = octets[at::stride]
    others = np.flatnonzero(heads != head)
    return int(others[0]) if len(others) else len(heads)


def _varint(octets: NDArray[np.uint8], at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(octets):
            raise NotHybrid("a run without length")
        byte = int(octets[at])
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise NotHybrid("a number without end")
