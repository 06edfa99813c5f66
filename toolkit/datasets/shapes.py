"""What the type of a table's column says about the datasets in it: which layout, and how much of their shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from toolkit.datasets.lists import fixed_size, is_list
from toolkit.datasets.numbers import is_number
from toolkit.datasets.tensors import extension_of, ray_shape

VECTOR_FIELDS = ("type", "size", "indices", "values")  # Spark's VectorUDT


@dataclass(frozen=True)
class Shape:
    """What a type says; None where only the values can tell.

    Attributes:
        kind: the layout's kind, see `Layout`.
        numbers: of a flat list.
        by_column: of a flat list; None: it does not say.
        fields: of structs, those that are the columns of a dataset.
    """

    kind: str
    nested: bool
    rows: int | None = None
    columns: int | None = None
    numbers: int | None = None
    by_column: bool | None = None
    fields: tuple[str, ...] = ()


def shape_of(field: pa.Field, names: Sequence[str] | int | None) -> Shape | None:
    """What a column's type says; None for one that cannot hold datasets, or tells nothing before it is read (binary).

    Args:
        names: of the columns of a dataset, or how many there are: which fields of a struct are wanted.
    """
    type = field.type
    extension = extension_of(field)
    if isinstance(type, pa.BaseExtensionType) and not isinstance(type, pa.FixedShapeTensorType):
        type = type.storage_type
    if isinstance(type, pa.FixedShapeTensorType):
        return _tensor(type)
    if extension is not None and extension.name.startswith("ray.data.arrow_tensor"):
        shape = ray_shape(extension.serialized)
        if is_list(type) and is_number(type.value_type):
            return _flat(len_or_none(shape)) if shape is None or len(shape) == 1 else _of_axes(shape)
        return None
    if extension is not None and extension.name == "ray.data.arrow_variable_shaped_tensor":
        holds = pa.types.is_struct(type) and is_flat(type, "data") and is_flat(type, "shape")
        return Shape("tensors", nested=True) if holds else None
    if pa.types.is_struct(type):
        return _struct(type, names)
    if not is_list(type):
        return None
    inner = type.value_type
    if is_number(inner):
        return _flat(fixed_size(type))
    if is_list(inner) and is_number(inner.value_type):
        return Shape("lists", nested=True, rows=fixed_size(type), columns=fixed_size(inner))
    if pa.types.is_struct(inner):
        fields = _wanted({each.name for each in inner if is_number(each.type)}, inner, names)
        if fields:
            return Shape("structs", nested=True, rows=fixed_size(type), columns=len(fields), fields=fields)
    return None


def separate_shape(schema: pa.Schema, names: Sequence[str] | int | None) -> Shape | None:
    """One list per column, the columns of the table being named as those of a dataset; None when one is not there."""
    if names is None or isinstance(names, int) or len(names) < 2:
        return None
    types = {field.name: field.type for field in schema if schema.names.count(field.name) == 1}
    if not all(name in types and is_list(types[name]) and is_number(types[name].value_type) for name in names):
        return None
    sizes = {fixed_size(types[name]) for name in names} - {None}
    if len(sizes) > 1:
        return None
    return Shape("separate", True, rows=next(iter(sizes), None), columns=len(names), fields=tuple(names))


def is_binary(type: pa.DataType) -> bool:
    """Whether a column may hold datasets as bytes."""
    types = pa.types
    if isinstance(type, pa.BaseExtensionType):
        return False
    if types.is_dictionary(type):
        return is_binary(type.value_type)
    return bool(
        types.is_binary(type)
        or types.is_large_binary(type)
        or types.is_fixed_size_binary(type)
        or types.is_binary_view(type)
    )


def is_flat(type: pa.StructType, name: str) -> bool:
    """Whether a field of a struct is a list of numbers."""
    index = type.get_field_index(name)
    return index >= 0 and is_list(type.field(index).type) and is_number(type.field(index).type.value_type)


def len_or_none(shape: tuple[int, ...] | None) -> int | None:
    return None if shape is None else shape[0]


def _flat(numbers: int | None) -> Shape:
    return Shape("lists", nested=False, numbers=numbers)


def _of_axes(shape: Sequence[int]) -> Shape | None:
    return Shape("lists", False, rows=shape[0], columns=shape[1], by_column=False) if len(shape) == 2 else None


def _tensor(type: pa.FixedShapeTensorType) -> Shape | None:
    if not is_number(type.value_type):
        return None
    if len(type.shape) == 1:
        return _flat(type.shape[0])
    if len(type.shape) != 2:
        return None
    by_column = list(type.permutation or (0, 1)) == [1, 0]
    rows, columns = reversed(type.shape) if by_column else type.shape
    return Shape("lists", nested=False, rows=rows, columns=columns, by_column=by_column)


def _struct(type: pa.StructType, names: Sequence[str] | int | None) -> Shape | None:
    """Spark's vectors, or one list for each column of a dataset."""
    fields = [type.field(index) for index in range(type.num_fields)]
    if tuple(field.name for field in fields) == VECTOR_FIELDS and is_flat(type, "indices") and is_flat(type, "values"):
        return Shape("vectors", nested=False)
    wanted = _wanted({field.name for field in fields if is_flat(type, field.name)}, type, names)
    if not wanted:
        return None
    sizes = {fixed_size(type.field(type.get_field_index(name)).type) for name in wanted} - {None}
    if len(sizes) > 1:
        return None
    return Shape("struct", True, rows=next(iter(sizes), None), columns=len(wanted), fields=wanted)


def _wanted(able: set[str], type: pa.StructType, names: Sequence[str] | int | None) -> tuple[str, ...]:
    """The fields that are the columns of a dataset, in the model's order; none when they are not all there."""
    present = [type.field(index).name for index in range(type.num_fields)]
    if len(set(present)) < len(present):
        return ()
    if names is None or isinstance(names, int):
        whole = able == set(present) and names in (None, len(present))
        return tuple(present) if whole else ()
    return tuple(names) if able.issuperset(names) else ()
