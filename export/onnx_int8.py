"""An int8 ONNX file: float ends, as tf2onnx writes them, around convolutions between QuantizeLinear and
DequantizeLinear, which runtimes fuse into integer ones. One scale for each filter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.ends import build_end, build_front
from export.network import Conv1D, GlobalPooling1D, Layer, Pooling1D, Reshape, Shape, ZeroPadding1D, output_shape
from export.onnx import to_onnx
from export.quantize import Codes, IntegerLayer, IntegerLinear, Trunk, padding_of


def write_onnx(trunk: Trunk, behind: tuple[Layer, ...], shape: tuple[int, int], limit: float) -> bytes:
    """The file, its float weights behind the codes in half precision.

    Args:
        behind: the float layers behind the codes.
        shape: (rows, columns) of a dataset.
    """
    import onnx

    layers = trunk.layers
    size = _shape_behind(trunk.shape, layers[:-1])
    flat = isinstance(layers[-1], Reshape) and len(size) == 2 and len(layers[-1].shape) == 1
    layers = layers[:-1] if flat else layers  # it comes behind the codes: ONNX Runtime leaves out what undoes itself
    graph = _Graph(
        onnx.load_model_from_string(to_onnx(build_front(trunk, shape, limit, channels_first=True), "float32"))
    )
    size, codes = trunk.shape, trunk.input
    values = graph.quantized(graph.output, codes)
    for layer in layers:
        values, size, codes = graph.add_layer(layer, values, size, codes)
    real = graph.dequantized(values, codes)
    if len(size) == 2:
        real = graph.node("Transpose", [real], perm=[0, 2, 3, 1])
    if flat:
        size = (int(np.prod(size)),)
        real = graph.reshaped(real, size)
    end = build_end(behind, (1, *size) if len(size) == 2 else size)
    return graph.finish(onnx.load_model_from_string(to_onnx(end, "float16")), real)


def _shape_behind(shape: Shape, layers: tuple[IntegerLayer, ...]) -> Shape:
    for layer in layers:
        shape = output_shape(layer.layer if isinstance(layer, IntegerLinear) else layer, shape)
    return shape


class _Graph:
    """An ONNX model that nodes are added to. Values by their names; inside they are (batch, channels, 1, rows)."""

    def __init__(self, front: Any) -> None:
        self.model, self.graph = front, front.graph
        _clip(self.graph)
        self.output = str(front.graph.output[0].name)
        self.count = 0

    def add_layer(self, layer: IntegerLayer, values: str, size: Shape, codes: Codes) -> tuple[str, Shape, Codes]:
        """One layer; the codes it gives, their shape as `network` counts it, and what they stand for."""
        if isinstance(layer, IntegerLinear):
            after = output_shape(layer.layer, size)
            return self._linear(layer, self.dequantized(values, codes), size, codes), after, layer.output
        after = output_shape(layer, size)
        real = self.dequantized(values, codes)
        match layer:
            case Pooling1D():
                pads = _pool_padding(layer, size[0])
                real = self._pool(real, layer.size, layer.strides, pads)
            case GlobalPooling1D():
                real = self._pool(real, size[0], 1, (0, 0))
                real = real if layer.keep_rows else self.reshaped(real, after)
            case ZeroPadding1D():
                around = self.constant(np.array([0, 0, 0, layer.before, 0, 0, 0, layer.behind], np.int64))
                real = self.node("Pad", [real, around])
            case Reshape():
                real = self.node("Transpose", [real], perm=[0, 2, 3, 1]) if len(size) == 2 else real
                real = self.reshaped(real, (1, *after) if len(after) == 2 else after)
                real = self.node("Transpose", [real], perm=[0, 3, 1, 2]) if len(after) == 2 else real
        return self.quantized(real, codes), after, codes

    def quantized(self, real: str, codes: Codes) -> str:
        return self.node("QuantizeLinear", [real, *self._scale(codes)])

    def dequantized(self, values: str, codes: Codes) -> str:
        return self.node("DequantizeLinear", [values, *self._scale(codes)])

    def reshaped(self, values: str, shape: Shape) -> str:
        return self.node("Reshape", [values, self.constant(np.array([-1, *shape], np.int64))])

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        import onnx

        self.count += 1
        name = f"int8/{kind}_{self.count}"
        self.graph.node.append(onnx.helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        import onnx

        self.count += 1
        name = f"int8/constant_{self.count}"
        self.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        return name

    def finish(self, end: Any, real: str) -> bytes:
        """All of `end` behind what is here, reading `real`."""
        import onnx

        (source,) = end.graph.input
        renamed = {source.name: real, **{value.name: value.name for value in end.graph.output}}

        def name_of(name: str) -> str:
            return renamed.get(name, f"end/{name}") if name else name

        for node in end.graph.node:
            node.name = f"end/{node.name}" if node.name else ""
            node.input[:] = [name_of(name) for name in node.input]
            node.output[:] = [name_of(name) for name in node.output]
            self.graph.node.append(node)
        for initializer in end.graph.initializer:
            initializer.name = name_of(initializer.name)
            self.graph.initializer.append(initializer)
        del self.graph.output[:]
        self.graph.output.extend(end.graph.output)
        onnx.checker.check_model(self.model, full_check=True)
        return bytes(self.model.SerializeToString(deterministic=True))

    def _scale(self, codes: Codes) -> list[str]:
        return [self.constant(np.array(codes.scale, np.float32)), self.constant(np.array(codes.zero_point, np.int8))]

    def _linear(self, linear: IntegerLinear, real: str, size: Shape, codes: Codes) -> str:
        """Its activation is the saturation of its codes: they begin at 0, and end at 6 where a relu6 reaches it."""
        layer, kernel = linear.layer, linear.codes
        filters = len(linear.scales)
        kernel = kernel if kernel.ndim == 3 else kernel[np.newaxis]
        weights = np.ascontiguousarray(kernel.transpose(2, 1, 0)[:, :, np.newaxis])
        kernel_codes = self._along_filters(weights, linear.scales)
        bias = self._along_filters(linear.bias, np.float32(codes.scale) * linear.scales)
        if len(size) == 1:
            real = self.reshaped(real, (size[0], 1, 1))
        strides, dilation = (layer.strides, layer.dilation) if isinstance(layer, Conv1D) else (1, 1)
        before, behind = padding_of(layer, size[0])
        real = self.node(
            "Conv",
            [real, kernel_codes, bias],
            kernel_shape=[1, len(kernel)],
            strides=[1, strides],
            dilations=[1, dilation],
            pads=[0, before, 0, behind],
        )
        values = self.quantized(real, linear.output)
        if len(size) > 1:
            return values
        flat = self.reshaped(self.dequantized(values, linear.output), (filters,))
        return self.quantized(flat, linear.output)

    def _along_filters(self, value: NDArray[Any], scales: NDArray[np.float32]) -> str:
        zeros = np.zeros(len(scales), value.dtype)
        inputs = [self.constant(value), self.constant(scales.astype(np.float32)), self.constant(zeros)]
        return self.node("DequantizeLinear", inputs, axis=0)

    def _pool(self, real: str, size: int, strides: int, pads: tuple[int, int]) -> str:
        return self.node("MaxPool", [real], kernel_shape=[1, size], strides=[1, strides], pads=[0, pads[0], 0, pads[1]])


def _pool_padding(layer: Pooling1D, rows: int) -> tuple[int, int]:
    if layer.padding == "valid":
        return 0, 0
    missing = max((output_shape(layer, (rows, 1))[0] - 1) * layer.strides + layer.size - rows, 0)
    return missing // 2, missing - missing // 2


def _clip(graph: Any) -> None:
    """The input limits as one node in place of two."""
    nodes = list(graph.node)
    for first, second in zip(nodes, nodes[1:], strict=False):
        if (first.op_type, second.op_type) == ("Min", "Max") and second.input[0] == first.output[0]:
            first.op_type = "Clip"
            first.input[:] = [first.input[0], second.input[1], first.input[1]]
            first.output[:] = second.output
            graph.node.remove(second)
            return
