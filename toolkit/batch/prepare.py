"""From what the user names to a run that could begin: everything is read and judged, nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toolkit.batch.checks import CHECKS
from toolkit.batch.columns import REASON, SOURCE_FILE, SOURCE_ROW, check_interval_names, check_schemas
from toolkit.batch.damage import Lost, open_undamaged
from toolkit.batch.paths import Paths, default_output
from toolkit.batch.score import Job
from toolkit.batch.sources import find_files, open_sources
from toolkit.batch.work import RunKey, run_key
from toolkit.cores import usable_cores
from toolkit.errors import InputError, ModelError
from toolkit.estimator import DEFAULT_FILE
from toolkit.interval_facts import limits_of
from toolkit.manifest import ModelFile, check_unchanged, find_file, read_manifest
from toolkit.runtime import runtime_for
from toolkit.spec import Spec


@dataclass(frozen=True)
class Prepared:
    """A run that could begin.

    Attributes:
        scoring: the manifest's entry for the file that scores.
        lost: what is left out because it cannot be read.
    """

    job: Job
    key: RunKey
    paths: Paths
    scoring: ModelFile
    lost: tuple[Lost, ...] = ()

    def describe_layouts(self) -> list[str]:
        """`input.parquet: datasets in 'x', 200 x 2, ...`; one line for all files that are alike."""
        alike: dict[str, list[str]] = {}
        for source in self.job.sources:
            alike.setdefault(source.layout.describe(), []).append(source.name)
        lines = []
        for layout, names in alike.items():
            more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
            lines.append(f"{names[0]}{more}: datasets in {layout}")
        return lines


def prepare(
    inputs: str | Path | Sequence[str | Path],
    *,
    model: Path | str,
    output: Path | str | None,
    file: str | None,
    check: str,
    column: str | None,
    order: str | None,
    group_by: Sequence[str] = (),
    columns: Sequence[str] = (),
    strict_range: bool,
    runtime: str | None = None,
    keep_going: bool = False,
    interval: float | None = None,
) -> Prepared:
    """What `batch_predict` would do with these arguments, which are its own; it raises the same errors."""
    if check not in CHECKS:
        raise ValueError(f"check is {check!r}, not one of {', '.join(CHECKS)}")
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    directory = Path(model)
    manifest = read_manifest(directory)
    if strict_range and not manifest.column_ranges:
        raise ModelError(f"{directory}: nobody recorded the ranges of its training data. Leave out --strict-range.")
    scoring = find_file(directory, file or DEFAULT_FILE)
    others = tuple(entry for entry in manifest.files if entry.file != scoring.file and check != "off")
    _check_options(manifest.spec, column, order, group_by, columns)
    if keep_going and group_by:
        raise InputError("--keep-going is not for tidy tables: with rows missing, their groups would be wrong.")
    names = find_files(given)
    open_files = partial(
        open_sources, spec=manifest.spec, column=column, order=order, group_by=group_by, columns=columns
    )
    if keep_going:
        sources, lost = open_undamaged(names, lambda name: open_files([name])[0], usable_cores())
    else:
        sources, lost = open_files(names), ()
    limits = None
    if interval is not None:
        check_interval_names(manifest.spec.parameters)
        limits = limits_of(scoring, manifest.spec, interval)
    check_schemas(sources, manifest.spec.parameters, limits is not None)
    paths = Paths.of(default_output(given, names) if output is None else output)
    paths.check_not_inputs(names)
    ranges = "; ".join(f"{each.minimum:.9g} to {each.maximum:.9g}" for each in manifest.column_ranges)
    ran = runtime_for(scoring.file, runtime)
    options = {
        "--file": scoring.file,
        "--runtime": ran,
        "--check": check,
        "--strict-range": "on" if strict_range else "off",
        "--interval": "off" if interval is None else f"{float(interval)!r}",
        "the training ranges": ranges,
    }
    key = run_key(options, (scoring, *others), sources)
    job = Job(
        sources,
        manifest.spec,
        check_unchanged(directory, scoring),
        tuple(check_unchanged(directory, entry) for entry in others),
        check,
        paths.work,
        key.digest,
        manifest.column_ranges,
        strict_range,
        ran,
        limits,
    )
    return Prepared(job, key, paths, scoring, lost)


def _check_options(
    spec: Spec, column: str | None, order: str | None, group_by: Sequence[str], columns: Sequence[str]
) -> None:
    """Whether the options that say where the datasets are go together."""
    if group_by and (column or order):
        raise InputError("--group-by is for tidy tables, --column and --order for one dataset a row. Leave one out.")
    if ours := {SOURCE_FILE, SOURCE_ROW, REASON}.intersection(group_by):
        raise InputError(f"--group-by {ours.pop()}: the result has a column of this name. Rename it in the input.")
    if columns and not group_by:
        raise InputError("--columns names the columns of a tidy table. Name its id as well: --group-by ID")
    if columns and len(columns) != len(spec.columns):
        wanted = ", ".join(spec.columns)
        raise InputError(f"--columns names {len(columns)} columns, the model takes {len(spec.columns)} ({wanted}).")
