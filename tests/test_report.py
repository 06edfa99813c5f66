"""`toolkit verify --report`: the page says what the verdicts say, in any browser window, and loads nothing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from tests.bad_files import log_onnx, plain_softplus_onnx, plain_softplus_tflite, publish_unseen
from tests.browser import Browser
from toolkit.manifest import read_manifest, write_manifest
from toolkit.report.markup import Markup, count, join, listed, number, table, tag
from toolkit.report.style import DARK, LIGHT, STYLE
from toolkit.trials import BIN_EDGES
from toolkit.verification import verify

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def good_page(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from toolkit.report import write_report

    path = tmp_path_factory.mktemp("report") / "verify.html"
    write_report(verify(exported), path)
    return path


@pytest.fixture(scope="module")
def bad_page(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files with a plain softplus, one that was changed, one that is well; and names that are HTML."""
    from toolkit.report import write_report

    model = Path(shutil.copytree(exported, tmp_path_factory.mktemp("bad") / "<b>model"))
    publish_unseen(plain_softplus_tflite(model / "model.float32.tflite"))
    publish_unseen(plain_softplus_onnx(model / "model.float32.onnx"))
    with (model / "model.float16.onnx").open("ab") as file:
        file.write(b"\0")
    manifest = read_manifest(model)
    first, *others = manifest.parameters
    columns = ('a"><img src=http://example.com/x.png>', "signal")
    versions = {**manifest.versions, "</style><script>1": "&amp;"}
    hostile = replace(manifest, parameters=(replace(first, name=HOSTILE), *others), columns=columns, versions=versions)
    write_manifest(model, hostile)
    path = model.parent / "verify.html"
    write_report(verify(model), path)
    return path


