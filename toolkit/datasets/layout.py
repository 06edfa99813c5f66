"""Which column holds the datasets, found by its shape, and how their numbers lie in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from toolkit.errors import InputError
from toolkit.spec import METADATA_NAME

MAX_LISTED = 20  # columns named in an error; a table may have thousands

FirstDataset = Callable[[str], object]  # column -> its first value that is not null, as Python lists; None when all are


@dataclass(frozen=True)
class Layout:
    """Where the datasets are in a table, one a row.

    Attributes:
        column: name of the column that holds them.
        rows, columns: shape of one dataset.
        nested: one list per observation; otherwise one flat list (or tensor) of rows * columns numbers.
        by_column: a flat list that holds one column after the other instead of one observation after the other.
    """

    column: str
    rows: int
    columns: int
    nested: bool
    by_column: bool = False

    def describe(self) -> str:
        """One line for people: `'x', 200 x 2, one list per observation`."""
        if self.nested:
            order = "one list per observation"
        else:
            order = "column after column" if self.by_column else "observation after observation"
        return f"{self.column!r}, {self.rows} x {self.columns}, {order}"


@dataclass(frozen=True)
class _Shape:
    """What a column's type says about the datasets in it; None where only the values can tell."""

    nested: bool
    rows: int | None = None
    columns: int | None = None
    numbers: int | None = None  # of a flat list
    by_column: bool | None = None  # None: a flat list does not say


def find_layout(
    schema: pa.Schema,
    *,
    where: str,
    rows: int | None = None,
    columns: Sequence[str] | int | None = None,
    column: str | None = None,
    order: str | None = None,
    first: FirstDataset | None = None,
) -> Layout:
    """The one column of `schema` that can hold datasets of rows x columns numbers.

    Args:
        where: the file's name, for messages.
        rows, columns: what the model takes; None where they are to be read off the type, or else off the first dataset.
        columns: their names, or how many there are.
        column: the column to take; None looks for it.
        order: 'row' or 'column', how a flat list lies; needed only where both are possible.
        first: gives the first dataset of a column; needed only where rows or columns are None and its lists are not
            of a fixed size.
    Raises:
        InputError: no column fits, or several do, or a flat list can be read in two ways. The message names the flag.
            Or the schema's metadata names the columns of a dataset in another order than the model's.
    """
    count = columns if isinstance(columns, int) or columns is None else len(columns)
    if column is not None:
        if column not in schema.names:
            raise InputError(f"{where}: no column {column!r}. It has: {_listed(schema)}.")
        chosen = column
        shape = _fitting(schema.field(column).type, rows, count)
        if shape is None:
            raise InputError(
                f"{where}: column {column!r} is {schema.field(column).type}, not {_wanted(rows, columns)}. "
                "Name another with --column."
            )
    else:
        fitting = [(field.name, shape) for field in schema if (shape := _fitting(field.type, rows, count))]
        if not fitting:
            raise InputError(
                f"{where}: no column holds {_wanted(rows, columns)}, as a fixed-shape tensor, nested lists or a "
                f"flat list of numbers. It has: {_listed(schema)}."
            )
        if len(fitting) > 1:
            names = " and ".join(repr(name) for name, _ in fitting[:MAX_LISTED])
            raise InputError(
                f"{where}: columns {names} can all hold {_wanted(rows, columns)}. Choose one: --column {fitting[0][0]}"
            )
        ((chosen, shape),) = fitting
    if columns is not None and not isinstance(columns, int):
        _check_names(where, chosen, read_column_names(schema), tuple(columns))
    rows, count = _settle(where, chosen, shape, rows, count, first)
    return Layout(chosen, rows, count, shape.nested, _by_column(where, chosen, shape, rows, count, order))


def write_schema_metadata(schema: pa.Schema, columns: Sequence[str], parameters: Sequence[str]) -> pa.Schema:
    """`schema` with the names of a dataset's columns and of its parameters in its metadata."""
    names = json.dumps({"columns": list(columns), "parameters": list(parameters)})
    return schema.with_metadata({**(schema.metadata or {}), METADATA_NAME.encode(): names.encode()})


def read_column_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """The names of a dataset's columns that `write_schema_metadata` left; None when there are none."""
    try:
        content = json.loads((schema.metadata or {})[METADATA_NAME.encode()])
        return tuple(str(name) for name in content["columns"])
    except (KeyError, TypeError, ValueError):
        return None


