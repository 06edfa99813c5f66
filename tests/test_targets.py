"""The frame of emulated targets, without one: the cache, and what verify says of files that a target does not run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import Result

import toolkit.targets
from toolkit.errors import ModelError, TargetError
from toolkit.report import write_report
from toolkit.runtime import load
from toolkit.tables import print_verdicts
from toolkit.targets import TARGETS, find_target
from toolkit.targets.cache import COMPLETE, cache_folder, made_once
from toolkit.targets.host_side import around_codes, host_in
from toolkit.trials import PIECE
from toolkit.verification import verify

if TYPE_CHECKING:
    from toolkit.manifest import ModelFile
    from toolkit.spec import Predict

SAMPLE_MODEL = Path(__file__).resolve().parent.parent / "samples" / "model"


@dataclass(frozen=True)
class OtherKernels:
    """A target that is no other machine: ONNX Runtime without its optimizer, under two names."""

    formats: tuple[str, ...] = ("onnx",)
    missing: str = ""
    name: str = "other"
    description: str = "other kernels of this machine"

    def why_not(self) -> str:
        return self.missing

    def runs(self, entry: ModelFile) -> str:
        return "" if entry.format in self.formats else f"runs no .{entry.format} files"

    def variants(self, entry: ModelFile) -> tuple[str, ...]:
        return "plain", "simple"

    def memory(self, path: Path, entry: ModelFile, variant: str) -> dict[str, int]:
        return {"flash": 123456, "stack": 789} if variant == "plain" else {}

    def load(self, path: Path, entry: ModelFile, variant: str) -> Predict:
        return load(path, kernels="unoptimized")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOFTPLUS_TOOLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_targets_download_is_kept_where_the_user_says_or_in_the_usual_place(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("SOFTPLUS_TOOLKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() in (Path("/somewhere/softplus-toolkit"), Path.home() / "Library/Caches/softplus-toolkit")


def test_a_folder_is_made_once_and_anew_for_another_recipe(cache: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "tool").write_text(str(len(made)))

    with ThreadPoolExecutor(4) as threads:  # whoever comes second waits for the first
        first, *same = threads.map(lambda _: made_once("board", {"version": 1}, make), range(4))
    assert set(same) == {first} and first.parent == cache and len(made) == 1
    other = made_once("board", {"version": 2}, make)
    assert other != first and [(folder / "tool").read_text() for folder in (first, other)] == ["1", "2"]
    assert not made[0].exists()  # it was renamed


def test_a_folder_that_could_not_be_made_leaves_nothing_and_is_tried_again(cache: Path) -> None:
    def stops(folder: Path) -> None:
        (folder / "half").write_text("")
        raise TargetError("no network")

    with pytest.raises(TargetError, match="no network"):
        made_once("board", 1, stops)
    assert [each.suffix for each in cache.iterdir()] == [".lock"]
    folder = made_once("board", 1, lambda folder: None)
    assert [each.name for each in folder.iterdir()] == [COMPLETE]


def test_a_folder_without_its_mark_is_made_again(cache: Path) -> None:
    folder = made_once("board", 1, lambda folder: None)
    (folder / COMPLETE).unlink()
    (folder / "half").write_text("")
    assert made_once("board", 1, lambda folder: None) == folder
    assert not (folder / "half").exists()


def test_a_cache_that_cannot_be_written_is_named_with_the_variable_for_another(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(TargetError, match=r"cache: board cannot be kept there .* \$SOFTPLUS_TOOLKIT_CACHE"):
        made_once("board", 1, lambda folder: None)


def test_verify_judges_what_a_target_runs_and_lists_the_rest(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verification = verify(exported, on=OtherKernels())
    assert verification.passed
    assert [each.file for each in verification.verdicts] == ["model.float32.onnx", "model.float16.onnx"]
    assert [trial.kernels for trial in verification.verdicts[0].trials] == ["plain", "simple"]
    said = verification.to_json()
    assert said["target"] == "other kernels of this machine"
    assert said["not_run"][0] == {"file": "model.float32.tflite", "reason": "runs no .tflite files"}
    assert said["memory"] == [
        {"file": file, "variant": "plain", "bytes": {"flash": 123456, "stack": 789}}
        for file in ("model.float32.onnx", "model.float16.onnx")
    ]
    print_verdicts(verification)
    shown = capsys.readouterr().out
    assert "model.float32.tflite: not run. runs no .tflite files" in shown
    assert "Run on other kernels of this machine." in shown
    assert "model.float16.onnx: takes 123,456 bytes of flash and 789 bytes of stack, plain." in shown
    write_report(verification, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "The files were run on <strong>other kernels of this machine</strong>." in page
    assert "<strong>model.float32.tflite</strong>: runs no .tflite files" in page
    assert "other kernels of this machine: plain and simple" in page
    assert "<strong>model.float16.onnx</strong>: 123,456 bytes of flash and 789 bytes of stack, plain" in page


def test_a_target_s_estimates_are_those_that_are_judged(exported: Path) -> None:
    class Wrong(OtherKernels):
        def load(self, path: Path, entry: ModelFile, variant: str) -> Predict:
            right = load(path)
            return lambda datasets: right(datasets) * np.float32(1.5 if variant == "simple" else 1)

    for verdict in verify(exported, on=Wrong()).verdicts:
        assert verdict.relative_error["rate"].max == pytest.approx(0.5, abs=0.01)
        assert any("the gate for" in failure for failure in verdict.failures)


def test_verify_on_a_target_that_runs_no_file_is_an_error_and_no_pass(exported: Path) -> None:
    with pytest.raises(ModelError, match="other runs no exported file of this model. model.float32.tflite: runs no"):
        verify(exported, on=OtherKernels(formats=()))


def test_verify_on_a_target_that_cannot_run_here_says_what_to_install(
    exported: Path, toolkit_command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TargetError, match="^other: cannot be run on this machine. Install it: apt-get install it$"):
        verify(exported, on=OtherKernels(missing="Install it: apt-get install it"))
    monkeypatch.setattr(shutil, "which", lambda program: None)
    refused = toolkit_command("verify", "--model", exported, "--on", "arm64")
    assert refused.exit_code == 1 and not refused.stdout
    assert refused.stderr.startswith("Error: arm64: cannot be run on this machine. It takes ")


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_is_found_by_its_name(name: str) -> None:
    assert find_target(name).name == name
    assert Path(toolkit.targets.__file__).with_name(f"{name.replace('-', '_')}.py").is_file()


def test_codes_of_an_integer_file_become_the_estimates_of_the_runtime() -> None:
    path = SAMPLE_MODEL / "model.integer.tflite"
    host = host_in(path)
    assert host is not None and host_in(SAMPLE_MODEL / "model.float32.tflite") is None
    codes = np.array([[-128, 0, 127], [5, 6, 7]], np.int8)
    predict = around_codes(path, host, lambda inputs: codes[: len(inputs)])
    datasets = np.zeros((2, 200, 2), np.float32)
    logits = host.logits().astype(np.float64)
    expected = np.logaddexp(0.0, [[logits[code + 128, i] for i, code in enumerate(row)] for row in codes.tolist()])
    assert predict(datasets) == pytest.approx(expected, rel=1e-6)
    datasets[1, 7, 0] = np.nan
    assert np.isfinite(predict(datasets)[0]).all() and np.isnan(predict(datasets)[1]).all()
    with pytest.raises(ModelError, match="for 3 datasets, not codes"):
        predict(np.zeros((3, 200, 2), np.float32))


@pytest.mark.parametrize("sizes", [(1, PIECE - 1, 2), (PIECE, PIECE), (3 * PIECE + 5,), (0, 2, 0)])
def test_inputs_of_several_kinds_are_run_in_pieces_and_come_back_apart(sizes: tuple[int, ...]) -> None:
    from toolkit.probes import Probes
    from toolkit.trials import _run

    numbers = np.arange(sum(sizes), dtype=np.float32)
    given = np.split(numbers[:, None, None], np.cumsum(sizes)[:-1])
    called: list[int] = []

    def run(datasets: np.ndarray) -> np.ndarray:
        called.append(len(datasets))
        return datasets[:, 0, :]

    found = _run("file", run, [Probes("kind", each, ()) for each in given], 1)
    assert [each[:, 0].tolist() for each in found] == [each[:, 0, 0].tolist() for each in given]
    assert called == [*[PIECE] * (sum(sizes) // PIECE), *([sum(sizes) % PIECE] if sum(sizes) % PIECE else [])]
