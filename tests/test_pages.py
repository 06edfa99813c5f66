"""The reader of pages gives what pyarrow gives, to the bit, or leaves the file to pyarrow."""

from __future__ import annotations

import contextlib
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from toolkit.batch.shards import plan_shards, read_shards
from toolkit.batch.sources import open_sources
from toolkit.datasets import encode
from toolkit.datasets.chunks import Unexpected
from toolkit.datasets.hybrid import NotHybrid, read_hybrid
from toolkit.datasets.layout import Layout
from toolkit.datasets.page_headers import NotAHeader, read_header
from toolkit.datasets.pages import Pages
from toolkit.errors import InputError
from toolkit.spec import Spec

ROWS, COLUMNS = 5, 3
NESTED = Layout("x", ROWS, COLUMNS, nested=True)
FLAT = Layout("x", ROWS, COLUMNS, nested=False)
SPEC = Spec(ROWS, ("a", "b", "c"), ("v",))

slow_files = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def some_datasets(count: int, seed: int) -> NDArray[np.float32]:
    """Any bits, few different numbers among them: writers make dictionaries and long runs of equal ones."""
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 2**32, 9, np.uint32)
    bits = np.where(
        rng.random((count, ROWS, COLUMNS)) < rng.choice([0, 0.5, 1]),
        rng.choice(few, (count, ROWS, COLUMNS)),
        rng.integers(0, 2**32, (count, ROWS, COLUMNS), np.uint32),
    )
    bits[:, : rng.integers(0, ROWS)] = few[0]
    return bits.view(np.float32)


def as_column(datasets: NDArray[np.float32], kind: str) -> tuple[pa.Array, Layout]:
    """The datasets in one of the types that the reader takes."""
    if kind == "clean":
        return encode(datasets), NESTED
    values = pa.array(datasets.reshape(-1))
    if kind == "nullable":  # by its type; no value is null
        inner = pa.FixedSizeListArray.from_arrays(values, COLUMNS)
        return pa.FixedSizeListArray.from_arrays(inner, ROWS), NESTED
    flat = pa.FixedSizeListArray.from_arrays(values, ROWS * COLUMNS)
    if kind == "flat":
        return flat, FLAT
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [ROWS, COLUMNS]), flat), FLAT


def bits_of(array: pa.Array) -> NDArray[np.uint32]:
    storage = array.storage if isinstance(array.type, pa.BaseExtensionType) else array
    while pa.types.is_fixed_size_list(storage.type):
        storage = storage.flatten()
    return np.asarray(storage.to_numpy(zero_copy_only=False), np.float32).view(np.uint32)


def opened(path: Path, layout: Layout = NESTED) -> Pages:
    metadata = pq.read_metadata(path)
    return Pages(str(path), layout, [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)])


@slow_files
@given(
    kind=st.sampled_from(["clean", "nullable", "flat", "tensor"]),
    count=st.integers(1, 400),
    seed=st.integers(0, 10**6),
    compression=st.sampled_from(["none", "snappy", "zstd", "lz4", "gzip", "brotli"]),
    dictionary=st.booleans(),
    page_bytes=st.sampled_from([64, 1000, 1 << 20]),
    group_rows=st.sampled_from([7, 100, 1000]),
    version=st.sampled_from(["1.0", "2.0"]),
    checksum=st.booleans(),
    page_index=st.booleans(),
    statistics=st.booleans(),
    batch=st.sampled_from([1, 10, 1024]),
)
def test_pages_gives_the_bits_that_pyarrow_gives_whatever_the_writer_was_told(
    tmp_path: Path,
    kind: str,
    count: int,
    seed: int,
    compression: str,
    dictionary: bool,
    page_bytes: int,
    group_rows: int,
    version: str,
    checksum: bool,
    page_index: bool,
    statistics: bool,
    batch: int,
) -> None:
    column, layout = as_column(some_datasets(count, seed), kind)
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"id": np.arange(count), "x": column, "x2": np.arange(count)}),
        path,
        compression=compression,
        use_dictionary=dictionary,
        data_page_size=page_bytes,
        dictionary_pagesize_limit=page_bytes,
        row_group_size=group_rows,
        data_page_version=version,
        write_page_checksum=checksum,
        write_page_index=page_index,
        write_statistics=statistics,
        write_batch_size=batch,
    )
    pages = opened(path, layout)
    expected = pq.read_table(path).column("x").combine_chunks()
    rng = random.Random(seed)
    for _ in range(8):
        first = rng.randrange(count)
        rows = rng.randint(1, count - first)
        read = pages.read(first, rows)
        assert read.type == expected.type and read.null_count == 0
        np.testing.assert_array_equal(bits_of(read), bits_of(expected.slice(first, rows)))


