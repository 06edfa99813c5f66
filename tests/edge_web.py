"""What the tests of web engines share: a server on this machine alone, and what estimates are held to."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tests.browser import Page, find_chromium, open_browser
from tests.edge_inputs import MODEL, require, truth_of
from toolkit.promise import keeps_promise
from toolkit.runtime import load
from toolkit.spec import SMALLEST_NORMAL_FLOAT32

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

# Largest relative error of the estimates of real datasets against float64. Measured with the sample model, on the worst
# of the engines: 1.7e-6 (LiteRT.js), 6.7e-4, .044 (a t0 among the measured datasets; .0053 in the median of 64).
TRUTH = {"float32": 3.4e-6, "float16": 1.4e-3, "int8": 0.088}
# Largest relative difference from the host's estimates of real datasets: another order of the same additions. Measured:
# 8.7e-7 in onnxruntime-web, 4.8e-6 in LiteRT.js, 1.3e-6 in TensorFlow Lite Micro, 1.9e-6 in C on Cortex-M.
HOST = 9.6e-6
# The same for extreme datasets. Sums of numbers of 1e38 cancel, in whatever order: a logit of -70 is off by 5e-6 of
# itself. Measured: 6.1e-5 in float32 files, 3.8e-4 in float16, 1.4e-6 in int8.
HOST_EXTREME = 8e-4
# Relative error of the head alone against float64, for logits from -86. Measured: 1.7e-7, 2.3e-7 in LiteRT.js.
HEAD = 5e-7


def check_real(estimates: FloatArray, datasets: FloatArray, file: str, precision: str) -> None:
    check_promise(estimates)
    assert largest(estimates, truth_of(datasets)) <= TRUTH[precision]
    assert largest(estimates, load(MODEL / file)(datasets)) <= HOST


def check_extreme(estimates: FloatArray, datasets: FloatArray, file: str) -> None:
    """The truth is no measure here: in float32 such datasets overflow and cancel, on the host as well."""
    check_promise(estimates)
    assert largest(estimates, load(MODEL / file)(datasets)) <= HOST_EXTREME


def check_sweep(estimates: FloatArray, logits: FloatArray) -> None:
    """Args:
    logits: float32 (n, 1, parameters), what the estimates were computed from.
    """
    check_promise(estimates)
    inside = logits[:, 0] >= -86  # below, the head stays at its smallest number, exp(-86)
    truth = np.logaddexp(0.0, logits[:, 0].astype(np.float64))
    assert largest(estimates[inside], truth[inside]) <= HEAD
    assert inside.sum() > 700 and np.all(estimates[~inside] < 5e-38)


def check_promise(estimates: FloatArray) -> None:
    assert estimates.dtype == np.float32 and keeps_promise(estimates, SMALLEST_NORMAL_FLOAT32).all()


def largest(estimates: FloatArray, reference: NDArray[np.floating]) -> float:
    """Largest relative difference; NaN if there is one."""
    return float(np.max(np.abs(estimates.astype(np.float64) - reference) / reference))


class _Server(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")  # files change from one test to the next
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL, ending in a slash, of a server for a folder; symbolic links are followed."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Server, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def opened_page(html: Path, node_modules: Path, folder: Path) -> Iterator[Page]:
    """A page of tests/edge/pages in Chromium, its engine loaded, served from `folder` beside the packages."""
    binary = find_chromium()
    require("" if binary else "no Chromium is installed: apt-get install chromium-headless-shell")
    assert binary is not None
    shutil.copy(html, folder)
    (folder / "node_modules").symlink_to(node_modules)
    with served(folder) as url, open_browser(binary) as browser:
        page = browser.open(f"{url}{html.name}")
        page.wait_until("window.estimates !== undefined")
        yield page
        page.settle()
        assert all(request.startswith(url) for request in page.requests)


def estimates_in(page: Page, folder: Path, file: Path, datasets: FloatArray, batch: int | None = None) -> FloatArray:
    """What one of the pages in tests/edge/pages gives for a file.

    Args:
        folder: what is served; the file is linked there, the datasets are written there.
        batch: datasets a call, where the file takes no others; all by default.
    """
    link = folder / file.name
    link.unlink(missing_ok=True)
    link.symlink_to(file)
    (folder / "datasets.bin").write_bytes(datasets.astype("<f4").tobytes())
    shape = [batch or len(datasets), *datasets.shape[1:]]
    numbers = page.evaluate(f"window.estimates({json.dumps(file.name)}, 'datasets.bin', {shape})")
    return np.array(numbers, np.float64).astype(np.float32).reshape(len(datasets), -1)
