"""ONNX files in onnxruntime-web inside a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Page
from tests.edge_inputs import MODEL, entries, extreme_datasets, real_datasets, require, sweep_file
from tests.edge_web import check_extreme, check_real, check_sweep, estimates_in, opened_page
from toolkit.targets.node import PROJECT
from toolkit.targets.npm import installed, why_no_node

HERE = Path(__file__).parent
FILES = [entry.file for entry in entries().values() if entry.format == "onnx"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    require(why_no_node())
    with opened_page(HERE / "pages" / "onnx.html", installed("onnxruntime-web", PROJECT), folder) as opened:
        yield opened


@pytest.mark.parametrize("file", FILES)
def test_estimates_in_chromium_are_positive_and_those_of_the_host(
    file: str, page: Page, folder: Path, tmp_path: Path
) -> None:
    entry = entries()[file]
    check_real(estimates_in(page, folder, MODEL / file, real_datasets()), real_datasets(), file, entry.precision)
    check_extreme(estimates_in(page, folder, MODEL / file, extreme_datasets()), extreme_datasets(), file)
    head, logits = sweep_file(entry, tmp_path)
    check_sweep(estimates_in(page, folder, head, logits), logits)