class Text(HTMLParser):
    """Text by element, for the elements asked for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.found = list[str](), list[tuple[tuple[str, ...], str]]()
        self.elements = list[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.append(tag)
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.found.append((tuple(self.open), data))

    def of(self, element: str) -> list[str]:
        return [text for path, text in self.found if element in path]


@pytest.mark.parametrize("page", ["good_page", "bad_page"])
def test_report_is_one_well_formed_page_that_refers_to_nothing(page: str, request: pytest.FixtureRequest) -> None:
    html = request.getfixturevalue(page).read_text()
    text = Text(html)
    assert text.open == []
    assert {"script", "img", "link", "iframe", "object"}.isdisjoint(text.elements)
    assert "default-src 'none'" in html.replace("&#x27;", "'")
    assert not re.search(r"(?:src|href)=\"(?!#)|url\(|@import", html)
    assert text.elements.count("h1") == 1


def test_report_of_good_files_says_so_first_and_shows_the_evidence(good_page: Path, exported: Path) -> None:
    text = Text(good_page.read_text())
    words = " ".join(text.of("main"))
    assert words.startswith(
        "PASSED All 4 exported files passed Whatever finite numbers go in, every estimate is finite"
    )
    verification = verify(exported)
    for verdict, entry in zip(verification.verdicts, verification.manifest.files, strict=True):
        assert entry.sha256 in words and f"{entry.bytes:,} bytes" in words and entry.file in words
        for values in (verdict.lower_bound, verdict.minimum_probed, verdict.minimum_seen):
            for value in values.values():
                assert number(value) in words
    for assumption in verification.verdicts[0].proof.assumptions:
        assert assumption in words
    for package in ("onnxruntime", "ai-edge-litert", "tensorflow"):
        assert package in words
    assert "FAILED" not in words


def test_report_shows_where_a_plain_softplus_ends_in_each_runtime(good_page: Path) -> None:
    words = " ".join(Text(good_page.read_text()).of("main"))
    # LOG(1 + EXP(z)) is 0 where 1 + exp(z) rounds to 1, at log(2^-24) = -16.64; exp overflows at 88.7.
    assert re.search(r"LiteRT: xnnpack plain softplus below −16\.6 nowhere above 88\.\d", words)
    # exp(z) is less than half of the smallest subnormal below log(2^-150) = -103.97, and normal above log(2^-126).
    assert re.search(r"ONNX Runtime: optimized, unoptimized plain softplus below −104 −104 to −87\.3 nowhere", words)
    assert words.count("the 2 exported files nowhere nowhere nowhere below −86") >= 2


def test_report_of_bad_files_names_them_first_and_says_why_in_plain_words(bad_page: Path) -> None:
    words = " ".join(Text(bad_page.read_text()).of("main"))
    assert words.startswith(
        "FAILED 3 of 4 exported files failed Do not deploy model.float32.tflite, model.float32.onnx and"
    )
    assert "It is not proved that its estimates are positive numbers." in words
    assert "When it was run, it gave estimates that are no positive numbers." in words
    assert "Its estimates differ from those of the trained network by more than is allowed." in words
    assert "model.float16.onnx : It could not be judged." in words
    assert "sha256 differs from manifest.json" in words
    assert "model.float16.onnx was not measured: it could not be judged." in words
    assert "model.float16.tflite passed." in words
    assert "= 0 for every value" in words


def test_report_shows_hostile_names_as_they_are_written(bad_page: Path) -> None:
    html = bad_page.read_text()
    assert HOSTILE not in html and "<img" not in html and "<b>" not in html
    text = Text(html)
    assert HOSTILE in text.of("text") and HOSTILE in text.of("th")
    assert any("/<b>model" in each for each in text.of("code"))
    assert any('a"><img src=http://example.com/x.png>' in each for each in text.of("p"))
    assert "</style><script>1" in text.of("td") and "&amp;" in text.of("td")


def test_verify_command_writes_the_report_and_keeps_its_exit_code(
    toolkit_command: Callable[..., Result], exported_copy: Path, tmp_path: Path
) -> None:
    report = tmp_path / "verify.html"
    publish_unseen(log_onnx(exported_copy / "model.float32.onnx"), alone=True)
    result = toolkit_command("verify", "--model", exported_copy, "--report", report, "--json")
    assert (result.exit_code, result.stderr) == (1, f"{report}: written\n")
    html = report.read_text()
    assert "1 of 1 exported file failed" in html
    assert "probed: NaN" in html and "max ∞" in html
    absent = tmp_path / "absent" / "verify.html"
    result = toolkit_command("verify", "--model", exported_copy, "--report", absent)
    assert result.exit_code == 1
    assert f"{absent}: cannot be written (No such file or directory). Choose another --report." in result.stderr


def test_tag_escapes_text_and_attributes_but_not_markup() -> None:
    assert tag("p", "1 < 2 & 3", title='"x"') == '<p title="&quot;x&quot;">1 &lt; 2 &amp; 3</p>'
    assert tag("p", tag("b", "<"), None, class_="a", data_label=None) == '<p class="a"><b>&lt;</b></p>'
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert join("<", Markup("<br>")) == "&lt;<br>"
    assert "<td" in table(("a", "b"), [["<1>", "<2>"]], "c") and "<1>" not in table(("a", "b"), [["<1>", "<2>"]], "c")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.10312, "0.103"),
        (-17.25, "−17.2"),
        (12345.0, "1.23×10⁴"),
        (999.4, "999"),
        (999.6, "1×10³"),
        (4.4712e-38, "4.47×10⁻³⁸"),
        (1e-4, "1×10⁻⁴"),
        (-1e30, "−1×10³⁰"),
        (float("inf"), "∞"),
        (float("-inf"), "−∞"),
        (float("nan"), "NaN"),
    ],
)
def test_number_is_written_for_people(value: float, text: str) -> None:
    assert number(value) == text


def test_words_for_one_and_for_many() -> None:
    assert (count(1, "file"), count(4000, "file")) == ("1 file", "4,000 files")
    assert (listed(["a"]), listed(["a", "b", "c"])) == ("a", "a, b and c")


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb. Source: WCAG 2.2, definition of relative luminance."""
    channels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_have_the_contrast_that_wcag_asks_for(colours: dict[str, str]) -> None:
    text = [("ink", "paper"), ("quiet", "paper"), ("data", "paper"), ("good", "paper"), ("bad", "paper")]
    text += [("ink", tint) for tint in ("tint", "pale", "bad-tint", "good-tint")]
    text += [("good", "good-tint"), ("bad", "bad-tint")]
    for one, other in text:
        assert contrast(colours[one], colours[other]) >= 4.5, (one, other)
    for mark in ("data", "bad", "odd"):  # outlines and marks
        assert contrast(colours[mark], colours["paper"]) >= 3, mark
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert set(re.findall(r"var\(--([a-z-]+)\)", STYLE)) == set(LIGHT) == set(DARK)


