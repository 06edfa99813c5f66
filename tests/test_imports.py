"""Who loads what: the command starts light, and imports go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {
    *(
        "numpy",
        "pyarrow",
        "tensorflow",
        "keras",
        "onnx",
        "onnxruntime",
        "tf2onnx",
        "ai_edge_litert",
        "matplotlib",
        "ray",
    ),
    *("rich", "openvino", "scipy"),
}
LEAVES = {"toolkit.errors", "toolkit.spec", "toolkit.keras_zip"}


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_cli_starts_without_heavy_libraries() -> None:
    assert HEAVY.isdisjoint(modules_after("import toolkit.cli"))


def test_help_of_every_command_loads_no_heavy_library() -> None:
    commands = ["simulate", "train", "export", "verify", "evaluate", "inspect", "batch-predict", "benchmark"]
    for arguments in [["--help"], *([name, "--help"] for name in commands)]:
        statement = f"from toolkit.cli import main\nmain({arguments!r}, standalone_mode=False)"
        assert HEAVY.isdisjoint(modules_after(statement)), arguments


def test_the_checks_above_can_fail() -> None:
    assert "numpy" in modules_after("import toolkit.cli, numpy")


def test_scoring_and_judging_rooms_load_no_tensorflow() -> None:
    rooms = "import toolkit.batch, toolkit.runtime, toolkit.verification, toolkit.proof, toolkit.reference"
    assert {"tensorflow", "keras", "tf2onnx"}.isdisjoint(modules_after(rooms))


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "export").rglob("*.py")), ids=lambda path: path.stem)
def test_export_imports_nothing_of_toolkit_but_the_leaves(path: Path) -> None:
    assert {name for name in imports_of(path) if name.split(".")[0] == "toolkit"} <= LEAVES


@pytest.mark.parametrize("path", sorted((ROOT / "toolkit").rglob("*.py")), ids=lambda path: path.stem)
def test_only_the_command_line_imports_export(path: Path) -> None:
    uses_export = any(name.split(".")[0] == "export" for name in imports_of(path))
    assert not uses_export or path.parent.name == "commands"
