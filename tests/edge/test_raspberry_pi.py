"""samples/raspberry_pi on the Cortex-A72 of a Raspberry Pi 4, with nothing installed but NumPy and the engines."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.edge_inputs import MODEL, ROOT, real_datasets, require
from toolkit.runtime import load
from toolkit.targets.arm64 import A72
from toolkit.targets.sysroot import command_on, why_no_sysroot


@pytest.mark.parametrize("file", ["model.float32.tflite", "model.int8.tflite"])
def test_the_sample_gives_the_host_s_estimates_on_the_processor_of_a_raspberry_pi(file: str, tmp_path: Path) -> None:
    require(why_no_sysroot())
    for name in ("manifest.json", file):
        shutil.copy2(MODEL / name, tmp_path)
    datasets = real_datasets()[:3]
    rows = [f"{subject},{rt!r},{correct!r}" for subject, each in enumerate(datasets) for rt, correct in each.tolist()]
    (tmp_path / "trials.csv").write_text("\n".join(["subject,rt,correct", *rows]))
    command, environment = command_on(A72, ROOT / "samples" / "raspberry_pi" / "estimate.py")
    done = subprocess.run(
        [*command, "trials.csv", "--by", "subject", "--model", file],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    heading, *shown = csv.reader(io.StringIO(done.stdout))
    assert heading == ["subject", "v", "a", "t0"]
    # Seven digits are printed; measured 9e-7 apart.
    assert np.array([row[1:] for row in shown], float) == pytest.approx(load(MODEL / file)(datasets), rel=2.4e-6)
