"""Error against speed, one point a file, as a PNG: what is low and far to the right is good."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import MissingExtra, OutputError, printable
from toolkit.files import appears_whole

if TYPE_CHECKING:
    from toolkit.benchmark.result import Benchmark, FileResult

# Two of Okabe and Ito's colours, which colour-blind people tell apart; shape and words say the same again.
OURS, PLAIN = "#0072B2", "#D55E00"
MARKERS = {"tflite": "o", "onnx": "s"}
NAMES = {"tflite": "TFLite", "onnx": "ONNX", "ort": "ORT"}
SMALLEST_SHOWN = 1e-9  # an error of 0 has no place on a logarithmic axis
INK = "#333333"

# Where a label may lie seen from its point, in typographic points: nearest first.
PLACES = [
    (distance * x, distance * y)
    for distance in (9, 15, 24, 36, 52, 72)
    for x, y in ((1, 0), (-1, 0), (0.75, 0.8), (-0.75, 0.8), (0.75, -0.8), (-0.75, -0.8), (0, 1.1), (0, -1.1))
]
FAR = 12  # beyond which a line leads from the label to its point
GAP = 2  # pixels between labels

Place = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels


def check_plot(path: Path) -> None:
    """Before anything is measured: can a plot be drawn, and written there?

    Raises:
        MissingExtra: matplotlib is not installed.
        OutputError: there is no such folder.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("benchmark --plot", "train", "matplotlib")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}. Make it, or choose another --plot.")


def plot_benchmark(benchmark: Benchmark, path: Path) -> None:
    """Draw into a PNG.

    Raises:
        MissingExtra: matplotlib is not installed.
        OutputError: it cannot be written there.
    """
    check_plot(path)
    figure = draw_benchmark(benchmark)
    try:
        with appears_whole(path) as partial:
            figure.savefig(partial, format="png")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}). Choose another --plot.") from error


