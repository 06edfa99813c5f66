"""The model card: README.md of a model directory, written from manifest.json alone."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from toolkit.errors import printable
from toolkit.files import appears_whole
from toolkit.manifest import KERAS_FILE, Manifest

CARD = "README.md"
# Without this line a README.md is somebody's own, and is left alone.
MARK = "<!-- Written from manifest.json; written anew by every export. Remove this line to keep what you change. -->"

# What training.configuration holds, in words; what is not here is shown under its own name.
CONFIGURATION = {
    "epochs": "epochs at most",
    "epochs_run": "epochs run",
    "best_epoch": "epoch of these weights",
    "patience": "stopped after epochs without a better validation loss",
    "batch_size": "datasets a step",
    "loss": "loss",
    "optimizer": "optimizer",
    "learning_rate": "learning rate",
    "exchangeable_rows": "order of rows carries nothing",
    "shuffled_rows": "rows shuffled in training, not sorted",
    "hidden": "units of a hidden layer before the last",
    "validation_datasets": "datasets held out to choose the epoch",
    "simulator": "simulator",
    "datasets_per_epoch": "fresh datasets an epoch",
    "datasets_left_out": "simulated datasets left out: not finite, not positive, or of a call that failed",
    "datasets_of_files": "datasets of files, the same in every epoch",
    "seconds": "seconds",
}
METRICS = {
    "r2": ("R2", "{:.3f}"),
    "rmse": ("RMSE", "{:.4g}"),
    "bias": ("bias", "{:.2g}"),
    "median_relative_error": ("median relative error", "{:.2%}"),
    "p90_relative_error": ("90th percentile", "{:.2%}"),
}


def write_card(directory: Path, manifest: Manifest) -> None:
    """Write the directory's README.md, whole or not at all; one that a person has written stays."""
    path = directory / CARD
    if path.exists():
        try:
            first, _, _ = path.read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return
        if first != MARK:
            return
    with appears_whole(path) as partial:
        partial.write_text(card(manifest), encoding="utf-8")


def card(manifest: Manifest) -> str:
    """The card as Markdown. The same manifest gives the same text."""
    sections = (
        _head(manifest),
        _input(manifest),
        _output(manifest),
        _training(manifest),
        _files(manifest),
        _intervals(manifest),
        _use(manifest),
        _limits(manifest),
        _versions(manifest),
    )
    return "\n".join([MARK, *(line for section in sections for line in section)])


def _head(manifest: Manifest) -> Iterator[str]:
    names = _listed([parameter.name for parameter in manifest.parameters])
    yield f"# Estimator of {names}"
    yield ""
    yield (
        f"Takes one dataset of {manifest.rows:,} rows and {len(manifest.columns)} columns "
        f"({', '.join(map(_cell, manifest.columns))}), and gives one estimate of each of {names}. Exported files give "
        "nothing but finite numbers above 0."
    )
    if manifest.training.note:
        yield ""
        yield _cell(manifest.training.note)
    yield ""


def _input(manifest: Manifest) -> Iterator[str]:
    yield "## What goes in"
    yield ""
    yield f"`datasets`, float32 (batch, {manifest.rows}, {len(manifest.columns)}), raw values: files normalize."
    yield ""
    ranges = [(f"{each.minimum:.6g}", f"{each.maximum:.6g}") for each in manifest.column_ranges]
    shown = ranges or [("not known", "not known")] * len(manifest.columns)
    yield from _table(
        ("column", "smallest in training", "largest"),
        [(_cell(name), *each) for name, each in zip(manifest.columns, shown, strict=True)],
    )


def _output(manifest: Manifest) -> Iterator[str]:
    yield "## What comes out"
    yield ""
    yield f"`estimates`, float32 (batch, {len(manifest.parameters)}), in this order."
    yield ""
    metrics = manifest.training.metrics
    known = [key for key in METRICS if any(key in each for each in metrics.values())]
    rows = [
        (
            _cell(parameter.name),
            f"{parameter.minimum:.6g}",
            f"{parameter.maximum:.6g}",
            *(_metric(metrics.get(parameter.name, {}), key) for key in known),
        )
        for parameter in manifest.parameters
    ]
    yield from _table(("parameter", "smallest in training", "largest", *(METRICS[key][0] for key in known)), rows)
    if known:
        yield "On datasets held out from training. Errors are against the true values, relative ones a share of these."
        yield ""


def _metric(found: Mapping[str, float], key: str) -> str:
    return METRICS[key][1].format(found[key]) if key in found else "-"


def _training(manifest: Manifest) -> Iterator[str]:
    training = manifest.training
    if not training.datasets:
        return
    yield "## How it was trained"
    yield ""
    rows = [("datasets", f"{training.datasets:,}"), ("seed", str(training.seed))]
    rows += [(CONFIGURATION.get(key, _cell(key)), _shown(value)) for key, value in training.configuration.items()]
    yield from _table(("", ""), rows)


