"""The picture of a benchmark: every file a point, every label legible."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from toolkit.benchmark import Benchmark, FileResult, plot_benchmark
from toolkit.benchmark.accuracy import Accuracy
from toolkit.benchmark.machine import Machine
from toolkit.benchmark.plot import OURS, PLAIN, draw_benchmark
from toolkit.benchmark.rounds import Speed
from toolkit.errors import OutputError
from toolkit.manifest import RelativeError


def file(
    name: str, speed: float, median: float, p99: float, *, plain: bool = False, proved: bool = True, bad: int = 0
) -> FileResult:
    _, precision, format = name.split(".")
    errors = {"a": RelativeError(median / 3, median, median), "b": RelativeError(median, p99, 2 * p99)}
    return FileResult(
        file=name,
        format=format,
        precision=precision,
        recipe="somehow" if plain else "",
        bytes=1000,
        speed=Speed(0.1, speed, 2 * speed, 1.0, 1e-5, 2e-5),
        accuracy=Accuracy(errors, {}, {"a": 1.0, "b": 1.0}, bad, 0),
        proved=proved,
        lower_bound={"a": 1e-38, "b": 1e-38},
        failures=(),
    )


def of(*files: FileResult) -> Benchmark:
    machine = Machine("Some $5 Processor(R)", 2, 2, "Linux x86_64", {})
    return Benchmark(Path("model"), ("a", "b"), machine, (Path("d.parquet"),), 500, 32, 2, 10, 4.0, files)


# As measured on the sample model, the int8 and integer files close together.
USUAL = of(
    file("model.float32.tflite", 45_000, 2e-7, 1e-6),
    file("model.float16.tflite", 45_300, 2e-4, 9e-4),
    file("model.int8.tflite", 110_000, 2.1e-3, 1.2e-2),
    file("model.integer.tflite", 113_000, 2.3e-3, 1.4e-2),
    file("model.float32.onnx", 43_000, 1.8e-7, 9e-7),
    file("model.float16.onnx", 43_200, 2.1e-4, 9e-4),
    file("model.int8.onnx", 98_000, 2.2e-3, 1.3e-2),
    file("plain.float32.tflite", 39_000, 3e-7, 1e-6, plain=True, proved=False),
    file("plain.dynamic.tflite", 80_000, 4e-3, 2e-2, plain=True, proved=False),
    file("plain.int8.tflite", 105_000, 0.11, 0.66, plain=True, proved=False, bad=4),
    file("plain.int16x8.tflite", 1_500, 2e-3, 1e-2, plain=True),
    file("plain.float32.onnx", 30_000, 2e-7, 1e-6, plain=True, proved=False),
    file("plain.int8.onnx", 14_000, 0.04, 0.12, plain=True),
)


def boxes(found: Benchmark) -> dict[str, tuple[float, float, float, float]]:
    """Left, bottom, right, top of every label, as shares of the picture."""
    figure = draw_benchmark(found)
    renderer = figure.canvas.get_renderer()
    (axes,) = figure.axes
    size = figure.bbox
    extents = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}
    assert len(extents) == len(axes.texts) == len(found.files), "a label for every file"
    return {
        words: (each.x0 / size.x1, each.y0 / size.y1, each.x1 / size.x1, each.y1 / size.y1)
        for words, each in extents.items()
    }


@pytest.mark.parametrize("found", [USUAL, of(*USUAL.files[:4])], ids=["all", "few"])
def test_labels_lie_inside_the_picture_and_not_on_each_other(found: Benchmark) -> None:
    placed = list(boxes(found).items())
    for index, (words, (left, bottom, right, top)) in enumerate(placed):
        assert left >= 0 and bottom >= 0 and right <= 1 and top <= 1, words
        for other, (its_left, its_bottom, its_right, its_top) in placed[:index]:
            apart = right <= its_left or its_right <= left or top <= its_bottom or its_top <= bottom
            assert apart, (words, other)


def test_labels_say_what_is_wrong_with_a_file() -> None:
    words = boxes(USUAL)
    assert "int8 TFLite by the book: not positive" in words
    assert "dynamic TFLite by the book: not proved" in words
    assert {"int8 TFLite", "int8 ONNX by the book"} <= words.keys()


def test_points_are_speed_and_median_error_of_the_worst_parameter() -> None:
    (axes,) = draw_benchmark(of(file("model.int8.onnx", 98_000, 2e-3, 1.3e-2))).axes
    line, marker = axes.lines
    assert marker.get_xydata().tolist() == [[98_000, 2e-3]] and marker.get_marker() == "s"
    assert line.get_ydata().tolist() == [2e-3, 1.3e-2]
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_plot_is_a_png_with_both_kinds_of_files_in_it(tmp_path: Path) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    path = tmp_path / "plot.png"
    plot_benchmark(USUAL, path)
    image = imread(path)
    assert image.shape[0] > 500 and image.shape[1] > 900
    for color in (OURS, PLAIN):
        # Measured: 1,700 and 1,900 pixels of exactly these colours.
        assert (np.abs(image[..., :3] - to_rgb(color)) < 0.01).all(axis=2).sum() > 500, color
    assert list(tmp_path.iterdir()) == [path]


def test_plot_takes_errors_of_0_and_leaves_out_what_could_not_be_measured() -> None:
    failed = FileResult("model.int8.onnx", "onnx", "int8", "", 10, None, None, False, {}, ("broken",))
    nan = file("model.float16.onnx", 1e4, float("nan"), float("nan"))
    (axes,) = draw_benchmark(of(file("model.float32.onnx", 1e4, 0.0, 0.0), failed, nan)).axes
    assert [text.get_text() for text in axes.texts] == ["float32 ONNX"]
    (empty,) = draw_benchmark(of(failed)).axes
    assert not empty.texts


def test_plot_says_that_matplotlib_is_missing_before_anything_is_measured(
    exported: Path, tmp_path: Path, toolkit_command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    result = toolkit_command("benchmark", "--model", exported, "--plot", tmp_path / "plot.png")
    assert result.exit_code == 1 and result.stdout == ""
    assert "benchmark --plot needs matplotlib" in result.stderr and "softplus-toolkit[train]" in result.stderr


def test_plot_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder .*/nowhere. Make it, or choose another --plot."):
        plot_benchmark(USUAL, tmp_path / "nowhere" / "plot.png")


def test_plot_tells_that_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "plot.png").mkdir()
    with pytest.raises(OutputError, match="plot.png: cannot be written"):
        plot_benchmark(USUAL, tmp_path / "plot.png")
