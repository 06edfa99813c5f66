"""What the README says is so: every command and option is in it, its commands run, its Python runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from toolkit.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def section(command: str) -> str:
    """The README from this command's heading to the next heading."""
    found = re.search(rf"^### `toolkit {command}\b.*?(?=^##)", README, re.MULTILINE | re.DOTALL)
    assert found, f"no section for toolkit {command}"
    return found[0]


@pytest.mark.parametrize("name", sorted(main.commands))
def test_readme_has_every_option_of_every_command_and_no_other(name: str) -> None:
    options = {
        option
        for parameter in main.commands[name].params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    assert set(re.findall(r"(?<!\w)--[a-z][a-z-]*", section(name))) - {"--help"} == options


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A folder with the samples in it, as a reader of the README has."""
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    return tmp_path


def test_readme_shell_commands_run_as_they_stand(workshop: Path) -> None:
    (block,) = blocks("sh")
    lines = [shlex.split(line) for line in block.splitlines()]
    assert lines[0][:2] == ["pip", "install"]  # what the Makefile has done before any test runs
    shorter = {"simulate": ["--count", "2000"], "train": ["--epochs", "2"]}  # the last of two options counts
    for words in lines[1:]:
        assert words[0] == "toolkit"
        command = [sys.executable, "-m", "toolkit", *words[1:], *shorter.get(words[1], [])]
        done = subprocess.run(command, cwd=workshop, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, (words, done.stderr)
    assert "34 predicted + 0 rejected" in done.stdout
    assert (workshop / "predictions.parquet").is_file()


def test_readme_python_runs_as_it_stands(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from toolkit.datasets import read_datasets
    from toolkit.manifest import read_manifest
    from toolkit.simulate import simulate

    (block,) = blocks("python")
    monkeypatch.chdir(workshop)
    simulate("samples/diffusion.py:simulate", 300, Path("datasets.parquet"))
    datasets = read_datasets(Path("datasets.parquet"), read_manifest(Path("samples/model")).spec)
    names: dict[str, object] = {"datasets": datasets}
    exec(block, names)
    assert names["estimates"].shape == (300, 3)  # type: ignore[attr-defined]
    shown = capsys.readouterr().out
    assert "('v', 'a', 't0')" in shown and "34 rows; the least t0 is 0.1279, in row 15" in shown
    assert names["summary"].rows_predicted == 34  # type: ignore[attr-defined]
    assert names["verification"].passed  # type: ignore[attr-defined]
    assert Path("model/manifest.json").is_file()


def test_readme_shows_only_files_that_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).is_file(), target
