"""The command itself: help, usage errors, one boundary for errors, results on stdout and everything else on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

import toolkit
from toolkit.cli import main

Process = Callable[..., subprocess.CompletedProcess[str]]


def test_help_names_every_command_with_one_line(toolkit_process: Process) -> None:
    done = toolkit_process("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name, command in main.commands.items():
        assert f"  {name} " in done.stdout
        assert command.get_short_help_str(200) and not command.get_short_help_str(200).endswith("...")


def test_every_option_says_what_it_is_for() -> None:
    plain = {"--seed", "--batch-size", "--format", "--precision"}  # the name says it all
    for command in main.commands.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not plain & set(parameter.opts):
                assert parameter.help, (command.name, parameter.opts)


def test_version_is_that_of_the_package(toolkit_command: Callable[..., Result]) -> None:
    assert toolkit_command("--version").stdout == f"toolkit, version {toolkit.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["train"],
        ["simulate", "a.py:f", "out.parquet"],
        ["simulate", "a.py:f", "out.parquet", "--count", "0"],
        ["export", "--format", "tflite", "--precision", "float64"],
        ["batch-predict"],
        ["batch-predict", "a.parquet", "--check", "some"],
    ],
)
def test_wrong_usage_exits_with_2(toolkit_command: Callable[..., Result], arguments: list[str]) -> None:
    result = toolkit_command(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_an_error_is_one_line_on_stderr_and_exit_code_1(toolkit_process: Process) -> None:
    done = toolkit_process("verify")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: model: no model here (manifest.json not found). Train one with `toolkit train`, "
        "or name its folder with --model or $TOOLKIT_MODEL.\n"
    )


def test_an_error_never_holds_what_a_terminal_would_obey(
    toolkit_command: Callable[..., Result], tmp_path: Path
) -> None:
    result = toolkit_command("inspect", tmp_path / "\x1b[31m\x07red.tflite")
    assert result.exit_code == 1
    assert "?[31m?red.tflite" in result.stderr
    assert "\x1b" not in result.output


def test_model_comes_from_the_environment_when_no_option_says_otherwise(
    toolkit_command: Callable[..., Result], exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_MODEL", str(exported))
    assert toolkit_command("verify").exit_code == 0
    monkeypatch.setenv("TOOLKIT_MODEL", str(exported / "absent"))
    assert toolkit_command("verify").exit_code == 1


WITHOUT_EXTRAS = """
import sys
from importlib.machinery import PathFinder

EXTRAS = {"tensorflow", "keras", "tf2onnx", "matplotlib", "ray"}


class BaseInstall(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in EXTRAS else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = BaseInstall
"""


def test_commands_that_need_an_extra_say_which(tmp_path: Path, exported: Path, small_datasets: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_EXTRAS)  # Python imports a module of this name when it starts

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "toolkit", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            timeout=120,
        )

    train = run("train", small_datasets, "--parameters", "rate", "--output", tmp_path / "model")
    assert train.returncode == 1
    assert train.stderr.endswith(
        "toolkit train needs TensorFlow, which is not installed. Install it: pip install 'softplus-toolkit[train]'\n"
    )
    export = run("export", "--model", exported, "--format", "tflite")
    assert export.returncode == 1
    assert "pip install 'softplus-toolkit[export]'" in export.stderr
    verify = run("verify", "--model", exported)
    assert verify.returncode == 0, verify.stderr


def test_api_offers_the_four_verbs_and_nothing_by_another_name() -> None:
    import toolkit.training  # a room of the same name must not hide the verb

    assert {"train", "load", "verify", "batch_predict"} <= set(dir(toolkit))
    assert all(callable(getattr(toolkit, verb)) for verb in toolkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        toolkit.predict  # noqa: B018
