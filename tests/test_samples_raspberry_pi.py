"""samples/raspberry_pi as a person runs it: a process of its own, a CSV in, a CSV out."""

from __future__ import annotations

import csv
import importlib.util
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.edge_inputs import MODEL, ROOT, real_datasets
from toolkit.datasets.order import sort_rows
from toolkit.runtime import load

SCRIPT = ROOT / "samples" / "raspberry_pi" / "estimate.py"
FILE = "model.float32.tflite"
SHOWN = 1e-6  # seven digits are printed; batches of one and of 32 differ by 1.2e-6 at most
HEADING = "subject,rt,correct"


def lines_of(*datasets: np.ndarray) -> list[str]:
    rows = [f"{subject},{rt!r},{correct!r}" for subject, each in enumerate(datasets) for rt, correct in each.tolist()]
    return [HEADING, *rows]


def run(*arguments: object, text: str = "", cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, cwd=cwd, timeout=120)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A folder with what is copied to a board."""
    for name in ("manifest.json", FILE, "model.int8.tflite", "model.integer.tflite"):
        shutil.copy2(MODEL / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", [FILE, "model.int8.tflite"])
def test_a_file_of_several_subjects_gives_the_estimates_of_the_runtime(board: Path, file: str) -> None:
    datasets = real_datasets()[:3]
    (board / "trials.csv").write_text("\n".join(lines_of(*datasets)))
    done = run("trials.csv", "--by", "subject", "--model", file, cwd=board)
    assert done.returncode == 0, done.stderr
    heading, *rows = csv.reader(io.StringIO(done.stdout))
    assert heading == ["subject", "v", "a", "t0"] and [row[0] for row in rows] == ["0", "1", "2"]
    estimates = np.array([row[1:] for row in rows], float)
    assert estimates == pytest.approx(load(MODEL / file)(datasets), rel=3 * SHOWN)


def test_standard_input_is_one_dataset(board: Path) -> None:
    dataset = real_datasets()[5]
    done = run(text="\n".join(lines_of(dataset)), cwd=board)
    heading, row = csv.reader(io.StringIO(done.stdout))
    assert heading == ["v", "a", "t0"]
    assert np.array(row, float) == pytest.approx(load(MODEL / FILE)(dataset[np.newaxis])[0], rel=3 * SHOWN)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: ["subject,seconds,correct", *lines[1:]], "line 1: no column 'rt'. It takes rt,correct; the"),
        (lambda lines: lines[:-1], "standard input: 199 rows, the model takes 200 a dataset."),
        (lambda lines: [*lines[:7], "0,fast,1", *lines[8:]], "line 8: rt is 'fast', not a number."),
        (lambda lines: [*lines[:7], "0,nan,1", *lines[8:]], "line 8: rt is 'nan'. The model takes finite numbers"),
        (lambda lines: [*lines[:7], "0,1e39,1", *lines[8:]], "line 8: rt is '1e39'. The model takes finite numbers"),
        (lambda lines: [*lines[:7], "0,0.4", *lines[8:]], "line 8: correct is None, not a number."),
        (lambda lines: lines[:1], "standard input: no rows below the heading."),
        (lambda lines: [], "no column 'rt'. It takes rt,correct; the heading is nothing."),
    ],
)
def test_a_bad_csv_is_one_line_that_says_where(board: Path, change, said: str) -> None:
    done = run(text="\n".join(change(lines_of(real_datasets()[0]))), cwd=board)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_a_file_or_manifest_that_does_not_fit_is_one_line(board: Path) -> None:
    text = "\n".join(lines_of(real_datasets()[0]))
    integer = run("--model", "model.integer.tflite", text=text, cwd=board)
    assert "takes integers, for microcontrollers" in integer.stderr
    absent = run("nowhere.csv", cwd=board)
    assert absent.stderr == "nowhere.csv: cannot be read (No such file or directory).\n"
    shutil.copy2(board / FILE, board / "other.tflite")
    assert "other.tflite is not in it" in run("--model", "other.tflite", cwd=board).stderr
    (board / FILE).write_bytes(b"no model")
    assert "no TFLite file that LiteRT can run" in run(text=text, cwd=board).stderr
    (board / "manifest.json").unlink()
    assert "manifest.json: not there. Copy it from the model directory" in run(cwd=board).stderr


def test_rows_are_sorted_as_the_toolkit_sorts_them() -> None:
    spec = importlib.util.spec_from_file_location("estimate", SCRIPT)
    assert spec is not None and spec.loader is not None
    sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sample)
    values = np.random.default_rng(3).integers(-3, 4, (20, 50, 3)).astype(np.float32)  # many alike, some below 0
    assert np.array_equal(np.stack([sample.sort_rows(each) for each in values]), sort_rows(values))
