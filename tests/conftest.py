"""A small network, trained and exported once for all tests, and the means to run the command as a person does."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.browser import Browser, find_chromium, open_browser

ROOT = Path(__file__).resolve().parent.parent

# A shell starts what it runs in the background deaf to Ctrl-C, and so would be every process that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
SMALL_SIMULATOR = """
import numpy as np

COLUMNS = ("time", "signal")
PARAMETERS = ("height", "rate", "noise")


def simulate(count, rng):
    height, rate, noise = rng.uniform(1, 4, count), rng.uniform(0.5, 2, count), rng.uniform(0.02, 0.4, count)
    time = np.broadcast_to(np.linspace(0, 3, 24), (count, 24))
    signal = height[:, None] * np.exp(-rate[:, None] * time) + noise[:, None] * rng.standard_normal((count, 24))
    return np.stack([time, signal], axis=2), np.stack([height, rate, noise], axis=1)
"""


@pytest.fixture(scope="session")
def small_simulator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """FILE.py:FUNCTION of a simulator of 24 x 2 datasets and three parameters."""
    path = tmp_path_factory.mktemp("simulator") / "decay.py"
    path.write_text(SMALL_SIMULATOR)
    return f"{path}:simulate"


@pytest.fixture(scope="session")
def small_datasets(small_simulator: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 datasets of 24 x 2 with their true parameters."""
    from toolkit.simulate import simulate

    path = tmp_path_factory.mktemp("datasets") / "datasets.parquet"
    simulate(small_simulator, 2000, path, seed=1, workers=1)
    return path


@pytest.fixture(scope="session")
def trained(small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory fresh from training. Do not write into it: copy it."""
    from toolkit.trainer import Settings
    from toolkit.training import train

    directory = tmp_path_factory.mktemp("trained") / "model"
    train([small_datasets], ["height", "rate", "noise"], output=directory, settings=Settings(epochs=6, batch_size=32))
    return directory


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with every format exported in float32 and float16. Do not write into it: copy it."""
    from export import convert
    from toolkit.publish import publish
    from toolkit.spec import FORMATS

    directory = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(trained, directory)
    publish(directory, FORMATS, ("float32", "float16"), convert)
    return directory


@pytest.fixture
def trained_copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "model"))


@pytest.fixture
def exported_copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


@pytest.fixture
def toolkit_command() -> Callable[..., Result]:
    """Run `toolkit ARGUMENTS` in this process; the result holds exit_code, stdout, stderr."""
    from toolkit.cli import main

    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def toolkit_process(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m toolkit ARGUMENTS` in a process of its own, in an empty folder."""

    def run(*arguments: object, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "toolkit", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    binary = find_chromium()
    if binary is None:
        pytest.skip("no Chromium is installed: apt-get install chromium-headless-shell")
    with open_browser(binary) as opened:
        yield opened
