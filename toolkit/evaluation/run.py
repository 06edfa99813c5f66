"""The verb: the network and every exported file over all datasets, each in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.batch.ranges import RangeCount, counted, outside
from toolkit.calibration import Piece, pieces_of
from toolkit.contained import open_child
from toolkit.datasets import Layout, layout_for, open_parquet, sort_rows
from toolkit.datasets.tidy import DATASET
from toolkit.errors import InputError, ModelError, did_you_mean
from toolkit.evaluation.coverage import coverages_of
from toolkit.evaluation.measures import Measures, measure
from toolkit.evaluation.result import Evaluated, Evaluation, RowOrder
from toolkit.intervals import DEFAULT_LEVEL, rank_of
from toolkit.manifest import KERAS_FILE, WEIGHTS_FILE, Manifest, check_unchanged, read_manifest
from toolkit.progress import Report, silent
from toolkit.promise import keeps_promise
from toolkit.reference import load_reference
from toolkit.spec import Spec
from toolkit.training_groups import group_training_files
from toolkit.trials import estimates_of

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

SHOWN = 800  # points in a plot; more only blacken it
SEED = 0  # of the orders of rows

Estimates = NDArray[np.float64]  # (datasets, parameters)
Estimate = Callable[["FloatArray"], "FloatArray | Estimates"]


@dataclass(frozen=True)
class Source:
    path: Path
    layout: Layout
    datasets: int


@dataclass(frozen=True)
class Seen:
    """What a pass of the network over all datasets has found; nothing in it grows with the size of a dataset.

    Attributes:
        true: float32 (datasets, parameters).
        estimates: float64, as many.
        moved: float64 (datasets tried, parameters), estimates with rows in another order, less those in their own.
        outside: datasets outside the training ranges.
    """

    true: FloatArray
    estimates: Estimates
    moved: Estimates
    outside: RangeCount


def evaluate(
    model: Path | str,
    datasets: Sequence[Path | str] | Path | str,
    *,
    column: str | None = None,
    group_by: str | Sequence[str] = (),
    columns: Sequence[str] = (),
    interval: float = DEFAULT_LEVEL,
    report: Report = silent,
) -> Evaluation:
    """How well the network of a model directory, and every file exported from it, recover known parameters.

    The network is the float64 forward pass of its weights, or, where nothing has been exported yet, model.keras, which
    needs TensorFlow. A file that is wrong, or takes its process down, is a result with failures; the others go on.
    Memory does not grow with the size of a dataset, only with their number times that of the parameters.

    Args:
        datasets: Parquet files with a column of datasets and one for each parameter, with its name and true values.
        column: of the datasets, where several could be.
        group_by: of tidy tables, one row an observation: the column, or columns, whose values name a dataset. Its true
            values stand in each of its rows. The tables are grouped in the folder for temporary files.
        columns: of tidy tables, those of a dataset in the model's order; the model's names by default.
        interval: level of the intervals whose coverage is measured, for all files that know some.
        report: told (datasets done, datasets in all), those of every file counted.
    Raises:
        ModelError: no model, or a network that cannot be run.
        InputError: files that cannot be read, no datasets in them, no true values, or a row that is no dataset of this
            model, named.
        MissingExtra: nothing has been exported, and TensorFlow is not installed.
    """
    model = Path(model)
    manifest = read_manifest(model)
    names = [datasets] if isinstance(datasets, str | Path) else datasets
    with ExitStack() as stack:
        if group_by:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="toolkit-evaluate-")))
            by = [group_by] if isinstance(group_by, str) else group_by
            sources = [_open_groups(names, manifest.spec, by, columns or manifest.spec.columns, folder)]
        else:
            sources = [_open(Path(name), manifest.spec, column) for name in names]
        return _evaluate(model, manifest, [Path(name) for name in names], sources, interval, report)


def _evaluate(
    model: Path, manifest: Manifest, names: Sequence[Path], sources: Sequence[Source], level: float, report: Report
) -> Evaluation:
    rank_of(level, 1)  # a level that is none is refused before anything is run
    total = sum(source.datasets for source in sources)
    if not total:
        raise InputError(f"{', '.join(map(str, names)) or 'evaluate'}: no datasets to evaluate on.")
    done = 0

    def step(datasets: int) -> None:
        nonlocal done
        done += datasets
        report(done, total * (1 + len(manifest.files)))

    with _network(model) as (name, estimate):
        seen = _see(manifest, sources, estimate, step)
    shown = np.unique(np.linspace(0, total - 1, min(total, SHOWN)).astype(np.int64))
    precision = "float64" if name == WEIGHTS_FILE else "float32"
    network = _evaluated(name, "network", precision, manifest.spec, seen.true, seen.estimates, shown)
    network = replace(
        network, coverage=coverages_of(name, manifest.interval, manifest.spec, level, seen.true, seen.estimates)
    )
    files = []
    for entry in manifest.files:
        try:
            estimates = _run(check_unchanged(model, entry), manifest.spec, sources, step)
            found = _evaluated(entry.file, entry.format, entry.precision, manifest.spec, seen.true, estimates, shown)
            coverage = coverages_of(entry.file, entry.interval, manifest.spec, level, seen.true, estimates)
            found = replace(found, coverage=coverage)
        except ModelError as error:
            nothing = np.empty((0, len(manifest.parameters)))
            found = Evaluated(entry.file, entry.format, entry.precision, {}, nothing, (str(error),))
        files.append(found)
    return Evaluation(
        model=model,
        manifest=manifest,
        sources=tuple(names),
        datasets=total,
        outside=seen.outside if manifest.column_ranges else None,
        true_outside=_true_outside(manifest, seen.true),
        row_order=_row_order(manifest.spec, seen.moved, network.measures),
        network=network,
        files=tuple(files),
        shown_true=seen.true[shown],
    )


def _open_groups(
    names: Sequence[Path | str], spec: Spec, by: Sequence[str], columns: Sequence[str], folder: Path
) -> Source:
    """The datasets of tidy tables, grouped into a file in `folder`."""
    if len(columns) != len(spec.columns):
        raise InputError(
            f"--columns names {len(columns)} columns, the model takes {len(spec.columns)}: {spec.describe()}."
        )
    for name in names:
        with open_parquet(name) as opened:
            _check_true_values(name, spec, opened.schema_arrow.names, ())
    grouped = folder / "datasets.parquet"
    group_training_files(names, spec.parameters, by, columns, grouped, spec.rows)
    return _open(grouped, spec, DATASET)


def _open(path: Path, spec: Spec, column: str | None) -> Source:
    layout = layout_for(spec, path, column=column)
    with open_parquet(path) as opened:
        names, total = opened.schema_arrow.names, opened.metadata.num_rows
    _check_true_values(path, spec, names, layout.table_columns)
    return Source(path, layout, total)


def _check_true_values(path: Path | str, spec: Spec, names: Sequence[str], taken: Sequence[str]) -> None:
    """Whether there is a column for each parameter, besides those `taken` by the datasets."""
    known = [name for name in names if name not in taken]
    absent = [name for name in spec.parameters if name not in known]
    if absent:
        near = did_you_mean(absent[0], known)
        raise InputError(
            f"{path}: no column {', '.join(map(repr, absent))}: evaluating needs the true value of every parameter "
            f"({', '.join(spec.parameters)}), in a column of its name.{near} It has: {', '.join(names)}."
        )


@contextmanager
def _network(model: Path) -> Iterator[tuple[str, Estimate]]:
    """The file that the network is from, and the network."""
    keras_file = model / KERAS_FILE
    if (model / WEIGHTS_FILE).is_file() or not keras_file.is_file():
        yield WEIGHTS_FILE, load_reference(model)
        return
    with open_child() as child:
        yield KERAS_FILE, lambda datasets: child.call(estimates_of, keras_file, "default", datasets, where=KERAS_FILE)


def _pieces(sources: Sequence[Source], spec: Spec) -> Iterator[Piece]:
    for source in sources:
        yield from pieces_of(source.path, source.layout, spec)


def _see(manifest: Manifest, sources: Sequence[Source], estimate: Estimate, step: Callable[[int], None]) -> Seen:
    """Run the network over all datasets, and over some of them with their rows in another order."""
    spec, rng = manifest.spec, np.random.default_rng(SEED)
    true, estimates, moved, found = list[np.ndarray](), list[Estimates](), list[Estimates](), RangeCount()
    for piece in _pieces(sources, spec):
        own = np.asarray(estimate(piece.datasets), np.float64)
        some = piece.datasets[piece.kept]
        orders = rng.permuted(np.tile(np.arange(spec.rows), (len(some), 1)), axis=1)
        shuffled = np.take_along_axis(some, orders[:, :, None], axis=1)
        other = np.asarray(estimate(sort_rows(shuffled) if spec.sorted_rows else shuffled), np.float64)
        true.append(np.stack([piece.true[name] for name in spec.parameters], axis=1))
        estimates.append(own)
        moved.append(other - own[piece.kept])
        found = found.merged(counted(outside(piece.datasets, manifest.column_ranges), spec.columns))
        step(len(own))
    return Seen(np.concatenate(true), np.concatenate(estimates), np.concatenate(moved), found)


def _run(path: Path, spec: Spec, sources: Sequence[Source], step: Callable[[int], None]) -> Estimates:
    """Estimates of one exported file, computed in a child process of its own; read again rather than kept."""
    with open_child() as child:
        pieces = []
        for piece in _pieces(sources, spec):
            pieces.append(child.call(estimates_of, path, "default", piece.datasets, where=path.name))
            step(len(piece.datasets))
    estimates = np.concatenate(pieces)
    if estimates.shape[1] != len(spec.parameters):
        raise ModelError(f"{path.name}: gives {estimates.shape[1]} estimates for {len(spec.parameters)} parameters.")
    return estimates.astype(np.float64)


def _evaluated(
    file: str,
    format: str,
    precision: str,
    spec: Spec,
    true: FloatArray,
    estimates: Estimates,
    shown: NDArray[np.int64],
) -> Evaluated:
    measures = {name: measure(true[:, index], estimates[:, index]) for index, name in enumerate(spec.parameters)}
    return Evaluated(file, format, precision, measures, estimates[shown], _not_positive(spec, estimates))


def _not_positive(spec: Spec, estimates: Estimates) -> tuple[str, ...]:
    failures = []
    for name, each in zip(spec.parameters, estimates.T, strict=True):
        good = keeps_promise(each)
        if not good.all():
            dataset, bad = int(np.argmin(good)), int((~good).sum())
            failures.append(
                f"{bad:,} of {len(each):,} estimates of {name} are not finite and positive; the first is "
                f"{each[dataset]:.3g}, of dataset {dataset}."
            )
    return tuple(failures)


def _true_outside(manifest: Manifest, true: FloatArray) -> dict[str, int]:
    return {
        parameter.name: int(((values < parameter.minimum) | (values > parameter.maximum)).sum())
        for parameter, values in zip(manifest.parameters, true.astype(np.float64).T, strict=True)
    }


def _row_order(spec: Spec, moved: Estimates, measures: Mapping[str, Measures]) -> RowOrder:
    with np.errstate(all="ignore"):
        change = dict(zip(spec.parameters, np.sqrt(np.mean(moved**2, axis=0)).tolist(), strict=True))
        relative = {name: float(np.divide(change[name], measures[name].recovery.rmse)) for name in spec.parameters}
    return RowOrder(len(moved), change, relative)
