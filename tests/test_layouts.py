"""Layouts beyond lists: what other tools write, bytes, structs, vectors. Oracles are NumPy and the tools themselves."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts.write import DATASETS, SMALLEST_STORED

from toolkit.datasets import Decoded, Layout, decode, find_layout, gather, iter_batches, layout_of_file, read_datasets
from toolkit.datasets.tensors import ray_shape
from toolkit.errors import InputError
from toolkit.spec import Spec

WRITTEN = Path(__file__).parent / "layouts"
NAMES = ("rt", "correct")
COUNT, ROWS, COLUMNS = DATASETS.shape
SPEC = Spec(ROWS, NAMES, ("v",))


def read(path: Path, order: str | None = None, column: str | None = None) -> tuple[Layout, Decoded]:
    layout = layout_of_file(path, rows=ROWS, columns=NAMES, order=order, column=column)
    (batch,) = iter_batches(path, layout.table_columns, None, 1000)
    return layout, decode(gather(batch, layout), layout)


def read_array(array: pa.Array, tmp_path: Path, order: str | None = None) -> tuple[Layout, Decoded]:
    pq.write_table(pa.table({"id": np.arange(len(array)), "x": array}), tmp_path / "x.parquet")
    return read(tmp_path / "x.parquet", order)


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("duckdb_array", "'x', 5 x 2, one list per observation"),
        ("hugging_face_array2d", "'x', 5 x 2, one list per observation"),
        ("hugging_face_lists", "'x', 5 x 2, one list per observation"),
        ("pandas_objects", "'x', 5 x 2, one list per observation"),
        ("polars_array", "'x', 5 x 2, one list per observation"),
        ("polars_structs", "'x', 5 x 2, a list of structs (rt, correct)"),
        ("ray_arrow_native", "'x', 5 x 2, observation after observation"),
        ("ray_v1", "'x', 5 x 2, observation after observation"),
        ("ray_v2", "'x', 5 x 2, observation after observation"),
        ("spark_arrays", "'x', 5 x 2, one list per observation"),
        ("spark_binary", "'x', 5 x 2, float64 as bytes, observation after observation"),
        ("spark_separate", "'rt, correct', 5 x 2, one list per column"),
        ("spark_structs", "'trials', 5 x 2, a list of structs (rt, correct)"),
    ],
)
def test_what_other_tools_write_is_found_and_read(name: str, described: str) -> None:
    layout, decoded = read(WRITTEN / f"{name}.parquet")
    assert layout.describe() == described
    assert list(decoded.reasons) == [None] * COUNT
    np.testing.assert_array_equal(decoded.datasets, DATASETS)


def test_rays_tensors_of_variable_shape_are_judged_one_by_one() -> None:
    layout, decoded = read(WRITTEN / "ray_variable.parquet")
    assert layout.describe() == "'x', 5 x 2, tensors with shapes of their own"
    assert list(decoded.reasons) == [None] * 5 + ["rows"]
    np.testing.assert_array_equal(decoded.datasets[:5], DATASETS[:5])


def test_sparks_vectors_are_read_dense_and_sparse() -> None:
    with pytest.raises(InputError, match="column 'features' is a flat list of 5 x 2 numbers. Say how it lies: --order"):
        read(WRITTEN / "spark_vectors.parquet")
    layout, decoded = read(WRITTEN / "spark_vectors.parquet", "row")
    assert layout.describe() == "'features', 5 x 2, vectors, observation after observation"
    expected = DATASETS.copy()
    expected[1::2][np.abs(expected[1::2]) <= SMALLEST_STORED] = 0
    assert list(decoded.reasons) == [None] * COUNT + ["null"]
    np.testing.assert_array_equal(decoded.datasets[:COUNT], expected)


@pytest.mark.parametrize("name", ["ray_v1", "ray_v2", "ray_variable"])
def test_rays_files_are_read_without_ray(name: str) -> None:
    import sys

    assert "ray.data" not in sys.modules
    field = pq.read_schema(WRITTEN / f"{name}.parquet").field("x")
    assert field.metadata[b"ARROW:extension:name"].startswith(b"ray.data.arrow_")


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (str(self.path), "w")


def test_ray_shape_reads_json_and_pickled_tuples_and_runs_neither(tmp_path: Path) -> None:
    for shape in ((5, 2), (200, 2), (70_000, 3), (400,), (1, 2, 3), (1, 2, 3, 4)):
        for protocol in range(2, 6):
            assert ray_shape(pickle.dumps(shape, protocol)) == shape
        assert ray_shape(str(list(shape)).encode()) == shape
    for other in (b"", b"\x80\x05", b"null", b"[]", b"[0, 2]", b'["a"]', b"[true, 2]", b"2", b"\x80\x05K\x05" * 1000):
        assert ray_shape(other) is None, other
    for content in ((1.5, 2), ("5", 2), Bomb(tmp_path / "unpickled"), (5, Bomb(tmp_path / "unpickled"))):
        assert ray_shape(pickle.dumps(content)) is None
    assert not (tmp_path / "unpickled").exists()


def test_a_tensor_column_of_unknown_shape_is_a_flat_list(tmp_path: Path) -> None:
    metadata = {"ARROW:extension:name": "ray.data.arrow_tensor", "ARROW:extension:metadata": b"?"}
    field = pa.field("x", pa.list_(pa.float32()), metadata=metadata)
    assert find_layout(pa.schema([field]), where="f", rows=5, columns=2, order="row").nested is False
    with pytest.raises(InputError, match="Say how it lies: --order row"):
        find_layout(pa.schema([field]), where="f", rows=5, columns=2)
    for shape in (b"[2, 5]", b"[5, 2, 1]", b"[9]"):
        field = field.with_metadata({**metadata, "ARROW:extension:metadata": shape})
        with pytest.raises(InputError, match="no column holds datasets of 5 rows x 2"):
            find_layout(pa.schema([field]), where="f", rows=5, columns=2)


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version, allow_pickle=True)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8", "<i2", ">i4", "<i8", "|u1", "|i1", "|b1"])
@pytest.mark.parametrize("fortran", [False, True])
def test_npy_blobs_of_every_dtype_and_order_are_read(dtype: str, fortran: bool, tmp_path: Path) -> None:
    arrays = [np.array(100 * dataset, dtype, order="F" if fortran else "C") for dataset in np.abs(DATASETS)]
    expected = np.stack([array.astype(np.float32) for array in arrays])
    for version in ((1, 0), (2, 0)):
        blobs = [npy(array, version) for array in arrays]
        for type in (pa.binary(), pa.large_binary(), pa.binary(len(blobs[0])), pa.dictionary(pa.int32(), pa.binary())):
            layout, decoded = read_array(pa.array(blobs, type), tmp_path)
            assert layout.describe() == "'x', 5 x 2, .npy as bytes" and list(decoded.reasons) == [None] * COUNT
            np.testing.assert_array_equal(decoded.datasets, expected)


@pytest.mark.parametrize("order", ["row", "column"])
def test_npy_blobs_of_one_axis_lie_as_told(order: str, tmp_path: Path) -> None:
    blobs = [npy(dataset.ravel("C" if order == "row" else "F")) for dataset in DATASETS]
    with pytest.raises(InputError, match="Say how it lies: --order row"):
        read_array(pa.array(blobs), tmp_path)
    for mixed in (blobs, [*blobs, None]):
        _, decoded = read_array(pa.array(mixed, pa.binary()), tmp_path, order)
        np.testing.assert_array_equal(decoded.datasets[:COUNT], DATASETS)


def test_npy_blobs_that_differ_in_kind_are_judged_one_by_one(tmp_path: Path) -> None:
    good = DATASETS[0]
    hostile_shape = npy(good).replace(b"(5, 2)", b"(5,999999999999)"[:6], 1)
    evaluated = npy(good).replace(b"'<f4'", b"open(", 1)
    cases: list[tuple[Any, str | None]] = [
        (npy(good), None),
        (npy(good.astype(">f8")), None),
        (npy(np.asfortranarray(good)), None),
        (npz(arr=good), None),
        (None, "null"),
        (npy(good[:4]), "rows"),
        (npy(good[:, :1]), "columns"),
        (npy(good.ravel()), "type"),
        (npy(good[np.newaxis]), "type"),
        (npy(good.astype(complex)), "type"),
        (npy(good.astype(object)), "type"),
        (npy(np.zeros(5, [("rt", "<f4"), ("correct", "<f4")])), "type"),
        (npy(good)[:-1], "type"),
        (npy(good) + b"\0", "type"),
        (npy(good)[:9], "type"),
        (b"", "type"),
        (good.tobytes(), "type"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "type"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"[" * 100, "type"),
        (hostile_shape, "type"),
        (evaluated, "type"),
        (npz(a=good, b=good), "type"),
        (npz(arr=good)[:-30], "type"),
        (npz(arr=np.zeros((20_000, 1000), np.float32)), "type"),  # 20 kB that say they are 80 MB
        (npy(np.full((5, 2), np.nan)), "nan"),
        (npy(np.full((5, 2), 1e39)), "infinite"),
    ]
    layout, decoded = read_array(pa.array([blob for blob, _ in cases], pa.binary()), tmp_path)
    assert list(decoded.reasons) == [reason for _, reason in cases]
    for row in range(4):
        np.testing.assert_array_equal(decoded.datasets[row], good)


def test_nothing_in_a_blob_or_a_pickled_schema_is_run(tmp_path: Path) -> None:
    """The blobs are as Petastorm's NdarrayCodec and CompressedNdarrayCodec write them, beside its pickled schema."""
    trap = tmp_path / "unpickled"
    schema = pa.schema([("x", pa.binary())], metadata={"dataset-toolkit.unischema.v1": pickle.dumps(Bomb(trap))})
    for codec in (npy, lambda dataset: npz(arr=dataset)):
        blobs = [codec(dataset) for dataset in DATASETS]
        objects = npy(np.array([[Bomb(trap)] * 2] * 5, dtype=object))
        pq.write_table(
            pa.table([pa.array([*blobs, objects, pickle.dumps(Bomb(trap))])], schema=schema), tmp_path / "x.parquet"
        )
        _, decoded = read(tmp_path / "x.parquet")
        assert list(decoded.reasons) == [None] * COUNT + ["type"] * 2
        np.testing.assert_array_equal(decoded.datasets[:COUNT], DATASETS)
    assert not trap.exists()


