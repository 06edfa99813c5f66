"""One self-contained HTML page about a verification, for people who decide about deployment.

page.py     what it says, in which order
charts.py   inline SVG
markup.py   elements and numbers as text
style.py    colours and layout
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.verification import Verification


def write_report(verification: Verification, output: Path) -> None:
    """Measure where a plain softplus ends on this machine, and write the page.

    Raises:
        OutputError: it cannot be written there.
    """
    from toolkit.errors import OutputError
    from toolkit.files import appears_whole
    from toolkit.report.measured import measure_cliffs
    from toolkit.report.page import page

    text = page(verification, measure_cliffs(verification))
    try:
        with appears_whole(output) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror}). Choose another --report.") from error


__all__ = ["write_report"]
