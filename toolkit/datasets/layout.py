"""Which column holds the datasets, found by its shape, and how their numbers lie in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from toolkit.datasets.blobs import BARE, kind_of
from toolkit.datasets.shapes import Shape, is_binary, separate_shape, shape_of
from toolkit.errors import InputError, did_you_mean
from toolkit.spec import METADATA_NAME

MAX_LISTED = 20  # columns named in an error; a table may have thousands

Peek = Callable[[str], Iterable[object]]  # column -> its first values that are not null, as Python's

KINDS = {  # of a layout -> how people call it; those of lists depend on `nested`
    "lists": "",
    "structs": "a list of structs",
    "struct": "a struct of lists",
    "separate": "one list per column",
    "tensors": "tensors with shapes of their own",
    "vectors": "vectors",
    "float32": "float32 as bytes",
    "float64": "float64 as bytes",
    "npy": ".npy as bytes",
    "tidy": "one row per observation",
}

READ_OFF = ("lists", "structs", "struct", "separate")  # layouts whose first dataset tells the shape of all


@dataclass(frozen=True)
class Layout:
    """Where the datasets are in a table, one a row.

    Attributes:
        column: name of the column that holds them; of several, their names joined by commas.
        rows, columns: shape of one dataset.
        nested: it has two axes; otherwise it is one flat run of rows * columns numbers.
        by_column: a flat run that holds one column after the other instead of one observation after the other.
        kind: one of KINDS.
        fields: the fields of structs, or the columns of the table, that are the columns of a dataset.
        by: of a tidy table, the columns of the id; its datasets are to be grouped before they can be decoded.
        sorted_rows: the rows of each dataset are to be sorted, see toolkit/datasets/order.py.
    """

    column: str
    rows: int
    columns: int
    nested: bool
    by_column: bool = False
    kind: str = "lists"
    fields: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    sorted_rows: bool = False

    @property
    def table_columns(self) -> tuple[str, ...]:
        """The columns of the table that have to be read."""
        return self.fields if self.kind in ("separate", "tidy") else (self.column,)

    def describe(self) -> str:
        """One line for people: `'x', 200 x 2, one list per observation`."""
        order = "column after column" if self.by_column else "observation after observation"
        how = [KINDS[self.kind], "" if self.nested else order]
        if self.by:
            how.append(f"grouped by {', '.join(map(repr, self.by))}")
        if self.kind == "lists" and self.nested:
            how = ["one list per observation"]
        if self.kind in ("structs", "struct"):
            how = [f"{KINDS[self.kind]} ({', '.join(self.fields)})"]
        return ", ".join([repr(self.column), f"{self.rows} x {self.columns}", *filter(None, how)])


def find_layout(
    schema: pa.Schema,
    *,
    where: str,
    rows: int | None = None,
    columns: Sequence[str] | int | None = None,
    column: str | None = None,
    order: str | None = None,
    peek: Peek | None = None,
) -> Layout:
    """The one column of `schema` that can hold datasets of rows x columns numbers.

    Args:
        where: the file's name, for messages.
        rows, columns: what the model takes; None where they are to be read off the type, or else off the first dataset.
        columns: their names, or how many there are.
        column: the column to take; None looks for it.
        order: 'row' or 'column', how a flat list lies; needed only where both are possible.
        peek: gives the first datasets of a column; needed only for columns of bytes, and where rows or columns are None
            and its lists are not of a fixed size.
    Raises:
        InputError: no column fits, or several do, or a flat list can be read in two ways. The message names the flag.
            Or the schema's metadata names the columns of a dataset in another order than the model's.
    """
    count = columns if isinstance(columns, int) or columns is None else len(columns)
    if column is not None:
        chosen, shape = _named(schema, column, where, columns, rows, count, peek)
    else:
        fitting = _candidates(schema, columns, rows, count, peek)
        if not fitting:
            raise InputError(
                f"{where}: no column holds {_wanted(rows, columns)}, as a tensor, lists, structs, vectors or bytes. "
                f"It has: {_listed(schema)}."
            )
        if len(fitting) > 1:
            names = " and ".join(repr(name) for name, _ in fitting[:MAX_LISTED])
            raise InputError(
                f"{where}: columns {names} can all hold {_wanted(rows, columns)}. Choose one: --column {fitting[0][0]}"
            )
        ((chosen, shape),) = fitting
    if columns is not None and not isinstance(columns, int) and not shape.fields:
        _check_names(where, chosen, read_column_names(schema), tuple(columns))
    rows, count = _settle(where, chosen, shape, rows, count, peek)
    by_column = _by_column(where, chosen, shape, rows, count, order)
    return Layout(chosen, rows, count, shape.nested, by_column, shape.kind, shape.fields)


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


def _candidates(
    schema: pa.Schema, names: Sequence[str] | int | None, rows: int | None, columns: int | None, peek: Peek | None
) -> list[tuple[str, Shape]]:
    """The columns that can hold datasets. One of bytes is asked only where no type fits: any picture is bytes."""
    separate = separate_shape(schema, names)
    together = separate is not None and _agrees(separate, rows, columns)
    own = [field for field in schema if not (together and separate and field.name in separate.fields)]
    found = [(field.name, shape) for field in own if (shape := _fitting(field, names, rows, columns))]
    if together and separate:
        found.append((", ".join(separate.fields), separate))
    if not found:
        binary = [field.name for field in schema if is_binary(field.type)]
        found = [(name, shape) for name in binary if (shape := _of_bytes(name, rows, columns, peek))]
        if not found and len(binary) == 1 and peek and next(iter(peek(binary[0])), None) is None:
            found = [(binary[0], Shape("float32", nested=False))]  # no row that could tell
    return found


def _named(
    schema: pa.Schema,
    column: str,
    where: str,
    names: Sequence[str] | int | None,
    rows: int | None,
    columns: int | None,
    peek: Peek | None,
) -> tuple[str, Shape]:
    """The column that was asked for by name."""
    separate = separate_shape(schema, names)
    if separate and [name.strip() for name in column.split(",")] == list(separate.fields):
        return ", ".join(separate.fields), separate
    if column not in schema.names:
        raise InputError(
            f"{where}: no column {column!r}.{did_you_mean(column, schema.names)} It has: {_listed(schema)}."
        )
    field = schema.field(column)
    shape = _of_bytes(column, rows, columns, peek) if is_binary(field.type) else _fitting(field, names, rows, columns)
    if shape is None:
        raise InputError(
            f"{where}: column {column!r} is {field.type}, not {_wanted(rows, names)}. Name another with --column."
        )
    return column, shape


def _fitting(field: pa.Field, names: Sequence[str] | int | None, rows: int | None, columns: int | None) -> Shape | None:
    """What the type says, if that does not contradict rows x columns."""
    shape = shape_of(field, names)
    return shape if shape is not None and _agrees(shape, rows, columns) else None


def _agrees(shape: Shape, rows: int | None, columns: int | None) -> bool:
    contradicts = (
        (None not in (shape.rows, rows) and shape.rows != rows)
        or (None not in (shape.columns, columns) and shape.columns != columns)
        or (shape.numbers is not None and rows is not None and shape.numbers % rows)
        or (shape.numbers is not None and columns is not None and shape.numbers % columns)
        or (shape.numbers is not None and rows is not None and columns is not None and shape.numbers != rows * columns)
    )
    return not contradicts


def _of_bytes(name: str, rows: int | None, columns: int | None, peek: Peek | None) -> Shape | None:
    """What the first values of a column of bytes are; None where none of them can be a dataset."""
    blobs = (value for value in (peek(name) if peek else ()) if isinstance(value, bytes))
    found = kind_of(blobs, rows, columns)
    if found is None:
        return None
    kind, shape = found
    if kind in BARE or kind == "either":
        return Shape(kind, nested=False)
    if len(shape) == 1:
        return Shape(kind, nested=False, numbers=shape[0])
    return Shape(kind, nested=True, rows=shape[0], columns=shape[1])


def _settle(
    where: str, column: str, shape: Shape, rows: int | None, columns: int | None, peek: Peek | None
) -> tuple[int, int]:
    """Rows and columns from what is asked for, else from the type, else from the first dataset."""
    rows = shape.rows if rows is None else rows
    columns = shape.columns if columns is None else columns
    if rows is not None and columns is not None:
        return rows, columns
    if shape.kind not in READ_OFF and shape.numbers is None:
        raise InputError(
            f"{where}: column {column!r} does not tell how many rows and columns a dataset has. Write it as lists, or "
            "as .npy with two axes."
        )
    if not shape.nested and rows is None and columns is None:
        raise InputError(
            f"{where}: column {column!r} is a flat list of numbers. Name the columns of a dataset: --columns a,b"
        )
    numbers = shape.numbers
    if numbers is None:
        asked = shape.fields[0] if shape.kind == "separate" else column
        dataset = next(iter(peek(asked)), None) if peek else None
        if shape.kind == "struct" and isinstance(dataset, dict):
            dataset = dataset[shape.fields[0]]
        nested = shape.kind == "lists" and shape.nested
        if not isinstance(dataset, list) or not dataset or (nested and not isinstance(dataset[0], list)):
            raise InputError(f"{where}: column {column!r} holds no dataset that could tell how many rows one has.")
        numbers = len(dataset)
        if shape.nested:
            return rows or len(dataset), columns or len(dataset[0])
    known = rows or columns or 1
    if numbers % known:
        raise InputError(f"{where}: column {column!r} holds {numbers} numbers a dataset, not a multiple of {known}.")
    return rows or numbers // known, columns or numbers // known


def _by_column(where: str, column: str, shape: Shape, rows: int, columns: int, order: str | None) -> bool:
    if shape.nested:
        return False
    if shape.by_column is not None:
        return shape.by_column
    if shape.kind in (*BARE, "either"):
        return order == "column"  # bytes without a header are row-major unless told otherwise
    if rows == 1 or columns == 1:
        return False
    if order is None:
        raise InputError(
            f"{where}: column {column!r} is a flat list of {rows} x {columns} numbers. Say how it lies: --order row "
            "(observation after observation) or --order column (column after column)."
        )
    return order == "column"


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
