"""One self-contained HTML page: its head, and how it is written."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import OutputError
from toolkit.files import appears_whole
from toolkit.report.markup import Markup, tag
from toolkit.report.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # the browser itself keeps the page from loading anything


def document(title: str, *sections: Markup) -> str:
    """The whole page as text."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', tag('main', *sections)), lang='en')}\n"


def write_document(text: str, output: Path) -> None:
    """Write a page, whole or not at all.

    Raises:
        OutputError: it cannot be written there.
    """
    try:
        with appears_whole(output) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror}). Choose another --report.") from error