def _check_names(where: str, column: str, found: tuple[str, ...] | None, wanted: tuple[str, ...]) -> None:
    """Other names may mean the same; the same names in another order cannot."""
    if found is not None and found != wanted and sorted(found) == sorted(wanted):
        raise InputError(
            f"{where}: column {column!r} holds ({', '.join(found)}), the model takes ({', '.join(wanted)}). "
            "Write the columns in the model's order."
        )


def _is_list(type: pa.DataType) -> bool:
    """Whether a type is a list of fixed or variable size, with 32 or 64 bit offsets."""
    types = pa.types
    return bool(types.is_fixed_size_list(type) or types.is_list(type) or types.is_large_list(type))


def _shape_of(type: pa.DataType) -> _Shape | None:
    """What the type says; None for a type that cannot hold datasets."""
    if isinstance(type, pa.FixedShapeTensorType):
        if not _is_number(type.value_type):
            return None
        if len(type.shape) == 1:
            return _Shape(nested=False, numbers=type.shape[0])
        if len(type.shape) != 2:
            return None
        by_column = list(type.permutation or (0, 1)) == [1, 0]
        rows, columns = reversed(type.shape) if by_column else type.shape
        return _Shape(nested=False, rows=rows, columns=columns, by_column=by_column)
    if not _is_list(type):
        return None
    inner = type.value_type
    if _is_number(inner):
        return _Shape(nested=False, numbers=_fixed_size(type))
    if _is_list(inner) and _is_number(inner.value_type):
        return _Shape(nested=True, rows=_fixed_size(type), columns=_fixed_size(inner))
    return None


def _fitting(type: pa.DataType, rows: int | None, columns: int | None) -> _Shape | None:
    """What the type says, if that does not contradict rows x columns."""
    shape = _shape_of(type)
    if shape is None:
        return None
    contradicts = (
        (None not in (shape.rows, rows) and shape.rows != rows)
        or (None not in (shape.columns, columns) and shape.columns != columns)
        or (shape.numbers is not None and rows is not None and shape.numbers % rows)
        or (shape.numbers is not None and columns is not None and shape.numbers % columns)
        or (shape.numbers is not None and rows is not None and columns is not None and shape.numbers != rows * columns)
    )
    return None if contradicts else shape


def _settle(
    where: str, column: str, shape: _Shape, rows: int | None, columns: int | None, first: FirstDataset | None
) -> tuple[int, int]:
    """Rows and columns from what is asked for, else from the type, else from the first dataset."""
    rows = shape.rows if rows is None else rows
    columns = shape.columns if columns is None else columns
    if rows is not None and columns is not None:
        return rows, columns
    if not shape.nested and rows is None and columns is None:
        raise InputError(
            f"{where}: column {column!r} is a flat list of numbers. Name the columns of a dataset: --columns a,b"
        )
    numbers = shape.numbers
    if numbers is None:
        dataset = first(column) if first else None
        if not isinstance(dataset, list) or not dataset or (shape.nested and not isinstance(dataset[0], list)):
            raise InputError(f"{where}: column {column!r} holds no dataset that could tell how many rows one has.")
        numbers = len(dataset)
        if shape.nested:
            return rows or len(dataset), columns or len(dataset[0])
    known = rows or columns or 1
    if numbers % known:
        raise InputError(f"{where}: column {column!r} holds {numbers} numbers a dataset, not a multiple of {known}.")
    return rows or numbers // known, columns or numbers // known


def _by_column(where: str, column: str, shape: _Shape, rows: int, columns: int, order: str | None) -> bool:
    if shape.nested:
        return False
    if shape.by_column is not None:
        return shape.by_column
    if rows == 1 or columns == 1:
        return False
    if order is None:
        raise InputError(
            f"{where}: column {column!r} is a flat list of {rows} x {columns} numbers. Say how it lies: --order row "
            "(observation after observation) or --order column (column after column)."
        )
    return order == "column"


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_floating(type) or pa.types.is_integer(type))


def _fixed_size(type: pa.DataType) -> int | None:
    return type.list_size if pa.types.is_fixed_size_list(type) else None


def _wanted(rows: int | None, columns: Sequence[str] | int | None) -> str:
    names = ", ".join(columns) if columns is not None and not isinstance(columns, int) else None
    count = columns if names is None else f"({names})"
    if rows is None:
        return "datasets" if columns is None else f"datasets of {count} columns"
    return f"datasets of {rows} rows" if columns is None else f"datasets of {rows} rows x {count} columns"


def _listed(schema: pa.Schema) -> str:
    fields = [f"{field.name} {field.type}" for field in schema]
    left_out = f" and {len(fields) - MAX_LISTED} more" if len(fields) > MAX_LISTED else ""
    return (", ".join(fields[:MAX_LISTED]) or "no columns") + left_out
