"""Parts and results in a folder and in an object store: whole or not at all, on a real S3 server."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3_server
from click.testing import Result

from toolkit.batch import batch_predict
from toolkit.batch.lock import LOCK_FILE, owned, owner_of
from toolkit.batch.paths import Paths, default_output
from toolkit.batch.sources import find_files
from toolkit.batch.storage import Folder, folder_of, is_there, open_folder
from toolkit.errors import InputError, OutputError
from toolkit.places import join, open_input, open_uri, parent_and_name, size_and_change

OUTPUT, REJECTED = "out.parquet", "out.rejected.parquet"
ROWS = 270


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.Server]:
    before = {name: os.environ.get(name) for name in s3_server.ENVIRONMENT}
    os.environ.update(s3_server.ENVIRONMENT)
    with s3_server.running(tmp_path_factory.mktemp("s3") / "server.log") as server:
        yield server
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


@pytest.fixture
def bucket(server: s3_server.Server, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The URI of a key below a folder of this test's own."""
    return lambda key: server.uri(f"{request.node.name.partition('[')[0]}/{key}".rstrip("/"))


@pytest.fixture(params=["local", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return open_folder(tmp_path)
    uri: Callable[[str], str] = request.getfixturevalue("bucket")
    folder = open_folder(uri("folder"))
    for name in folder.names():
        folder.remove(name)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.batch.shards.MAX_ROWS", 30)
    for name, seconds in (("SETTLE", 0.05), ("RENEW", 0.1), ("LEASE", 0.6), ("LOOK", 0.05)):
        monkeypatch.setattr(f"toolkit.batch.lock.{name}_SECONDS", seconds)


@pytest.fixture
def given(small_datasets: Path, tmp_path: Path) -> Path:
    """270 datasets, nine shards; row 5 and row 200 are none."""
    table = pq.read_table(small_datasets).slice(0, ROWS)
    column = table.column_names.index("x")
    lists: list[Any] = table.column("x").to_pylist()
    lists[5], lists[200] = None, lists[200][:-1]
    table = table.set_column(column, "x", pa.array(lists, pa.list_(pa.list_(pa.float32()))))
    pq.write_table(table, tmp_path / "input.parquet", row_group_size=70)
    return tmp_path / "input.parquet"


def content(place: object) -> bytes:
    with open_input(str(place)) as file:
        return bytes(file.read())


def test_a_folder_gives_back_what_was_written_and_forgets_what_was_removed(folder: Folder) -> None:
    assert folder.names() == [] and folder.read("a") is None
    folder.write("b", pa.py_buffer(b"second"))
    folder.write("a", b"first")
    folder.write("a", b"replaced")
    again: Folder = pickle.loads(pickle.dumps(folder))
    assert again == folder and again.names() == ["a", "b"]
    assert (again.read("a"), again.read("b")) == (b"replaced", b"second")
    folder.remove("a")
    folder.remove("a")
    assert folder.names() == ["b"]


def test_what_is_streamed_appears_at_the_end_and_replaces_what_was_there(folder: Folder) -> None:
    folder.write("result", b"old")
    with folder.writer("result", folder) as sink:
        sink.write(b"x" * (12 << 20))  # more than one part of a multipart upload
        assert folder.read("result") == b"old"
    assert folder.read("result") == b"x" * (12 << 20)
    assert folder.names() == ["result"]


def test_what_is_left_by_an_error_never_appears(folder: Folder) -> None:
    folder.write("result", b"old")
    for written in (1, 12 << 20):
        with pytest.raises(KeyboardInterrupt), folder.writer("result", folder) as sink:
            sink.write(b"x" * written)
            raise KeyboardInterrupt
    del sink
    assert folder.read("result") == b"old" and folder.names() == ["result"]


STREAMED = """
import sys
from toolkit.batch.storage import open_folder

folder = open_folder(sys.argv[1])
with folder.writer("result", folder) as sink:
    sink.write(b"x" * (12 << 20))
    if sys.argv[2] == "leave":
        raise ValueError("on purpose")
"""


@pytest.mark.parametrize(("what", "names"), [("leave", []), ("finish", ["result"])])
def test_an_upload_left_by_an_error_does_not_appear_when_the_process_ends(
    what: str, names: list[str], bucket: Callable[[str], str]
) -> None:
    command = [sys.executable, "-c", STREAMED, bucket("folder"), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ("on purpose" in done.stderr) == (what == "leave"), done.stderr
    assert open_folder(bucket("folder")).names() == names


def test_a_small_object_takes_a_single_put(bucket: Callable[[str], str], server: s3_server.Server) -> None:
    open_folder(bucket("")).write("part", b"rows")
    key = "test_a_small_object_takes_a_single_put/part"
    assert (server.requests("PUT", key), server.requests("POST", key)) == (1, 0)


def test_names_keep_the_query_at_their_end() -> None:
    uri = "s3://bucket/a%20b/c.parquet?region=x&scheme=http"
    assert parent_and_name(uri) == ("s3://bucket/a%20b?region=x&scheme=http", "c.parquet")
    assert join("s3://bucket/a%20b?region=x", "c d?e.parquet") == "s3://bucket/a%20b/c%20d%3Fe.parquet?region=x"
    paths = Paths.of(uri)
    assert paths.rejected == "s3://bucket/a%20b/c.rejected.parquet?region=x&scheme=http"
    assert paths.work == "s3://bucket/a%20b/c.parquet.unfinished?region=x&scheme=http"
    assert default_output([uri], [uri]) == "s3://bucket/a%20b/c.predictions.parquet?region=x&scheme=http"


def test_files_are_found_by_name_by_folder_and_by_pattern(bucket: Callable[[str], str]) -> None:
    names = ["a.parquet", "b.parquet", "c.csv", "_d.parquet", "a.predictions.parquet", "x.unfinished/1.parquet"]
    for name in (*names, "deep/e f.parquet"):
        folder, last = folder_of(bucket(name))
        folder.write(last, b"0")
    assert find_files([bucket("a.parquet")]) == [bucket("a.parquet")]
    whole = [bucket("a.parquet"), bucket("b.parquet"), bucket("deep/e%20f.parquet")]
    assert find_files([bucket("")]) == whole
    assert find_files([bucket("[ac]*")]) == [bucket("a.parquet")]
    assert find_files([bucket("*.parquet")]) == whole[:2]
    assert size_and_change(whole[2])[0] == 1
    with pytest.raises(InputError, match=r"none\.parquet\?.*: no such object or folder\."):
        find_files([bucket("none.parquet")])
    with pytest.raises(InputError, match="no Parquet file here"):
        find_files([bucket("*.csv")])
    with pytest.raises(InputError, match="named twice"):
        find_files([bucket(""), bucket("b.parquet")])


def test_credentials_in_a_name_are_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match=r"s3://\.\.\.@bucket: holds credentials") as raised:
        open_uri("s3://key:secret@bucket/file.parquet")
    assert "secret" not in str(raised.value)


def test_file_uris_are_paths(given: Path, exported: Path) -> None:
    summary = batch_predict(f"file://{given}", model=exported, check="off")
    assert summary.output == given.with_name("input.predictions.parquet")
    assert set(pq.read_table(summary.output)["source_file"].to_pylist()) == {str(given)}


@pytest.fixture
def undisturbed(given: Path, exported: Path, tmp_path: Path) -> tuple[bytes, bytes]:
    (tmp_path / "undisturbed").mkdir()
    summary = batch_predict(given, model=exported, check="off", output=tmp_path / "undisturbed" / OUTPUT)
    return content(summary.output), content(summary.rejected)


def test_the_result_in_an_object_store_is_that_of_a_folder(
    given: Path, exported: Path, bucket: Callable[[str], str], undisturbed: tuple[bytes, bytes]
) -> None:
    summary = batch_predict(given, model=exported, check="off", output=bucket(OUTPUT))
    assert (summary.output, summary.rejected) == (bucket(OUTPUT), bucket(REJECTED))
    assert (content(summary.output), content(summary.rejected)) == undisturbed
    assert open_folder(bucket("")).names() == [OUTPUT, REJECTED]
    assert open_folder(bucket(f"{OUTPUT}.unfinished")).names() == []
    with pytest.raises(OutputError, match="exists. Replace it with --overwrite"):
        batch_predict(given, model=exported, check="off", output=bucket(OUTPUT))
    batch_predict(given, model=exported, check="off", output=bucket(OUTPUT), overwrite=True)
    assert content(bucket(OUTPUT)) == undisturbed[0]


def test_inputs_in_an_object_store_are_scored_beside_themselves(
    given: Path, exported: Path, bucket: Callable[[str], str], toolkit_command: Callable[..., Result]
) -> None:
    open_folder(bucket("")).write("input.parquet", given.read_bytes())
    done = toolkit_command("batch-predict", bucket("input.parquet"), "--model", exported, "--check", "off", "--quiet")
    assert done.exit_code == 3, done.stderr
    local = batch_predict(given, model=exported, check="off")
    for kind in ("predictions", "rejected"):
        name = f"input.predictions.{'' if kind == 'predictions' else 'rejected.'}parquet"
        here, there = (pq.read_table(pa.py_buffer(content(at))) for at in (given.with_name(name), bucket(name)))
        assert there.drop_columns("source_file").equals(here.drop_columns("source_file")), kind
        assert set(there["source_file"].to_pylist()) == {bucket("input.parquet")}
    assert local.rows_rejected == 2


def test_an_absent_bucket_is_one_error(given: Path, exported: Path, server: s3_server.Server) -> None:
    uri = server.uri("out.parquet").replace("bucket", "nowhere")
    with pytest.raises(OutputError, match=r"nowhere.*--resume") as raised:
        batch_predict(given, model=exported, check="off", output=uri)
    assert "\n" not in str(raised.value)


KILLED = """
import os, signal, sys
import toolkit.batch.lock, toolkit.batch.shards
from toolkit.batch import batch_predict
from toolkit.batch.storage import RemoteFolder

toolkit.batch.shards.MAX_ROWS = 30
toolkit.batch.lock.SETTLE_SECONDS = 0.05
source, model, output, name = sys.argv[1:]
write, writer = RemoteFolder.write, RemoteFolder.writer

def killed(self, written, *rest):
    if written == name:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, written, *rest)

def killed_too(self, written, *rest):
    if written == name:
        os.kill(os.getpid(), signal.SIGKILL)
    return writer(self, written, *rest)

RemoteFolder.write, RemoteFolder.writer = killed, killed_too
batch_predict(source, model=model, output=output, check="off", workers=1)
"""


@pytest.mark.parametrize("name", ["run.json", "000004.json", REJECTED])
def test_resume_finishes_a_run_that_was_killed(
    name: str, given: Path, exported: Path, bucket: Callable[[str], str], undisturbed: tuple[bytes, bytes]
) -> None:
    for left in (OUTPUT, REJECTED):
        open_folder(bucket("")).remove(left)
    command = [sys.executable, "-c", KILLED, str(given), str(exported), bucket(OUTPUT), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    work = open_folder(bucket(f"{OUTPUT}.unfinished"))
    assert LOCK_FILE in work.names() and not is_there(bucket(OUTPUT))
    summary = batch_predict(given, model=exported, check="off", output=bucket(OUTPUT), resume=True)
    assert (content(summary.output), content(summary.rejected)) == undisturbed
    assert work.names() == [] and owner_of(bucket(f"{OUTPUT}.unfinished")) is None


def test_a_folder_has_one_owner_as_long_as_it_lives(bucket: Callable[[str], str]) -> None:
    place = bucket("work")
    with owned(place):
        assert (owner_of(place) or "").startswith(f"{os.getpid()} on ")
        with pytest.raises(OutputError, match=rf"another batch-predict \(process {os.getpid()} on .*\) is writing"):
            owned(place).__enter__()
    assert owner_of(place) is None and open_folder(place).names() == []


def test_a_lock_that_nobody_renews_is_taken_over_and_its_owner_stops(bucket: Callable[[str], str]) -> None:
    place = bucket("work")
    folder = open_folder(place)
    folder.write(LOCK_FILE, b'{"owner": "1", "machine": ["another machine", "x", "y"], "process": 7, "renewed": 3}')
    with owned(place) as check_owned:
        check_owned()
        folder.write(LOCK_FILE, b'{"owner": "2", "machine": ["another machine", "x", "y"], "process": 8, "renewed": 0}')
        until = time.monotonic() + 20
        with pytest.raises(OutputError, match="was taken over by another batch-predict. This run stops here."):
            while time.monotonic() < until:
                check_owned()
                time.sleep(0.02)
    assert b'"2"' in (folder.read(LOCK_FILE) or b""), "the lock of the new owner is left alone"


def test_of_two_runs_that_begin_at_once_one_goes_on(
    bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.batch.lock.SETTLE_SECONDS", 1.0)
    place, entered, refused = bucket("work"), [], []
    together = threading.Barrier(2)

    def begin() -> None:
        together.wait()
        try:
            with owned(place):
                entered.append(1)
                time.sleep(1.5)
        except OutputError:
            refused.append(1)

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(entered), len(refused)) == (1, 1)


def test_tidy_tables_in_an_object_store_are_grouped_there(
    bucket: Callable[[str], str], exported: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    count, rows = 12, 24
    order = rng.permutation(np.repeat(np.arange(count), rows))
    signal = rng.random(count * rows)
    signal[5] = np.nan
    table = pa.table({"id": order, "time": rng.random(count * rows), "signal": signal})
    written = {}
    for name, place in (("local", str(tmp_path / "a.parquet")), ("remote", bucket("a.parquet"))):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        home, file = folder_of(place)
        home.write(file, sink.getvalue())
        summary = batch_predict(place, model=exported, group_by="id", check="off")
        assert (summary.rows_in, summary.rows_rejected) == (count, 1)
        assert summary.rejected is not None
        for kind, result in (("predicted", summary.output), ("rejected", summary.rejected)):
            with open_input(str(result)) as opened:
                written[name, kind] = pq.read_table(opened).drop_columns(["source_file"])
    assert written["local", "predicted"].equals(written["remote", "predicted"])
    assert str(written["local", "rejected"].to_pylist()) == str(written["remote", "rejected"].to_pylist())
    home, _ = folder_of(bucket("a.parquet"))
    assert [name for name in home.names() if "unfinished" in name] == []
