"""The tab key: commands, options, model directories, exported files and columns, asked of click and of a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.shell_completion import BashComplete
from click.testing import Result

from tests.test_imports import HEAVY, modules_after
from toolkit.cli import main

Offered = Callable[..., list[str]]


@pytest.fixture
def workshop(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: two models, and a Parquet file of many columns."""
    for folder in ("model", "kept/older"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(exported / "manifest.json", tmp_path / folder)
    (tmp_path / "nothing").mkdir()
    table = pa.table({"trials": [[1.0]], "truth": [1.0], "tempo": [2.0], "subject": ["a"]})
    (tmp_path / "nights").mkdir()
    pq.write_table(table, tmp_path / "nights" / "first.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOOLKIT_MODEL", raising=False)
    return tmp_path


@pytest.fixture
def offered(workshop: Path) -> Offered:
    """What is offered for the last word, which is not finished."""

    def complete(*words: str) -> list[str]:
        *before, last = words
        found = BashComplete(main, {}, "toolkit", "_TOOLKIT_COMPLETE").get_completions(before, last)
        return [item.value for item in found if item.type == "plain"]

    return complete


def test_completion_offers_commands_and_options(offered: Offered) -> None:
    assert offered("ba") == ["batch-predict"]
    assert offered("batch-predict", "--dry") == ["--dry-run"]
    assert offered("batch-predict", "--check", "") == ["all", "sample", "off"]


@pytest.mark.parametrize("command", ["batch-predict", "export", "verify", "benchmark"])
def test_completion_offers_the_model_directories_near(offered: Offered, command: str) -> None:
    assert offered(command, "--model", "") == ["kept/older", "model"]
    assert offered(command, "--model", "ke") == ["kept/older"]
    assert offered(command, "--model", "kept/") == ["kept/older"]


def test_completion_leaves_other_folders_to_the_shell(workshop: Path) -> None:
    complete = BashComplete(main, {}, "toolkit", "_TOOLKIT_COMPLETE")
    (item,) = complete.get_completions(["verify", "--model"], "noth")
    assert (item.type, item.value) == ("dir", "noth")
    (item,) = complete.get_completions(["batch-predict"], "nig")
    assert (item.type, item.value) == ("file", "nig")


def test_completion_offers_the_exported_files_of_the_model(
    offered: Offered, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit.manifest import read_manifest

    files = [entry.file for entry in read_manifest(exported).files]
    assert offered("batch-predict", "a.parquet", "--file", "") == files
    assert offered("batch-predict", "--model", "kept/older", "--file", "model.float16") == [
        file for file in files if file.startswith("model.float16")
    ]
    assert offered("batch-predict", "--model", "nothing", "--file", "") == []
    monkeypatch.setenv("TOOLKIT_MODEL", "nothing")
    assert offered("batch-predict", "--file", "") == []
    monkeypatch.setenv("TOOLKIT_MODEL", "kept/older")
    assert offered("batch-predict", "--file", "") == files


@pytest.mark.parametrize("given", ["nights/first.parquet", "nights", "nights/*.parquet"])
def test_completion_offers_the_columns_of_the_input(offered: Offered, given: str) -> None:
    assert offered("batch-predict", given, "--column", "") == ["trials", "truth", "tempo", "subject"]
    assert offered("batch-predict", given, "--check", "off", "--column", "tr") == ["trials", "truth"]


def test_completion_offers_columns_one_after_the_other_where_several_are_wanted(offered: Offered) -> None:
    given = ("train", "nights/first.parquet", "--parameters")
    assert offered(*given, "t") == ["trials", "truth", "tempo"]
    assert offered(*given, "truth,t") == ["truth,trials", "truth,tempo"]


@pytest.mark.parametrize("given", [[], ["absent.parquet"], ["nothing"], ["model/manifest.json"]])
def test_completion_offers_no_columns_where_there_is_no_parquet_file(offered: Offered, given: list[str]) -> None:
    assert offered("batch-predict", *given, "--column", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_command_prints_a_script_that_asks_the_command(
    toolkit_command: Callable[..., Result], shell: str
) -> None:
    result = toolkit_command("completion", shell)
    assert result.exit_code == 0 and f"_TOOLKIT_COMPLETE={shell}_complete" in result.stdout


def test_completion_loads_no_heavy_library_unless_columns_are_asked_for(workshop: Path) -> None:
    def loaded(*words: str) -> set[str]:
        *before, last = words
        return modules_after(
            f"import os; os.chdir({str(workshop)!r})\n"
            "from click.shell_completion import BashComplete\nfrom toolkit.cli import main\n"
            f"assert BashComplete(main, {{}}, 'toolkit', '_TOOLKIT_COMPLETE').get_completions({before}, {last!r})"
        )

    assert HEAVY.isdisjoint(loaded("ba"))
    assert HEAVY.isdisjoint(loaded("batch-predict", "--model", ""))
    assert HEAVY.isdisjoint(loaded("batch-predict", "--file", ""))
    columns = loaded("batch-predict", "nights", "--column", "")
    assert HEAVY & columns <= {"numpy", "pyarrow"}


ASK = """
eval "$(toolkit completion bash)"
COMP_WORDS=({words}) COMP_CWORD={last}
_toolkit_completion toolkit
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("toolkit batch-predict --dry", "--dry-run"),
        ("toolkit batch-predict --model kept/older --file model.float32.t", "model.float32.tflite"),
        ("toolkit batch-predict nights --column te", "tempo"),
        ("toolkit verify --model m", "model"),
    ],
)
def test_completion_works_in_bash(workshop: Path, words: str, expected: str) -> None:
    """In a bash that reads the script as a user's ~/.bashrc does; `toolkit` is the command on the PATH."""
    folder = workshop / "bin"
    folder.mkdir()
    (folder / "toolkit").write_text(f"#!{sys.executable}\nfrom toolkit.cli import main\nmain()\n")
    (folder / "toolkit").chmod(0o755)
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK.format(words=words, last=len(words.split()) - 1)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
    )
    assert (done.stdout.split(), done.returncode) == ([expected], 0), done.stderr
