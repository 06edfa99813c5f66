"""The folder for real devices: without this toolkit its program passes good files and fails bad ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from toolkit.heads import write_plain_softplus
from toolkit.probe_pack import RUNNER

Command = Callable[..., Result]
SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "model"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written from the sample model, whose files are of all precisions. Do not write into it: copy it."""
    from toolkit.probe_pack import write_probe_pack

    return write_probe_pack(SAMPLE, tmp_path_factory.mktemp("pack") / "pack").folder


def check(folder: Path, *files: str) -> subprocess.CompletedProcess[str]:
    """Run its program as on a device: in another folder, without this toolkit or anything of the user's on the path."""
    program = (
        "import runpy, sys; sys.modules['toolkit'] = sys.modules['export'] = None; "
        f"sys.argv = ['check.py', *{list(files)!r}]; runpy.run_path({str(folder / 'check.py')!r}, run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=folder.parent, capture_output=True, text=True, timeout=120
    )


def test_program_is_of_at_most_60_lines() -> None:
    assert len(RUNNER.read_text().splitlines()) <= 60


def test_program_passes_every_file_without_the_toolkit(pack: Path) -> None:
    files = [each["file"] for each in json.loads((SAMPLE / "manifest.json").read_text())["files"]]
    done = check(pack)
    assert done.returncode == 0, done.stdout + done.stderr
    for file in files:
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{file} ")]
        assert line.endswith("passed")


def test_pack_holds_arrays_without_objects_and_the_bytes_of_the_manifest(pack: Path) -> None:
    content = json.loads((pack / "pack.json").read_text())
    manifest = json.loads((SAMPLE / "manifest.json").read_text())
    inputs, truth = (np.load(pack / name, allow_pickle=False) for name in ("inputs.npy", "truth.npy"))
    assert inputs.dtype == np.float32 and inputs.shape[1:] == (200, 2) and np.isfinite(inputs).all()
    assert truth.dtype == np.float64 and truth.shape == (content["compared"], 3) and (truth > 0).all()
    assert np.abs(inputs[content["compared"] :]).max() == np.finfo(np.float32).max  # the ends of what can be typed
    for entry, known in zip(content["files"], manifest["files"], strict=True):
        assert (pack / entry["file"]).read_bytes() == (SAMPLE / known["file"]).read_bytes()
        assert entry["lower_bound"] == list(known["lower_bound"].values())


def test_readme_of_the_pack_is_half_a_page_and_names_what_is_there(pack: Path) -> None:
    text = (pack / "README.md").read_text()
    assert len(text.splitlines()) < 30 and "v, a, t0" in text and "200 rows x (rt, correct)" in text
    assert "{" not in text


def another_model(path: Path) -> None:
    """A head alone, which takes other inputs."""
    write_plain_softplus(".tflite", 400, path.parent).replace(path)


def wrong_weights(path: Path) -> None:
    """A few of its weights are those of another network."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4 * 4
    content[middle : middle + 4000] = np.full(1000, 0.3, np.float32).tobytes()
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("sabotage", [another_model, wrong_weights, cut_short])
def test_program_fails_a_sabotaged_file(pack: Path, tmp_path: Path, sabotage: Callable[[Path], None]) -> None:
    folder = Path(shutil.copytree(pack, tmp_path / "pack"))
    sabotage(folder / "model.float32.tflite")
    done = check(folder, "model.float32.tflite", "model.float32.onnx")
    assert done.returncode != 0
    if done.returncode == 1:  # LiteRT may also be ended by what is no model
        assert "FAILED" in done.stdout and "model.float32.onnx" in done.stdout


def test_program_fails_estimates_below_the_bound(pack: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pack, tmp_path / "pack"))
    content = json.loads((folder / "pack.json").read_text())
    content["files"][0]["lower_bound"][1] = 1e-3  # the smallest are 4e-38: now they are below
    (folder / "pack.json").write_text(json.dumps(content))
    done = check(folder, content["files"][0]["file"])
    assert done.returncode == 1 and "FAILED" in done.stdout


def test_program_says_so_where_no_file_can_be_run(pack: Path) -> None:
    done = check(pack, "no_such.tflite")
    assert done.returncode == 1 and done.stdout.count("\n") == 1


def test_probe_pack_command_writes_the_folder_once(toolkit_command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "pack"
    result = toolkit_command("probe-pack", folder, "--model", SAMPLE)
    assert result.exit_code == 0 and "files" in result.stdout and (folder / "check.py").is_file()
    again = toolkit_command("probe-pack", folder, "--model", SAMPLE)
    assert again.exit_code == 1 and "is there already. Name another folder" in again.stderr


def test_probe_pack_leaves_nothing_of_a_model_whose_file_was_changed(toolkit_command: Command, tmp_path: Path) -> None:
    model = Path(shutil.copytree(SAMPLE, tmp_path / "model"))
    cut_short(model / "model.int8.onnx")
    result = toolkit_command("probe-pack", tmp_path / "pack", "--model", model)
    assert result.exit_code == 1 and "sha256 differs" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
