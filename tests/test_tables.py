"""Tables as they look on terminals of different widths, and what they keep whole."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from toolkit.tables import print_table

HEADINGS = ("file", "rows", "largest relative error")
ROWS = [
    ["model.float32.tflite", "1,000", "v 1.6e-06, a 1.1e-06, t0 1.8e-06"],
    ["model.int8.onnx", "1,000", "v 2.1e-02, a 1.7e-02, t0 3.3e-02"],
]


def shown(width: int, **options: bool) -> list[str]:
    console = Console(width=width, file=io.StringIO(), **options)
    print_table(console, HEADINGS, ROWS, [None, "red"])
    written = console.file
    assert isinstance(written, io.StringIO)
    return [line.strip() for line in written.getvalue().splitlines() if line.strip()]


def test_print_table_has_a_line_for_each_row_where_there_is_room() -> None:
    headings, _, first, second = shown(120)
    assert headings.split() == ["file", "rows", "largest", "relative", "error"]
    assert first == "model.float32.tflite   1,000   v 1.6e-06, a 1.1e-06, t0 1.8e-06"
    assert second.endswith("v 2.1e-02, a 1.7e-02, t0 3.3e-02")


def test_print_table_puts_lists_below_each_other_where_the_terminal_is_narrow() -> None:
    lines = shown(60)
    assert [line for line in lines if "e-06" in line] == [
        "model.float32.tflite   1,000   v 1.6e-06",
        "a 1.1e-06",
        "t0 1.8e-06",
    ]


def test_print_table_puts_cells_below_each_other_where_the_terminal_is_very_narrow() -> None:
    assert shown(44)[:3] == [
        "model.float32.tflite",
        "rows: 1,000",
        "largest relative error: v 1.6e-06, a",
    ]


@pytest.mark.parametrize("width", [120, 60, 44])
def test_print_table_shows_brackets_and_escapes_as_text(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    print_table(console, HEADINGS, [["[red]\x1b[31m", "1", "[bold]x[/bold]"]])
    written = console.file
    assert isinstance(written, io.StringIO)
    assert "[red]?[31m" in written.getvalue() and "[bold]x[/bold]" in written.getvalue()
    assert "\x1b[31m" not in written.getvalue()
