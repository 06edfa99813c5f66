"""Which columns go where: the schemas of predictions and of rejected rows."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from toolkit.batch.sources import Source
from toolkit.datasets.tidy import COUNT, DATASET
from toolkit.errors import InputError

SOURCE_FILE, SOURCE_ROW, REASON = "source_file", "source_row", "reason"
ORIGIN = (pa.field(SOURCE_FILE, pa.string(), nullable=False), pa.field(SOURCE_ROW, pa.int64(), nullable=False))


def predicted_names(parameters: Sequence[str], interval: bool = False) -> list[str]:
    """The columns that a run adds: of each parameter the estimate, and with `interval` both ends of one around it."""
    ends = ("", "_low", "_high") if interval else ("",)
    return [f"predicted_{parameter}{end}" for parameter in parameters for end in ends]


def check_interval_names(parameters: Sequence[str]) -> None:
    """Raises:
    InputError: the end of one parameter's interval would be named like another's estimate.
    """
    for name in parameters:
        for end in ("_low", "_high"):
            if f"{name}{end}" in parameters:
                raise InputError(
                    f"predicted_{name}{end} would be both the estimate of {name}{end} and an end of the interval "
                    f"around {name}. Leave out --interval, or train with other names."
                )


def user_schema(schema: pa.Schema) -> pa.Schema:
    """A file's schema without the three columns that mark a file of rejected rows; they are written anew.

    The three count only together and with their types: one of them alone is the user's own column.
    """
    types = {field.name: field.type for field in schema}
    origin, row, reason = (types.get(name) for name in (SOURCE_FILE, SOURCE_ROW, REASON))
    marked = (
        origin is not None
        and row is not None
        and reason is not None
        and _is_text(origin)
        and pa.types.is_integer(row)
        and _is_text(reason)
    )
    if not marked:
        return schema
    own = [field for field in schema if field.name not in (SOURCE_FILE, SOURCE_ROW, REASON)]
    return pa.schema(own, metadata=schema.metadata)


def output_schema(source: Source, parameters: Sequence[str], interval: bool = False) -> pa.Schema:
    """Every column of the user's but the datasets, then the predictions, then where each row came from.

    Of a tidy table the id only: other columns may differ from row to row of a group.

    The schema's own metadata is left out: what other tools keep there describes a table that still has the datasets.
    """
    kept = [field for field in user_schema(source.schema) if field.name not in source.layout.table_columns]
    if source.layout.by or source.grouped:
        kept = _ids(source)
    predicted = [pa.field(name, pa.float32(), nullable=False) for name in predicted_names(parameters, interval)]
    return pa.schema([*kept, *predicted, *ORIGIN])


def rejected_schema(source: Source) -> pa.Schema:
    """The input's own schema, then where each row came from and why it was rejected.

    Of groups their ids and how many rows they have, with which these are found in the input again.
    """
    schema = user_schema(source.schema)
    if source.grouped:
        schema = pa.schema([*_ids(source), schema.field(COUNT)])
    return pa.schema([*schema, *ORIGIN, pa.field(REASON, pa.string(), nullable=False)], metadata=schema.metadata)


def _ids(source: Source) -> list[pa.Field]:
    if source.layout.by:
        return [source.schema.field(name) for name in source.layout.by]
    schema: pa.Schema = source.schema
    return [schema.field(index) for index in range(schema.get_field_index(DATASET))]


def check_schemas(sources: Sequence[Source], parameters: Sequence[str], interval: bool = False) -> None:
    """Whether the columns of all files are the same and none has a name that the output needs.

    Raises:
        InputError: names the file, the column and both types.
    """
    first = sources[0]
    for source in sources:
        names = user_schema(source.schema).names
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{source.name}: two columns are named {name!r}. Rename one.")
            if name in (SOURCE_FILE, SOURCE_ROW, REASON, *predicted_names(parameters, interval)):
                raise InputError(
                    f"{source.name}: has a column {name!r} already, which the result needs. Rename or drop it."
                )
        _check_same(first, source)


def _check_same(first: Source, other: Source) -> None:
    expected, found = ({field.name: field.type for field in user_schema(source.schema)} for source in (first, other))
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{other.name}: column {name!r} is {found.get(name, 'absent')}, in {first.name} it is "
                f"{expected.get(name, 'absent')}. Score files of different columns one by one."
            )
    if list(expected) != list(found):
        raise InputError(f"{other.name}: its columns are in another order than in {first.name}. Score them one by one.")


def _is_text(type: pa.DataType) -> bool:
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type))
