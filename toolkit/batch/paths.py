"""Where a run writes, and whether it may."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.batch.sources import OUTPUT_ENDING, REJECTED_ENDING, VIOLATION_ENDING, WORK_ENDING
from toolkit.errors import OutputError


def default_output(given: Sequence[str | Path], names: Sequence[str]) -> Path:
    """`<input>.predictions.parquet` beside the one file or folder that was given.

    Args:
        given: as the user named them.
        names: the files found.
    Raises:
        OutputError: there are several.
    """
    if len(given) > 1 or (len(names) > 1 and not os.path.isdir(given[0])):
        raise OutputError("there are several inputs. Name the file for their predictions: --output FILE.parquet")
    path = Path(given[0]) if os.path.isdir(given[0]) else Path(names[0])
    return path.with_name(path.name.removesuffix(".parquet") + OUTPUT_ENDING)


@dataclass(frozen=True)
class Paths:
    """All that a run writes: the result, and beside it the folder of what is not finished."""

    output: Path
    rejected: Path
    violation: Path
    work: Path

    @staticmethod
    def of(output: Path) -> Paths:
        if not output.parent.is_dir():
            raise OutputError(
                f"{output}: the folder {output.parent} does not exist. Make it, or name another with --output."
            )
        stem = output.name.removesuffix(".parquet")
        rejected, violation = (output.with_name(stem + ending) for ending in (REJECTED_ENDING, VIOLATION_ENDING))
        return Paths(output, rejected, violation, output.with_name(output.name + WORK_ENDING))

    def check_not_inputs(self, names: Iterable[str]) -> None:
        """Whether nothing that is read would be written to, even with --overwrite."""
        written = {os.path.realpath(path): path for path in (self.output, self.rejected, self.violation)}
        for name in names:
            if path := written.get(os.path.realpath(name)):
                raise OutputError(
                    f"{path}: is an input, and this run would replace it. Name another output with --output."
                )

    def check_free(self, overwrite: bool, *, unpublished: bool = False) -> None:
        """Whether the result may go where it should.

        Args:
            overwrite: what is there may be replaced.
            unpublished: the run to be finished may have put its rejected rows there already.
        """
        for path in (self.output, self.rejected):
            if path.is_dir():
                raise OutputError(f"{path}: is a folder. Name a file with --output.")
            if path.exists() and not overwrite and not (unpublished and path == self.rejected):
                raise OutputError(f"{path}: exists. Replace it with --overwrite, or name another output with --output.")