def test_pages_may_be_read_by_several_threads_at_once(tmp_path: Path) -> None:
    datasets = some_datasets(5000, 1)
    pq.write_table(pa.table({"x": encode(datasets)}), tmp_path / "a.parquet", data_page_size=4096, row_group_size=900)
    pages, wrong = opened(tmp_path / "a.parquet"), []

    def read(begin: int) -> None:
        for first in range(begin, 5000, 400):
            found = bits_of(pages.read(first, 100))
            if not np.array_equal(found, datasets[first : first + 100].view(np.uint32).reshape(-1)):
                wrong.append(first)

    threads = [threading.Thread(target=read, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_pages_keeps_nothing_of_pages_that_are_read_to_their_end(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": encode(some_datasets(5000, 1))}), tmp_path / "a.parquet", data_page_size=4096)
    pages = opened(tmp_path / "a.parquet")
    for first in range(0, 5000, 50):
        pages.read(first, 50)
        assert len(pages.pages) <= 1
    assert not pages.pages


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[[1.0] * 3] * 5, None], pa.list_(pa.list_(pa.float32(), 3), 5)),
        pa.array([[[1.0] * 3] * 5, [[1.0] * 3] * 4 + [[1, None, 1]]], pa.list_(pa.list_(pa.float32(), 3), 5)),
        pa.array([[[1.0] * 3] * 5] * 2, pa.list_(pa.list_(pa.float64(), 3), 5)),
        pa.array([[[1.0] * 3] * 5] * 2, pa.list_(pa.list_(pa.float32()))),
        pa.array([[[1.0] * 3] * 6] * 2, pa.list_(pa.list_(pa.float32(), 3), 6)),
        pa.array([[1.0] * 15] * 2, pa.list_(pa.float32(), 15)),
    ],
    ids=["null row", "null number", "float64", "lists of any size", "lists of another size", "another depth"],
)
@pytest.mark.parametrize("statistics", [True, False])
def test_pages_leaves_what_is_not_clean_to_pyarrow(tmp_path: Path, column: pa.Array, statistics: bool) -> None:
    pq.write_table(pa.table({"x": column}), tmp_path / "a.parquet", write_statistics=statistics)
    with pytest.raises(Unexpected):
        opened(tmp_path / "a.parquet").read(0, 2)


