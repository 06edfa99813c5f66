"""One self-contained HTML page about a verification, for people who decide about deployment.

page.py     what it says, in which order
charts.py   its charts
And what `toolkit evaluate --report` uses as well:
document.py the page around it all
svg.py      inline SVG
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
    from toolkit.report.document import write_document
    from toolkit.report.measured import measure_cliffs
    from toolkit.report.page import page

    write_document(page(verification, measure_cliffs(verification)), output)


__all__ = ["write_report"]
