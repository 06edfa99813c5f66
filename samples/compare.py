"""Estimates of real response times beside the classical ones.

    python samples/compare.py PREDICTIONS.parquet [--plot FILE.png]

Maximum likelihood (method mle_wfpt) is the reference. Only datasets whose reference lies inside the ranges that the
network was trained on are compared: elsewhere it has nothing to say.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

RANGES = {"v": (0.5, 3.5), "a": (0.8, 2.5), "t0": (0.1, 0.6)}  # of samples/diffusion.py
REFERENCE = Path(__file__).with_name("response_times_reference.csv")

Estimates = dict[str, dict[str, float]]  # dataset_id -> parameter -> value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    network, likelihood, closed_form = (
        read_predictions(arguments.predictions),
        read_reference("mle_wfpt"),
        read_reference("ez"),
    )
    names = sorted(set(network) & set(inside(likelihood)))
    print_table(names, network, likelihood, closed_form)
    if arguments.plot:
        plot(arguments.plot, names, network, likelihood, closed_form)


def read_predictions(path: Path) -> Estimates:
    table = pq.read_table(path, columns=["dataset_id", *(f"predicted_{name}" for name in RANGES)])
    return {row["dataset_id"]: {name: row[f"predicted_{name}"] for name in RANGES} for row in table.to_pylist()}


def read_reference(method: str) -> Estimates:
    with REFERENCE.open(newline="") as source:
        rows = [row for row in csv.DictReader(source) if row["method"] == method]
    return {row["dataset_id"]: {name: float(row[name]) for name in RANGES} for row in rows}


def inside(estimates: Estimates) -> list[str]:
    """The datasets for which every parameter lies inside its range."""
    return [
        dataset
        for dataset, values in estimates.items()
        if all(low <= values[name] <= high for name, (low, high) in RANGES.items())
    ]


def correlation(names: list[str], estimates: Estimates, reference: Estimates, parameter: str) -> float:
    """Pearson correlation over the named datasets."""
    return float(np.corrcoef(values(names, estimates, parameter), values(names, reference, parameter))[0, 1])


def values(names: list[str], estimates: Estimates, parameter: str) -> NDArray[np.float64]:
    return np.array([estimates[name][parameter] for name in names])


def print_table(names: list[str], network: Estimates, likelihood: Estimates, closed_form: Estimates) -> None:
    print(f"\n{'':24}{'network':^22}{'maximum likelihood':^24}")
    print(f"{'dataset':24}" + 2 * f"{'v':>7}{'a':>7}{'t0':>7}  ")
    for name in names:
        numbers = (
            "".join(f"{method[name][parameter]:7.3f}" for parameter in RANGES) for method in (network, likelihood)
        )
        print(f"{name:24}" + "  ".join(numbers))
    print(f"\nCorrelation with maximum likelihood over these {len(names)} real datasets:")
    for label, method in (("this network", network), ("closed-form EZ", closed_form)):
        shown = ", ".join(
            f"{parameter} {correlation(names, method, likelihood, parameter):.3f}" for parameter in RANGES
        )
        print(f"  {label:16}{shown}")


def plot(path: Path, names: list[str], network: Estimates, likelihood: Estimates, closed_form: Estimates) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.2, 3.7), layout="constrained")
    for axis, parameter in zip(figure.subplots(1, len(RANGES)), RANGES, strict=True):
        reference = values(names, likelihood, parameter)
        for label, method, marker, color in (
            ("closed-form EZ", closed_form, "x", "#c0563b"),
            ("this network", network, "o", "#3b6ea5"),
        ):
            found = correlation(names, method, likelihood, parameter)
            axis.scatter(
                reference,
                values(names, method, parameter),
                marker=marker,
                color=color,
                s=26,
                label=f"{label}, r = {found:.3f}",
            )
        ends = [reference.min(), reference.max()]
        axis.plot(ends, ends, color="#222222", linewidth=1)
        axis.set_title(parameter)
        axis.set_xlabel("maximum likelihood")
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
