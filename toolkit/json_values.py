"""What JSON can hold."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any


def jsonable(value: Any) -> Any:
    """Lists for tuples, text for keys, None for NaN and infinity; all else as it is."""
    if isinstance(value, dict):
        return {str(key): jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(each) for each in value]
    number = isinstance(value, Real) and not isinstance(value, int)
    return None if number and not math.isfinite(value) else value
