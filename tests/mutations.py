"""Damaged copies of a file, the same for the same seed."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 0x7F800000)


def mutated(content: bytes, others: Sequence[bytes], seed: int) -> tuple[bytes, str]:
    """`content` with one to three kinds of damage, never unchanged, and in words what was done.

    Args:
        others: files to splice pieces of into it.
    """
    rng = np.random.default_rng(seed)
    damaged, done = content, list[str]()
    while damaged == content or len(done) < 1 + int(rng.choice(3, p=(0.8, 0.15, 0.05))):
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        damaged = change(bytearray(damaged), others, rng)
        done.append(change.__name__.strip("_"))
    return damaged, f"seed {seed}: {', '.join(done)}"


Change = Callable[[bytearray, Sequence[bytes], np.random.Generator], bytes]


def _place(content: bytes | bytearray, rng: np.random.Generator) -> int:
    """A position: half of the time near one of the ends, where a format keeps what it cannot do without."""
    if not len(content):
        return 0
    if rng.random() < 0.5:
        return int(rng.integers(len(content)))
    near = int(rng.integers(min(len(content), 1024)))
    return near if rng.random() < 0.5 else len(content) - 1 - near


def _truncate(content: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    return bytes(content[: _place(content, rng)])


def _flip_bits(content: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    for _ in range(int(2 ** rng.integers(4)) if content else 0):
        content[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(content)


def _set_word(content: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Sizes, offsets, counts and codes at their extremes."""
    for _ in range(int(2 ** rng.integers(2))):
        place = _place(content, rng) // 4 * 4
        content[place : place + 4] = int(rng.choice(EXTREMES)).to_bytes(4, "little")
    return bytes(content)


def _copy_word(content: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """One valid number in place of another."""
    source, place = (_place(content, rng) // 4 * 4 for _ in range(2))
    content[place : place + 4] = content[source : source + 4]
    return bytes(content)


def _overwrite(content: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    place, length = _place(content, rng), int(2 ** rng.integers(7))
    kind = int(rng.integers(3))
    content[place : place + length] = (bytes(length), b"\xff" * length, rng.bytes(length))[kind]
    return bytes(content)


def _delete(content: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    place = _place(content, rng)
    del content[place : place + int(2 ** rng.integers(7))]
    return bytes(content)


def _insert(content: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    place = _place(content, rng)
    content[place:place] = rng.bytes(int(2 ** rng.integers(7)))
    return bytes(content)


def _splice(content: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """A piece of another file at the same place; a length of its own half of the time."""
    other = others[int(rng.integers(len(others)))]
    place, length = _place(content, rng), int(2 ** rng.integers(9))
    content[place : place + length] = other[place : place + length]
    return bytes(content)


def _join(content: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """The beginning of one file, the end of another."""
    other = others[int(rng.integers(len(others)))]
    return bytes(content[: _place(content, rng)]) + other[_place(other, rng) :]


# Those that leave the length as it is are the ones that readers let through most often.
LIGHT: tuple[Change, ...] = (_flip_bits, _set_word, _copy_word, _overwrite, _splice)
HEAVY: tuple[Change, ...] = (_truncate, _delete, _insert, _join)
CHANGES = LIGHT * 4 + HEAVY


def restructured(content: bytes, seed: int) -> tuple[bytes, str]:
    """A file that its format's reader accepts, with one to three of the numbers and names in it replaced.

    Damage to the bytes is mostly noticed by the readers' own checks; this is what gets past them.
    """
    rng = np.random.default_rng(seed)
    tflite = content[4:8] == b"TFL3"
    while True:
        model = _read_tflite(content) if tflite else _read_onnx(content)
        leaves = list(_leaves_of_object(model, "model") if tflite else _leaves_of_message(model, "model"))
        done = []
        for _ in range(int(rng.integers(1, 4))):
            name, get, put = leaves[int(rng.integers(len(leaves)))]
            old = get()
            alike = [leaf for leaf in leaves if isinstance(leaf[1](), type(old))]
            new = _another(old, alike[int(rng.integers(len(alike)))][1](), rng)
            with contextlib.suppress(ValueError, TypeError, OverflowError):  # it does not fit the field
                put(new)
                done.append(f"{name} {_short(old)} -> {_short(new)}")
        try:
            damaged = _write_tflite(model, len(content)) if tflite else model.SerializeToString()
        except (struct.error, TypeError, ValueError, AttributeError, OverflowError):
            continue  # no file can hold this
        if done and damaged != content:
            return damaged, f"seed {seed}: {', '.join(done)}"


def repacked(content: bytes, seed: int) -> tuple[bytes, str]:
    """A zip file that is in order, with one of its members damaged."""
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = sorted(members)[int(rng.integers(len(members)))]
    members[chosen], done = mutated(members[chosen], list(members.values()), seed)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return packed.getvalue(), f"{done}, in {chosen}"


Leaf = tuple[str, Callable[[], Any], Callable[[Any], None]]


def _another(old: Any, alike: Any, rng: np.random.Generator) -> Any:
    """A neighbour, the value of another field of the same type, or an extreme one."""
    kind = int(rng.integers(3))
    if kind == 0 or not isinstance(old, int | float):
        return alike
    if kind == 1:
        return old + (-1, 1)[int(rng.integers(2))]
    return type(old)(
        (0, 1, -1, -2, 2**31 - 1, -(2**31), 2**16, 1e30)[int(rng.integers(7 if isinstance(old, int) else 8))]
    )


def _short(value: Any) -> str:
    return f"{value!r:.40}"


def _read_tflite(content: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def _write_tflite(model: Any, size: int) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(size)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _leaves_of_object(node: Any, name: str) -> Iterator[Leaf]:
    """Numbers, names and vectors of a TFLite file; weights as a whole."""
    for key, value in vars(node).items():
        place = f"{name}.{key}"
        if isinstance(value, int | float | bytes):
            yield place, partial(getattr, node, key), partial(setattr, node, key)
        elif isinstance(value, np.ndarray):
            setattr(node, key, value.tolist())
            yield place, partial(getattr, node, key), partial(setattr, node, key)
            if key != "data":
                yield from _elements(getattr(node, key), place)
        elif isinstance(value, list):
            yield place, partial(getattr, node, key), partial(setattr, node, key)
            for index, item in enumerate(value):
                yield from _leaves_of_object(item, f"{place}[{index}]")
        elif hasattr(value, "__dict__"):
            yield from _leaves_of_object(value, place)


def _elements(values: list[Any], name: str) -> Iterator[Leaf]:
    for index in range(len(values)):
        yield f"{name}[{index}]", partial(values.__getitem__, index), partial(values.__setitem__, index)


def _read_onnx(content: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(content)


def _leaves_of_message(message: Any, name: str) -> Iterator[Leaf]:
    for field, value in message.ListFields():
        place, repeated = (
            f"{name}.{field.name}",
            not isinstance(value, int | float | str | bytes) and hasattr(value, "__len__"),
        )
        if field.message_type is None and not repeated:
            yield place, partial(getattr, message, field.name), partial(setattr, message, field.name)
        elif field.message_type is None:
            yield from _elements(value, place)
        elif repeated:
            for index, item in enumerate(value):
                yield from _leaves_of_message(item, f"{place}[{index}]")
        else:
            yield from _leaves_of_message(value, place)
