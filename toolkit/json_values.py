"""What JSON can hold."""

from __future__ import annotations

import json
import math
import re
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


def readable(content: Any, *, sort_keys: bool = False) -> str:
    """JSON, indented for people, but lists of numbers on a line each: some are hundreds long."""
    # No text of a JSON document holds a line break, so nothing within one is taken for a list.
    return re.sub(
        r"\[\n\s+([-+.\deE]+(?:,\n\s+[-+.\deE]+)*)\n\s+\]",
        lambda found: "[" + " ".join(found[1].split()) + "]",
        json.dumps(content, indent=2, sort_keys=sort_keys),
    )
