"""samples/browser in a real Chromium: its estimates, what it says of bad files, its layout, and the keyboard."""

from __future__ import annotations

import csv
import io
import json
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.browser import Browser, Page, find_chromium, open_browser
from tests.edge_inputs import MODEL, ROOT, real_datasets, require
from tests.edge_web import served
from toolkit.datasets import sort_rows
from toolkit.manifest import read_manifest
from toolkit.runtime import load
from toolkit.targets.npm import installed, why_no_node

PROJECT = ROOT / "samples" / "browser"
MEASURED = ROOT / "samples" / "response_times.parquet"
HOST = 2e-6  # largest relative difference from the host's estimates. Measured: 3.7e-7, in onnxruntime-web
NAMES = ("v", "a", "t0")
SORTED = read_manifest(MODEL).spec.sorted_rows
DONE = "!document.querySelector('#results').hidden || !document.querySelector('#error').hidden"

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def packages() -> Path:
    """A folder with the page's node_modules in it."""
    require(why_no_node())
    return installed("browser-page", PROJECT).parent


def build(packages: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["node", str(PROJECT / "build.mjs"), *map(str, arguments)]
    return subprocess.run(command, cwd=packages, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "site"
    done = build(packages, "--to", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    binary = find_chromium()
    require("" if binary else "no Chromium is installed: apt-get install chromium-headless-shell")
    assert binary is not None
    with open_browser(binary) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with served(site) as url:
        yield f"{url}index.html"


@pytest.fixture
def opened(browser: Browser, address: str) -> Open:
    """The page, ready for a file."""

    def open_page(width: int = 1100, scheme: str = "light") -> Page:
        page = browser.open(address, width=width, scheme=scheme)
        page.wait_until(
            "document.documentElement.dataset.ready === 'yes' && !document.querySelector('#example').disabled"
        )
        return page

    return open_page


def choose(page: Page, file: Path) -> None:
    """Choose a file, and wait for its estimates or an error."""
    page.evaluate("document.querySelector('#results').hidden = document.querySelector('#error').hidden = true")
    page.choose_file("#file", file)
    page.wait_until(DONE)


def said(page: Page, selector: str) -> str:
    """The text of an element that is seen; empty where it is hidden."""
    found = f"document.querySelector({json.dumps(selector)})"
    return str(page.evaluate(f"{found}.checkVisibility() ? {found}.innerText : ''")).strip()


def downloaded(page: Page, folder: Path) -> list[dict[str, str]]:
    """Rows of the CSV file that the download button gives."""
    page.browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    before = set(folder.iterdir())
    page.evaluate("document.querySelector('#download').click()")
    for _ in range(500):
        new = [path for path in set(folder.iterdir()) - before if path.suffix == ".csv"]
        if new:
            return list(csv.DictReader(io.StringIO(new[0].read_text(encoding="utf-8"), newline="")))
        time.sleep(0.02)
    raise AssertionError("nothing was downloaded")


def estimates_of(rows: list[dict[str, str]]) -> np.ndarray[Any, Any]:
    return np.array([[float(row[f"predicted_{name}"]) for name in NAMES] for row in rows])


def host_estimates(datasets: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    datasets = datasets.astype(np.float32)
    return load(MODEL / "model.float32.onnx")(sort_rows(datasets) if SORTED else datasets)


def csv_of(
    datasets: np.ndarray[Any, Any], header: str = "subject,rt,correct", line: str = "s{0},{1:.9g},{2:.9g}"
) -> str:
    lines = [line.format(index, *row) for index, dataset in enumerate(datasets) for row in dataset.tolist()]
    return "\n".join([header, *lines]) + "\n"


def test_estimates_of_real_datasets_are_those_of_the_host_and_nothing_is_sent(opened: Open, tmp_path: Path) -> None:
    page = opened()
    page.settle()
    page.requests.clear()
    choose(page, MEASURED)
    rows = downloaded(page, tmp_path)
    page.settle()
    assert [url for url in page.requests if not url.startswith("blob:")] == [] and page.complaints == []
    datasets = real_datasets()[:34]
    assert np.allclose(estimates_of(rows), host_estimates(datasets), rtol=HOST, atol=0)
    assert [row["dataset"] for row in rows] == pq.read_table(MEASURED)["dataset_id"].to_pylist()
    assert said(page, "#results-title") == "Estimates of 34 datasets"
    assert said(page, "#status") == "34 datasets read: 34 estimated, 0 not."
    cells = page.evaluate("[...document.querySelectorAll('tbody td')].map(cell => Number(cell.textContent))")
    assert np.allclose(np.reshape(cells, (34, 3)), estimates_of(rows), rtol=5e-4, atol=0)  # four digits are shown
    dots = page.evaluate(
        "[...document.querySelectorAll('path.dots')].map(path => path.getAttribute('d').split('M').length)"
    )
    assert dots == [35, 35, 35]


def test_the_example_is_estimated(opened: Open) -> None:
    page = opened()
    page.evaluate("document.querySelector('#example').click()")
    page.wait_until(DONE)
    assert said(page, "#status") == "34 datasets read: 34 estimated, 0 not."


def encoded(kind: str, datasets: np.ndarray[Any, Any]) -> bytes:
    """The same datasets as programs write them."""
    match kind:
        case "comma":
            return csv_of(datasets).encode()
        case "decimal comma":
            return csv_of(datasets, "Subject;RT;Correct", "s{0};{1:.9g};{2:.0f}").replace(".", ",").encode()
        case "UTF-16 with tabs":
            return csv_of(datasets, "rt\tcorrect\tsubject", "{1:.9g}\t{2}\ts{0}").encode("utf-16")
        case "quotes, CRLF and a byte order mark":
            quoted = csv_of(datasets, '"subject","rt","correct"', '"s, ""{0}""","{1:.9g}",{2}')
            return b"\xef\xbb\xbf" + quoted.replace("\n", "\r\n").encode()
        case _:
            return csv_of(datasets).replace(",1\n", ",TRUE\n").replace(",0\n", ",FALSE\n").encode()


ENCODINGS = ("comma", "decimal comma", "UTF-16 with tabs", "quotes, CRLF and a byte order mark", "true and false")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_csv_of_every_kind_gives_the_estimates_of_the_host(encoding: str, opened: Open, tmp_path: Path) -> None:
    datasets = real_datasets()[:3]
    file = tmp_path / "trials.csv"
    file.write_bytes(encoded(encoding, datasets))
    page = opened()
    choose(page, file)
    assert said(page, "#error") == ""
    assert np.allclose(estimates_of(downloaded(page, tmp_path)), host_estimates(datasets), rtol=HOST, atol=0)


def test_csv_without_an_id_is_one_dataset(opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "one.csv"
    file.write_text(csv_of(real_datasets()[:1], "rt,correct", "{1:.9g},{2}"))
    page = opened()
    choose(page, file)
    assert said(page, "#results-title") == "Estimates of one dataset"
    (row,) = downloaded(page, tmp_path)
    assert row["dataset"] == "one.csv"
    assert np.allclose(estimates_of([row]), host_estimates(real_datasets()[:1]), rtol=HOST, atol=0)


def tables() -> dict[str, pa.Table]:
    datasets = real_datasets()[:5]
    nested = datasets.astype(np.float64).tolist()
    records = [[{"correct": int(correct), "rt": rt} for rt, correct in dataset] for dataset in nested]
    column = [pa.array(list(datasets[:, :, index])) for index in range(2)]
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(datasets)
    flat = datasets.reshape(5, -1)
    observations = datasets.reshape(-1, 2)
    return {
        "nested lists": pa.table({"x": nested, "key": list("abcde")}),
        "fixed-size lists": pa.table({"x": pa.array(nested, pa.list_(pa.list_(pa.float32(), 2), 200))}),
        "float16": pa.table({"x": pa.array(datasets.astype(np.float16).tolist(), pa.list_(pa.list_(pa.float16())))}),
        "records": pa.table({"trials": records}),
        "a list for each column": pa.table({"correct": column[1], "rt": column[0], "more": column[0]}),
        "a record of lists": pa.table({"x": pa.StructArray.from_arrays(column, ["rt", "correct"])}),
        "tensor": pa.table({"x": tensor}),
        "flat": pa.table({"x": list(flat)}),
        "bytes": pa.table({"x": [row.astype("<f4").tobytes() for row in flat]}),
        "tidy": pa.table({"rt": observations[:, 0], "correct": observations[:, 1] > 0, "id": np.repeat(range(5), 200)}),
    }


@pytest.mark.parametrize("layout", tables())
def test_parquet_of_every_layout_gives_the_estimates_of_the_host(layout: str, opened: Open, tmp_path: Path) -> None:
    table = tables()[layout]
    pq.write_table(table, tmp_path / "datasets.parquet", row_group_size=2 if layout != "tidy" else 333)
    page = opened()
    choose(page, tmp_path / "datasets.parquet")
    assert said(page, "#error") == ""
    datasets = real_datasets()[:5]
    expected = host_estimates(datasets.astype(np.float16) if layout == "float16" else datasets)
    assert np.allclose(estimates_of(downloaded(page, tmp_path)), expected, rtol=HOST, atol=0)


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_parquet_of_every_compression_is_read(codec: str, opened: Open, tmp_path: Path) -> None:
    pq.write_table(tables()["nested lists"], tmp_path / "datasets.parquet", compression=codec)
    page = opened()
    choose(page, tmp_path / "datasets.parquet")
    rows = downloaded(page, tmp_path)
    assert np.allclose(estimates_of(rows), host_estimates(real_datasets()[:5]), rtol=HOST, atol=0)
    assert [row["dataset"] for row in rows] == list("abcde")


def test_order_of_flat_lists_is_asked_for(opened: Open, tmp_path: Path) -> None:
    datasets = real_datasets()[:5]
    pq.write_table(pa.table({"x": list(datasets.transpose(0, 2, 1).reshape(5, -1))}), tmp_path / "flat.parquet")
    page = opened()
    choose(page, tmp_path / "flat.parquet")
    assert said(page, "label[for=choice-order]") == "Numbers of a dataset lie"
    page.evaluate("""{ const order = document.querySelector('#choice-order')
        document.querySelector('#status').textContent = ''
        order.value = 'column'; order.dispatchEvent(new Event('change')) }""")
    page.wait_until("document.querySelector('#status').textContent.includes('read')")
    assert np.allclose(estimates_of(downloaded(page, tmp_path)), host_estimates(datasets), rtol=HOST, atol=0)


def test_bad_datasets_are_named_with_line_and_reason_and_the_others_are_estimated(opened: Open, tmp_path: Path) -> None:
    lines = csv_of(real_datasets()[:6]).splitlines()
    lines[1 + 203] = "s1,oops,1"
    lines[1 + 404] = "s2,,1"
    lines[1 + 605] = "s3,1e39,0"
    lines[1 + 1006] = "s5,99.5,1"
    del lines[1 + 807]
    file = tmp_path / "trials.csv"
    file.write_text("\n".join(lines))
    page = opened()
    choose(page, file)
    assert said(page, "#status") == "6 datasets read: 2 estimated, 4 not."
    problems = {
        "s1": "line 205, column rt: “oops” is not a number. Correct it.",
        "s2": "line 406, column rt: there is no number. Fill it in.",
        "s3": "line 607, column rt: 1e39 is too large. Correct it.",
        "s4": "199 rows, but the model takes 200. Add what is missing.",
    }
    shown = said(page, "#problems").splitlines()
    assert shown == ["4 datasets could not be estimated", *(f"{name} {problem}" for name, problem in problems.items())]
    assert "s5 rt is up to 99.50, trained from" in said(page, "#warnings")
    rows = downloaded(page, tmp_path)
    assert [row["problem"] for row in rows] == ["", *problems.values(), ""]
    assert [row["predicted_v"] for row in rows[1:5]] == [""] * 4
    expected = real_datasets()[[0, 5]].copy()
    expected[1, 6, 0] = 99.5
    expected[1, 6, 1] = 1
    assert np.allclose(estimates_of([rows[0], rows[5]]), host_estimates(expected), rtol=HOST, atol=0)


HEAD = b"rt,correct\n"
BAD_FILES = {
    "empty.csv": (b"", "empty. Choose a file with datasets."),
    "header.csv": (HEAD, "names of columns, and no rows below them. Add the rows of a dataset."),
    "named.csv": (
        b"rt,corect\n1,1\n",
        "no column “correct”. It has “rt” and “corect”; the model takes rt and correct.",
    ),
    "bare.csv": (b"0.5,1\n0.6,1\n", "line 1 holds numbers, not the names of columns. Add a first line: rt,correct"),
    "ragged.csv": (HEAD + b"1,1\n1,1,1\n", "line 3: 3 fields, but line 1 names 2 columns. Make them equal."),
    "quote.csv": (HEAD + b'1,1\n"1,1\n', "line 3: a quotation mark is not closed. Close or remove it."),
    "short.csv": (HEAD + b"1,1\n" * 199, "199 rows, but the model takes 200. Add what is missing."),
    "long.csv": (HEAD + b"1,1\n" * 400, "add a column that names the dataset of each row."),
    "picture.csv": (b"\x89PNG\r\n\x1a\n\0\0\0", "not text. Choose a CSV or Parquet file."),
    "text.parquet": (HEAD, "not a Parquet file; it does not begin with PAR1. Write or copy it again."),
    "cut.parquet": (MEASURED.read_bytes()[:5000], "cannot be read as Parquet ("),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_where_what_and_what_to_do(name: str, opened: Open, tmp_path: Path) -> None:
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    page = opened()
    choose(page, tmp_path / name)
    assert said(page, "#error").startswith(f"This file cannot be used. {name}")
    assert message in said(page, "#error")
    assert page.evaluate("document.querySelector('#results').hidden")
    choose(page, MEASURED)  # and the next one is taken
    assert said(page, "#error") == "" and said(page, "#results-title") == "Estimates of 34 datasets"


def test_bad_rows_of_parquet_are_named_and_a_file_without_datasets_says_what_it_has(
    opened: Open, tmp_path: Path
) -> None:
    nested = real_datasets()[:4].tolist()
    nested[1] = nested[1][:199]
    nested[2][7][0] = None
    nested[3] = None
    pq.write_table(pa.table({"x": nested}), tmp_path / "datasets.parquet")
    page = opened()
    choose(page, tmp_path / "datasets.parquet")
    assert said(page, "#problems").splitlines()[1:] == [
        "row 1 x holds 199 rows of 2, but the model takes 200 rows of 2. Correct the row.",
        "row 2 observation 7, column rt: nothing is not a number that float32 holds. Correct the row.",
        "row 3 x holds nothing, but the model takes 200 rows of 2. Correct the row.",
    ]
    pq.write_table(pa.table({"y": [[1.0, 2.0, 3.0]], "z": ["a"]}), tmp_path / "other.parquet")
    choose(page, tmp_path / "other.parquet")
    assert "no column holds datasets of 200 rows of (rt, correct). It has “y” (a list of 3) and “z”." in said(
        page, "#error"
    )


def test_the_column_that_names_datasets_can_be_chosen(opened: Open, tmp_path: Path) -> None:
    text = csv_of(real_datasets()[:4], "half,subject,rt,correct", "h{0},s{0},{1:.9g},{2}")
    file = tmp_path / "trials.csv"
    file.write_text(text.replace("h1,", "h0,").replace("h3,", "h2,"))
    page = opened()
    choose(page, file)  # the one that gives datasets of 200 rows is taken at first
    assert page.evaluate("document.querySelector('#choice-id').value") == "subject"
    assert said(page, "#status") == "4 datasets read: 4 estimated, 0 not."
    page.evaluate("""{ const id = document.querySelector('#choice-id')
        id.value = 'half'; id.dispatchEvent(new Event('change')) }""")
    page.wait_until("!document.querySelector('#error').hidden")
    assert "dataset h0, 400 rows, but the model takes 200. Take rows away." in said(page, "#error")
    assert page.evaluate("document.querySelector('#choice-id').value") == "half"  # to be chosen again


def test_a_file_can_be_dropped_and_two_are_too_many(opened: Open) -> None:
    page = opened()
    page.drop([MEASURED, MEASURED], 300, 300)
    page.wait_until(DONE)
    assert said(page, "#error") == "Several files at once. Drop one."
    page.drop([MEASURED], 300, 300)
    page.wait_until("!document.querySelector('#results').hidden")
    assert said(page, "#results-title") == "Estimates of 34 datasets" and said(page, "#error") == ""


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1100, "light"), (1100, "dark")])
def test_nothing_overflows_and_all_text_can_be_read(width: int, scheme: str, opened: Open, tmp_path: Path) -> None:
    page = opened(width, scheme)
    shifted = page.evaluate("""new Promise(done => {
        new PerformanceObserver(list => done(list.getEntries().reduce((sum, each) => sum + each.value, 0)))
          .observe({ type: 'layout-shift', buffered: true })
        setTimeout(() => done(0), 300) })""")
    assert shifted < 0.01
    lines = csv_of(real_datasets()[:6], line="a-rather-long-name-of-a-subject-{0},{1:.9g},{2}").splitlines()
    lines[3] = "a-rather-long-name-of-a-subject-0,n/a,1"
    lines[-1] = "a-rather-long-name-of-a-subject-5,99.5,1"
    (tmp_path / "trials.csv").write_text("\n".join(lines))
    choose(page, tmp_path / "trials.csv")
    page.evaluate("document.querySelectorAll('button.name')[1].click()")
    check_layout(page, width, tmp_path)
    (tmp_path / "bad.csv").write_text("rt,a-column-with-a-name-that-is-far-too-long-for-a-telephone-in-the-hand\n1,1\n")
    choose(page, tmp_path / "bad.csv")
    check_layout(page, width, tmp_path)


def check_layout(page: Page, width: int, folder: Path) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate("""[...document.querySelectorAll('body *')]
        .filter(each => each.checkVisibility() && !each.closest('.scroll, pre'))
        .filter(each => each.getBoundingClientRect().right > innerWidth).map(each => each.outerHTML)""")
    assert outside == []
    page.screenshot(folder / "page.png")
    pixels = struct.unpack(">II", (folder / "page.png").read_bytes()[16:24])  # of PNG's header
    assert width - 20 <= pixels[0] <= width  # a scrollbar takes up to 15
    faint = page.evaluate(CONTRAST)
    assert faint["texts"] > 15 and faint["below"] == []


# Contrast of every text with what lies behind it. Source: WCAG 2.2, contrast ratio. Disabled controls are exempt.
CONTRAST = """(() => {
  const parsed = colour => colour.match(/[\\d.]+/g).map(Number)
  const luminance = colour => parsed(colour).slice(0, 3).map(each => each / 255)
    .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, index) => sum + each * [0.2126, 0.7152, 0.0722][index], 0)
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor
      if ((parsed(colour)[3] ?? 1) > 0) return colour
    }
  }
  let texts = 0
  const below = []
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest(':disabled, script')) continue
    texts++
    const style = getComputedStyle(element)
    const ink = luminance(element.closest('svg') ? style.fill : style.color)
    const paper = luminance(behind(element.closest('svg') ?? element))
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)
    if (!(ratio >= 4.5)) below.push([walker.currentNode.data, ratio])
  }
  return { texts, below }
})()"""


def test_everything_can_be_done_with_the_keyboard(opened: Open, tmp_path: Path) -> None:
    page = opened()
    page.browser.call("Page.setInterceptFileChooserDialog", enabled=True)
    try:
        page.press("Tab")
        assert focused(page) == "file"
        outline = "getComputedStyle(document.querySelector('label[for=file]')).outlineStyle"
        assert page.evaluate(outline) == "solid"
        page.browser.events.clear()
        page.press("Enter")
        page.evaluate("new Promise(done => setTimeout(done, 300))")
        choosers = [event["params"] for event in page.browser.events if event.get("method") == "Page.fileChooserOpened"]
        assert len(choosers) == 1
    finally:
        page.browser.call("Page.setInterceptFileChooserDialog", enabled=False)
    node = choosers[0]["backendNodeId"]
    page.browser.call("DOM.setFileInputFiles", backendNodeId=node, files=[str(MEASURED)])
    page.wait_until(DONE)
    assert focused(page) == "file"  # nobody is thrown out of their place
    walked = walk(page, "download", "dataset ▲", "v", "a", "t0")
    assert walked[0] == "example"
    walk(page, "v", back=True)
    for order in ("ascending", "descending"):
        page.press("Enter")
        assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == order
    first = page.evaluate("[...document.querySelectorAll('tbody tr')].map(row => Number(row.children[1].textContent))")
    assert first == sorted(first, reverse=True)
    name = page.evaluate("document.querySelector('tbody .name').textContent")
    walk(page, name)
    page.press("Space")
    assert page.evaluate("document.activeElement.textContent") == name  # still there, now marked
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert page.evaluate("document.querySelectorAll('circle.chosen').length") == 3
    walk(page, "What a file should look like")
    page.press("Enter")
    assert not page.evaluate("document.querySelector('#formats').open")


def focused(page: Page) -> str:
    """The id of the element with the focus, or its text where it has none."""
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent"))


def walk(page: Page, *names: str, back: bool = False) -> list[str]:
    """Press Tab until each of these has had the focus, which has to be seen; returns all on the way."""
    seen: list[str] = []
    for name in names:
        for _ in range(60):
            page.press("Tab", shift=back)
            seen.append(focused(page))
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", seen
            if seen[-1] == name:
                break
        else:
            raise AssertionError(f"{name} is not reached, but {seen}")
    return seen


def test_many_datasets_are_shown_a_hundred_at_a_time_and_as_a_histogram(opened: Open, tmp_path: Path) -> None:
    datasets = np.resize(real_datasets(), (1150, 200, 2))
    pq.write_table(pa.table({"x": datasets.tolist()}), tmp_path / "many.parquet")
    page = opened()
    choose(page, tmp_path / "many.parquet")
    assert said(page, ".pager span") == "1 to 100 of 1,150 datasets"
    page.evaluate("document.querySelector('.pager button:last-of-type').click()")
    assert said(page, ".pager span") == "101 to 200 of 1,150 datasets"
    assert page.evaluate("document.querySelector('tbody .name').textContent") == "row 100"
    assert page.evaluate("document.querySelectorAll('path.bars').length") == 3
    assert np.allclose(estimates_of(downloaded(page, tmp_path)), host_estimates(datasets), rtol=HOST, atol=0)


def test_the_last_file_counts_whatever_is_still_being_estimated(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "large.csv").write_text(csv_of(np.resize(real_datasets(), (2000, 200, 2))))
    page = opened()
    page.choose_file("#file", tmp_path / "large.csv")
    page.wait_until("document.querySelector('#progress').value > 0.1")
    choose(page, MEASURED)
    for _ in range(2):
        assert said(page, "#status") == "34 datasets read: 34 estimated, 0 not."
        assert not said(page, "#error") and page.evaluate("document.querySelector('#progress').hidden")
        page.evaluate("new Promise(done => setTimeout(done, 700))")  # the rest of the large file would take half of it


def test_more_datasets_than_a_page_shows_are_for_the_command_line(opened: Open, tmp_path: Path) -> None:
    empty = pa.array([None] * 20_001, pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({"x": empty}), tmp_path / "many.parquet")
    page = opened()
    choose(page, tmp_path / "many.parquet")
    assert "20,001 rows, more than the 20,000 datasets that this page shows. Split the file, or use" in said(
        page, "#error"
    )


def test_a_page_opened_from_disk_says_what_to_do(browser: Browser, site: Path) -> None:
    page = browser.open(site / "index.html")
    assert said(page, "#status").endswith("Serve its folder: python3 -m http.server")


def test_names_and_shapes_are_the_models_own_and_shown_as_they_are_written(
    packages: Path, browser: Browser, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.float32.onnx").write_bytes((MODEL / "model.float32.onnx").read_bytes())
    manifest = json.loads((MODEL / "manifest.json").read_text())
    manifest["input"] |= {"columns": ["<b>time</b>", "x & y"], "ranges": []}  # a model of which no ranges are known
    manifest["parameters"][0]["name"] = "<img src=x>"
    manifest["input"]["sorted_rows"] = True
    (model / "manifest.json").write_text(json.dumps(manifest))
    assert build(packages, model, MEASURED, "--to", tmp_path / "site").returncode == 0
    datasets = np.random.default_rng(0).permuted(real_datasets()[:3], axis=1)  # ties in one column, a sign in the other
    datasets[:, :, 0] = np.round(datasets[:, :, 0], 1) - 0.5
    (tmp_path / "trials.csv").write_text(csv_of(datasets, "<i>id,<b>time</b>,x & y"))
    with served(tmp_path / "site") as url:
        page = browser.open(f"{url}index.html", width=360)
        page.wait_until("document.documentElement.dataset.ready === 'yes'")
        assert said(page, "h1") == "Estimate <img src=x>, a and t0"
        choose(page, tmp_path / "trials.csv")
        assert said(page, "#status") == "3 datasets read: 3 estimated, 0 not."
        assert said(page, "#format-text pre").startswith("dataset,<b>time</b>,x & y\nfirst,0.5,0.5\n")
        assert page.evaluate("document.querySelectorAll('img, b, i').length") == 0 and page.complaints == []
        rows = [[float(each) for each in list(row.values())[1:4]] for row in downloaded(page, tmp_path)]
        expected = load(MODEL / "model.float32.onnx")(sort_rows(datasets))
        assert np.allclose(rows, expected, rtol=HOST, atol=0)


def test_a_model_that_is_not_the_verified_one_is_refused_by_build_and_page(
    packages: Path, browser: Browser, tmp_path: Path
) -> None:
    done = build(packages, MODEL, "--file", "model.int8.onnx", "--to", tmp_path / "site")
    assert done.returncode == 0 and not json.loads((tmp_path / "site/example/example.json").read_text())["file"]
    with (tmp_path / "site/model/model.int8.onnx").open("ab") as file:
        file.write(b"\0")
    with served(tmp_path / "site") as url:
        page = browser.open(f"{url}index.html")
        page.wait_until(DONE)
        expected = "model/model.int8.onnx: not the file that was verified. Build the page again."
        assert said(page, "#error") == expected
    (tmp_path / "model").mkdir()
    for arguments, message in [
        ((tmp_path / "model",), "no manifest.json, so no model directory. Train one: toolkit train"),
        ((MODEL, "--file", "model.float32.tflite"), "no ONNX file model.float32.tflite. Export it: toolkit export"),
    ]:
        done = build(packages, *arguments, "--to", tmp_path / "other")
        assert done.returncode == 1 and message in done.stderr and not (tmp_path / "other").exists()
