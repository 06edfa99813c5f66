"""Parquet <-> float32 (datasets, rows, columns): the only home of that shape.

layout.py    which column holds the datasets, how they lie in it, and the names of a dataset's columns in the metadata
shapes.py    what the type of a column says about that
values.py    that column to float32, with a reason for each row that is no dataset; and back
lists.py     the kinds of column: lists of lists and flat ones,
structs.py   named columns, in structs or in columns of the table,
tensors.py   tensor columns of other tools,
vectors.py   Spark's vectors,
blobs.py     bytes, bare or .npy
numbers.py   the numbers in them, of any type
tidy.py      one row an observation: grouped into a file of datasets,
groups.py    in memory,
spill.py     in memory of a given size,
ids.py       by ids of any type
order.py     the rows of a dataset sorted, for networks that want them so
parquet.py   the files: opened, and streamed in flat memory
"""

from toolkit.datasets.layout import Layout, find_layout, read_column_names, write_schema_metadata
from toolkit.datasets.order import sort_rows
from toolkit.datasets.parquet import iter_batches, layout_for, layout_of_file, open_parquet, read_datasets
from toolkit.datasets.values import REASONS, Decoded, decode, encode, gather

__all__ = [
    "REASONS",
    "Decoded",
    "Layout",
    "decode",
    "encode",
    "find_layout",
    "gather",
    "iter_batches",
    "layout_for",
    "layout_of_file",
    "open_parquet",
    "read_column_names",
    "read_datasets",
    "sort_rows",
    "write_schema_metadata",
]
