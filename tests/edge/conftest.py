"""Everything in this folder needs an edge target: it is marked `edge`, and run by `make edge-test`."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.edge)
            item.add_marker(pytest.mark.timeout(600))  # the first test of a target downloads it
