"""Can a model's numbers be told apart in float16? Said before anything is converted, with the unit that would do."""

from __future__ import annotations

import math

from toolkit.errors import ExportError
from toolkit.manifest import Manifest

# The logit of an estimate of 2^-12 is -8.3, where neighbouring float16 numbers are 2^-7 apart: rounding it alone moves
# the estimate by up to .4%. Below, that stays so until the head ends at 6.2e-5, and there is nothing left of the range.
SMALLEST_ESTIMATE = 2.0**-12
LARGEST_ESTIMATE = 2.0**12  # what limits leave of 65504
SMALLEST_INPUT = 2.0**-11  # 32 times where numbers become 0
LARGEST_INPUT = 2.0**12  # from 2,048 on not even whole numbers can be told apart


def check_units(manifest: Manifest) -> None:
    """Refuse float16 arithmetic for a model whose columns or parameters are in units too large or too small for it.

    Raises:
        ExportError: it names each, and by what to divide its unit. Ranges that nobody knows are not looked at.
    """
    problems = []
    for parameter in manifest.parameters:
        low, high = parameter.minimum, parameter.maximum
        problems += _problem(f"parameter {parameter.name}", low, high, low, high, SMALLEST_ESTIMATE, LARGEST_ESTIMATE)
    for name, seen in zip(manifest.columns, manifest.column_ranges, strict=False):
        largest = max(abs(seen.minimum), abs(seen.maximum))
        problems += _problem(
            f"column {name}", seen.minimum, seen.maximum, largest, largest, SMALLEST_INPUT, LARGEST_INPUT
        )
    if problems:
        raise ExportError("\n".join(problems))


def _problem(
    what: str, minimum: float, maximum: float, least: float, largest: float, smallest: float, highest: float
) -> list[str]:
    """
    Args:
        minimum, maximum: as seen in training.
        least, largest: magnitudes that must be at least `smallest`, and at most `highest`.
    """
    if not (math.isfinite(least) and math.isfinite(largest)) or largest <= 0:
        return []
    if least >= smallest and largest <= highest:
        return []
    seen = f"{what}: {minimum:.4g} to {maximum:.4g} in training, and float16 arithmetic tells numbers apart"
    where = f"from {smallest:.2g} to {highest:,.0f}"
    if least <= 0 or largest / least > highest / smallest:
        return [f"{seen} {where}: no unit brings all of it there. Export for float32: leave --arithmetic out."]
    if least < smallest:
        factor = 1000.0 ** math.ceil(math.log(smallest / least, 1000))
        unit, step = f"a unit {factor:,.0f} times smaller (milliseconds in place of seconds, say)", factor
    else:
        factor = 1000.0 ** math.ceil(math.log(largest / highest, 1000))
        unit, step = f"a unit {factor:,.0f} times larger (seconds in place of milliseconds, say)", 1 / factor
    if not (smallest <= least * step and largest * step <= highest):  # thousands are too coarse
        step = 2.0 ** round(math.log2(math.sqrt(smallest * highest / (least * largest))))
        unit = f"units of {1 / step:.3g}"
    return [f"{seen} {where}. Train it in {unit}: then it is {minimum * step:.4g} to {maximum * step:.4g}."]
