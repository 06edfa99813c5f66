"""The machines that files are meant for, emulated on this one: what runs on a phone, in a page, on a microcontroller.

frame.py    what a target is
cache.py    where the things that targets download are kept
arm64.py    one module for each target, loaded when it is asked for, holding a `TARGET`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.targets.frame import Target

# What `toolkit verify --on` takes. This module loads none of them: the command line reads the names only.
TARGETS = {
    "arm64": "toolkit.targets.arm64",
    "node": "toolkit.targets.node",
    "tflm": "toolkit.targets.tflm",
    "cortex-m": "toolkit.targets.cortex_m",
}


def find_target(name: str) -> Target:
    """The target of that name, one of TARGETS; nothing is downloaded yet."""
    target: Target = import_module(TARGETS[name]).TARGET
    return target
