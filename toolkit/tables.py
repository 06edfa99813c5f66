"""What the commands print: tables for people, JSON for programs, both on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import printable
from toolkit.manifest import int8_in_words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from toolkit.inspection import InspectedFile, Inspection
    from toolkit.manifest import Manifest, ModelFile, RelativeError
    from toolkit.verification import Verification

UNLIMITED_WIDTH = 100_000
PIPED_WIDTH = 200  # columns when stdout is no terminal, where nothing tells how wide a line may be


def print_json(content: object) -> None:
    """One JSON object, NaN and infinity refused: not every reader takes them."""
    print(json.dumps(content, indent=2, allow_nan=False))


def print_training(directory: Path, manifest: Manifest) -> None:
    """How well the network recovers each parameter of the held-out datasets, and what to do next."""
    table = _table("parameter", "from", "to", "R2", "RMSE", "median relative error")
    for parameter in manifest.parameters:
        found = manifest.training.metrics.get(parameter.name)
        shown = [f"{found['r2']:.3f}", f"{found['rmse']:.4g}", f"{found['median_relative_error']:.2%}"] if found else []
        table.add_row(parameter.name, f"{parameter.minimum:.4g}", f"{parameter.maximum:.4g}", *shown)
    console = new_console()
    console.print(table)
    trained = [f"Trained on {manifest.training.datasets:,} datasets."] if manifest.training.datasets else []
    said = " ".join([*trained, *filter(None, [manifest.training.note]), "Next: toolkit export --format all"])
    console.print(f"{directory}: {said}", highlight=False, soft_wrap=True)


def print_files(files: Iterable[ModelFile]) -> None:
    """Published files with their evidence."""
    rows = [
        [
            file.file,
            f"{file.bytes / 1000:.0f}",
            _each(file.lower_bound),
            file.arithmetic,
            _largest(file.relative_error),
        ]
        for file in files
    ]
    headings = ("file", "kB", "proved at least", "in arithmetic", "largest relative error")
    print_table(new_console(), headings, rows)


def print_verdicts(verification: Verification) -> None:
    """One line a file, and below in full every failure, and what ran the files where it was not this machine."""
    console = new_console()
    verdicts = verification.verdicts
    rows = [
        [
            verdict.file,
            "passed" if verdict.passed else "FAILED",
            _each(verdict.lower_bound) if verdict.proved else "not proved",
            verdict.arithmetic,
            _each(verdict.minimum_probed) or "not run",
            _each(verdict.minimum_seen) or "not run",
            _largest(verdict.relative_error) or "not run",
        ]
        for verdict in verdicts
    ]
    headings = ("file", "verdict", "proved at least", "in arithmetic", "probed", "seen", "largest relative error")
    print_table(console, headings, rows, [None if verdict.passed else "red" for verdict in verdicts])
    for verdict in verdicts:
        for failure in verdict.failures:
            # Whole lines, however long: they are searched for and copied.
            console.print(
                printable(f"{verdict.file}: {failure}"), style="red", markup=False, highlight=False, soft_wrap=True
            )
    for memory in verification.memory:
        taken = f"{memory.file}: takes {memory.describe()}."
        console.print(printable(taken), markup=False, highlight=False, soft_wrap=True)
    for file, reason in verification.not_run:
        console.print(printable(f"{file}: not run. {reason}"), markup=False, highlight=False, soft_wrap=True)
    if verification.target is not None:
        console.print(f"Run on {verification.target}.", markup=False, highlight=False, soft_wrap=True)


def print_inspection(inspection: Inspection) -> None:
    """A directory: what the model takes and gives, one line a file. One file: all that it says."""
    from rich.markup import escape

    console = new_console()
    manifest = inspection.manifest
    if manifest is None:
        table = _table(inspection.path.name, "")
        for name, shown in _file_rows(inspection.files[0]):
            table.add_row(name, escape(printable(shown)))
    else:
        ranges = _table("column or parameter", "smallest in training", "largest")
        for name, seen in [*zip(manifest.columns, manifest.column_ranges, strict=False)]:
            ranges.add_row(name, f"{seen.minimum:.4g}", f"{seen.maximum:.4g}")
        for parameter in manifest.parameters:
            ranges.add_row(parameter.name, f"{parameter.minimum:.4g}", f"{parameter.maximum:.4g}")
        console.print(f"{inspection.path}: {manifest.spec.describe()}", highlight=False, markup=False)
        console.print(
            f"trained on {manifest.training.datasets:,} datasets, seed {manifest.training.seed}", highlight=False
        )
        console.print(_listed(manifest.versions), highlight=False, markup=False)
        console.print(ranges)
        table = _table("file", "kB", "weights", "operations", "proved at least", "in arithmetic", "sha256")
        for file in inspection.files:
            contents = file.contents
            table.add_row(
                file.file,
                f"{file.bytes / 1000:.0f}",
                _listed(contents.weights) if contents else "",
                str(sum(contents.operations.values())) if contents else "",
                _proved(file),
                file.proof.arithmetic if file.proof else "-",
                {True: "as in the manifest", False: "differs", None: "-"}[file.unchanged],
                style="red" if file.problems else None,
            )
    console.print(table)
    for file in inspection.files if manifest else ():
        if file.precision == "int8" and "first_layer" in file.metadata:
            made = f"{file.file}: {printable(int8_in_words(file.metadata))}"
            console.print(made, markup=False, highlight=False, soft_wrap=True)
    for file in inspection.files:
        for problem in file.problems:
            console.print(
                f"{file.file}: {printable(problem)}", style="red", markup=False, highlight=False, soft_wrap=True
            )


def _file_rows(file: InspectedFile) -> Iterator[tuple[str, str]]:
    yield "format", f"{file.format}, {file.precision}" if file.precision else file.format
    yield "size", f"{file.bytes:,} bytes"
    yield (
        "sha256",
        file.sha256 + {True: ", as in the manifest", False: ", differs from the manifest", None: ""}[file.unchanged],
    )
    if file.contents:
        for word, ports in (("input", file.contents.inputs), ("output", file.contents.outputs)):
            for port in ports:
                yield word, f"{port.name}: {port.dtype} {_shape(port.shape)}"
        for layer in file.contents.layers:
            yield "layer", f"{layer.name}: {layer.kind} {_listed(layer.options)} {_shape(layer.input_shape)}"
        yield "operations", _listed(file.contents.operations)
        if file.contents.weights:
            yield "weights", _listed(file.contents.weights)
        yield "versions", _listed(file.contents.versions)
    if file.precision == "int8" and "first_layer" in file.metadata:
        yield "quantized", int8_in_words(file.metadata)
    if file.proof:
        yield "arithmetic", file.proof.arithmetic
        yield "proved at least", _proved(file)
        yield "proved at most", _each(file.upper_bound)
        for assumption in file.proof.assumptions:
            yield "assumed", assumption
    for name, fact in file.metadata.items():
        yield "metadata", f"{name} {json.dumps(fact, ensure_ascii=False)}"


def _proved(file: InspectedFile) -> str:
    if file.proof is None:
        return "-"
    return f"{'' if file.proof.passed else 'not positive: '}{_each(file.lower_bound)}"


def _shape(sizes: Sequence[int | str | None]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in sizes)})" if sizes else ""


def _listed(values: Mapping[str, object]) -> str:
    """`float32 49,625, int32 6`."""
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in values.items()
    )


def new_console() -> Console:
    """On stdout; as wide as the terminal, or PIPED_WIDTH."""
    from rich.console import Console

    console = Console(soft_wrap=False)
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def print_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    styles: Sequence[str | None] | None = None,
) -> None:
    """A table. Where a terminal is too narrow for it, lists in its cells go down; where that helps not, cells do."""
    from rich.measure import Measurement
    from rich.text import Text

    wide = console.options.update(max_width=UNLIMITED_WIDTH)
    for separator in (", ", "\n"):
        table = _table(*headings)
        table.columns[0].no_wrap = True
        for index, (first, *others) in enumerate(rows):
            cells = [Text(printable(first)), *(Text(printable(cell).replace(", ", separator)) for cell in others)]
            table.add_row(*cells, style=styles[index] if styles else None)
        if Measurement.get(console, wide, table).maximum <= console.width:
            console.print(table)
            return
    for index, (first, *others) in enumerate(rows):
        console.print(Text(printable(first), style="bold"))
        for heading, cell in zip(headings[1:], others, strict=False):
            console.print(Text(f"  {heading}: {printable(cell)}"), style=styles[index] if styles else None)


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _each(values: Mapping[str, float]) -> str:
    """One number where all parameters agree to three digits, else one for each."""
    shown = {name: f"{value:.2e}" for name, value in values.items()}
    if len(set(shown.values())) == 1:
        return next(iter(shown.values()))
    return ", ".join(f"{name} {text}" for name, text in shown.items())


def _largest(errors: Mapping[str, RelativeError]) -> str:
    return ", ".join(f"{name} {error.max:.1e}" for name, error in errors.items())
