"""Parquet files to train on, from arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toolkit.datasets import encode, write_schema_metadata


def write_training_file(path: Path, datasets: np.ndarray, targets: Mapping[str, Any], row_group_size: int = 64) -> Path:
    """Datasets (n, rows, 2) whose columns are called first and second, and the parameters, each (n,)."""
    table = pa.table({"x": encode(datasets.astype(np.float32)), **targets})
    table = table.cast(write_schema_metadata(table.schema, ("first", "second"), tuple(targets)))
    pq.write_table(table, path, row_group_size=row_group_size)
    return path