def test_bars_of_the_error_chart_lie_where_the_errors_are(good_page: Path, exported: Path) -> None:
    """Positions in the drawing, read back against the counts they are made from."""
    from toolkit.manifest import RelativeError
    from toolkit.report.charts import Errors, errors_axis, errors_chart
    from toolkit.report.svg import Axis

    counts = np.zeros(len(BIN_EDGES) - 1, np.int64)
    place = int(np.searchsorted(BIN_EDGES, 1.05e-6)) - 1
    counts[place], counts[place + 10] = 30, 10
    errors = [Errors("a", counts, RelativeError(1e-6, 1e-5, 1e-5))]
    axis = errors_axis(errors, [{"max": 1e-4}])
    assert axis.low <= -7 and axis.high >= -4
    drawn = errors_chart(errors, {"max": 1e-4}, axis, "label")
    bars = re.findall(r'<rect x="([\d.]+)%" y="[\d.]+" width="([\d.]+)%" height="([\d.]+)" class="bar">', drawn)
    (first, width, tall), (second, _, short) = [[float(value) for value in bar] for bar in bars]
    assert first == pytest.approx(axis.share(-6), abs=0.01) and second == pytest.approx(axis.share(-5), abs=0.01)
    assert width == pytest.approx(axis.share(-5.9) - axis.share(-6), abs=0.01)
    assert tall == pytest.approx(3 * short, rel=0.01)
    assert Axis(0, 10).share(-5) == 0 and Axis(0, 10).share(20) == 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("page", ["good_page", "bad_page"])
def test_report_opens_without_errors_or_requests_and_fits_the_window(
    browser: Browser, page: str, width: int, scheme: str, request: pytest.FixtureRequest
) -> None:
    opened = browser.open(request.getfixturevalue(page), width=width, scheme=scheme)
    assert (opened.complaints, opened.requests) == ([], [])
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate("document.scripts.length + document.images.length") == 0
    colours = LIGHT if scheme == "light" else DARK
    red, green, blue = (int(colours["paper"][place : place + 2], 16) for place in (1, 3, 5))
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == f"rgb({red}, {green}, {blue})"


def test_labels_of_the_charts_stay_inside_a_narrow_page(browser: Browser, good_page: Path) -> None:
    opened = browser.open(good_page, width=360)
    outside = opened.evaluate(
        "[...document.querySelectorAll('svg text')].filter(text => {"
        "  const [inner, outer] = [text, text.closest('.chart')].map(each => each.getBoundingClientRect());"
        "  return inner.left < outer.left || inner.right > outer.right;"
        "}).map(text => text.textContent)"
    )
    assert outside == []


def test_every_chart_has_a_name_and_every_table_a_caption_or_a_heading(browser: Browser, good_page: Path) -> None:
    opened = browser.open(good_page)
    names = opened.evaluate("[...document.querySelectorAll('svg')].map(svg => svg.getAttribute('aria-label'))")
    assert len(names) == 4 * 2 + 1 and all(len(name) > 40 for name in names)
    tables = "[...document.querySelectorAll('table')]"
    captioned = opened.evaluate(f"{tables}.every(t => t.caption || t.previousElementSibling.tagName === 'H3')")
    assert captioned is True
    levels = opened.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(behind - before <= 1 for before, behind in zip(levels, levels[1:], strict=False))


def test_the_checks_above_can_fail(browser: Browser, tmp_path: Path) -> None:
    """Without the page's own policy, the browser reports a script's error and a request."""
    path = tmp_path / "bad.html"
    path.write_text("<img src='http://127.0.0.1:9/x.png'><script>undefined.x</script><p style='width: 2000px'>wide")
    opened = browser.open(path, width=360)
    assert "http://127.0.0.1:9/x.png" in opened.requests
    assert any("Uncaught" in complaint for complaint in opened.complaints)
    assert opened.evaluate("document.documentElement.scrollWidth") > 360
    # With it, neither happens even if a script got into the page.
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    path.write_text(policy + "<img src='http://127.0.0.1:9/x.png'><script>document.title = 'ran'</script>")
    opened = browser.open(path)
    assert opened.evaluate("document.title") != "ran"
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)
