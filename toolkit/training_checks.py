"""What is odd about training datasets without making them useless: one sentence each, of where, what and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.moments import Moments
from toolkit.training_copies import Split, hashes_of

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]  # datasets (n, rows, columns), true values (n, parameters)

# The loss divides by a parameter's variance, which has to be a normal float32.
LEAST_SPREAD, LARGEST_SPREAD = 1e-18, 1e18
FEW_DIGITS = 1e-4  # of a parameter's size: float32 has steps of 6e-8 of it (1e-3 is as good as any, files included)
MANY_ORDERS = 1e4  # the largest value of a parameter over its smallest
FAR_OUT = 100.0  # times the range in which nearly all values of a column lie
NEARLY_ALL = (0.0005, 0.9995)
ENOUGH = 1000  # datasets of a set, to see where nearly all values lie
AS_GOOD_AS_COPIED = 1 - 1e-6  # correlation


def check_spread(moments: Moments, source: str) -> None:
    """Refuse a parameter from which nothing can be learned.

    Raises:
        InputError: it does not vary, or its squares are beyond float32.
    """
    deviations, means = np.sqrt(moments.parameter_variances), moments.parameter_means
    for name, deviation, mean in zip(moments.spec.parameters, deviations, means, strict=True):
        if not deviation > 1e-6 * mean:
            raise InputError(f"{source}: '{name}' is {mean:g} in every row; there is nothing to learn. Let it vary.")
        if not LEAST_SPREAD < deviation < LARGEST_SPREAD:
            raise InputError(
                f"{source}: '{name}' varies by {deviation:.2g} around {mean:.2g}, which training in float32 cannot "
                "follow. Give it in another unit, in which it is nearer to 1."
            )


def check_split(chosen: Split, fewest: int, source: str, validation: Path | str | None) -> None:
    """Refuse files in which copies leave too little to train on.

    Raises:
        InputError: fewer than `fewest` different datasets.
    """
    if chosen.different is None or chosen.different >= fewest:
        return
    total = len(chosen.trained)
    if chosen.validated:
        raise InputError(
            f"{validation}: holds {chosen.validated:,} of the {total:,} datasets to train on, which leaves "
            f"{chosen.different:,} others; training takes {fewest} or more. Validate on other datasets."
        )
    raise InputError(
        f"{source}: {chosen.different:,} different datasets among {total:,}; training takes {fewest} or "
        "more. Simulate each with random numbers of its own."
    )


def warnings_of_copies(chosen: Split, source: str, validation: Path | str | None) -> tuple[str, ...]:
    """What has been done about copies."""
    total = len(chosen.trained)
    found = []
    if chosen.validated:
        found.append(
            f"warning: {validation}: holds {chosen.validated:,} of the {total:,} datasets to train on. They are not "
            "trained on, so that validation is honest. Validate on datasets of its own."
        )
    if chosen.copies:
        found.append(
            f"warning: {source}: {chosen.copies:,} of {total:,} datasets are copies of others, parameters included. "
            "None whose copy is held out is trained on. Simulate each with random numbers of its own."
        )
    return tuple(found)


def warnings_of(
    moments: Moments, held_out: Sequence[Pair], source: str, place_of: Callable[[int, float], str]
) -> tuple[str, ...]:
    """What is worth a look in datasets that can be trained on.

    Args:
        moments: of all datasets.
        held_out: some of them, chosen at random.
        source: where they are from.
        place_of: where a value of a column is, by the column's index.
    """
    datasets = np.concatenate([datasets[:ENOUGH] for datasets, _ in held_out])
    targets = np.concatenate([targets for _, targets in held_out])
    found = [*_of_columns(moments, datasets, source, place_of), *_of_parameters(moments, targets, source)]
    hashes = np.concatenate([hashes_of(*pair) for pair in held_out])
    if copies := len(hashes) - len(np.unique(hashes)):
        found.append(
            f"{source}: {copies:,} of {len(hashes):,} datasets that are held out are copies of others, parameters "
            "included. A simulator is to draw from the generator it is given, and from nothing else."
        )
    return tuple(f"warning: {each}" for each in found)


def _of_columns(
    moments: Moments, datasets: NDArray[np.float32], source: str, place_of: Callable[[int, float], str]
) -> list[str]:
    if len(datasets) > 1 and np.array_equal(datasets, np.broadcast_to(datasets[0], datasets.shape)):
        return [
            f"{source}: all datasets are the same; nothing in them tells of the parameters. Look at what made them."
        ]
    found = []
    low, middle, high = np.quantile(datasets.astype(np.float64), (NEARLY_ALL[0], 0.5, NEARLY_ALL[1]), axis=(0, 1))
    for index, name in enumerate(moments.spec.columns):
        if not moments.column_variances[index] > 0:
            value = moments.column_means[index]
            found.append(f"{source}: column {name!r} is {value:g} in every row and tells nothing. It can be left out.")
            continue
        ends = moments.ranges.column_minima[index], moments.ranges.column_maxima[index]
        farthest = max(ends, key=lambda end, at=middle[index]: abs(end - at))  # type: ignore[misc]
        usual = low[index], high[index]
        if abs(farthest - middle[index]) > FAR_OUT * (usual[1] - usual[0]) > 0:
            found.append(
                f"{place_of(index, farthest)}: column {name!r} is {farthest:.4g}, where 99.9% of its values are from "
                f"{usual[0]:.4g} to {usual[1]:.4g}. Such a value takes the scale from all others: mend or remove it."
            )
    return found


def _of_parameters(moments: Moments, targets: NDArray[np.float32], source: str) -> list[str]:
    names, ranges = moments.spec.parameters, moments.ranges
    deviations, means = np.sqrt(moments.parameter_variances), moments.parameter_means
    found = []
    for index, name in enumerate(names):
        low, high = ranges.parameter_minima[index], ranges.parameter_maxima[index]
        if high > MANY_ORDERS * low:
            orders = int(np.log10(high / low))
            found.append(
                f"{source}: {name!r} is from {low:.3g} to {high:.3g}, over {orders} orders of magnitude; its small "
                "values may be estimated poorly. Look at them with toolkit evaluate, or estimate a root of it."
            )
        if deviations[index] < FEW_DIGITS * means[index]:
            share = deviations[index] / means[index]
            found.append(
                f"{source}: {name!r} is from {low:.7g} to {high:.7g} and varies by {share:.1g} of its size, of which "
                "float32 keeps few digits. Estimate by how much it is above a fixed value."
            )
    exact = targets.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # a parameter may not vary in a part of the datasets
        correlation = np.atleast_2d(np.corrcoef(exact, rowvar=False))
    for one, other in combinations(range(len(names)), 2):
        if np.array_equal(targets[:, one], targets[:, other]):
            both = f"{names[one]!r} and {names[other]!r}"
            found.append(f"{source}: {both} are equal in every dataset. Estimate one of the two.")
        elif abs(correlation[one, other]) > AS_GOOD_AS_COPIED:
            line = f"{names[other]!r} follows from {names[one]!r} by a straight line"
            found.append(f"{source}: {line}. Estimate one of the two.")
    return found


def warnings_of_size(datasets: int, weights: int, parameters: int) -> tuple[str, ...]:
    """Whether a network has more weights than there are true values to fit them to.

    Measured with three parameters and 31,907 weights: 1,000 datasets gave an RMSE 8 to 21% above that of 100,000,
    10,000, which is as many values as weights, one 3 to 5% above.

    Args:
        datasets: those trained on.
    """
    if datasets * parameters >= weights:
        return ()
    enough = -(-weights // parameters)
    values = "value" if parameters == 1 else "values"
    return (
        f"warning: {datasets:,} datasets to train on, with {parameters} {values} each, for a network of "
        f"{weights:,} weights, which can learn them by heart. Simulate {enough:,} or more.",
    )
