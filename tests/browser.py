"""Debian's headless Chromium over its debugging pipe: what a page logs, asks the network for, and looks like inside."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
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
    url: str
    requests: list[str] = field(default_factory=list)  # URLs other than the page's own
    complaints: list[str] = field(default_factory=list)  # script errors, console lines, blocked content

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.browser.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_until(self, expression: str) -> None:
        """Come back when a JavaScript expression has become true in the page."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"{expression} is not true after {PATIENCE_SECONDS:g} s"
            time.sleep(0.02)

    def choose_file(self, selector: str, file: Path) -> None:
        """What a person does with the dialog of a file input."""
        root = self.browser.call("DOM.getDocument")["root"]["nodeId"]
        node = self.browser.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def drop(self, files: Sequence[Path], x: int, y: int) -> None:
        """Drag files from another program to a place of the window, and let them go."""
        dragged = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.browser.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=dragged)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release Tab, Enter, Space or an arrow key."""
        code, text = {"Enter": (13, "\r"), "Tab": (9, ""), "Space": (32, " "), "ArrowDown": (40, "")}[key]
        named = {"key": text if key == "Space" else key, "code": key, "windowsVirtualKeyCode": code}
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.browser.call("Input.dispatchKeyEvent", type=kind, modifiers=8 * shift, **named, **typed)

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG, also what is below the window."""
        taken = self.browser.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def settle(self) -> None:
        """Take in what the page has asked for and complained about since it was opened."""
        self.evaluate("new Promise(done => setTimeout(done, 200))")
        self.browser.collect(self)


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

    def open(self, path: Path | str, *, width: int = 1100, scheme: str = "light") -> Page:
        """Load a file, or a URL, in a window of this width, with this preferred colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.events.clear()
        url = path.resolve().as_uri() if isinstance(path, Path) else path
        self.call("Page.navigate", url=url)
        page = Page(self, url)
        self.collect(page, until="Page.loadEventFired")
        page.settle()  # scripts and images of a page may still report
        return page

    def collect(self, page: Page, until: str | None = None) -> None:
        """Sort what the browser has told since: into requests and complaints."""
        while self.events or until:
            event = self.events.pop(0) if self.events else self._read()
            method, content = event.get("method"), event.get("params", {})
            if method == "Network.requestWillBeSent" and content["request"]["url"] != page.url:
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
