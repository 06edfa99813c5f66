"""Observations in any order -> the datasets that a Python dictionary of lists would give."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.datasets.groups import COUNT, DATASET, REASON, group
from toolkit.datasets.ids import codes_of, hashes_of, plain_id
from toolkit.datasets.spill import WORKING_COPIES
from toolkit.datasets.tidy import SOURCE_FILE, SOURCE_ROW, Tidy, group_files
from toolkit.errors import InputError

ROWS = 3
TIDY = Tidy(("id",), ("a", "b"), ROWS)
TINY = 4096  # bytes of memory: everything is spilled, several times over


def expected_groups(tables: list[tuple[str, pa.Table]], tidy: Tidy) -> list[dict[str, Any]]:
    """Row by row, as one would with a dictionary."""
    groups: dict[Any, dict[str, Any]] = {}
    for name, table in tables:
        for row, observation in enumerate(table.to_pylist()):
            key = tuple(observation[column] for column in tidy.by)
            key = tuple(None if isinstance(part, float) and math.isnan(part) else part for part in key)
            found = groups.setdefault(key, {"key": key, "file": name, "row": row, "values": []})
            found["values"].append([observation[column] for column in tidy.columns])
    for found in groups.values():
        if None in found["key"] or any(number is None for values in found["values"] for number in values):
            found["reason"] = "null"
        else:
            found["reason"] = None if len(found["values"]) == tidy.rows else "rows"
    return list(groups.values())


def write(folder: Path, tables: list[pa.Table], row_group_size: int = 5) -> list[str]:
    names = [str(folder / f"{index}.parquet") for index in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        pq.write_table(table, name, row_group_size=row_group_size)
    return names


def check(folder: Path, tables: list[pa.Table], tidy: Tidy = TIDY, **options: Any) -> pa.Table:
    names = write(folder, tables)
    path = folder / "groups.parquet"
    group_files(names, tidy, path, **options)
    assert sorted(file.name for file in folder.iterdir()) == sorted(["groups.parquet", *(Path(n).name for n in names)])
    found = pq.read_table(path)
    expected = expected_groups(list(zip(names, tables, strict=True)), tidy)
    rows = found.to_pylist()
    assert [tuple(row[name] for name in tidy.by) for row in rows] == [group["key"] for group in expected]
    assert [(row[SOURCE_FILE], row[SOURCE_ROW]) for row in rows] == [(g["file"], g["row"]) for g in expected]
    assert [row[COUNT] for row in rows] == [len(group["values"]) for group in expected]
    assert [row[REASON] for row in rows] == [group["reason"] for group in expected]
    for row, wanted in zip(rows, expected, strict=True):
        if wanted["reason"] is None:
            with np.errstate(over="ignore"):
                np.testing.assert_array_equal(np.float32(row[DATASET]), np.array(wanted["values"], float).astype("f4"))
    return found


def table_of(ids: Any, seed: int = 0, type: pa.DataType | None = None) -> pa.Table:
    rng = np.random.default_rng(seed)
    ids = pa.array(ids, type)
    return pa.table({"note": ["n"] * len(ids), "b": rng.integers(0, 9, len(ids)), "id": ids, "a": rng.random(len(ids))})


@pytest.mark.parametrize("memory_bytes", [TINY, 1 << 20])
@pytest.mark.parametrize(
    "arranged",
    [
        lambda ids, rng: ids,
        lambda ids, rng: ids[::-1],
        lambda ids, rng: np.concatenate([ids[300:], ids[:300]]),
        lambda ids, rng: rng.permutation(ids),
        lambda ids, rng: np.sort(ids.reshape(-1, ROWS), axis=0).T.ravel(),
    ],
    ids=["sorted", "falling", "contiguous", "shuffled", "interleaved"],
)
def test_groups_are_found_in_any_order_and_across_files(
    arranged: Callable[..., Any], memory_bytes: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    table = table_of(arranged(np.repeat(np.arange(400), ROWS), rng))
    check(tmp_path, [table.slice(0, 100), table.slice(100, 0), table.slice(100, 1), table.slice(101)],
          memory_bytes=memory_bytes)  # fmt: skip


DAY = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "type"),
    [
        (lambda i: i * 7 - 300, pa.int16()),
        (lambda i: 2**63 + i, pa.uint64()),
        (lambda i: f"subject {i}", pa.string()),
        (lambda i: "ä" * (i % 50) + chr(65 + i % 3) * (i // 50), pa.large_string()),
        (lambda i: f"s{i}", pa.dictionary(pa.int8(), pa.string())),
        (lambda i: f"s{i}", pa.string_view()),
        (lambda i: i.to_bytes(16, "big"), pa.binary(16)),
        (lambda i: bytes(i % 7) + bytes([i]), pa.binary()),
        (lambda i: DAY.replace(microsecond=i), pa.timestamp("us", "UTC")),
        (lambda i: DAY.date().replace(day=1 + i % 28, month=1 + i // 28), pa.date32()),
        (lambda i: Decimal(i) / 4, pa.decimal128(30, 2)),
        (lambda i: [float(i) / 3, math.nan, -0.0, math.inf][i % 4], pa.float64()),
        (lambda i: i % 2 == 0, pa.bool_()),
        (lambda i: None if i % 5 == 0 else i, pa.int64()),
    ],
)
@pytest.mark.parametrize("memory_bytes", [TINY, 1 << 20])
def test_ids_of_any_type_name_groups(name: Callable[[int], Any], type: pa.DataType, memory_bytes: int,
                                     tmp_path: Path) -> None:  # fmt: skip
    rng = np.random.default_rng(2)
    ids = [name(int(i)) for i in rng.permutation(np.repeat(np.arange(100), ROWS))]
    values = pa.array(ids, type.value_type).dictionary_encode() if pa.types.is_dictionary(type) else pa.array(ids, type)
    table = table_of(range(len(ids))).set_column(2, "id", values)
    check(tmp_path, [table.slice(0, 40), table.slice(40)], memory_bytes=memory_bytes)


def test_several_columns_together_are_an_id(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    order = rng.permutation(60 * ROWS)
    table = table_of(np.repeat(np.arange(60), ROWS)[order] // 6)
    table = table.append_column("condition", pa.array([f"c{i}" for i in np.repeat(np.arange(60), ROWS)[order] % 6]))
    for memory_bytes in (TINY, 1 << 20):
        found = check(tmp_path, [table], Tidy(("condition", "id"), ("b", "a"), ROWS), memory_bytes=memory_bytes)
        assert len(found) == 60


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    ids=st.lists(st.one_of(st.none(), st.integers(0, 6)), max_size=40),
    spoiled=st.lists(st.tuples(st.integers(0, 39), st.sampled_from([None, math.nan, math.inf, 1e300])), max_size=3),
    cuts=st.lists(st.integers(0, 40), max_size=2),
    memory_bytes=st.sampled_from([256, 1 << 20]),
    grouped=st.booleans(),
)
def test_any_table_gives_the_groups_that_a_dictionary_gives(
    ids: list[int | None], spoiled: list[tuple[int, Any]], cuts: list[int], memory_bytes: int, grouped: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    if grouped:
        ids = sorted(ids, key=lambda id: -1 if id is None else (id * 5) % 7)
    values: list[Any] = [float(i) for i in range(len(ids))]
    for at, value in spoiled:
        if at < len(values):
            values[at] = value
    table = pa.table({"id": pa.array(ids, pa.int64()), "a": pa.array(values, pa.float64()), "b": np.arange(len(ids))})
    ends = [0, *sorted(cuts), len(ids)]
    tables = [table.slice(begin, max(end - begin, 0)) for begin, end in zip(ends, ends[1:], strict=False)]
    folder = tmp_path_factory.mktemp("any")
    check(folder, tables, memory_bytes=memory_bytes)


def test_a_group_far_too_long_is_counted_without_being_held(tmp_path: Path) -> None:
    """Also where it would have to be spilled: its rows cannot be spread over files."""
    many = 60_000
    for ids in (
        np.concatenate([np.arange(9), np.full(many, 99), np.arange(9, 18)]).repeat(ROWS),
        np.concatenate([np.full(many, 99), np.arange(18).repeat(ROWS), np.full(many, 99)]),
    ):
        table = table_of(ids)
        null = np.zeros(len(ids), np.bool_)
        for late, reason in ((False, "rows"), (True, "null")):
            null[np.flatnonzero(ids == 99)[-1]] = late
            spoiled = table.set_column(3, "a", pa.array(np.arange(len(ids), dtype=float), mask=null))
            (name,) = write(tmp_path, [spoiled], 10_000)
            before = pa.total_allocated_bytes()
            group_files([name], TIDY, tmp_path / "groups.parquet", memory_bytes=1 << 18)
            assert pa.total_allocated_bytes() - before < 1 << 20
            found = pq.read_table(tmp_path / "groups.parquet")
            ((count, why),) = [
                (row[COUNT], row[REASON]) for row in found.to_pylist() if row["id"] == 99
            ]  # fmt: skip
            assert (count, why) == (int((ids == 99).sum()), reason)
            assert found.column(REASON).null_count == 18


def test_no_more_is_grouped_at_once_than_memory_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    (name,) = write(tmp_path, [table_of(rng.permutation(np.repeat(np.arange(20_000), ROWS)))], 5000)  # 1.7 MB
    held = []

    def measured(table: pa.Table, tidy: Tidy) -> pa.Table:
        held.append(table.nbytes)
        return group(table, tidy)

    monkeypatch.setattr("toolkit.datasets.spill.group", measured)
    group_files([name], TIDY, tmp_path / "groups.parquet", memory_bytes=400_000)
    assert max(held) <= 400_000 // WORKING_COPIES and len(held) > 17
    assert pq.read_metadata(tmp_path / "groups.parquet").num_rows == 20_000


GROUPING = """
import re, sys
from pathlib import Path
from toolkit.datasets.spill import WORKING_COPIES
from toolkit.datasets.tidy import Tidy, group_files
group_files([sys.argv[1]], Tidy(("id",), ("a", "b"), 100), Path(sys.argv[2]), memory_bytes=8 << 20)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.soak
def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Shuffled observations, of which 8 MB may be held: 60 MB of them, and 460 MB."""
    rng = np.random.default_rng(4)
    peaks = []
    for groups in (20_000, 160_000):
        (name,) = write(tmp_path, [table_of(rng.permutation(np.repeat(np.arange(groups), 100)))], 50_000)
        done = subprocess.run([sys.executable, "-c", GROUPING, name, tmp_path / "groups.parquet"], capture_output=True,
                              text=True, check=True, cwd=Path(__file__).parent.parent)  # fmt: skip
        peaks.append(int(done.stdout) << 10)
        assert pq.read_metadata(tmp_path / "groups.parquet").num_rows == groups
    # Measured: 191 and 198 MB.
    assert peaks[1] - peaks[0] < 15e6, peaks


def test_the_file_has_the_same_bytes_whatever_the_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    names = write(tmp_path, [table_of(rng.permutation(np.repeat(np.arange(500), ROWS)), seed) for seed in range(2)])
    tables = []
    for memory_bytes in (TINY, 64 << 10, 1 << 30):
        group_files(names, TIDY, tmp_path / "groups.parquet", memory_bytes=memory_bytes)
        tables.append((tmp_path / "groups.parquet").read_bytes())
    assert tables[0] == tables[1] == tables[2]


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    names = write(tmp_path, [table_of(np.arange(3000) % 1000)], 500)
    offset = pq.read_metadata(names[0]).row_group(5).column(3).data_page_offset
    content = bytearray(Path(names[0]).read_bytes())
    content[offset : offset + 40] = bytes(40)
    Path(names[0]).write_bytes(content)
    with pytest.raises(InputError, match=r"0\.parquet, row group"):
        group_files(names, TIDY, tmp_path / "groups.parquet", memory_bytes=TINY)
    assert not (tmp_path / "groups.parquet").exists()
    assert all(file.name.endswith(".partial") for file in tmp_path.iterdir() if file.name != "0.parquet")


@pytest.mark.parametrize(
    ("tidy", "message"),
    [
        (Tidy(("who",), ("a", "b"), 3), "no column 'who', or several, for --group-by. It has: note string, b int64"),
        (Tidy(("id",), ("a", "c"), 3), "no column 'c', or several, for --columns"),
        (Tidy(("id",), ("a", "note"), 3), "column 'note' is string, which --columns does not take"),
        (Tidy(("lists",), ("a", "b"), 3), "column 'lists' is list<.*>, which --group-by does not take"),
    ],
)
def test_group_files_names_the_column_that_is_wrong(tidy: Tidy, message: str, tmp_path: Path) -> None:
    table = table_of([1, 2]).append_column("lists", pa.array([[1], [2]]))
    with pytest.raises(InputError, match=message):
        group_files(write(tmp_path, [table]), tidy, tmp_path / "groups.parquet")


def test_constant_columns_are_kept_and_changing_ones_are_nan(tmp_path: Path) -> None:
    table = table_of([1, 1, 1, 2, 2, 2]).append_column("v", pa.array([0.5, 0.5, 0.5, 1, 1, 2]))
    for order in ([0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]):
        names = write(tmp_path, [table.take(order)])
        group_files(names, Tidy(("id",), ("a", "b"), 3, ("v",)), tmp_path / "groups.parquet")
        np.testing.assert_array_equal(pq.read_table(tmp_path / "groups.parquet").column("v"), [0.5, np.nan])


def test_hashes_agree_between_encodings_and_spread_evenly() -> None:
    texts = [f"subject {i}" for i in range(20_000)]
    plain = hashes_of([pa.array(texts, pa.large_string())])
    for type in (pa.string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        np.testing.assert_array_equal(hashes_of([plain_id(pa.array(texts, type))]), plain)
    np.testing.assert_array_equal(hashes_of([pa.array(texts)[777:]]), plain[777:])
    for ids in (pa.array(texts), pa.array(range(20_000)), pa.array(range(0, 20_000 << 32, 1 << 32))):
        for salt in (0, 1):
            hashes = hashes_of([ids], salt)
            assert len(np.unique(hashes)) == 20_000
            counts = np.bincount((hashes % np.uint64(64)).astype(int), minlength=64)
            # Of 312 expected in each, the standard deviation is 18.
            assert counts.min() > 220 and counts.max() < 410
    assert not (hashes_of([pa.array([1, 2])], 0) == hashes_of([pa.array([1, 2])], 1)).any()


def test_ids_that_share_a_hash_are_told_apart(tmp_path: Path) -> None:
    """Texts that differ after the bytes that are hashed."""
    ids = np.random.default_rng(6).permutation(np.repeat(np.arange(300), ROWS))
    texts = [f"{'x' * 300}{i}" for i in ids]
    assert len(np.unique(hashes_of([pa.array(texts)]))) == 1
    check(tmp_path, [table_of(texts)], memory_bytes=TINY)


def test_codes_number_ids_in_order_of_first_appearance() -> None:
    codes, first = codes_of([pa.array(["b", "a", None, "b", None, "c"])])
    assert codes.tolist() == [0, 1, 2, 0, 2, 3] and first.tolist() == [0, 1, 2, 5]
    codes, first = codes_of([pa.array([1, 1, 2, 1]), pa.array([5, 6, 5, 5])])
    assert codes.tolist() == [0, 1, 2, 0] and first.tolist() == [0, 1, 2]
    codes, first = codes_of([pa.array([], pa.int64())])
    assert codes.tolist() == first.tolist() == []
