"""The command itself: help, usage errors, one boundary for errors, results on stdout and everything else on stderr."""

from __future__ import annotations

import os
import re
import shlex
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


@pytest.fixture
def workshop(exported: Path, small_datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a model in models/decay, datasets in nights/input.parquet."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "decay").symlink_to(exported)
    (tmp_path / "nights").mkdir()
    (tmp_path / "nights" / "input.parquet").symlink_to(small_datasets)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOOLKIT_MODEL", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("batch-predict nights/inptu.parquet", "no such file or folder. Did you mean 'nights/input.parquet'?"),
        ("batch-predict nights/input.parquet --column Rate", "no column 'Rate'. Did you mean 'rate'? It has: x "),
        ("batch-predict nights/input.parquet --file model.float23.onnx", "Did you mean 'model.float32.onnx'? Files he"),
        (
            "batch-predict nights/input.parquet --model models",
            "no model here (manifest.json not found). There is one in ",
        ),
        ("batch-predict nights/input.parquet --model model", "There is one in models/decay. Train one with"),
        (
            "batch-predict nights/input.parquet --model models/decay/model.float32.tflite",
            "a file, not a model directory. Name its folder: --model models/decay",
        ),
        ("batch-predict ''", "the name of an input is empty. A shell's variable that is not set gives one."),
        ("batch-predict models/decay/manifest.json", "manifest.json: not a readable Parquet file"),
        ("batch-predict models/decay/*.json", "manifest.json: not a readable Parquet file"),
        ("batch-predict nights/input.parquet --output .", ".: is a folder. Name a file with --output."),
        ("batch-predict nights/input.parquet --output ..", "..: is a folder. Name a file with --output."),
        ("batch-predict nights/input.parquet --output nights", "nights: is a folder. Name a file with --output."),
        (
            "train nights/input.parquet --parameters heigth,rate,noise",
            "Did you mean 'height'? It has: x, height, rate,",
        ),
    ],
)
def test_a_usual_mistake_is_told_with_what_is_near(
    toolkit_command: Callable[..., Result], workshop: Path, arguments: str, said: str
) -> None:
    words = shlex.split(arguments)
    model = [] if "--model" in words or words[0] == "train" else ["--model", "models/decay"]
    result = toolkit_command(*words, *model)
    assert result.exit_code == 1 and said in result.stderr, result.output
    *layout, error = result.stderr.splitlines()
    assert error.startswith("Error: ") and len(layout) <= 1
    assert sorted(path.name for path in workshop.rglob("*.predictions.parquet")) == []


def test_batch_predict_of_the_current_folder_writes_beside_it(
    toolkit_command: Callable[..., Result], workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workshop / "nights")
    result = toolkit_command("batch-predict", ".", "--model", "../models/decay", "--check", "off")
    assert result.exit_code == 0, result.output
    assert (workshop / "nights.predictions.parquet").is_file()


@pytest.mark.parametrize("name", [None, *main.commands])
def test_help_shows_examples_that_the_command_takes(toolkit_command: Callable[..., Result], name: str | None) -> None:
    result = toolkit_command(*([name] if name else []), "--help")
    examples = result.stdout.partition("Examples:\n")[2].splitlines()
    assert result.exit_code == 0 and 1 <= len(examples) <= 3
    for line in examples:
        words = shlex.split(re.sub(r'^eval "\$\((.*)\)"', r"\1", line.strip()))
        assert words[0] == "toolkit"
        command = main.commands[words[1]]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert name in (None, words[1])
        assert {word for word in words if word.startswith("--")} <= options, line


def test_help_lists_commands_in_the_order_in_which_they_are_used(toolkit_command: Callable[..., Result]) -> None:
    shown = re.findall(r"^  (\S+)  ", toolkit_command("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert [shown.index(name) for name in ("simulate", "train", "export", "verify", "batch-predict")] == sorted(
        shown.index(name) for name in ("simulate", "train", "export", "verify", "batch-predict")
    )


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