def test_pages_leaves_other_encodings_and_names_that_could_be_two_to_pyarrow(tmp_path: Path) -> None:
    x = encode(some_datasets(10, 0))
    pq.write_table(
        pa.table({"x": x}),
        tmp_path / "a.parquet",
        use_dictionary=False,
        use_byte_stream_split=["x.list.element.list.element"],
    )
    with pytest.raises(Unexpected, match="a column chunk of another kind"):
        opened(tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": x, "x.y": x}), tmp_path / "b.parquet")
    with pytest.raises(Unexpected, match="several leaves"):
        opened(tmp_path / "b.parquet")
    pq.write_table(pa.table({"x": x}), tmp_path / "c.parquet")
    with pytest.raises(Unexpected, match="another file than before"):
        Pages(str(tmp_path / "c.parquet"), NESTED, [9])


def test_pages_refuses_a_page_whose_checksum_differs(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    datasets = np.random.default_rng(0).random((100, ROWS, COLUMNS), np.float32)
    pq.write_table(
        pa.table({"x": encode(datasets)}), path, compression="none", use_dictionary=False, write_page_checksum=True
    )
    content = bytearray(path.read_bytes())
    content[content.index(datasets[50].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(Unexpected, match="a checksum that differs"):
        opened(path).read(0, 100)


def test_read_shards_reads_with_pyarrow_from_the_first_page_that_is_not_clean(tmp_path: Path) -> None:
    """The footer does not tell of the null: it is met in the middle of a shard, while another is read ahead."""
    lists: list[Any] = some_datasets(300, 2).tolist()
    lists[130] = None
    x = pa.array(lists, pa.list_(pa.list_(pa.float32(), COLUMNS), ROWS))
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"id": np.arange(300), "x": x}),
        path,
        data_page_size=600,
        write_batch_size=10,
        row_group_size=200,
        write_statistics=False,
    )
    sources = open_sources([str(path)], SPEC, column=None, order=None)
    expected = pq.read_table(path)
    for eager in (True, False):
        read = list(read_shards(sources, plan_shards(sources))) if eager else read_shards(sources, plan_shards(sources))
        for shard, batches in read:
            found = pa.Table.from_batches(list(batches), expected.schema)
            assert found.column("id").equals(expected.slice(shard.first_row, shard.rows).column("id"))
            assert str(found.column("x").to_pylist()) == str(
                expected.slice(shard.first_row, shard.rows).column("x").to_pylist()
            )


def test_read_shards_reads_a_file_with_no_other_column(tmp_path: Path) -> None:
    datasets = some_datasets(100, 3)
    pq.write_table(pa.table({"x": encode(datasets)}), tmp_path / "a.parquet", row_group_size=30)
    sources = open_sources([str(tmp_path / "a.parquet")], SPEC, column=None, order=None)
    ((_, batches),) = read_shards(sources, plan_shards(sources))
    table = pa.Table.from_batches(list(batches))
    np.testing.assert_array_equal(bits_of(table.column("x").combine_chunks()), datasets.view(np.uint32).reshape(-1))


@slow_files
@given(seed=st.integers(0, 10**6), version=st.sampled_from(["1.0", "2.0"]), dictionary=st.booleans())
def test_pages_of_a_damaged_file_are_left_to_pyarrow_or_are_what_it_reads(
    tmp_path: Path, seed: int, version: str, dictionary: bool
) -> None:
    """Bytes in front of the footer are changed: nothing but Unexpected may come of it."""
    path = tmp_path / "a.parquet"
    datasets = some_datasets(60, seed)
    pq.write_table(
        pa.table({"x": encode(datasets)}),
        path,
        compression=random.Random(seed).choice(["none", "snappy", "zstd"]),
        data_page_version=version,
        data_page_size=500,
        use_dictionary=dictionary,
    )
    content, rng = bytearray(path.read_bytes()), random.Random(seed)
    body = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for _ in range(rng.randint(1, 3)):
        content[rng.randrange(4, body)] = rng.randrange(256)
    path.write_bytes(content)
    try:
        found = bits_of(opened(path).read(0, 60))
    except Unexpected:
        return
    np.testing.assert_array_equal(found, bits_of(pq.read_table(path).column("x").combine_chunks()))


def in_runs(numbers: NDArray[np.uint32], bits: int, rng: random.Random) -> bytes:
    """The numbers in the hybrid, in whatever runs: equal ones often as one, others packed in groups of eight."""
    written, at = bytearray(), 0

    def varint(value: int) -> bytes:
        out = bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    while at < len(numbers):
        equal = 1
        while at + equal < len(numbers) and numbers[at + equal] == numbers[at]:
            equal += 1
        groups = rng.choice([1, 2, 2, 2, 63, 70])
        if rng.random() < 0.3 or (len(numbers) - at > 8 * groups and rng.random() < 0.2):
            written += varint(equal << 1) + int(numbers[at]).to_bytes((bits + 7) // 8, "little")
            at += equal
        else:
            chunk = numbers[at : at + 8 * groups]
            groups = -(-len(chunk) // 8)
            packed = sum(int(number) << (bits * place) for place, number in enumerate(chunk))
            written += varint(groups << 1 | 1) + packed.to_bytes(groups * bits, "little")
            at += len(chunk)
    return bytes(written)


@settings(deadline=None)
@given(bits=st.integers(0, 25), count=st.integers(0, 3000), seed=st.integers(0, 10**6))
def test_read_hybrid_gives_the_numbers_in_whatever_runs_they_were_written(bits: int, count: int, seed: int) -> None:
    rng = random.Random(seed)
    numbers = np.array([rng.choice([0, rng.getrandbits(bits)]) for _ in range(count)], np.uint32)
    content = in_runs(numbers, bits, rng)
    np.testing.assert_array_equal(read_hybrid(memoryview(content), bits, count), numbers)
    if content:
        with pytest.raises(NotHybrid):
            read_hybrid(memoryview(content)[: rng.randrange(len(content))], bits, count)
    with pytest.raises(NotHybrid):
        read_hybrid(memoryview(content + b"\x02\x00"), bits, count)


@given(content=st.binary(max_size=200), bits=st.integers(0, 30), count=st.integers(0, 1000))
@example(content=b"\xff\xff\xff\xff\x7f", bits=0, count=1000)  # 2^34 groups of numbers that take no bytes
def test_read_hybrid_of_any_bytes_ends(content: bytes, bits: int, count: int) -> None:
    with contextlib.suppress(NotHybrid):
        assert len(read_hybrid(memoryview(content), bits, count)) == count


@given(content=st.binary(max_size=100))
def test_read_header_of_any_bytes_ends(content: bytes) -> None:
    with contextlib.suppress(NotAHeader):
        header = read_header(content)
        assert 0 <= header.values < 2**31 and 0 <= header.compressed < 2**31 and header.bytes <= len(content)


def test_read_shards_names_the_damage_that_pages_left_to_pyarrow(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": encode(some_datasets(100, 0))}), path, row_group_size=50)
    content = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(1).column(0)
    begin = min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset)
    content[begin : begin + 40] = bytes(40)
    path.write_bytes(content)
    sources = open_sources([str(path)], SPEC, column=None, order=None)
    with pytest.raises(InputError, match=r"a\.parquet, row groups? (1|0 to 1): damaged"):
        for _, batches in read_shards(sources, plan_shards(sources)):
            list(batches)
