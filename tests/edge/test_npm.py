"""Packages of npm in the cache: what is said where npm is missing or fails, and that nothing half-installed is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge_inputs import MODEL, entries, require
from toolkit.errors import TargetError
from toolkit.targets import cache
from toolkit.targets.node import TARGET
from toolkit.targets.npm import installed, why_no_node


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    why_no_node.cache_clear()
    yield tmp_path / "cache"
    why_no_node.cache_clear()


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def test_a_machine_without_node_is_told_what_to_install(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert TARGET.why_not() == "node is not installed. Install it: apt-get install nodejs npm"
    with pytest.raises(TargetError, match="node is not installed. Install it: apt-get install"):
        TARGET.load(MODEL / "model.float32.onnx", entries()["model.float32.onnx"], "optimized")
    assert left_in(empty_cache) == []


def test_packages_that_cannot_be_installed_are_named_with_what_npm_says(empty_cache: Path, tmp_path: Path) -> None:
    require(why_no_node())
    project = tmp_path / "project"
    project.mkdir()
    # Not what the lock holds: npm ends before it asks the registry.
    (project / "package.json").write_text('{"dependencies": {"onnxruntime-web": "1.30.0"}}')
    (project / "package-lock.json").write_text('{"lockfileVersion": 3, "packages": {"": {}}}')
    with pytest.raises(TargetError, match=r"^npm cannot install onnxruntime-web \(code EUSAGE, .*\). Is its registry"):
        installed("unlike", project)
    assert left_in(empty_cache) == []
