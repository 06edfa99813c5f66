"""An int8 TFLite file: float ends, as the converter writes them, around integer layers that are written by hand.

The converter's own quantization decides about scales, rounding and where codes begin; here all of that is given.
"""

from __future__ import annotations

from typing import Any

from export.ends import build_end, build_front
from export.network import Layer, output_shape
from export.quantize import IntegerLinear, Trunk
from export.tflite import to_tflite
from export.tflite_file import TfliteFile
from toolkit.spec import OUTPUT_NAME


def write_tflite(trunk: Trunk, behind: tuple[Layer, ...], shape: tuple[int, int], limit: float) -> bytes:
    """The file, its float weights behind the codes in half precision.

    Whole steps and rests of a dataset's columns lie one below the other, and the first kernel is two rows high: side by
    side, as channels, every number would be copied by itself.

    Args:
        behind: the float layers behind the codes.
        shape: (rows, columns) of a dataset.
    """
    file = TfliteFile()
    source, values = file.add_model(to_tflite(build_front(trunk, shape, limit), "float32"))
    size, codes, layers = trunk.shape, trunk.input, trunk.layers
    high = 2 if trunk.fine else 1
    given = file.tensor("codes", (high, *size) if len(size) == 2 else size, codes)
    file.operator("QUANTIZE", [values], given, "QuantizeOptions")
    values = given
    if trunk.fine:
        first = layers[0]
        assert isinstance(first, IntegerLinear)
        after = output_shape(first.layer, size)
        values = file.linear(first, values, size, after, codes, high=high)
        size, codes, layers = after, first.output, layers[1:]
    for layer in layers:
        values, size, codes = file.add_layer(layer, values, size, codes)
    end = build_end(behind, (1, *size) if len(size) == 2 else size)
    operators = file.graph.operators
    place = len(operators)
    real, estimates = file.add_model(to_tflite(end, "float16"))
    file.operator("DEQUANTIZE", [values], real, "DequantizeOptions")
    operators.insert(place, operators.pop())  # they run in this order
    _compact(file.model)
    return file.finish(source, [estimates], [OUTPUT_NAME])


def _compact(model: Any) -> None:
    """Leave out what two converted models and the layers between them hold twice: 1.6 kB of 87."""
    (graph,) = model.subgraphs
    codes: dict[tuple[int, int], int] = {}
    kept: list[Any] = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        key = (code.builtinCode, code.version)
        if key not in codes:
            codes[key] = len(kept)
            kept.append(code)
        operator.opcodeIndex = codes[key]
    model.operatorCodes = kept
    buffers, places = [model.buffers[0]], {b"": 0}
    for tensor in graph.tensors:
        buffer = model.buffers[tensor.buffer]
        content = b"" if buffer.data is None else bytes(bytearray(buffer.data))
        if content not in places:
            places[content] = len(buffers)
            buffers.append(buffer)
        tensor.buffer = places[content]
        if tensor.quantization is not None and tensor.quantization.scale is None:
            tensor.quantization = None
    model.buffers = buffers
