"""The report of an evaluation: one self-contained page, with plots for every parameter and file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.evaluation.plots import axis_around, bias_plot, errors_plot, recovery_plot
from toolkit.evaluation.table import outside_in_words, thirds_in_words
from toolkit.report.document import document, write_document
from toolkit.report.markup import Markup, count, folded, listed, number, table, tag

if TYPE_CHECKING:
    from toolkit.evaluation.coverage import Coverage
    from toolkit.evaluation.measures import Bin
    from toolkit.evaluation.result import Evaluated, Evaluation
    from toolkit.report.svg import Axis

RECOVERY_HEADINGS = ("RMSE", "R2", "Bias", "Median relative error", "90th percentile")
FAR = 2  # times the network's error: a file that is worse than that is cut off, so that the others can be read
BIN_HEADINGS = ("True value", "Datasets", "RMSE", "Bias", "Median relative error", "90th percentile")


def write_evaluation_report(evaluation: Evaluation, output: Path) -> None:
    """Write the page.

    Raises:
        OutputError: it cannot be written there.
    """
    write_document(page(evaluation), output)


def page(evaluation: Evaluation) -> str:
    """The whole page as text."""
    return document(
        f"Evaluation of {evaluation.model.resolve().name}",
        _head(evaluation),
        _summary(evaluation),
        *(_parameter(evaluation, index) for index in range(len(evaluation.manifest.parameters))),
    )


def _head(evaluation: Evaluation) -> Markup:
    names = listed(list(evaluation.manifest.spec.parameters))
    failures = [
        tag("li", tag("strong", each.file), f": {failure}")
        for each in _everything(evaluation)
        for failure in each.failures
    ]
    wrong = tag("div", tag("p", tag("span", "FAILED", class_="word")), tag("ul", *failures), class_="verdict failed")
    sources = listed([path.name for path in evaluation.sources])
    return tag(
        "header",
        tag("h1", f"How well {names} {'is' if len(evaluation.manifest.parameters) == 1 else 'are'} recovered"),
        wrong if failures else None,
        tag(
            "p",
            "Model ",
            tag("code", str(evaluation.model)),
            f": {evaluation.manifest.spec.describe()}. Estimates are compared with the true values of "
            f"{count(evaluation.datasets, 'dataset')} of {sources}. {outside_in_words(evaluation)}",
            class_="quiet",
        ),
    )


def _summary(evaluation: Evaluation) -> Markup:
    names = evaluation.manifest.spec.parameters
    network = evaluation.network
    rows = [
        [_name(each), *(_against_network(each, network, name) for name in names)] for each in _everything(evaluation)
    ]
    order = evaluation.row_order
    about = [
        [
            name,
            *_recovery_cells(network, name),
            f"{number(order.change[name], 2)}, {number(order.relative_to_rmse[name], 2)} of RMSE",
        ]
        for name in names
    ]
    return tag(
        "section",
        tag("h2", "At a glance"),
        table(("Parameter", *RECOVERY_HEADINGS, "Another order of rows"), about, _caption(network)),
        tag(
            "p",
            "Bias: mean of estimate − true. Relative error: |estimate − true| / true. Another order of rows: how much "
            "estimates change (root mean square) when the rows of a dataset are shuffled; where the order of rows "
            f"carries nothing, this is noise that the network adds. Measured on {count(order.datasets, 'dataset')}.",
            class_="quiet",
        ),
        table(
            ("File", *names),
            rows,
            "RMSE of every file, and by how much it is above (+) or below (−) that of the network",
        )
        if evaluation.files
        else tag("p", "No file has been exported yet.", class_="quiet"),
        *_intervals(evaluation),
    )


def _intervals(evaluation: Evaluation) -> list[Markup]:
    known = [each for each in _everything(evaluation) if each.coverage]
    if not known:
        return []
    names = evaluation.manifest.spec.parameters
    level = next(iter(known[0].coverage.values())).level
    rows = [[_name(each), *(_covered(each.coverage[name]) for name in names)] for each in known]
    explained = (
        "In brackets the thirds of the datasets with the smallest, middle and largest true values; ×: the geometric "
        "mean of an interval's high over its low end. Promised is the level, over all datasets like those of training."
    )
    caption = f"How often the true value is in its interval of level {level:g}"
    return [table(("File", *names), rows, caption), tag("p", explained, class_="quiet")]


def _covered(found: Coverage) -> str:
    return f"{100 * found.coverage:.1f}% ({thirds_in_words(found)}), × {number(found.mean_width_ratio)}"


def _parameter(evaluation: Evaluation, index: int) -> Markup:
    name = evaluation.manifest.spec.parameters[index]
    network, run = evaluation.network, [each for each in evaluation.files if each.measures]
    return tag(
        "section",
        tag("h2", name),
        _panel(evaluation, network, index, wide=True),
        folded(
            table(BIN_HEADINGS, [_bin_cells(each) for each in network.measures[name].bins], f"{name}, {_name(network)}")
        ),
        tag("h3", f"{name}, every exported file") if run else None,
        tag("div", *(_panel(evaluation, each, index) for each in run), class_="panels") if run else None,
        table(
            ("File", *RECOVERY_HEADINGS),
            [[_name(each), *_recovery_cells(each, name)] for each in (network, *run)],
            f"{name}, over all datasets",
        )
        if run
        else None,
    )


def _panel(evaluation: Evaluation, each: Evaluated, index: int, wide: bool = False) -> Markup:
    name = evaluation.manifest.spec.parameters[index]
    true = evaluation.shown_true[:, index].astype(np.float64)
    measures = each.measures[name]
    all_bins = [one.measures[name].bins for one in _everything(evaluation) if one.measures]
    own_bins = evaluation.network.measures[name].bins
    relative = _end_of_axis(*([one.p90_relative_error for one in bins] for bins in (own_bins, *all_bins)))
    bias = _end_of_axis(*([abs(one.bias) for one in bins] for bins in (own_bins, *all_bins)))
    axis = _axis(evaluation, index)
    beyond = int((~axis.holds(each.shown[:, index])).sum())
    red = f" In red: {beyond:,} beyond the plot, or no number." if beyond else ""
    spoken = f"{name} by {_name(each)}: RMSE {number(measures.recovery.rmse)}, R2 {number(measures.recovery.r2, 4)}"
    along = "; ".join(
        f"true {number(one.low)} to {number(one.high)}: median {_percent(one.median_relative_error)}, "
        f"bias {number(one.bias, 2)}"
        for one in measures.bins
    )
    scatter = recovery_plot(true, each.shown[:, index], axis, f"Estimates against true values. {spoken}.")
    errors = errors_plot(measures.bins, axis, relative, f"Relative error of {name} by {_name(each)}. {along}.")
    if not wide:
        words = f"{_name(each)}: RMSE {number(measures.recovery.rmse, 4)}{'.' if red else ''}{red}"
        return tag("figure", _chart(scatter), _chart(errors), tag("figcaption", words))
    biases = bias_plot(measures.bins, axis, bias, f"Bias of {name} by {_name(each)}. {along}.")
    bins = count(len(measures.bins), "bin")
    explained = (
        f"The network; {count(len(true), 'dataset')} of all are shown. On the line an estimate is right. Relative "
        f"error and bias, the mean of estimate − true, are those of all datasets, in {bins} of equally many; of the "
        "relative error, bars are medians and lines 90th percentiles."
        f"{red}"
    )
    return tag(
        "figure",
        tag("div", _chart(scatter), tag("div", _chart(errors), _chart(biases)), class_="pair"),
        tag("figcaption", explained),
    )


def _chart(drawing: Markup) -> Markup:
    return tag("div", drawing, class_="chart")


def _everything(evaluation: Evaluation) -> tuple[Evaluated, ...]:
    return (evaluation.network, *evaluation.files)


def _name(each: Evaluated) -> str:
    return "the network" if each.format == "network" else each.file


def _caption(network: Evaluated) -> str:
    bits = "64" if network.precision == "float64" else "32"
    return f"The trained network, computed in {bits}-bit arithmetic"


def _against_network(each: Evaluated, network: Evaluated, name: str) -> str:
    if not each.measures:
        return "not run"
    rmse, of_network = each.measures[name].recovery.rmse, network.measures[name].recovery.rmse
    if each is network or not math.isfinite(rmse) or not of_network > 0:
        return number(rmse, 4)
    more = round(100 * (rmse / of_network - 1), 2) + 0.0  # no -0.00
    return f"{number(rmse, 4)} ({more:+.2f}%)".replace("-", "−")


def _recovery_cells(each: Evaluated, name: str) -> list[str]:
    found = each.measures[name].recovery
    relative = [_percent(found.median_relative_error), _percent(found.p90_relative_error)]
    return [number(found.rmse, 4), number(found.r2, 4), number(found.bias, 2), *relative]


def _bin_cells(each: Bin) -> list[str]:
    return [
        f"{number(each.low)} to {number(each.high)}",
        f"{each.datasets:,}",
        number(each.rmse),
        number(each.bias, 2),
        _percent(each.median_relative_error),
        _percent(each.p90_relative_error),
    ]


def _percent(value: float) -> str:
    return f"{number(100 * value)}%"


def _axis(evaluation: Evaluation, index: int) -> Axis:
    """Along true values and estimates: the same for the network and every file, so that what differs is the estimates.

    It holds every true value, and estimates of the network that are less than the range of these beyond it.
    """
    true, estimates = evaluation.shown_true[:, index].astype(np.float64), evaluation.network.shown[:, index]
    bins = evaluation.network.measures[evaluation.manifest.spec.parameters[index]].bins
    low, high = bins[0].low, bins[-1].high
    near = estimates[np.isfinite(estimates)].clip(2 * low - high, 2 * high - low)
    return axis_around(np.concatenate([true, near, [low, high]]))


def _end_of_axis(network: Sequence[float], *others: Sequence[float]) -> float:
    """The end of an axis from 0 that holds the network's numbers, and those of files that are not far beyond."""
    own = max((value for value in network if math.isfinite(value)), default=0.0)
    every = max((value for values in others for value in values if math.isfinite(value)), default=own)
    return 1.08 * min(every, FAR * own) or 1.0
