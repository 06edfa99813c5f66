"""Arrow arrays of numbers, whatever their type, as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def is_number(type: pa.DataType) -> bool:
    """Whether values of this type are numbers: floating, integer, decimal, boolean as 0 and 1; also as a dictionary."""
    types = pa.types
    if types.is_dictionary(type):
        return is_number(type.value_type)
    return bool(types.is_floating(type) or types.is_integer(type) or types.is_decimal(type) or types.is_boolean(type))


def plain(array: pa.Array) -> pa.Array:
    """The same values without what lies around them: extension types, dictionaries, views of lists and of bytes."""
    type = array.type
    if isinstance(array, pa.ExtensionArray):
        return plain(array.storage)
    if pa.types.is_dictionary(type):
        return plain(array.dictionary.take(array.indices))
    if pa.types.is_list_view(type):
        return array.cast(pa.list_(type.value_field))
    if pa.types.is_large_list_view(type):
        return array.cast(pa.large_list(type.value_field))
    if pa.types.is_binary_view(type):
        return array.cast(pa.large_binary())
    return array


def numbers_of(array: pa.Array) -> NDArray[Any]:
    """An array of numbers as NumPy's, sharing memory where it can. What a null holds is anything."""
    array = plain(array)
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    elif pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    dtype = np.dtype(array.type.to_pandas_dtype())
    buffer = array.buffers()[1]
    if buffer is None:  # no numbers at all
        return np.zeros(len(array), dtype)
    return np.frombuffer(buffer, dtype, len(array), array.offset * dtype.itemsize)


def as_float32(numbers: NDArray[Any]) -> NDArray[np.float32]:
    """Rounded to float32; beyond its range: infinite. float32 of the machine's own byte order is not copied."""
    with np.errstate(over="ignore", invalid="ignore"):
        return numbers.astype(np.float32, copy=False)
