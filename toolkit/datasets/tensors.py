"""Tensor columns of other tools: known by the name in the field's metadata, read without the tool."""

from __future__ import annotations

import json
import pickletools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from toolkit.datasets.lists import Misfits, merged, null_mask, read_lists
from toolkit.datasets.numbers import plain

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

LONGEST_SHAPE = 1000  # bytes of metadata; that of a shape of two axes is 30
# A shape that Ray has pickled is a tuple of small integers: these operations and no others. They are read, not run.
INTEGERS = ("BININT", "BININT1", "BININT2", "LONG1")
AROUND = ("PROTO", "FRAME", "MARK", "MEMOIZE", "BINPUT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "STOP")


@dataclass(frozen=True)
class Extension:
    """The name of an extension type, and what it says about itself."""

    name: str
    serialized: bytes


def extension_of(field: pa.Field) -> Extension | None:
    """The extension type of a column, whether or not this process knows the type."""
    type = field.type
    if isinstance(type, pa.ExtensionType):
        return Extension(type.extension_name, type.__arrow_ext_serialize__())
    metadata = field.metadata or {}
    name = metadata.get(b"ARROW:extension:name")
    if name is None:
        return None
    return Extension(name.decode(errors="replace"), metadata.get(b"ARROW:extension:metadata", b""))


def ray_shape(serialized: bytes) -> tuple[int, ...] | None:
    """The shape in the metadata of Ray's tensor types: JSON, or a pickled tuple, which is read without running it.

    Returns:
        None where it is anything else.
    """
    if len(serialized) > LONGEST_SHAPE:
        return None
    try:
        found: Any = json.loads(serialized)
    except ValueError:
        found = _pickled_integers(serialized)
    if not isinstance(found, list) or not found or not all(type(size) is int and size > 0 for size in found):
        return None
    return tuple(found)


def _pickled_integers(serialized: bytes) -> list[int] | None:
    found: list[int] = []
    try:
        for operation, argument, _ in pickletools.genops(serialized):
            if operation.name in INTEGERS and isinstance(argument, int):
                found.append(argument)
            elif operation.name not in AROUND:
                return None
    except ValueError:
        return None
    return found


def read_tensors(array: pa.StructArray, rows: int, columns: int) -> tuple[FloatArray, Misfits]:
    """Ray's tensors of variable shape: the numbers of each in one list, beside a list of its two sizes."""
    numbers, misfits = read_lists(plain(array.field("data")), (rows * columns,))
    sizes, other = read_lists(plain(array.field("shape")), (2,))
    absent = null_mask(array) | other.get("null", False)
    fits = ~(absent | other.get("rows", False))
    judged = {
        "null": absent,
        "type": ~(absent | fits),  # another number of axes
        "rows": fits & (sizes[:, 0] != rows),
        "columns": fits & (sizes[:, 1] != columns),
    }
    if "rows" in misfits:  # follows from the shape, unless the two contradict each other
        misfits["type"] = misfits.pop("rows") & fits & ~(judged["rows"] | judged["columns"])
    return numbers.reshape(len(array), rows, columns), merged([misfits, judged])
