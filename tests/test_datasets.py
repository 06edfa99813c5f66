"""Datasets in Parquet: every layout gives the same array, and every row that is none says why."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from toolkit.datasets import (
    REASONS,
    Layout,
    decode,
    encode,
    find_layout,
    iter_batches,
    layout_of_file,
    open_parquet,
    read_column_names,
    read_datasets,
    write_schema_metadata,
)
from toolkit.errors import InputError
from toolkit.spec import Spec

ROWS, COLUMNS = 5, 2
LARGEST = float(np.finfo(np.float32).max)
DATASETS = np.random.default_rng(0).normal(size=(17, ROWS, COLUMNS)).astype(np.float32)

F32, F64 = pa.float32(), pa.float64()
NESTED_TYPES = {
    "nested fixed": pa.list_(pa.list_(F32, COLUMNS), ROWS),
    "nested variable": pa.list_(pa.list_(F32)),
    "nested large": pa.large_list(pa.large_list(F64)),
    "variable of fixed": pa.list_(pa.list_(F64, COLUMNS)),
    "fixed of variable": pa.list_(pa.list_(F32), ROWS),
}
FLAT_TYPES = {
    "flat fixed": pa.list_(F32, ROWS * COLUMNS),
    "flat variable": pa.list_(F64),
    "flat large": pa.large_list(F32),
}


def layout_for(type: pa.DataType, order: str | None = None) -> Layout:
    return find_layout(pa.schema([("x", type)]), where="f", rows=ROWS, columns=COLUMNS, order=order)


def flat_lists(datasets: np.ndarray, order: str) -> list[list[float]]:
    """Each dataset's numbers in C order for 'row', Fortran order for 'column': NumPy's word for the same thing."""
    return [dataset.ravel("C" if order == "row" else "F").tolist() for dataset in datasets]


def tensors(datasets: np.ndarray, permutation: list[int] | None) -> pa.ExtensionArray:
    stored = datasets if permutation is None else datasets.transpose(0, *(axis + 1 for axis in np.argsort(permutation)))
    type = pa.fixed_shape_tensor(F32, stored.shape[1:], permutation=permutation)
    values = pa.array(np.ascontiguousarray(stored).ravel())
    return pa.ExtensionArray.from_storage(type, pa.FixedSizeListArray.from_arrays(values, ROWS * COLUMNS))


def every_layout() -> list[Any]:
    cases = [pytest.param(encode(DATASETS), None, id="encoded")]
    for name, type in NESTED_TYPES.items():
        cases.append(pytest.param(pa.array(DATASETS.tolist(), type), None, id=name))
    for name, type in FLAT_TYPES.items():
        for order in ("row", "column"):
            cases.append(pytest.param(pa.array(flat_lists(DATASETS, order), type), order, id=f"{name} by {order}"))
    for permutation in (None, [0, 1], [1, 0]):
        cases.append(pytest.param(tensors(DATASETS, permutation), None, id=f"tensor {permutation}"))
    return cases


@pytest.mark.parametrize(("array", "order"), every_layout())
def test_decode_gives_the_same_datasets_in_every_layout(array: pa.Array, order: str | None, tmp_path: Path) -> None:
    layout = layout_for(array.type, order)
    pq.write_table(pa.table({"x": array}), tmp_path / "x.parquet", row_group_size=7)
    stored = pq.read_table(tmp_path / "x.parquet").column("x")
    for given, expected in ((array, DATASETS), (array.slice(3, 9), DATASETS[3:12]), (stored, DATASETS)):
        decoded = decode(given, layout)
        assert decoded.datasets.dtype == np.float32 and decoded.datasets.flags.c_contiguous
        np.testing.assert_array_equal(decoded.datasets, expected)
        assert list(decoded.reasons) == [None] * len(expected) and decoded.accepted.all()


def test_decode_reads_a_permuted_tensor_as_pyarrow_does() -> None:
    array = tensors(DATASETS, [1, 0])
    assert array.type.shape == [COLUMNS, ROWS]
    np.testing.assert_array_equal(decode(array, layout_for(array.type)).datasets, array.to_numpy_ndarray())


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("nested", [True, False])
def test_decode_converts_numbers_of_every_type(dtype: str, nested: bool) -> None:
    numbers = np.arange(3 * ROWS * COLUMNS).astype(dtype)
    array = pa.FixedSizeListArray.from_arrays(pa.array(numbers), COLUMNS if nested else ROWS * COLUMNS)
    array = pa.FixedSizeListArray.from_arrays(array, ROWS) if nested else array
    decoded = decode(array, layout_for(array.type, "row"))
    np.testing.assert_array_equal(decoded.datasets, np.arange(30, dtype=np.float32).reshape(3, ROWS, COLUMNS))


def test_decode_shares_the_memory_of_a_clean_float32_array() -> None:
    array = encode(DATASETS)
    values = array.values.values.to_numpy()
    assert np.shares_memory(values, DATASETS)
    assert np.shares_memory(decode(array.slice(2), layout_for(array.type)).datasets, values)


def test_decode_of_no_rows_gives_no_datasets() -> None:
    for type, order in [
        *((type, None) for type in NESTED_TYPES.values()),
        *((type, "column") for type in FLAT_TYPES.values()),
    ]:
        decoded = decode(pa.array([], type), layout_for(type, order))
        assert decoded.datasets.shape == (0, ROWS, COLUMNS) and len(decoded.reasons) == 0


def reason_for(dataset: Any, fixed_rows: bool) -> str | None:
    """What a person would say of one row, given as Python lists."""
    if dataset is None or any(observation is None for observation in dataset):
        return "null"
    if any(number is None for observation in dataset for number in observation):
        return "null"
    if not fixed_rows and len(dataset) != ROWS:
        return "rows"
    if any(len(observation) != COLUMNS for observation in dataset):
        return "columns"
    numbers = [number for observation in dataset for number in observation]
    if any(math.isnan(number) for number in numbers):
        return "nan"
    return "infinite" if any(abs(number) > LARGEST for number in numbers) else None


def spoiled_dataset(rng: np.random.Generator, fixed_rows: bool, fixed_columns: bool) -> Any:
    """A dataset with up to three things wrong with it."""
    dataset: Any = rng.normal(size=(ROWS, COLUMNS)).astype(np.float32).tolist()
    for _ in range(rng.integers(4)):
        kind, row = rng.integers(8), rng.integers(ROWS)
        if kind == 0:
            return None
        if dataset[row % len(dataset)] is None:
            continue
        row %= len(dataset)
        if kind == 1:
            dataset[row] = None
        elif kind == 2 and not fixed_rows:
            dataset = dataset[:-1] or dataset
        elif kind == 3 and not fixed_rows:
            dataset = [*dataset, dataset[0]]
        elif kind == 4 and not fixed_columns:
            dataset[row] = dataset[row][:-1]
        elif dataset[row]:
            dataset[row][-1] = [None, math.nan, math.inf, -1e39][kind % 4]
    return dataset


@pytest.mark.parametrize("name", NESTED_TYPES)
def test_decode_says_why_a_row_is_no_dataset_and_keeps_all_others(name: str) -> None:
    type = NESTED_TYPES[name]
    fixed_rows, fixed_columns = pa.types.is_fixed_size_list(type), pa.types.is_fixed_size_list(type.value_type)
    rng = np.random.default_rng(1)
    datasets = [spoiled_dataset(rng, fixed_rows, fixed_columns) for _ in range(400)]
    expected = [reason_for(dataset, fixed_rows) for dataset in datasets]
    possible = set(REASONS) - {"type"} - ({"rows"} if fixed_rows else set()) - ({"columns"} if fixed_columns else set())
    assert set(expected) == {None, *possible}, "the test must see every reason there can be"
    for begin in (0, 37):
        decoded = decode(pa.array(datasets, type).slice(begin), layout_for(type))
        assert list(decoded.reasons) == expected[begin:]
        good = np.flatnonzero(decoded.accepted)
        np.testing.assert_array_equal(
            decoded.datasets[good], np.array([datasets[begin + row] for row in good], np.float32)
        )


@pytest.mark.parametrize("order", ["row", "column"])
def test_decode_says_why_a_flat_row_is_no_dataset(order: str) -> None:
    lists: list[Any] = flat_lists(DATASETS, order)
    lists[1] = None
    lists[2] = lists[2][:-1]
    lists[3] = [*lists[3], 1.0]
    lists[4] = []
    lists[5][3] = None
    lists[6][0] = math.nan
    lists[7][9] = -math.inf
    lists[8] = [*lists[8][:-1], None, None]  # too long, and holds nulls
    decoded = decode(pa.array(lists, pa.list_(F64)), layout_for(pa.list_(F64), order))
    assert list(decoded.reasons)[:9] == [None, "null", "rows", "rows", "rows", "null", "nan", "infinite", "null"]
    assert decoded.accepted.tolist() == [True] + [False] * 8 + [True] * 8
    np.testing.assert_array_equal(decoded.datasets[9:], DATASETS[9:])


def test_decode_is_not_shifted_by_a_null_list_that_owns_numbers() -> None:
    """`flatten` drops those numbers; a mask over a full child array is what some writers produce."""
    inner = pa.FixedSizeListArray.from_arrays(pa.array(DATASETS.ravel()), COLUMNS)
    offsets = pa.array(np.arange(0, len(DATASETS) + 1) * ROWS, pa.int32())
    null = pa.array([row == 4 for row in range(len(DATASETS))])
    fixed = pa.FixedSizeListArray.from_arrays(inner, ROWS, mask=null)
    variable = pa.ListArray.from_arrays(offsets, inner, mask=null)
    for array in (fixed, variable):
        assert array.null_count == 1
        decoded = decode(array, layout_for(array.type))
        assert list(decoded.reasons) == [None] * 4 + ["null"] + [None] * 12
        np.testing.assert_array_equal(decoded.datasets[5:], DATASETS[5:])


def test_decode_counts_a_float64_beyond_float32_as_infinite() -> None:
    datasets = DATASETS[:4].astype(np.float64)
    datasets[1, 2, 1] = 3.5e38
    datasets[2, 0, 0] = 3.4028234e38  # still a float32
    datasets[3, 0, 0] = 1e-320  # rounds to 0, which is a number
    decoded = decode(pa.array(datasets.tolist(), pa.list_(pa.list_(F64))), layout_for(pa.list_(pa.list_(F64))))
    assert list(decoded.reasons) == [None, "infinite", None, None]


def test_find_layout_takes_the_one_column_that_fits() -> None:
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("other tensor", pa.fixed_shape_tensor(F32, [COLUMNS, ROWS])),
            ("three axes", pa.fixed_shape_tensor(F32, [ROWS, COLUMNS, 1])),
            ("too long", pa.list_(pa.list_(F32, COLUMNS), ROWS + 1)),
            ("words", pa.list_(pa.string())),
            ("x", pa.fixed_shape_tensor(F32, [ROWS, COLUMNS])),
            ("struct", pa.struct([("a", F32)])),
        ]
    )
    layout = find_layout(schema, where="f", rows=ROWS, columns=("a", "b"))
    assert layout == Layout("x", ROWS, COLUMNS, nested=False)
    assert layout.describe() == "'x', 5 x 2, observation after observation"


def test_find_layout_names_the_flag_when_two_columns_fit() -> None:
    schema = pa.schema([("x", NESTED_TYPES["nested fixed"]), ("y", NESTED_TYPES["nested large"])])
    with pytest.raises(
        InputError, match=r"^a\.parquet: columns 'x' and 'y' can all hold datasets of 5 rows x \(a, b\)"
    ):
        find_layout(schema, where="a.parquet", rows=ROWS, columns=("a", "b"))
    with pytest.raises(InputError, match="Choose one: --column x$"):
        find_layout(schema, where="a.parquet", rows=ROWS, columns=COLUMNS)
    assert find_layout(schema, where="f", rows=ROWS, columns=COLUMNS, column="y").column == "y"


def test_find_layout_says_what_it_looked_for_when_nothing_fits() -> None:
    schema = pa.schema([("id", pa.int64()), ("x", pa.list_(pa.list_(F32, 3), ROWS))])
    with pytest.raises(InputError) as error:
        find_layout(schema, where="a.parquet", rows=ROWS, columns=("a", "b"))
    assert "a.parquet: no column holds datasets of 5 rows x (a, b) columns" in str(error.value)
    assert "It has: id int64, x fixed_size_list<" in str(error.value)


def test_find_layout_lists_no_more_columns_than_a_person_reads() -> None:
    schema = pa.schema([(f"c{number}", pa.int64()) for number in range(500)])
    with pytest.raises(InputError, match="c19 int64 and 480 more"):
        find_layout(schema, where="f", rows=ROWS, columns=COLUMNS)


def test_find_layout_refuses_a_named_column_that_is_absent_or_does_not_fit() -> None:
    schema = pa.schema([("id", pa.int64()), ("x", NESTED_TYPES["nested fixed"])])
    with pytest.raises(InputError, match="a: no column 'y'. It has: id int64, x "):
        find_layout(schema, where="a", rows=ROWS, columns=COLUMNS, column="y")
    with pytest.raises(
        InputError, match="column 'id' is int64, not datasets of 5 rows x 2 columns. Name another with --col"
    ):
        find_layout(schema, where="a", rows=ROWS, columns=COLUMNS, column="id")


def test_find_layout_refuses_a_tensor_of_another_shape() -> None:
    for shape in ([COLUMNS, ROWS], [ROWS, COLUMNS, 1], [1, ROWS, COLUMNS], [ROWS * COLUMNS + 1]):
        with pytest.raises(InputError, match="no column holds datasets"):
            layout_for(pa.fixed_shape_tensor(F32, shape), "row")


def test_find_layout_asks_how_a_flat_list_lies() -> None:
    for type in (*FLAT_TYPES.values(), pa.fixed_shape_tensor(F32, [ROWS * COLUMNS])):
        with pytest.raises(
            InputError, match="flat list of 5 x 2 numbers. Say how it lies: --order row .* or --order column"
        ):
            layout_for(type)
        assert layout_for(type, "row").by_column is False
        assert layout_for(type, "column").by_column is True


def test_find_layout_need_not_ask_when_a_dataset_has_one_column() -> None:
    layout = find_layout(pa.schema([("x", pa.list_(F32))]), where="f", rows=7, columns=("y",))
    assert layout == Layout("x", 7, 1, nested=False)


def test_find_layout_refuses_the_same_columns_in_another_order() -> None:
    schema = write_schema_metadata(pa.schema([("x", NESTED_TYPES["nested fixed"])]), ["a", "b"], ["p"])
    assert read_column_names(schema) == ("a", "b")
    assert find_layout(schema, where="f", rows=ROWS, columns=("c", "d")).column == "x"
    with pytest.raises(InputError, match=r"f: column 'x' holds \(a, b\), the model takes \(b, a\)"):
        find_layout(schema, where="f", rows=ROWS, columns=("b", "a"))


def test_read_column_names_finds_none_in_foreign_metadata() -> None:
    assert read_column_names(pa.schema([])) is None
    for content in (b"", b"[]", b"{}", b"\xff", b"7"):
        assert read_column_names(pa.schema([], metadata={b"softplus_toolkit": content})) is None


def write(path: Path, array: pa.Array, **options: Any) -> Path:
    pq.write_table(pa.table({"x": array, "v": pa.array(np.ones(len(array), np.float32))}), path, **options)
    return path


def test_layout_of_file_reads_the_shape_off_the_type_or_the_first_dataset(tmp_path: Path) -> None:
    expected = Layout("x", ROWS, COLUMNS, nested=True)
    for type in NESTED_TYPES.values():
        path = write(tmp_path / "x.parquet", pa.array([None, *DATASETS.tolist()], type))
        assert layout_of_file(path) == expected
    path = write(tmp_path / "x.parquet", tensors(DATASETS, [1, 0]))
    assert layout_of_file(path) == Layout("x", ROWS, COLUMNS, nested=False, by_column=True)


def test_layout_of_file_wants_to_know_the_columns_of_a_flat_list(tmp_path: Path) -> None:
    for type in FLAT_TYPES.values():
        path = write(tmp_path / "x.parquet", pa.array(flat_lists(DATASETS, "row"), type))
        with pytest.raises(
            InputError, match="'x' is a flat list of numbers. Name the columns of a dataset: --columns a,b"
        ):
            layout_of_file(path)
        assert layout_of_file(path, columns=("a", "b"), order="row") == Layout("x", ROWS, COLUMNS, nested=False)
        assert layout_of_file(path, rows=ROWS, order="column") == Layout(
            "x", ROWS, COLUMNS, nested=False, by_column=True
        )
        with pytest.raises(InputError, match="not a multiple of 3|no column holds"):
            layout_of_file(path, columns=("a", "b", "c"), order="row")


def test_layout_of_file_says_when_no_dataset_tells_the_shape(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", pa.array([None, None], pa.list_(pa.list_(F32))))
    with pytest.raises(InputError, match="'x' holds no dataset that could tell how many rows one has"):
        layout_of_file(path)


def test_iter_batches_reads_rows_in_order_and_only_what_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", encode(np.repeat(DATASETS, 10, axis=0)), row_group_size=50)
    batches = list(iter_batches(path, ["v", "x"], None, 32))
    assert all(batch.schema.names == ["v", "x"] and batch.num_rows <= 32 for batch in batches)
    assert sum(batch.num_rows for batch in batches) == 170
    (third,) = iter_batches(path, None, [2], 1000)
    assert third.schema.names == ["x", "v"]
    expected = np.repeat(DATASETS, 10, axis=0)[100:150]
    np.testing.assert_array_equal(decode(third.column("x"), layout_for(third.column("x").type)).datasets, expected)


def test_iter_batches_refuses_an_absent_column(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", encode(DATASETS))
    with pytest.raises(InputError, match=r"x\.parquet: no column 'y'. It has: x, v."):
        next(iter_batches(path, ["x", "y"], None, 10))


def test_iter_batches_holds_little_of_a_row_group_that_holds_everything(tmp_path: Path) -> None:
    datasets = np.random.default_rng(2).random((40_000, 200, 2), np.float32)  # 64 MB
    path = write(tmp_path / "x.parquet", encode(datasets), row_group_size=len(datasets), compression="none")
    before = pa.total_allocated_bytes()
    held = max(pa.total_allocated_bytes() for _ in iter_batches(path, ["x"], None, 1024)) - before
    # Measured: 7.0 MB, of which a batch of 1,024 datasets is 1.6 MB.
    assert held < 14e6


def test_open_parquet_names_a_file_that_is_absent_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.parquet: no such file"), open_parquet(tmp_path / "none.parquet"):
        pass
    for content in (b"", b"PAR1", b"a,b\n1,2\n" * 20):
        (tmp_path / "x.parquet").write_bytes(content)
        with (
            pytest.raises(InputError, match=r"x\.parquet: not a readable Parquet file \("),
            open_parquet(tmp_path / "x.parquet"),
        ):
            pass


def test_iter_batches_names_the_damaged_row_group(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", encode(np.repeat(DATASETS, 100, axis=0)), row_group_size=100)
    offset = pq.read_metadata(path).row_group(9).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 200] = bytes(200)
    path.write_bytes(content)
    for batch_rows in (50, 100, 300):
        read = 0
        with pytest.raises(InputError, match=r"x\.parquet, row group 9: damaged \("):
            for batch in iter_batches(path, None, None, batch_rows):
                read += len(batch)
        assert read == 900, "what lies before is read"
    with pytest.raises(InputError, match=r"x\.parquet, row group 9: damaged \("):
        list(iter_batches(path, ["x"], [3, 9, 12], 50))
    assert sum(len(batch) for batch in iter_batches(path, None, [3, 12], 60)) == 200


def test_read_datasets_returns_every_dataset_or_names_the_row_that_is_none(tmp_path: Path) -> None:
    spec = Spec(ROWS, ("a", "b"), ("p",))
    many = np.repeat(DATASETS, 100, axis=0)
    np.testing.assert_array_equal(read_datasets(write(tmp_path / "x.parquet", encode(many)), spec), many)
    many[1500, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"x\.parquet, row 1500: 'x' is no dataset of 5 rows x \(a, b\) -> p \(nan\)"):
        read_datasets(write(tmp_path / "x.parquet", encode(many)), spec)


def test_read_datasets_of_an_empty_file_is_an_empty_array(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", encode(DATASETS[:0]))
    assert read_datasets(path, Spec(ROWS, ("a", "b"), ("p",))).shape == (0, ROWS, COLUMNS)
