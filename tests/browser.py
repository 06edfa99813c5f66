"""Debian's headless Chromium over its debugging pipe: what a page logs, asks the network for, and looks like inside."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The package's own binary: its wrapper script does not exec, and ending that leaves the browser behind.
PLACES = ("/usr/lib/chromium/chromium-headless-shell", "/usr/lib/chromium/chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
PATIENCE_SECONDS = 60.0


def find_chromium() -> str | None:
    """Path of the browser; None where none is installed."""
    return next((place for place in PLACES if Path(place).is_file()), shutil.which("chromium-headless-shell"))


@dataclass
class Page:
    """What was seen while a page was open."""

    browser: Browser
    requests: list[str] = field(default_factory=list)  # URLs other than the page's own
    complaints: list[str] = field(default_factory=list)  # script errors, console lines, blocked content

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.browser.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")


class Browser:
    """One browser with one tab."""

    def __init__(self, process: subprocess.Popen[bytes], commands: int, answers: int) -> None:
        self.process, self.commands, self.answers = process, commands, answers
        self.number, self.buffer, self.events = 0, b"", list[dict[str, Any]]()
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def open(self, path: Path, *, width: int = 1100, scheme: str = "light") -> Page:
        """Load a file in a window of this width, with this preferred colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.events.clear()
        url = path.resolve().as_uri()
        self.call("Page.navigate", url=url)
        page = Page(self)
        self._collect(page, url, until="Page.loadEventFired")
        # Scripts and images of a page may still report; two round trips through the page let them.
        for _ in range(2):
            page.evaluate("new Promise(done => setTimeout(done, 100))")
        self.call("Runtime.evaluate", expression="new Promise(done => setTimeout(done, 200))", awaitPromise=True)
        self._collect(page, url)
        return page

    def _collect(self, page: Page, url: str, until: str | None = None) -> None:
        while self.events or until:
            event = self.events.pop(0) if self.events else self._read()
            method, content = event.get("method"), event.get("params", {})
            if method == "Network.requestWillBeSent" and content["request"]["url"] != url:
                page.requests.append(content["request"]["url"])
            elif method == "Runtime.exceptionThrown":
                page.complaints.append(content["exceptionDetails"]["text"])
            elif method == "Runtime.consoleAPICalled":
                page.complaints.append(str(content["args"]))
            elif method == "Log.entryAdded":
                page.complaints.append(content["entry"]["text"])
            if method == until:
                return

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.answers], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the browser said nothing for {PATIENCE_SECONDS:g} s"
            more = os.read(self.answers, 1 << 16)
            assert more, "the browser has ended"
            self.buffer += more
        message, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def open_browser(binary: str) -> Iterator[Browser]:
    to_browser, from_browser = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Chromium reads commands from descriptor 3 and answers on 4.
        script = f'exec "$0" "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}'
        process = subprocess.Popen(
            ["bash", "-c", script, binary, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=[to_browser[0], from_browser[1]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Browser(process, to_browser[1], from_browser[0])
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(to_browser[1])
            os.close(from_browser[0])
