"""An exported .tflite file as a C header: its bytes, and what whoever runs it on a device has to know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from toolkit.errors import printable
from toolkit.files import appears_whole
from toolkit.integer import Host, host_of
from toolkit.integer_steps import Step, read_steps
from toolkit.manifest import ModelFile, check_unchanged, read_manifest
from toolkit.metadata import read_metadata
from toolkit.spec import PRECISIONS, Spec, file_name

LINE = 116  # characters, of generated tables


def precisions_there(directory: Path, *, arithmetic: str, batch: int | None) -> tuple[str, ...]:
    """Those that the model directory has a .tflite file of, for this arithmetic and this number of datasets a call."""
    names = {entry.file for entry in read_manifest(directory).files}
    return tuple(each for each in PRECISIONS if file_name("tflite", each, arithmetic=arithmetic, batch=batch) in names)


def write_headers(
    directory: Path,
    precisions: Sequence[str],
    published: Sequence[ModelFile] = (),
    *,
    arithmetic: str = "float32",
    batch: int | None = None,
) -> tuple[Path, ...]:
    """Write `model.integer.h` beside `model.integer.tflite`, and so on; the same file gives the same header.

    Args:
        precisions: of the .tflite files; one that the manifest does not have gets none.
        published: files that have just been replaced. Headers that are there of them are written anew.
    Raises:
        ModelError: a file has other bytes than the manifest says, or is one that no header can be made of.
    """
    manifest = read_manifest(directory)
    wanted = {file_name("tflite", each, arithmetic=arithmetic, batch=batch) for each in precisions}
    wanted |= {each.file for each in published if each.format == "tflite" and (directory / _header_name(each)).exists()}
    headers = []
    for entry in manifest.files:
        if entry.format == "tflite" and entry.file in wanted:
            text = render_header(check_unchanged(directory, entry), manifest.spec, entry)
            header = directory / _header_name(entry)
            with appears_whole(header) as partial:
                partial.write_text(text, encoding="utf-8")
            headers.append(header)
    return tuple(headers)


def render_header(path: Path, spec: Spec, entry: ModelFile) -> str:
    """The header of one file, C11 and C++11.

    Raises:
        ModelError: an integer-only file whose host side or steps cannot be read.
    """
    content = path.read_bytes()
    host = host_of(path, read_metadata(path))
    parameters = len(spec.parameters)
    batch = entry.batch or 1
    channels = len(spec.columns) if host is None else host.channels
    whole = [] if host is None else _integer_parts(path, host)
    defined = {
        "FILE": _text(entry.file),
        "SHA256": _text(entry.sha256),
        "BYTES": str(len(content)),
        "ROWS": str(spec.rows),
        "COLUMNS": str(len(spec.columns)),
        "PARAMETERS": str(parameters),
        "BATCH": str(batch),
        "SORTED_ROWS": str(int(spec.sorted_rows)),
        "INTEGER": str(int(host is not None)),
    }
    what = "int8 codes in and out" if host else f"{entry.precision} weights, float32 datasets and estimates"
    order = (
        "to be sorted first, ascending by the first column, rows alike there by the next, and so on"
        if spec.sorted_rows
        else "as they are"
    )
    return "\n".join(
        [
            f"/* {entry.file} for C and C++: {what}.",
            "   Written by softplus-toolkit (toolkit export --format c) from the file itself; not to be edited.",
            f"   A dataset: {spec.rows} rows of ({_comment(spec.columns)}), {order}.",
            f"   Estimates: {_comment(spec.parameters)}, each finite and at least its lower bound.",
            "   Tables are static: each source file that includes this holds those that it names. */",
            *[f"#ifndef {_guard(entry)}", f"#define {_guard(entry)}", ""],
            *["#ifndef __cplusplus", "#include <stdalign.h>", "#endif", "#include <stdint.h>", ""],
            *(f"#define MODEL_{name} {value}" for name, value in defined.items()),
            "",
            _array("const char *const", "columns", "COLUMNS", map(_text, spec.columns)),
            _array("const char *const", "parameters", "PARAMETERS", map(_text, spec.parameters)),
            _array(
                "const float", "lower_bounds", "PARAMETERS", (_float(entry.lower_bound[p]) for p in spec.parameters)
            ),
            _array("const int", "input_shape", "3", map(str, (batch, spec.rows, channels))),
            _array("const int", "output_shape", "2", map(str, (batch, 1 if host else parameters))),
            *whole,
            "",
            "/* The file, byte by byte. */",
            f"alignas(16) static const unsigned char model[MODEL_BYTES] = {{\n{_wrapped(map(str, content))}\n}};",
            *["", "#endif", ""],
        ]
    )


def _integer_parts(path: Path, host: Host) -> list[str]:
    """The host's numbers, and the steps of samples/microcontroller/network.c."""
    plan = read_steps(path)
    columns = [
        f"{{{_float(each.minimum)}, {_float(each.maximum)}, {_float(each.multiplier)}, {each.fine}}}"
        for each in host.columns
    ]
    outputs = [f"{{{_float(each.scale)}, {each.zero_point}, {_float(each.centre)}}}" for each in host.outputs]
    filters = [f"{{{each.bias}, {each.multiplier}, {each.shift}}}" for each in plan.filters]
    return [
        "",
        "/* Host: codes count in steps of 1 / multiplier from the minimum; logits are scale * (code - zero_point)",
        "   + centre. Each output is a tensor of its own. */",
        f"#define MODEL_CHANNELS {host.channels}",
        f"#define MODEL_ARENA_BYTES {host.arena_bytes or 0} "
        "/* that TensorFlow Lite Micro needs at most; 0: not measured */",
        "struct model_column { float minimum, maximum, multiplier; int fine; };",
        "struct model_output { float scale; int zero_point; float centre; };",
        _array("const struct model_column", "host_columns", "COLUMNS", columns),
        _array("const struct model_output", "host_outputs", "PARAMETERS", outputs),
        "",
        "/* The network as steps on int8 codes (rows, channels), for network.c; kernels lie in `model`. */",
        f"#define MODEL_STEPS {len(plan.steps)}",
        f"#define MODEL_FILTERS {len(plan.filters)}",
        f"#define MODEL_SCRATCH_BYTES {plan.scratch_bytes}",
        "enum model_kind { MODEL_PAD, MODEL_CONV, MODEL_POOL };",
        "struct model_filter { int32_t bias, multiplier, shift; };",
        "struct model_step {",
        "    enum model_kind kind;",
        "    int output; /* 1: `target` is the place of a parameter, not one in the scratch memory */",
        *(f"    int {', '.join(names)};" for names in (NUMBERS[:9], NUMBERS[9:])),
        "};",
        _array("const struct model_filter", "filters", "FILTERS", filters),
        _array("const struct model_step", "steps", "STEPS", map(_step, plan.steps)),
    ]