def _shown(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _cell(value) if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _files(manifest: Manifest) -> Iterator[str]:
    yield "## Files"
    yield ""
    if not manifest.files:
        yield "None has been exported yet: `toolkit export --format all`."
        yield ""
        return
    rows = [
        (
            _code(file.file),
            _cell(file.precision),
            f"{file.bytes / 1000:,.0f}",
            _each(file.lower_bound, "{:.3g}"),
            _cell(file.arithmetic),
            _each({name: error.median for name, error in file.relative_error.items()}, "{:.1e}"),
            _each({name: error.max for name, error in file.relative_error.items()}, "{:.1e}"),
        )
        for file in manifest.files
    ]
    yield from _table(
        ("file", "weights", "kB", "proved at least", "in arithmetic", "median error", "largest error"), rows
    )
    if any(file.arithmetic == "float16" for file in manifest.files):
        yield (
            "In float16 arithmetic: also where hardware computes the file in half precision, as many phone GPUs and "
            "NPUs do. There the smallest estimates of the other files may be 0."
        )
        yield ""
    yield "Proved: no finite input gives less. Errors are relative to the trained network in float64, not to the truth."
    yield ""


def _intervals(manifest: Manifest) -> Iterator[str]:
    from toolkit.intervals import DEFAULT_LEVEL, intervals_of

    names = manifest.spec.parameters
    known = {KERAS_FILE: manifest.interval, **{file.file: file.interval for file in manifest.files}}
    made = {file: intervals_of(file, stored, names) for file, stored in known.items()}
    rows = []
    for file, intervals in made.items():
        if intervals is not None and intervals.permits(DEFAULT_LEVEL):
            estimates, low, high = intervals.at(DEFAULT_LEVEL, file).examples()
            shown = (f"{low[i]:.4g} to {high[i]:.4g} around {estimates[i]:.4g}" for i in range(len(names)))
            rows.append((_code(file), f"{intervals.datasets:,}", *shown))
    if not rows:
        return
    yield "## Intervals"
    yield ""
    yield (
        f"`batch-predict --interval {DEFAULT_LEVEL}` adds both ends of an interval around each estimate that holds the "
        f"true value of {DEFAULT_LEVEL:.0%} of all datasets like those of training (split conformal prediction; other "
        "levels likewise). Each file has its own; around an estimate of middling size:"
    )
    yield ""
    yield from _table(("file", "datasets it is from", *map(_cell, names)), rows)
    yield "For datasets of another kind, and for each single size of the true value, they promise nothing."
    yield ""


def _use(manifest: Manifest) -> Iterator[str]:
    yield "## How to use it"
    yield ""
    yield "    toolkit batch-predict input.parquet --model THIS_FOLDER"
    if manifest.files:
        smallest = min(manifest.files, key=lambda file: file.bytes).file
        named = shlex.quote(printable(smallest).replace("\n", "?"))
        yield f"    toolkit batch-predict input.parquet --model THIS_FOLDER --file {named}"
    yield "    toolkit verify --model THIS_FOLDER"
    yield "    toolkit evaluate simulated.parquet --model THIS_FOLDER --report evaluation.html"
    yield ""
    yield 'In Python: `toolkit.load("THIS_FOLDER")(datasets)`.'
    yield ""


def _limits(manifest: Manifest) -> Iterator[str]:
    yield "## Limits"
    yield ""
    if manifest.column_ranges:
        yield (
            "- A dataset with a value outside the ranges above is unlike anything seen in training. Its estimates are "
            "positive all the same, but nobody knows how good: `batch-predict` counts such datasets, `--strict-range` "
            "rejects them."
        )
    else:
        yield "- The ranges of the training data are not known, so datasets unlike them cannot be told."
    yield (
        "- A true value outside the range of its parameter was never seen either: estimates are drawn towards the "
        "range, and nothing in a dataset tells."
    )
    yield f"- A dataset has exactly {manifest.rows:,} rows. One with NaN or infinity is rejected."
    if manifest.sorted_rows:
        yield (
            f"- The files take the rows of a dataset sorted: ascending by {_cell(manifest.columns[0])}, rows alike "
            "there by the next column. The toolkit sorts whatever it reads; code of your own around a file has to, or "
            "its estimates are wrong."
        )
    elif manifest.training.configuration.get("exchangeable_rows"):
        yield (
            "- The order of rows was taken to carry nothing, yet estimates change a little with it; `toolkit evaluate` "
            "says how much."
        )
    yield ""


def _versions(manifest: Manifest) -> Iterator[str]:
    if not manifest.versions:
        return
    yield "Made with " + ", ".join(f"{_cell(name)} {_cell(of)}" for name, of in manifest.versions.items()) + "."
    yield ""


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|" + "---|" * len(headings)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _each(values: Mapping[str, float], form: str) -> str:
    """One number where all parameters have the same, else one for each."""
    shown = {name: form.format(value) for name, value in values.items()}
    if len(set(shown.values())) == 1:
        return next(iter(shown.values()))
    return ", ".join(f"{_cell(name)} {text}" for name, text in shown.items()) or "-"


def _listed(names: Sequence[str]) -> str:
    *first, last = map(_cell, names)
    return f"{', '.join(first)} and {last}" if first else last


def _code(words: str) -> str:
    """In a code span nothing is markup but its end, and the end of a cell."""
    return f"`{printable(words).replace(chr(10), '?').replace('`', '?').replace('|', '?')}`"


def _cell(words: str) -> str:
    """Text that neither ends a cell nor becomes markup: names come from anywhere."""
    shown = html.escape(printable(str(words)).replace("\n", "?"), quote=False)
    for mark in "\\`*_[]|#":
        shown = shown.replace(mark, f"\\{mark}")
    return shown