def test_bytes_of_another_length_are_rejected_row_by_row(tmp_path: Path) -> None:
    for dtype, name in (("<f4", "float32"), ("<f8", "float64")):
        whole = [dataset.astype(dtype).tobytes() for dataset in DATASETS]
        blobs = [None, whole[0], whole[1][:-1], b"", whole[2] + b"\0", whole[3], whole[0] * 2]
        layout, decoded = read_array(pa.array(blobs, pa.binary()), tmp_path)
        assert layout.describe() == f"'x', 5 x 2, {name} as bytes, observation after observation"
        assert list(decoded.reasons) == ["null", None, "rows", "rows", "rows", None, "rows"]
        np.testing.assert_array_equal(decoded.datasets[[1, 5]], DATASETS[[0, 3]])


def test_clean_float32_bytes_share_the_memory_of_the_array() -> None:
    blobs = [dataset.tobytes() for dataset in DATASETS]
    for type in (pa.binary(), pa.binary(40)):
        array = pa.array(blobs, type)
        layout = find_layout(pa.schema([("x", type)]), where="f", rows=5, columns=2, peek=lambda _: blobs)
        numbers = decode(array[1:], layout).datasets
        np.testing.assert_array_equal(numbers, DATASETS[1:])
        assert np.shares_memory(numbers, np.frombuffer(array.buffers()[-1], np.uint8))


