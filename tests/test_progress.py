"""Progress: live on a terminal, plain lines elsewhere, nothing when quiet, and never on stdout."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from toolkit.progress import describe_duration, rows_progress


def test_rows_progress_prints_plain_lines_with_speed_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    with rows_progress("score") as report:
        for done in (0, 1000, 2000, 3000):
            report(done, 3000)
    captured = capsys.readouterr()
    assert captured.out == ""
    first, last = captured.err.splitlines()  # four reports in a moment make two lines
    assert first == "score: 0 of 3,000 rows"
    assert last.startswith("score: 3,000 of 3,000 rows, ") and last.endswith(" rows/s")


def at(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """Let the reports come at these times."""
    clock = iter(seconds)
    monkeypatch.setattr("toolkit.progress.time.monotonic", lambda: next(clock))


def test_rows_progress_prints_a_line_every_few_seconds_with_the_time_left_and_rows_rejected_so_far(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, 0, 4, 10, 12, 14.9, 20)
    with rows_progress("score") as report:
        for done, rejected in ((0, 0), (400, 0), (1000, 0), (1200, 7), (1490, 7), (2000, 1007)):
            report(done, 1_234_000, rejected)
    assert capsys.readouterr().err.splitlines() == [
        "score: 0 of 1,234,000 rows",
        "score: 1,000 of 1,234,000 rows, 100 rows/s, 3 h 25 min left",
        "score: 2,000 of 1,234,000 rows, 100 rows/s, 3 h 25 min left, 1,007 rejected",
    ]


def test_rows_progress_takes_no_credit_for_what_an_earlier_run_has_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, 0, 10)
    with rows_progress("score") as report:
        report(9000, 10_000, 2)
        report(9500, 10_000, 2)
    assert capsys.readouterr().err.splitlines() == [
        "score: 9,000 of 10,000 rows, 2 rejected",
        "score: 9,500 of 10,000 rows, 50 rows/s, 10 s left, 2 rejected",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 day 0 h"),
        (1_000_000, "11 days 13 h"),
    ],
)
def test_describe_duration_uses_the_two_largest_units(seconds: float, said: str) -> None:
    assert describe_duration(seconds) == said


def test_rows_progress_counts_each_epoch_for_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, 0, 10, 12, 20)
    with rows_progress("train", unit="steps") as report:
        report(0, 100)
        report(100, 100)
        report(1, 100)
        report(50, 100)
    assert capsys.readouterr().err.splitlines() == [
        "train: 0 of 100 steps",
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


def on_terminal(*arguments: object) -> bytes:
    """What `toolkit ARGUMENTS` draws on a terminal, where it finishes well."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit", *map(str, arguments)],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # the other end is closed: the command has finished
        pass
    os.close(ours)
    assert process.wait(60) == 0, shown
    return shown


def test_simulate_command_draws_a_live_line_on_a_terminal(small_simulator: str, tmp_path: Path) -> None:
    shown = on_terminal("simulate", small_simulator, tmp_path / "out.parquet", "--count", 20000)
    assert b"simulate" in shown and b"20,000 of 20,000 datasets" in shown and b"datasets/s" in shown
    assert b"\x1b[" in shown  # redrawn in place


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_batch_predict_command_prints_whole_lines_above_the_live_one(
    small_datasets: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    (tmp_path / "in.parquet").symlink_to(small_datasets)
    monkeypatch.chdir(tmp_path)
    shown = on_terminal("batch-predict", "in.parquet", "--model", exported, "--check", "off", *options)
    lines = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).replace(b"\r", b"\n").split(b"\n")
    assert b"in.parquet: datasets in 'x', 24 x 2, one list per observation" in [line.strip() for line in lines]
    assert any(b"2,000 of 2,000 rows" in line for line in lines)
