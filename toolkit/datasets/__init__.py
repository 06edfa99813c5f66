"""Parquet <-> float32 (datasets, rows, columns): the only home of that shape.

layout.py    which column holds the datasets, how they lie in it, and the names of a dataset's columns in the metadata
values.py    that column to float32, with a reason for each row that is no dataset; and back
parquet.py   the files: opened, and streamed in flat memory
"""

from toolkit.datasets.layout import Layout, find_layout, read_column_names, write_schema_metadata
from toolkit.datasets.parquet import iter_batches, layout_of_file, open_parquet, read_datasets
from toolkit.datasets.values import REASONS, Decoded, decode, encode

__all__ = [
    "REASONS",
    "Decoded",
    "Layout",
    "decode",
    "encode",
    "find_layout",
    "iter_batches",
    "layout_of_file",
    "open_parquet",
    "read_column_names",
    "read_datasets",
    "write_schema_metadata",
]