def test_a_column_of_bytes_counts_only_where_no_type_fits(tmp_path: Path) -> None:
    pictures = pa.array([b"\x89PNG" + bytes(36)] * COUNT)  # 40 bytes: as long as a dataset of float32
    lists = pa.array(DATASETS.tolist(), pa.list_(pa.list_(pa.float32(), 2), 5))
    pq.write_table(pa.table({"picture": pictures, "x": lists}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet")[0].column == "x"
    assert read(tmp_path / "x.parquet", column="picture")[0].kind == "float32"
    blobs = pa.array([dataset.tobytes() for dataset in DATASETS])
    pq.write_table(pa.table({"picture": pa.array([b"\x89PNG"] * COUNT), "x": blobs}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet")[0].column == "x"
    pq.write_table(pa.table({"picture": pictures, "x": blobs}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"columns 'picture' and 'x' can all hold .* Choose one: --column picture"):
        read(tmp_path / "x.parquet")
    pq.write_table(pa.table({"x": pa.array([b"1234"] * COUNT)}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="no column holds datasets"):
        read(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="column 'x' is binary, not datasets of 5 rows x"):
        read(tmp_path / "x.parquet", column="x")


def test_bytes_without_rows_or_without_values_need_no_judgement(tmp_path: Path) -> None:
    for values in ([], [None, None]):
        pq.write_table(pa.table({"x": pa.array(values, pa.binary())}), tmp_path / "x.parquet")
        layout = layout_of_file(tmp_path / "x.parquet", rows=5, columns=NAMES)
        decoded = decode(pa.array(values, pa.binary()), layout)
        assert list(decoded.reasons) == ["null"] * len(values) and decoded.datasets.shape == (len(values), 5, 2)


def test_bytes_cannot_tell_rows_and_columns_but_npy_can(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([DATASETS[0].tobytes()])}), tmp_path / "x.parquet")
    for columns in (None, 2):
        with pytest.raises(InputError, match="column 'x' does not tell how many rows and columns a dataset has"):
            layout_of_file(tmp_path / "x.parquet", columns=columns)
    pq.write_table(pa.table({"x": pa.array([npy(DATASETS[0])])}), tmp_path / "x.parquet")
    assert layout_of_file(tmp_path / "x.parquet") == Layout("x", 5, 2, nested=True, kind="npy")


def test_structs_are_read_by_the_names_of_the_models_columns(tmp_path: Path) -> None:
    observation = pa.struct([("correct", pa.bool_()), ("rt", pa.decimal128(6, 3)), ("note", pa.string())])
    rows = [[{"correct": i % 2 == 1, "rt": Decimal(f"{i}.125"), "note": "n"} for i in range(5)]] * 3
    array = pa.array([*rows, None, rows[0][:4], [None, *rows[0][1:]], [{"rt": None, "correct": True}, *rows[0][1:]]],
                     pa.list_(observation))  # fmt: skip
    layout, decoded = read_array(array, tmp_path)
    assert layout.fields == NAMES and list(decoded.reasons) == [None] * 3 + ["null", "rows", "null", "null"]
    np.testing.assert_array_equal(decoded.datasets[2], [[i + 0.125, i % 2] for i in range(5)])
    with pytest.raises(InputError, match=r"no column holds datasets of 5 rows x \(rt, answer\) columns"):
        layout_of_file(tmp_path / "x.parquet", rows=5, columns=("rt", "answer"))


def test_the_fields_of_structs_name_the_columns_where_nothing_else_does(tmp_path: Path) -> None:
    structs = [[{"rt": rt, "correct": correct} for rt, correct in dataset.tolist()] for dataset in DATASETS]
    type = pa.list_(pa.struct([(name, pa.float32()) for name in NAMES]))
    pq.write_table(pa.table({"x": pa.array(structs, type)}), tmp_path / "x.parquet")
    assert layout_of_file(tmp_path / "x.parquet").fields == NAMES


def test_separate_columns_are_chosen_before_their_parts_and_by_name(tmp_path: Path) -> None:
    lists = {name: pa.array(DATASETS[:, :, index].tolist()) for index, name in enumerate(NAMES)}
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"correct": lists["correct"], "id": np.arange(COUNT), "rt": lists["rt"]}), path)
    layout, decoded = read(path)
    assert layout.table_columns == NAMES
    np.testing.assert_array_equal(decoded.datasets, DATASETS)
    assert read(path, column="rt, correct")[0] == read(path, column="rt,correct")[0] == layout
    pq.write_table(pa.table({**lists, "x": pa.array(DATASETS.tolist())}), path)
    with pytest.raises(InputError, match="columns 'x' and 'rt, correct' can all hold"):
        read(path)
    assert read(path, column="rt,correct")[0] == layout
    lists["rt"] = pa.array([None, [1.0] * 4, [None] * 5, *DATASETS[3:, :, 0].tolist()], pa.list_(pa.float64()))
    pq.write_table(pa.table(lists), path)
    assert list(read(path)[1].reasons) == ["null", "rows", "null", None, None, None]


def test_read_datasets_takes_separate_columns(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_datasets(WRITTEN / "spark_separate.parquet", SPEC), DATASETS)


def test_sparse_vectors_with_impossible_indices_are_rejected(tmp_path: Path) -> None:
    type = pa.struct([("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())),
                      ("values", pa.list_(pa.float64()))])  # fmt: skip
    cases: list[tuple[Any, str | None]] = [
        ((0, 10, [0, 9], [1.0, 2.0]), None),
        ((0, 10, [], []), None),
        ((1, None, None, [1.0] * 10), None),
        ((0, 10, [10], [1.0]), "type"),
        ((0, 10, [-1], [1.0]), "type"),
        ((0, 10, [1, 2], [1.0]), "type"),
        ((2, 10, [1], [1.0]), "type"),
        ((None, 10, [1], [1.0]), "type"),
        ((0, 9, [1], [1.0]), "rows"),
        ((1, None, None, [1.0] * 9), "rows"),
        ((0, 10, None, [1.0]), "null"),
        ((0, None, [1], [1.0]), "null"),
        ((0, 10, [None], [1.0]), "null"),
        ((1, None, None, [None] * 10), "null"),
        ((0, 10, [3], [np.inf]), "infinite"),
        (None, "null"),
    ]
    names = ("type", "size", "indices", "values")
    rows = [None if row is None else dict(zip(names, row, strict=True)) for row, _ in cases]
    _, decoded = read_array(pa.array(rows, type), tmp_path, "row")
    assert list(decoded.reasons) == [reason for _, reason in cases]
    np.testing.assert_array_equal(decoded.datasets[0].ravel(), [1, *[0] * 8, 2])


def test_views_dictionaries_and_decimals_inside_lists_are_numbers() -> None:
    numbers = (np.arange(60) * 0.5).reshape(6, 5, 2)
    inner = numbers.tolist()
    exact = [[[Decimal(number) for number in observation] for observation in dataset] for dataset in inner]
    for type in (
        pa.list_view(pa.list_view(pa.float32())),
        pa.large_list_view(pa.list_(pa.float16(), 2)),
        pa.list_(pa.list_(pa.decimal128(8, 2), 2), 5),
        pa.list_(pa.list_(pa.decimal256(40, 2))),
    ):
        array = pa.array(exact if "decimal" in str(type) else inner, type)
        layout = find_layout(pa.schema([("x", type)]), where="f", rows=5, columns=2)
        np.testing.assert_array_equal(decode(array[1:5], layout).datasets, numbers[1:5])
    coded = pa.array(numbers.ravel().tolist()).dictionary_encode()
    flat = pa.FixedSizeListArray.from_arrays(coded, 10)
    layout = find_layout(pa.schema([("x", flat.type)]), where="f", rows=5, columns=2, order="row")
    np.testing.assert_array_equal(decode(flat[2:], layout).datasets, numbers[2:])


def test_integers_beyond_float32_are_rounded(tmp_path: Path) -> None:
    numbers = np.array([[2**24 + 1, 2**53 + 1]] * 5, np.int64)
    _, decoded = read_array(pa.array([numbers.tolist()]), tmp_path)
    np.testing.assert_array_equal(decoded.datasets[0], numbers.astype(np.float32))


# Every way to write one dataset, by the name of the layout: the table's columns, and the order it needs.
def structs_of(dataset: np.ndarray) -> list[dict[str, float]]:
    return [dict(zip(NAMES, observation, strict=True)) for observation in dataset.tolist()]


def columns_of(dataset: np.ndarray) -> dict[str, list[float]]:
    return dict(zip(NAMES, dataset.T.tolist(), strict=True))


def vector_of(dataset: np.ndarray) -> dict[str, Any]:
    flat = dataset.ravel()
    if flat[0] > 0:
        return {"type": 1, "size": None, "indices": None, "values": flat.tolist()}
    kept = np.flatnonzero(flat)
    return {"type": 0, "size": flat.size, "indices": kept.tolist(), "values": flat[kept].tolist()}


F32, F64 = pa.float32(), pa.float64()
VECTOR = pa.struct([("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())),
                    ("values", pa.list_(F64))])  # fmt: skip
PARTS = pa.struct([(name, F64) for name in NAMES])
WAYS: dict[str, tuple[pa.DataType, Callable[[np.ndarray], Any], str | None]] = {
    "nested": (pa.list_(pa.list_(F64, COLUMNS), ROWS), np.ndarray.tolist, None),
    "lists": (pa.large_list(pa.list_(F64)), np.ndarray.tolist, None),
    "flat by row": (pa.list_(F64), lambda dataset: dataset.ravel("C").tolist(), "row"),
    "flat by column": (pa.list_(F64), lambda dataset: dataset.ravel("F").tolist(), "column"),
    "structs": (pa.list_(PARTS), structs_of, None),
    "struct": (pa.struct([(name, pa.list_(F64)) for name in NAMES]), columns_of, None),
    "vectors": (VECTOR, vector_of, "row"),
    "float32": (pa.binary(), lambda dataset: dataset.astype("<f4").tobytes(), None),
    "float64": (pa.large_binary(), lambda dataset: dataset.astype("<f8").tobytes(), None),
    "npy": (pa.binary(), npy, None),
    "npz": (pa.binary(), lambda dataset: npz(arr=dataset), None),
}
SPOILED = {"nan": np.nan, "infinite": np.inf}


@settings(deadline=None, max_examples=120)
@given(
    way=st.sampled_from(sorted(WAYS)),
    spoiled=st.lists(st.sampled_from([None, None, None, "null", "rows", "nan", "infinite"]), min_size=1, max_size=9),
    begin=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_layout_decodes_to_the_same_array_and_rejects_the_same_rows(
    way: str, spoiled: list[str | None], begin: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    type, written_as, order = WAYS[way]
    rng = np.random.default_rng(seed)
    datasets = rng.normal(size=(len(spoiled), ROWS, COLUMNS)).astype(np.float32).astype(np.float64)
    if way == "nested":
        spoiled = [None if why == "rows" else why for why in spoiled]
    values: list[Any] = []
    for dataset, why in zip(datasets, spoiled, strict=True):
        if why in SPOILED:
            dataset[rng.integers(ROWS), rng.integers(COLUMNS)] = SPOILED[why]
        short = dataset[:-1] if why == "rows" else dataset
        values.append(None if why == "null" else written_as(short))
    # The first row of the file is whole, so that bytes can tell what they are.
    array = pa.array([written_as(np.ones((ROWS, COLUMNS))), *values], type)
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    pq.write_table(pa.table({"x": array, "id": np.arange(len(array))}), path, row_group_size=4)
    layout = layout_of_file(path, rows=ROWS, columns=NAMES, order=order)
    stored = pq.read_table(path).column("x").slice(1)
    for given_array, first in ((stored, 0), (array.slice(1 + begin), begin)):
        decoded = decode(given_array, layout)
        assert list(decoded.reasons) == spoiled[first:]
        good = np.flatnonzero(decoded.accepted)
        assert decoded.datasets.dtype == np.float32 and decoded.datasets.flags.c_contiguous
        np.testing.assert_array_equal(decoded.datasets[good], datasets[first:][good].astype(np.float32))


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=200), cut=st.integers(0, 200), flips=st.lists(st.tuples(st.integers(0, 167),
       st.integers(0, 255)), max_size=4))  # fmt: skip
def test_damaged_npy_blobs_are_read_as_numpy_reads_them_or_rejected(
    content: bytes, cut: int, flips: list[tuple[int, int]]
) -> None:
    damaged = bytearray(npy(DATASETS[0]))
    for at, byte in flips:
        damaged[at] = byte
    layout = Layout("x", ROWS, COLUMNS, nested=True, kind="npy")
    other = bytes(damaged).replace(b"'", b'"')
    blobs = [bytes(damaged), other, bytes(damaged[:cut]), b"\x93NUMPY" + content, struct.pack("<I", cut) + content]
    decoded = decode(pa.array(blobs), layout)
    for blob, dataset, reason in zip(blobs, decoded.datasets, decoded.reasons, strict=True):
        if reason is None:
            with np.errstate(all="ignore"):
                expected = np.lib.format.read_array(io.BytesIO(blob), allow_pickle=False).astype(np.float32)
            np.testing.assert_array_equal(dataset, expected)


def test_a_damaged_zip_is_rejected_wherever_it_is_damaged() -> None:
    whole = npz(arr=DATASETS[0])
    layout = Layout("x", ROWS, COLUMNS, nested=True, kind="npy")
    blobs = []
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        blobs.append(bytes(damaged))
    decoded = decode(pa.array(blobs), layout)
    assert set(decoded.reasons) <= {None, "type"} and "type" in decoded.reasons
    for dataset, reason in zip(decoded.datasets, decoded.reasons, strict=True):
        if reason is None:  # in a part of the archive that decides about nothing, a time stamp say
            np.testing.assert_array_equal(dataset, DATASETS[0])
    assert zipfile.is_zipfile(io.BytesIO(whole))
