"""Which files are scored, which columns go where, and how rows are cut into shards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from toolkit.batch.columns import check_schemas, output_schema, rejected_schema, user_schema
from toolkit.batch.shards import LAST_PARTS, MAX_ROWS, READ_ROWS, plan_shards, read_shards, shard_rows
from toolkit.batch.sources import Source, check_unchanged_since, find_files, open_sources
from toolkit.datasets import encode
from toolkit.errors import InputError
from toolkit.spec import Spec

SPEC = Spec(3, ("a", "b"), ("v", "w"))


def write(path: Path, rows: int = 10, row_group_size: int = 4, **columns: Any) -> Path:
    datasets = np.arange(rows * 6, dtype=np.float32).reshape(rows, 3, 2)
    table = pa.table({"id": np.arange(rows), "x": encode(datasets), **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def opened(*paths: Path) -> tuple[Source, ...]:
    return open_sources([str(path) for path in paths], SPEC, column=None, order=None)


def test_find_files_keeps_the_order_given_and_the_path_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "b.parquet")
    write(tmp_path / "folder" / "deep" / "a.parquet")
    write(tmp_path / "folder" / "z.parquet")
    monkeypatch.chdir(tmp_path)
    assert find_files(["./b.parquet", Path("folder")]) == [
        "./b.parquet",
        os.path.join("folder", "deep", "a.parquet"),
        os.path.join("folder", "z.parquet"),
    ]
    assert find_files(["folder/**/*.parquet"]) == ["folder/deep/a.parquet", "folder/z.parquet"]
    assert find_files([str(tmp_path / "b.parquet")]) == [str(tmp_path / "b.parquet")]


def test_find_files_leaves_out_of_folders_what_is_no_input(tmp_path: Path) -> None:
    kept = write(tmp_path / "in" / "a.parquet")
    for name in (".hidden.parquet", "_temporary/b.parquet", "a.predictions.parquet", "a.rejected.parquet", "notes.txt"):
        write(tmp_path / "in" / name)
    write(tmp_path / "in" / "a.predictions.parquet.unfinished" / "0.parquet")
    write(tmp_path / "in" / "a.violation.parquet")
    assert find_files([tmp_path / "in"]) == [str(kept)]
    assert find_files([str(tmp_path / "in" / "*.parquet")]) == [str(kept)]
    rejected = tmp_path / "in" / "a.rejected.parquet"
    assert find_files([rejected]) == [str(rejected)], "a file that is named is taken whatever its name"


def test_find_files_searches_a_folder_below_a_hidden_one(tmp_path: Path) -> None:
    kept = write(tmp_path / ".cache" / "in" / "a.parquet")
    assert find_files([tmp_path / ".cache" / "in"]) == [str(kept)]


def test_find_files_follows_links_to_folders_without_going_round_in_circles(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere" / "a.parquet").parent
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "back").symlink_to(folder)
    (folder / "linked").symlink_to(elsewhere)
    (folder / "linked again").symlink_to(elsewhere)
    assert find_files([folder]) == [str(folder / "linked" / "a.parquet")]


def test_find_files_does_not_pass_over_a_folder_it_cannot_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "a.parquet")
    write(tmp_path / "in" / "closed" / "b.parquet")
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(InputError, match=r"closed: cannot be searched \(Permission denied\)"):
        find_files([tmp_path / "in"])


def test_find_files_takes_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    odd = write(tmp_path / "a[1].parquet")
    assert find_files([odd]) == [str(odd)]


@pytest.mark.parametrize("name", ["none.parquet", "none", "none*.parquet", "empty"])
def test_find_files_refuses_a_name_with_nothing_behind_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no such file or folder|no Parquet file here"):
        find_files([tmp_path / name])


def test_find_files_refuses_a_file_named_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "a.parquet")
    (tmp_path / "link.parquet").symlink_to(path)
    for again in (path, tmp_path / "in", tmp_path / "link.parquet"):
        with pytest.raises(InputError, match=r"named twice \(also as .*a\.parquet\). Leave one out"):
            find_files([path, again])


def test_open_sources_reads_the_footer(tmp_path: Path) -> None:
    (source,) = opened(write(tmp_path / "a.parquet"))
    assert source.name == str(tmp_path / "a.parquet") and source.rows == 10 and source.row_groups == (4, 4, 2)
    assert source.layout.column == "x" and source.bytes == (tmp_path / "a.parquet").stat().st_size
    copied = tmp_path / "b.parquet"
    copied.write_bytes((tmp_path / "a.parquet").read_bytes())
    (same,), (other,) = opened(copied), opened(write(tmp_path / "c.parquet", rows=11))
    assert same.footer_sha256 == source.footer_sha256 != other.footer_sha256


def test_check_unchanged_since_notices_a_file_that_was_touched_or_taken_away(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    (source,) = opened(path)
    check_unchanged_since(source)
    os.utime(path, ns=(source.modified_ns + 1, source.modified_ns + 1))
    with pytest.raises(InputError, match=r"a\.parquet: changed while it was being scored"):
        check_unchanged_since(source)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.parquet: gone while it was being scored"):
        check_unchanged_since(source)


def test_output_schema_holds_all_but_the_datasets(tmp_path: Path) -> None:
    (source,) = opened(write(tmp_path / "a.parquet", note=pa.array(["n"] * 10)))
    assert output_schema(source, SPEC.parameters).names == [
        *("id", "note", "predicted_v", "predicted_w"),
        *("source_file", "source_row"),
    ]
    assert output_schema(source, SPEC.parameters).field("predicted_v") == pa.field("predicted_v", pa.float32(), False)
    assert rejected_schema(source).names == ["id", "x", "note", "source_file", "source_row", "reason"]
    assert rejected_schema(source).field("x").type == source.schema.field("x").type


ORIGIN = {
    "source_file": pa.array(["f"] * 10),
    "source_row": pa.array(range(10)),
    "reason": pa.array(["nan"] * 10),
}


def test_user_schema_drops_the_three_columns_of_rejected_rows_only_together(tmp_path: Path) -> None:
    (source,) = opened(write(tmp_path / "a.parquet", **ORIGIN))
    assert user_schema(source.schema).names == ["id", "x"]
    check_schemas([source], SPEC.parameters)
    assert rejected_schema(source).names == ["id", "x", "source_file", "source_row", "reason"]
    for name in ORIGIN:
        for columns in ({name: ORIGIN[name]}, {**ORIGIN, name: pa.array([1.5] * 10)}):
            (source,) = opened(write(tmp_path / "a.parquet", **columns))
            with pytest.raises(
                InputError, match=r"has a column '\w+' already, which the result needs. Rename or drop it"
            ):
                check_schemas([source], SPEC.parameters)


def test_check_schemas_takes_rejected_rows_beside_the_files_they_come_from(tmp_path: Path) -> None:
    check_schemas(opened(write(tmp_path / "a.parquet"), write(tmp_path / "b.parquet", **ORIGIN)), SPEC.parameters)


def test_check_schemas_refuses_a_column_that_the_output_adds(tmp_path: Path) -> None:
    sources = opened(write(tmp_path / "a.parquet", predicted_w=np.ones(10)))
    with pytest.raises(InputError, match=r"a\.parquet: has a column 'predicted_w' already"):
        check_schemas(sources, SPEC.parameters)
    check_schemas(sources, ["v"])


@pytest.mark.parametrize(
    ("columns", "difference"),
    [
        ({"n": np.ones(10)}, "column 'n' is double, in .*a.parquet it is int64"),
        ({}, "column 'n' is absent, in .*a.parquet it is int64"),
        ({"n": np.arange(10), "m": np.ones(10)}, "column 'm' is double, in .*a.parquet it is absent"),
    ],
)
def test_check_schemas_names_the_column_in_which_files_differ(
    columns: dict[str, Any], difference: str, tmp_path: Path
) -> None:
    sources = opened(write(tmp_path / "a.parquet", n=np.arange(10)), write(tmp_path / "b.parquet", **columns))
    with pytest.raises(InputError, match=f"b.parquet: {difference}"):
        check_schemas(sources, SPEC.parameters)


def test_check_schemas_refuses_columns_in_another_order_or_twice(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet")
    pq.write_table(pq.read_table(first).select(["x", "id"]), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: its columns are in another order than in .*a\.parquet"):
        check_schemas(opened(first, tmp_path / "b.parquet"), SPEC.parameters)
    table = pq.read_table(first)
    pq.write_table(table.append_column("id", table.column("id")), tmp_path / "c.parquet")
    with pytest.raises(InputError, match=r"c\.parquet: two columns are named 'id'. Rename one"):
        check_schemas(opened(tmp_path / "c.parquet"), SPEC.parameters)


def test_plan_shards_covers_every_row_once_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [
        write(tmp_path / f"{name}.parquet", rows=int(rng.integers(0, 30)), row_group_size=int(rng.integers(1, 12)))
        for name in range(8)
    ]
    sources = opened(*paths)
    shards = plan_shards(sources)
    assert [shard.index for shard in shards] == list(range(len(shards)))
    covered = [(shard.source, shard.first_row + row) for shard in shards for row in range(shard.rows)]
    assert covered == [(index, row) for index, source in enumerate(sources) for row in range(source.rows)]


@pytest.mark.parametrize("row_group_size", [100, 3000, 10**6])
def test_plan_shards_cuts_a_file_the_same_whatever_its_row_groups(tmp_path: Path, row_group_size: int) -> None:
    (source,) = opened(write(tmp_path / "a.parquet", rows=2 * MAX_ROWS + 5, row_group_size=row_group_size))
    shards = plan_shards([source])
    assert [shard.rows for shard in shards] == [3 * READ_ROWS, *[2 * READ_ROWS] * 3, *[READ_ROWS] * 7, 5]


def test_plan_shards_takes_whole_shards_until_little_is_left(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.parquet", rows=40_000) for name in range(3)]
    sizes = [shard.rows for shard in plan_shards(opened(*paths))]
    assert sizes[:5] == [MAX_ROWS] * 4 + [40_000 - 4 * MAX_ROWS], "a shard ends with its file"
    left = np.cumsum(sizes[::-1])[::-1]
    assert all(size < rest / LAST_PARTS + READ_ROWS for size, rest in zip(sizes, left, strict=True))
    assert sizes[-1] <= READ_ROWS


def test_shards_of_large_datasets_hold_fewer_rows(tmp_path: Path) -> None:
    for rows, expected in ((200, MAX_ROWS), (2000, 1024), (20_000, 104), (10_000_000, 1)):
        spec = Spec(rows, ("a", "b"), ("v",))
        type = pa.list_(pa.list_(pa.float32(), 2), rows)
        pq.write_table(pa.table({"x": pa.array([], type)}), tmp_path / "a.parquet")
        (source,) = open_sources([str(tmp_path / "a.parquet")], spec, column=None, order=None)
        assert shard_rows(source) == expected
    assert MAX_ROWS % READ_ROWS == 0


def test_read_shards_gives_the_rows_of_any_choice_of_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", 7)
    monkeypatch.setattr("toolkit.batch.shards.READ_ROWS", 3)
    monkeypatch.setattr("toolkit.batch.shards.LAST_PARTS", 1)
    sources = opened(
        write(tmp_path / "a.parquet", rows=40, row_group_size=25),
        write(tmp_path / "b.parquet", rows=5),
        write(tmp_path / "c.parquet", rows=0),
    )
    shards = plan_shards(sources)
    assert [shard.rows for shard in shards] == [6, 6, 6, 6, 6, 6, 4, 5]
    tables = [pq.read_table(source.name) for source in sources]
    wanted_first = [shards[5]]  # rows 30 to 35, in the second row group of 25: five rows of it come before
    ((_, batches),) = read_shards(sources, wanted_first)
    assert pa.Table.from_batches(batches).column("id").to_pylist() == list(range(30, 36))
    rng = np.random.default_rng(0)
    for _ in range(20):
        wanted = [shard for shard in shards if rng.random() < 0.5]
        read = list(read_shards(sources, wanted))
        assert [shard for shard, _ in read] == wanted
        for shard, batches in read:
            expected = tables[shard.source].slice(shard.first_row, shard.rows)
            assert pa.Table.from_batches(batches, expected.schema).equals(expected)
            assert all(batch.num_rows <= 3 for batch in batches)


def test_read_shards_names_a_file_that_ends_too_early(tmp_path: Path) -> None:
    (source,) = opened(write(tmp_path / "a.parquet"))
    shards = plan_shards([source])
    write(tmp_path / "a.parquet", rows=9)
    with pytest.raises(InputError, match=r"a\.parquet: ends 1 rows before its footer says"):
        list(read_shards([source], shards))
