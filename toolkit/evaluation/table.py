"""Two tables for people: every file over all datasets, and the network along the true value."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolkit.errors import printable
from toolkit.tables import new_console, print_table

if TYPE_CHECKING:
    from toolkit.evaluation.coverage import Coverage
    from toolkit.evaluation.measures import Bin
    from toolkit.evaluation.result import Evaluated, Evaluation
    from toolkit.recovery import Recovery

FILE_HEADINGS = ("file", "RMSE", "R2", "bias", "median relative error", "90th percentile")
PARAMETER_HEADINGS = (
    *("parameter", "smallest true values", "median relative error", "bias", "largest true values"),
    *("median relative error ", "bias ", "another order of rows"),
)


COVERAGE_HEADINGS = (
    "file",
    "intervals of level",
    "hold the true value",
    "thirds, smallest true values first",
    "high/low",
)


def print_evaluation(evaluation: Evaluation) -> None:
    """The tables, what lies outside the training ranges, and every failure in full."""
    console = new_console()
    everything = [evaluation.network, *evaluation.files]
    styles = ["red" if each.failures else None for each in everything]
    print_table(console, FILE_HEADINGS, [_file_row(each) for each in everything], styles)
    if any(each.coverage for each in everything):
        print_table(console, COVERAGE_HEADINGS, [_coverage_row(each) for each in everything if each.coverage])
    rows = [_parameter_row(evaluation, name) for name in evaluation.manifest.spec.parameters]
    print_table(console, PARAMETER_HEADINGS, rows)
    for line in [f"{evaluation.datasets:,} datasets. {outside_in_words(evaluation)}", ORDER.format(evaluation)]:
        console.print(printable(line), highlight=False, markup=False)
    for each in everything:
        for failure in each.failures:
            # Whole lines, however long: they are searched for and copied.
            line = printable(f"{each.file}: {failure}")
            console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)


ORDER = (
    "Another order of rows: how much the network's estimates change (root mean square) when the rows of a dataset are "
    "shuffled, as a share of the RMSE; measured on {0.row_order.datasets:,} datasets."
)


def outside_in_words(evaluation: Evaluation) -> str:
    """How many datasets, and true values, lie outside the training ranges: sentences."""
    outside = evaluation.outside
    if outside is None:
        values = "The training ranges of the columns are not known."
    elif outside.rows:
        columns = ", ".join(f"{name} {count:,}" for name, count in outside.columns.items())
        share = outside.rows / evaluation.datasets
        values = f"{outside.rows:,} of them ({share:.2%}) have a value outside the training ranges ({columns})."
    else:
        values = "None has a value outside the training ranges."
    found = [f"{name} in {count:,}" for name, count in evaluation.true_outside.items() if count]
    return values + (f" True values outside theirs: {', '.join(found)}." if found else "")


def _file_row(each: Evaluated) -> list[str]:
    def column(shown: Callable[[Recovery], str]) -> str:
        return ", ".join(f"{name} {shown(found.recovery)}" for name, found in each.measures.items()) or "not run"

    return [
        each.file + (f", {each.precision}" if each.format == "network" else ""),
        column(lambda found: f"{found.rmse:.4g}"),
        column(lambda found: f"{found.r2:.4f}"),
        column(lambda found: f"{found.bias:+.2g}"),
        column(lambda found: f"{found.median_relative_error:.2%}"),
        column(lambda found: f"{found.p90_relative_error:.2%}"),
    ]


def _coverage_row(each: Evaluated) -> list[str]:
    found = each.coverage
    return [
        each.file,
        f"{next(iter(found.values())).level:g}",
        ", ".join(f"{name} {one.coverage:.1%}" for name, one in found.items()),
        ", ".join(f"{name} {thirds_in_words(one)}" for name, one in found.items()),
        ", ".join(f"{name} {one.mean_width_ratio:.3g}" for name, one in found.items()),
    ]


def thirds_in_words(found: Coverage) -> str:
    """`89/90/92%`."""
    return "/".join(f"{100 * each:.0f}" for each in found.thirds) + "%"


def _parameter_row(evaluation: Evaluation, name: str) -> list[str]:
    bins = evaluation.network.measures[name].bins
    change = evaluation.row_order.relative_to_rmse[name]
    return [name, *_bin_cells(bins[0]), *_bin_cells(bins[-1]), f"{change:.2g} of RMSE"]


def _bin_cells(each: Bin) -> list[str]:
    return [f"{each.low:.3g} to {each.high:.3g}", f"{each.median_relative_error:.2%}", f"{each.bias:+.2g}"]
