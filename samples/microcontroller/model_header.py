"""Write model.h: an integer-only file as a C array, and the numbers of its host side.

python samples/microcontroller/model_header.py MODEL.integer.tflite > model.h
"""

from __future__ import annotations

import sys
from pathlib import Path

from toolkit.integer import host_of
from toolkit.metadata import read_metadata

PER_LINE = 20  # bytes


def header(path: Path) -> str:
    facts = read_metadata(path)
    host = host_of(path, facts)
    if host is None:
        raise SystemExit(f"{path}: not an integer-only file. Export one: toolkit export --precision integer")
    content = path.read_bytes()
    lines = [", ".join(map(str, content[begin : begin + PER_LINE])) for begin in range(0, len(content), PER_LINE)]
    columns = [
        f"{{{_c(each.minimum)}, {_c(each.maximum)}, {_c(each.multiplier)}, {each.fine}}}" for each in host.columns
    ]
    outputs = [f"{{{_c(each.scale)}, {each.zero_point}, {_c(each.centre)}}}" for each in host.outputs]
    names = ", ".join(facts["parameters"])
    return f"""/* Made of {path.name} by model_header.py. Estimates, in this order: {names}. */
#ifndef MODEL_H
#define MODEL_H

enum {{ ROWS = {facts["input"]["rows"]}, COLUMNS = {len(columns)}, CHANNELS = {host.channels} }};
enum {{ PARAMETERS = {len(outputs)} }};
enum {{ ARENA_BYTES = {host.arena_bytes or 0} }}; /* that TensorFlow Lite Micro needs at most; 0: not measured */

static const struct column {{ float minimum, maximum, multiplier; int fine; }} columns[COLUMNS] = {{
    {_lines(columns)}
}};
static const struct output {{ float scale; int zero_point; float centre; }} outputs[PARAMETERS] = {{
    {_lines(outputs)}
}};

#ifdef WITH_MODEL /* in one source file only */
#include <stdalign.h>
alignas(16) const unsigned char model[{len(content)}] = {{
    {_lines(lines)}
}};
#endif

#endif
"""


def _c(number: float) -> str:
    """A float constant that reads back as the same float32."""
    text = f"{number:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _lines(items: list[str]) -> str:
    return ",\n    ".join(items)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    print(header(Path(sys.argv[1])), end="")
