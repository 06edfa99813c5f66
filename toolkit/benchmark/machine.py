"""Where a benchmark ran: speeds mean nothing without it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from toolkit.cores import usable_cores

CPUINFO = Path("/proc/cpuinfo")
NAMED_BY = ("model name", "Model", "Hardware")  # x86; then boards with arm
RUNTIMES = ("ai-edge-litert", "onnxruntime")


@dataclass(frozen=True)
class Machine:
    """usable_cores: those this process may run on, which in a container are fewer than the machine has."""

    processor: str
    cores: int
    usable_cores: int
    system: str
    versions: dict[str, str]


def this_machine() -> Machine:
    versions = {"python": platform.python_version()}
    for package in RUNTIMES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # installed under another name, like onnxruntime-gpu
            continue
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        system=f"{platform.system()} {platform.machine()}",
        versions=versions,
    )


def _processor() -> str:
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return next((told[name] for name in NAMED_BY if told.get(name)), platform.processor() or platform.machine())