NUMBERS = (
    *("source", "target", "rows", "channels", "out_rows", "out_channels", "width", "stride", "dilation"),
    *("before", "fill", "kernel", "filters", "zero_point", "lowest", "highest"),
)


def _step(step: Step) -> str:
    numbers = ", ".join(str(getattr(step, name)) for name in NUMBERS)
    return f"{{MODEL_{step.kind}, {step.output}, {numbers}}}"


def _array(kind: str, name: str, length: str, items: Iterable[str]) -> str:
    size = length if length.isdigit() else f"MODEL_{length}"
    return f"static {kind} model_{name}[{size}] = {{\n{_wrapped(items)}\n}};"


def _wrapped(items: Iterable[str]) -> str:
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > LINE:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([*lines, line])


def _float(number: float) -> str:
    """A constant that reads back as the same float32."""
    text = f"{number:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _text(text: str) -> str:
    """A string constant of any text; octal, whose length C limits, so that what follows is no part of it."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{plain}"'


def _comment(names: Sequence[str]) -> str:
    return ", ".join(printable(name).replace("*/", "* /").replace("/*", "/ *") for name in names)


def _guard(entry: ModelFile) -> str:
    return "".join(character if character.isalnum() else "_" for character in _header_name(entry)).upper()


def _header_name(entry: ModelFile) -> str:
    return f"{entry.file.removesuffix(f'.{entry.format}')}.h"
