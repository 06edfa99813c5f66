"""What a target is: an emulated machine, or another engine, that runs exported files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from toolkit.manifest import ModelFile
    from toolkit.spec import Predict


class Target(Protocol):
    """Attributes:
    name: its key in toolkit.targets.TARGETS.
    description: one line for people, fit to stand after "on": `arm64, Cortex-A72 and Cortex-A76 emulated by QEMU`.
    """

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    def why_not(self) -> str:
        """Why this machine cannot run it, and what to install, in a sentence; empty where it can. Downloads nothing."""
        ...

    def runs(self, entry: ModelFile) -> str:
        """Why it cannot run a file, in words to follow the file's name and a colon; empty where it can."""
        ...

    def variants(self, entry: ModelFile) -> Sequence[str]:
        """The ways in which it runs a file, at least one: processors, instruction sets. They are judged one by one, as
        this machine's kernel sets are."""
        ...

    def memory(self, path: Path, entry: ModelFile, variant: str) -> Mapping[str, int]:
        """Bytes that the file takes of each kind of memory there, for a file that it runs; empty where nothing counts
        them.

        Raises:
            TargetError, ModelError: as `load`.
        """
        ...

    def load(self, path: Path, entry: ModelFile, variant: str) -> Predict:
        """The file as a function: float32 (n, rows, columns) -> float32 (n, parameters), for any n; an integer-only
        file with its host side. The first call may download what the target needs, and the function may start a
        process for each call.

        Args:
            path: the file, whose bytes are those that `entry` is about.
            variant: one of `variants(entry)`.
        Raises:
            TargetError: what the target needs cannot be downloaded or built, or the target fails.
            ModelError: the file is none that it takes. The function itself raises TargetError, too.
        """
        ...
