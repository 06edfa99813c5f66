"""A real S3 server (moto's) on loopback, in a process of its own, for as long as the tests last."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BUCKET = "bucket"
START_SECONDS = 60
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",  # or the first request asks a machine that is not there, for a second
    "AWS_MAX_ATTEMPTS": "2",
}


@dataclass(frozen=True)
class Server:
    port: int
    log: Path

    def uri(self, key: str) -> str:
        query = f"endpoint_override=http://127.0.0.1:{self.port}&scheme=http&region=us-east-1"
        return f"s3://{BUCKET}/{key}?{query}"

    def requests(self, verb: str, key: str) -> int:
        """How often `verb` was asked of the object, its multipart uploads included."""
        return self.log.read_text().count(f"{verb} /{BUCKET}/{key}")


@contextmanager
def running(log: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, **ENVIRONMENT}
    with log.open("w") as sink, subprocess.Popen(command, stdout=sink, stderr=sink, env=environment) as process:
        try:
            _wait_for(port, process, log)
            yield Server(port, log)
        finally:
            process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
            urllib.request.urlopen(request, timeout=5).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
