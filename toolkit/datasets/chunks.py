"""Where the footer says that a column's numbers are, if they are of the kind that can be read page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toolkit.datasets.layout import Layout

CODECS = {
    "SNAPPY": "snappy",
    "ZSTD": "zstd",
    "LZ4": "lz4_raw",
    "GZIP": "gzip",
    "BROTLI": "brotli",
    "UNCOMPRESSED": None,
}
ENCODINGS = {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}


class Unexpected(Exception):
    """A page that this reader leaves to pyarrow."""


@dataclass(frozen=True)
class Chunk:
    """The column in one row group: where in the file it is, and how many numbers there have to be."""

    begin: int
    end: int
    values: int
    codec: str | None

    @staticmethod
    def of(chunk: Any, values: int) -> Chunk:
        """Raises: Unexpected, if the footer tells that it is not clean or not known here."""
        begin = chunk.data_page_offset
        if chunk.dictionary_page_offset is not None:
            begin = min(begin, chunk.dictionary_page_offset)
        nulls = chunk.statistics.null_count if chunk.statistics is not None else None
        known = chunk.compression in CODECS and set(chunk.encodings) <= ENCODINGS and not chunk.file_path
        if not known or nulls or chunk.num_values != values or begin < 4 or chunk.total_compressed_size < 0:
            raise Unexpected("a column chunk of another kind")
        return Chunk(begin, begin + chunk.total_compressed_size, values, CODECS[chunk.compression])


def leaf_of(metadata: Any, layout: Layout, type: pa.DataType, sizes: Sequence[int]) -> int:
    """Index of the one leaf column that holds the numbers; its lists have to be of the wanted, fixed sizes."""
    if isinstance(type, pa.FixedShapeTensorType):
        type, sizes = type.storage_type, (int(np.prod(sizes)),)
    for size in sizes:
        if not pa.types.is_fixed_size_list(type) or type.list_size != size:
            raise Unexpected("lists of another size")
        type = type.value_type
    if not pa.types.is_float32(type):
        raise Unexpected("another type of numbers")
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    leaves = [index for index, path in enumerate(paths) if f"{path}.".startswith(f"{layout.column}.")]
    if len(leaves) != 1:
        raise Unexpected("several leaves")
    return leaves[0]


def repetition_levels(sizes: Sequence[int]) -> NDArray[np.uint32]:
    """Levels of the numbers of one dataset: 0 where it begins, else the depth of the list that goes on."""
    levels = np.full(int(np.prod(sizes)), len(sizes), np.uint32)
    if len(sizes) == 2:
        levels[:: sizes[1]] = 1
    levels[0] = 0
    return levels
