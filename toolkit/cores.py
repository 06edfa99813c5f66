"""How many cores there are to use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores this process may run on, which in a container or under taskset are fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
