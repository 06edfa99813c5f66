"""A user's network, to be read as the exporter reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.given import GivenNetwork


def starting_network(network: Path) -> GivenNetwork:
    from export.keras_file import load_network, translate_network
    from toolkit.given import GivenNetwork

    return GivenNetwork(network, load_network, translate_network)
