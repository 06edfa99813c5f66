"""`toolkit evaluate --report`: the page shows what was measured, in any browser window, and loads nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from tests.browser import Browser
from toolkit.evaluation import Evaluation, evaluate, write_evaluation_report
from toolkit.evaluation.measures import measure
from toolkit.evaluation.page import page
from toolkit.evaluation.plots import GRAIN, axis_around, bias_plot, errors_plot, recovery_plot, ticks_of
from toolkit.report.markup import number
from toolkit.report.style import DARK, LIGHT
from toolkit.report.svg import Axis

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "model"
HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluate(SAMPLE, SAMPLE / "calibration.parquet")


@pytest.fixture(scope="module")
def html(found: Evaluation) -> str:
    return page(found)


def test_report_shows_the_errors_of_every_file_and_bin(html: str, found: Evaluation) -> None:
    words = re.sub(r"<[^>]*>", " ", html)
    for each in (found.network, *found.files):
        for name, measures in each.measures.items():
            recovery = measures.recovery
            for value in (recovery.rmse, recovery.r2):
                assert f" {number(value, 4)} " in words, (each.file, name)
            assert f" {number(100 * recovery.p90_relative_error)}% " in words, (each.file, name)
            assert each.format == "network" or f"{each.file}: RMSE {number(recovery.rmse, 4)}" in words
    for measures in found.network.measures.values():
        for one in measures.bins:
            assert f" {number(one.low)} to {number(one.high)} " in words
    assert "500 datasets of calibration.parquet. None has a value outside the training ranges." in words
    assert "FAILED" not in words


def test_report_is_one_page_that_refers_to_nothing(html: str) -> None:
    assert "default-src 'none'" in html.replace("&#x27;", "'")
    assert not re.search(r"<script|<img|<link|(?:src|href)=|url\(|@import", html)
    assert html.count("<h1>") == 1
    assert len(html) < 530_000  # measured 265 kB with seven files: dots take little


def test_report_shows_hostile_names_and_failures_as_they_are_written(found: Evaluation) -> None:
    manifest = replace(found.manifest, columns=('a"><img src=http://example.com/x.png>', "correct"))
    broken = replace(found.files[0], file=HOSTILE, measures={}, failures=(f"{HOSTILE}: cannot be run.",))
    text = page(replace(found, manifest=manifest, files=(broken, *found.files[1:]), model=Path("<b>model")))
    assert "<script" not in text and "<img" not in text and "<b>" not in text
    assert "FAILED" in text and "cannot be run." in text and "not run" in text


def test_dots_lie_where_estimate_and_true_value_are() -> None:
    true, estimates = np.array([1.0, 2.0, 3.0, 2.0, 2.0]), np.array([1.0, 3.0, 2.0, np.nan, 9.0])
    drawn = recovery_plot(true, estimates, Axis(1.0, 3.0), "label")
    good, bad = re.findall(r'<path d="([^"]*)" class="points(?: bad)?">', drawn)
    half = GRAIN // 2
    # Right and up; SVG counts down from the top.
    assert good == f"M0 {GRAIN}h0M{half} 0h0M{GRAIN} {half}h0"
    assert bad == f"M{half} {GRAIN}h0M{half} 0h0"  # NaN at the bottom, what is beyond the axis at its end
    assert 'class="points bad"' not in recovery_plot(true[:3], estimates[:3], Axis(1.0, 3.0), "label")


def test_bars_of_errors_and_bias_are_as_tall_as_they_are_large() -> None:
    true = np.linspace(1, 2, 400, dtype=np.float32)
    bins = measure(true, true * 1.1).bins  # 10% too large everywhere
    bars = re.findall(r'height="([\d.]+)" class="bar"', errors_plot(bins, Axis(1, 2), 0.2, "label"))
    assert [float(tall) for tall in bars] == pytest.approx([36.0] * 10, abs=0.1)  # half of 72 pixels
    biases = re.findall(r'y="([\d.]+)" width="[\d.]+%" height="([\d.]+)"', bias_plot(bins, Axis(1, 2), 0.2, "label"))
    middle = 20 + 36
    for (top, tall), one in zip(biases, bins, strict=True):
        assert float(tall) == pytest.approx(36 * one.bias / 0.2, abs=0.1)
        assert float(top) == pytest.approx(middle - float(tall), abs=0.1)
    below = measure(true, true * 0.9).bins
    for top, _ in re.findall(r'y="([\d.]+)" width="[\d.]+%" height="([\d.]+)"', bias_plot(below, Axis(1, 2), 0.2, "l")):
        assert float(top) == middle


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.2, 0.4, 0.6, 0.8]),
        (0.1, 0.6, [0.2, 0.3, 0.4, 0.5]),
        (0.0, 4.1, [1, 2, 3]),
        (1e-9, 9.9e-9, [2e-9, 4e-9, 6e-9, 8e-9]),
        (-3.0, 900.0, [200, 400, 600, 800]),
        (-0.17, 0.17, [-0.1, 0, 0.1]),
    ],
)
def test_ticks_are_round_numbers_inside_the_axis(low: float, high: float, ticks: list[float]) -> None:
    assert ticks_of(Axis(low, high)) == ticks


def test_no_axis_is_without_ticks_and_none_is_crowded() -> None:
    rng = np.random.default_rng(0)
    for low, length in zip(rng.normal(0, 10, 500), 10 ** rng.uniform(-6, 6, 500), strict=True):
        for about in (3, 4):
            assert 2 <= len(ticks_of(Axis(low, low + length), about)) <= 6, (low, length)


def test_an_axis_has_a_length_even_around_one_value() -> None:
    for values in ([3.0], [0.0, 0.0], [1e-9, 2e-9], [5.0, 5.0]):
        axis = axis_around(np.array(values))
        assert axis.low < min(values) <= max(values) < axis.high and ticks_of(axis)


def test_evaluate_command_writes_the_report(
    found: Evaluation, toolkit_command: Callable[..., Result], tmp_path: Path
) -> None:
    report = tmp_path / "evaluation.html"
    result = toolkit_command(
        "evaluate", SAMPLE / "calibration.parquet", "--model", SAMPLE, "--report", report, "--json"
    )
    assert (result.exit_code, result.stderr) == (0, f"{report}: written\n")
    # The paths differ, as the command was given them; and nothing else.
    assert report.read_text() == page(found)
    absent = tmp_path / "absent" / "evaluation.html"
    result = toolkit_command("evaluate", SAMPLE / "calibration.parquet", "--model", SAMPLE, "--report", absent)
    assert result.exit_code == 1
    assert f"{absent}: cannot be written (No such file or directory). Choose another --report." in result.stderr


def test_a_file_that_is_far_off_is_cut_off_and_does_not_hide_the_others(found: Evaluation) -> None:
    true = found.shown_true[:, 0]
    wild = replace(
        found.files[0],
        measures={**found.files[0].measures, "v": measure(true, true * 1000.0)},
        shown=found.files[0].shown * 1000.0,
    )
    text = page(replace(found, files=(wild, *found.files[1:])))
    assert text.count("In red: 500 beyond the plot, or no number.") == 3  # once for each parameter
    assert text.count('class="points bad"') == 3
    _, _, of_v, *_ = text.split("<h2>")
    tall = [float(each) for each in re.findall(r'height="([\d.]+)" class="bar"', of_v)]
    assert max(tall[:10]) > 10, "the network's bars are flat"
    assert tall[20:30] == [72.0] * 10, "the wild file's bars end at the top"


def test_report_of_a_model_with_no_exported_file(trained: Path, small_datasets: Path) -> None:
    text = page(evaluate(trained, small_datasets))
    assert "No file has been exported yet." in text and "computed in 32-bit arithmetic" in text
    assert "every exported file" not in text


@pytest.fixture(scope="module")
def report(found: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "evaluation.html"
    write_evaluation_report(found, path)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_report_opens_without_errors_or_requests_and_fits_the_window(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    opened = browser.open(report, width=width, scheme=scheme)
    assert (opened.complaints, opened.requests) == ([], [])
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    colours = LIGHT if scheme == "light" else DARK
    red, green, blue = (int(colours["data"][place : place + 2], 16) for place in (1, 3, 5))
    stroke = "getComputedStyle(document.querySelector('svg .points')).stroke"
    assert opened.evaluate(stroke) == f"rgb({red}, {green}, {blue})"
    outside = opened.evaluate(
        "[...document.querySelectorAll('svg text')].filter(text => {"
        "  const [inner, outer] = [text, text.closest('.chart')].map(each => each.getBoundingClientRect());"
        "  return inner.left < outer.left || inner.right > outer.right;"
        "}).map(text => text.textContent)"
    )
    assert outside == []


def test_every_plot_has_a_name(browser: Browser, report: Path, found: Evaluation) -> None:
    opened = browser.open(report)
    names = opened.evaluate("[...document.querySelectorAll('svg[role]')].map(svg => svg.getAttribute('aria-label'))")
    assert len(names) == 3 * (3 + 2 * len(found.files)) and all(len(name) > 40 for name in names)