def draw_benchmark(benchmark: Benchmark) -> Any:
    """A matplotlib Figure with every file that could be measured.

    Each point is the median relative error of the parameter that is worst in the file; a line goes up to the 99th
    percentile of that parameter.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(8.4, 5.4), dpi=130, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    points = [(file, *_point(file)) for file in benchmark.files if _can_be_drawn(file)]
    for file, speed, median, p99 in points:
        color = PLAIN if file.plain else OURS
        axes.plot([speed, speed], [median, p99], color=color, linewidth=1.2, alpha=0.6, solid_capstyle="butt")
        axes.plot(
            *([speed], [median]),
            marker=MARKERS[file.format],
            markersize=8,
            markerfacecolor="white" if file.plain else color,
            markeredgecolor=color,
            markeredgewidth=1.8,
            linestyle="none",
        )
    axes.margins(x=0.16, y=0.1)
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", labelsize=9, colors=INK)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.9f}".rstrip("0").rstrip(".") + "%"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    _cover_a_decade(axes, [speed for _, speed, _, _ in points])
    axes.set_xlabel(f"datasets a second, one thread, batches of {benchmark.batch}", color=INK)
    axes.set_ylabel("relative error of the file's worst parameter: median, line to p99", color=INK, fontsize=9)
    figure.suptitle(_title(benchmark), x=0.01, ha="left", fontsize=9, color=INK)
    canvas.draw()
    figure.set_layout_engine("none")  # labels are placed by the pixel: nothing may move any more
    _label(axes, canvas, points)
    return figure


def _can_be_drawn(file: FileResult) -> bool:
    return file.speed is not None and file.accuracy is not None and all(map(math.isfinite, _point(file)))


def _point(file: FileResult) -> tuple[float, float, float]:
    """Speed, median and p99 of the worst parameter."""
    if not file.speed or not file.accuracy:
        return (math.nan,) * 3
    worst = max(file.accuracy.relative_error.values(), key=lambda error: error.median)
    return file.speed.one_thread, max(worst.median, SMALLEST_SHOWN), max(worst.p99, SMALLEST_SHOWN)


def _title(benchmark: Benchmark) -> str:
    where = f"{benchmark.model}, {benchmark.datasets:,} datasets, on {benchmark.machine.processor}."
    shapes = "Filled: files of the model. " + (
        "Hollow: converted by the book. " if any(file.plain for file in benchmark.files) else ""
    )
    return printable(f"{where}\n{shapes}Low and right is good.").replace("$", r"\$")


def _cover_a_decade(axes: Any, speeds: list[float]) -> None:
    """Files of nearly one speed would leave the axis without a single number."""
    if speeds and max(speeds) < 10 * min(speeds):
        middle = math.sqrt(max(speeds) * min(speeds))
        axes.set_xlim(middle / 6, middle * 6)


def _words(file: FileResult) -> str:
    words = f"{file.precision} {NAMES[file.format]}" + (" by the book" if file.plain else "")
    if file.accuracy and (file.accuracy.not_positive or file.accuracy.not_finite):
        return f"{words}: not positive"
    return words if file.proved else f"{words}: not proved"


def _label(axes: Any, canvas: Any, points: list[tuple[FileResult, float, float, float]]) -> None:
    """Write each file's name where nothing else is; what stands most alone comes last, as it finds a place anyway."""
    renderer = canvas.get_renderer()
    pixels = axes.figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    taken: list[Box] = []
    spots = []
    for file, speed, median, p99 in points:
        (x, low), (_, high) = axes.transData.transform([(speed, median), (speed, p99)])
        spots.append((file, x, low))
        taken += [_around(x, low, 6 * pixels), (x - 1, low, x + 1, high)]
    spots.sort(key=lambda spot: _room(spot, spots))
    for file, x, y in spots:
        text = axes.annotate(
            *(_words(file), (x, y), (0, 0)),
            xycoords="figure pixels",
            textcoords="offset points",
            fontsize=8.5,
            color=PLAIN if file.plain else OURS,
            annotation_clip=False,
        )
        others = [(its_x, its_y) for other, its_x, its_y in spots if other is not file]

        def cost(
            found: tuple[Place, Box], x: float = x, y: float = y, others: list[Place] = others
        ) -> tuple[float, int, int, float]:
            """Outside first of all, then what it would cover, then points it could be taken for the name of."""
            (dx, dy), (left, bottom, right, top) = found
            outside = max(frame.x0 - left, right - frame.x1, frame.y0 - bottom, top - frame.y1, 0.0)
            covered = sum(_overlap((left, bottom, right, top), other) for other in taken)
            near = math.hypot(dx, dy) * pixels
            nearer = sum(math.hypot(x + dx * pixels - a, y + dy * pixels - b) <= near for a, b in others)
            return outside, covered, nearer, near

        (dx, dy), box = min(_boxes(text, renderer, x, y, pixels), key=cost)
        text.set_position((dx, dy))
        text.set_horizontalalignment(_horizontal(dx))
        text.set_verticalalignment("center")
        taken.append(box)
        if math.hypot(dx, dy) > FAR:
            edge = math.copysign((box[3] - box[1]) / 2, dy) if dx == 0 else 0.0  # of a label right above or below
            end = axes.transData.inverted().transform([(x, y), (x + dx * pixels, y + dy * pixels - edge)])
            axes.plot(*end.T, color=INK, linewidth=0.6, alpha=0.6, zorder=1, scalex=False, scaley=False)


def _boxes(text: Any, renderer: Any, x: float, y: float, pixels: float) -> Iterator[tuple[Place, Box]]:
    """Every place and the box that the label would fill there."""
    extent = text.get_window_extent(renderer)
    width, height = extent.width, extent.height
    for dx, dy in PLACES:
        left = x + dx * pixels - {"left": 0.0, "center": width / 2, "right": width}[_horizontal(dx)]
        bottom = y + dy * pixels - height / 2
        yield (dx, dy), (left - GAP, bottom - GAP, left + width + GAP, bottom + height + GAP)


def _horizontal(dx: float) -> str:
    return "center" if dx == 0 else "left" if dx > 0 else "right"


def _overlap(box: Box, other: Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _around(x: float, y: float, half: float) -> Box:
    return x - half, y - half, x + half, y + half


def _room(spot: tuple[FileResult, float, float], spots: list[tuple[FileResult, float, float]]) -> float:
    """Pixels to the nearest other point."""
    return min((math.hypot(spot[1] - x, spot[2] - y) for file, x, y in spots if file is not spot[0]), default=0.0)
