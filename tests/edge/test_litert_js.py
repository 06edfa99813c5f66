"""TFLite files for a fixed number of datasets in LiteRT.js (WebAssembly, XNNPACK) inside a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from export.batch import with_batch
from tests.browser import Page
from tests.edge_inputs import MODEL, entries, extreme_datasets, real_datasets, require, sweep_file
from tests.edge_web import check_extreme, check_real, check_sweep, estimates_in, opened_page
from toolkit.targets.npm import installed, why_no_node

HERE = Path(__file__).parent
FILES = [entry.file for entry in entries().values() if entry.format == "tflite" and entry.precision != "integer"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    require(why_no_node())
    with opened_page(HERE / "pages" / "litert.html", installed("litert-js", HERE / "litert_js"), folder) as opened:
        yield opened


def fixed(file: Path, batch: int, folder: Path) -> Path:
    made = folder / f"fixed.{file.name}"
    made.write_bytes(with_batch(file.read_bytes(), "tflite", batch))
    return made


@pytest.mark.parametrize("file", FILES)
def test_estimates_in_litert_js_are_positive_and_those_of_the_host(
    file: str, page: Page, folder: Path, tmp_path: Path
) -> None:
    entry = entries()[file]
    one = fixed(MODEL / file, 1, tmp_path)
    check_real(estimates_in(page, folder, one, real_datasets(), batch=1), real_datasets(), file, entry.precision)
    check_extreme(estimates_in(page, folder, one, extreme_datasets(), batch=1), extreme_datasets(), file)
    head, logits = sweep_file(entry, tmp_path)
    check_sweep(estimates_in(page, folder, fixed(head, 1, tmp_path), logits, batch=1), logits)
