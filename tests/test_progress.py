"""Progress: live on a terminal, plain lines elsewhere, nothing when quiet, and never on stdout."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from toolkit.progress import rows_progress


def test_rows_progress_prints_plain_lines_with_speed_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    with rows_progress("score") as report:
        for done in (1000, 2000, 3000):
            report(done, 3000)
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()  # three reports in a moment make one line, the last
    assert line.startswith("score: 3,000 of 3,000 rows, ") and line.endswith(" rows/s")


def test_rows_progress_estimates_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("toolkit.progress.time.monotonic", lambda: next(clock))
    with rows_progress("score") as report:
        report(1000, 4000)
        report(2000, 4000)
    assert capsys.readouterr().err.splitlines() == [
        "score: 1,000 of 4,000 rows, 100 rows/s, 30 s left",
        "score: 2,000 of 4,000 rows, 100 rows/s, 20 s left",
    ]


def test_rows_progress_counts_each_epoch_for_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 12.0, 20.0])
    monkeypatch.setattr("toolkit.progress.time.monotonic", lambda: next(clock))
    with rows_progress("train", unit="steps") as report:
        report(100, 100)
        report(1, 100)
        report(50, 100)
    assert capsys.readouterr().err.splitlines() == [
        "train: 100 of 100 steps, 10 steps/s",
        "train: 50 of 100 steps, 5 steps/s, 10 s left",
    ]


def test_rows_progress_says_nothing_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with rows_progress("score", quiet=True) as report:
        report(3000, 3000)
    assert capsys.readouterr() == ("", "")


def test_simulate_command_is_silent_with_quiet(
    toolkit_command: Callable[..., Result], small_simulator: str, tmp_path: Path
) -> None:
    result = toolkit_command("simulate", small_simulator, tmp_path / "out.parquet", "--count", 10, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_simulate_command_draws_a_live_line_on_a_terminal(small_simulator: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "toolkit",
        "simulate",
        small_simulator,
        tmp_path / "out.parquet",
        "--count",
        "20000",
    ]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # the other end is closed: the command has finished
        pass
    os.close(ours)
    assert process.wait(60) == 0
    assert b"simulate" in shown and b"20000/20000" in shown and b"datasets/s" in shown
    assert b"\x1b[" in shown  # redrawn in place
