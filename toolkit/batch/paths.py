"""Where a run writes, and whether it may."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.batch.sources import OUTPUT_ENDING, REJECTED_ENDING, VIOLATION_ENDING, WORK_ENDING
from toolkit.batch.storage import Place, as_place, beside, folder_of, is_there
from toolkit.errors import OutputError
from toolkit.places import is_uri, plain

NO_NAMES = ("", "..")  # what Path(".").name and Path("..").name are


def default_output(given: Sequence[str | Path], names: Sequence[str]) -> Place:
    """`<input>.predictions.parquet` beside the one file or folder that was given.

    Args:
        given: as the user named them.
        names: the files found.
    Raises:
        OutputError: there are several.
    """
    if len(given) > 1 or (len(names) > 1 and not os.path.isdir(given[0])):
        raise OutputError("there are several inputs. Name the file for their predictions: --output FILE.parquet")
    place = as_place(given[0] if os.path.isdir(plain(given[0])) else names[0])
    if isinstance(place, Path) and place.name in NO_NAMES:
        place = Path(os.path.abspath(place))
    name = folder_of(place)[1]
    if not name:
        raise OutputError(f"{place}: has no name to call the output by. Name it: --output FILE.parquet")
    return beside(place, name.removesuffix(".parquet") + OUTPUT_ENDING)


@dataclass(frozen=True)
class Paths:
    """All that a run writes: the result, and beside it the folder of what is not finished."""

    output: Place
    rejected: Place
    violation: Place
    work: Place

    @staticmethod
    def of(output: str | Path) -> Paths:
        output = as_place(output)
        if isinstance(output, Path) and not output.parent.is_dir():
            raise OutputError(
                f"{output}: the folder {output.parent} does not exist. Make it, or name another with --output."
            )
        name = folder_of(output)[1]
        if name in NO_NAMES:
            raise OutputError(f"{output}: is a folder. Name a file with --output.")
        stem = name.removesuffix(".parquet")
        rejected, violation = (beside(output, stem + ending) for ending in (REJECTED_ENDING, VIOLATION_ENDING))
        return Paths(output, rejected, violation, beside(output, name + WORK_ENDING))

    def check_not_inputs(self, names: Iterable[str]) -> None:
        """Whether nothing that is read would be written to, even with --overwrite."""
        written = {_real(path): path for path in (self.output, self.rejected, self.violation)}
        for name in names:
            if path := written.get(_real(name)):
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
            if isinstance(path, Path) and path.is_dir():
                raise OutputError(f"{path}: is a folder. Name a file with --output.")
            if is_there(path) and not overwrite and not (unpublished and path == self.rejected):
                raise OutputError(f"{path}: exists. Replace it with --overwrite, or name another output with --output.")


def _real(name: Place) -> str:
    """The same for all names of one file; what is only asked of an object store does not count."""
    return str(name).partition("?")[0] if is_uri(name) else os.path.realpath(name)
