"""Integer-only files: the network gives codes, its host makes the estimates, and every code is looked at.

Whatever an int8 kernel computes, its result is one of 256 codes. So nothing has to be known of the arithmetic before
the outputs. It is enough that no operation touches a float, that the outputs are int8, and that the file and its host
mean the same by a code; the bounds are then the smallest and the largest of the 256 estimates themselves.
"""

from __future__ import annotations

import numpy as np

from toolkit.integer import LOWEST, Host
from toolkit.proof.graph import Graph, Operation
from toolkit.proof.intervals import Bounds
from toolkit.proof.propagate import Bounded
from toolkit.proof.reasons import unreadable

HOST_ASSUMPTIONS = (
    "The host makes codes of datasets and estimates of codes as the file's metadata say.",
    "An operation with an int8 result gives one of 256 codes; all of them were looked at.",
)
INSIDE = ("int8", "int32")  # codes, biases and sizes


def host_bounds(host: Host) -> list[Bounds]:
    """For each output, bounds (1,) of its estimates over all codes; infinite where one is not finite."""
    table = host.table().astype(np.float64)
    low = np.where(np.isfinite(table), table, -np.inf).min(axis=0)
    high = np.where(np.isfinite(table), table, np.inf).max(axis=0)
    return [Bounds(low[index : index + 1], high[index : index + 1]) for index in range(len(low))]


def host_reasons(bounded: Bounded, host: Host, required: float) -> tuple[str, ...]:
    """What stands against a file whose host makes the estimates; nothing where all of them are finite and at least
    `required`, and the file and the host speak of the same codes."""
    graph = bounded.graph
    return (*unreadable(bounded), *_ports_apart(graph, host), *_not_integer(graph), *_bad_codes(graph, host, required))


def _ports_apart(graph: Graph, host: Host) -> list[str]:
    failures = []
    source = graph.tensors[graph.input]
    begins = None if source.quantization is None else source.quantization.zero_point.tolist()
    if source.dtype != "int8" or len(source.shape) != 3 or source.shape[2] != host.channels or begins != [LOWEST]:
        failures.append(
            f"its host gives int8 codes from {LOWEST} in {host.channels} channels, its input {source.name} takes "
            f"{source.dtype} {source.shape[1:]} of zero point {begins}"
        )
    if len(graph.outputs) != len(host.outputs):
        failures.append(f"its host reads {len(host.outputs)} outputs, it gives {len(graph.outputs)}")
    for key, output in zip(graph.outputs, host.outputs, strict=False):
        tensor = graph.tensors[key]
        quantization = tensor.quantization
        there = None if quantization is None else [*quantization.scale.tolist(), *quantization.zero_point.tolist()]
        if tensor.dtype != "int8" or tensor.shape[1:] != (1,) or there != [output.scale, output.zero_point]:
            failures.append(
                f"output {tensor.name}: its host reads one int8 code of scale {output.scale:.9g} and zero point "
                f"{output.zero_point}, it is {tensor.dtype} {tensor.shape[1:]} of {there}"
            )
    return failures


def _not_integer(graph: Graph) -> list[str]:
    return [
        f"{graph.name(operation)}: computes with {', '.join(sorted(found))}, in a file that is to hold integers only"
        for operation in graph.operations
        if (found := _types(graph, operation) - {*INSIDE})
    ]


def _types(graph: Graph, operation: Operation) -> set[str]:
    keys = [key for key in (*operation.inputs, *operation.outputs) if key]
    return {graph.tensors[key].dtype or "another type" for key in keys}


def _bad_codes(graph: Graph, host: Host, required: float) -> list[str]:
    table = host.table()
    good = np.isfinite(table) & (table >= required)  # NaN fails both
    failures = []
    for index in np.flatnonzero(~good.all(axis=0)):
        row = int(np.argmin(good[:, index]))
        estimate = table[row, index]
        failures.append(f"output {index} may be {estimate:.3g}: its host makes that of code {row + LOWEST}")
    return failures
