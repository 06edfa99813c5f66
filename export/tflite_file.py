"""A TFLite file written tensor by tensor: integer layers as operations, no converter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.network import Conv1D, Dense, GlobalPooling1D, Pooling1D, Reshape, Shape, ZeroPadding1D, output_shape
from export.quantize import Codes, IntegerLayer, IntegerLinear, padding_of
from export.tflite import read_model, write_model
from toolkit.spec import INPUT_NAME, METADATA_NAME

# Versions of operations that take int8; readers of older files need them.
VERSIONS = {"RESHAPE": 1, "CONV_2D": 3, "MAX_POOL_2D": 2, "PAD": 2, "QUANTIZE": 1, "DEQUANTIZE": 2}


@dataclass
class TfliteFile:
    """A TFLite model in the making. Tensors by their index."""

    model: Any = None
    graph: Any = None
    opcodes: dict[str, int] = field(default_factory=dict)
    shapes: dict[Shape, int] = field(default_factory=dict)  # constants that reshapes read

    def __post_init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.model.description = "softplus-toolkit"
        self.graph.name, self.graph.tensors, self.graph.operators = "main", [], []
        self.model.subgraphs = [self.graph]

    def add_layer(self, layer: IntegerLayer, values: int, size: Shape, codes: Codes) -> tuple[int, Shape, Codes]:
        """One layer; the tensor it gives, its shape without the batch as `network` counts it, and its codes."""
        if isinstance(layer, IntegerLinear):
            after = output_shape(layer.layer, size)
            return self.linear(layer, values, size, after, codes), after, layer.output
        after = output_shape(layer, size)
        inner = (1, *after) if len(after) == 2 else after
        match layer:
            case Pooling1D():
                values = self._max_pool(values, (1, *after), codes, layer.size, layer.strides, layer.padding)
            case GlobalPooling1D():
                values = self._max_pool(values, (1, 1, after[-1]), codes, size[0], 1, "valid")
                values = values if layer.keep_rows else self.reshape(values, after, codes)
            case ZeroPadding1D():
                values = self._pad(values, inner, codes, layer.before, layer.behind)
            case Reshape():
                values = self.reshape(values, inner, codes)
        return values, after, codes

    def reshape(self, values: int, shape: Shape, codes: Codes, name: str = "reshape") -> int:
        given = self.tensor(name, shape, codes)
        if shape not in self.shapes:
            self.shapes[shape] = self.constant("shape", np.array([-1, *shape], np.int32))
        self.operator("RESHAPE", [values, self.shapes[shape]], given, "ReshapeOptions")
        return given

    def linear(
        self, linear: IntegerLinear, values: int, size: Shape, after: Shape, codes: Codes, *, high: int = 1
    ) -> int:
        """A Conv1D or Dense, as a convolution.

        Args:
            size, after: (rows, channels) or (features,) of what it takes and gives.
            high: 2 where `values` are (2, rows, channels), the kernel's channels being those of one, then the other.
        """
        layer, kernel = linear.layer, linear.codes
        flat = len(size) == 1
        if flat:
            values = self.reshape(values, (1, 1, size[0]), codes)
        strides, dilation, padding = 1, 1, "valid"
        if isinstance(layer, Conv1D):
            strides, dilation, padding = layer.strides, layer.dilation, layer.padding
        else:
            kernel = kernel[np.newaxis]
        width, channels, filters = kernel.shape
        if padding == "causal" or (padding == "same" and high > 1):
            before, behind = padding_of(layer, size[0])
            values = self._pad(values, (high, before + size[0] + behind, size[1]), codes, before, behind)
            padding = "valid"
        weights = kernel.reshape(width, high, channels // high, filters).transpose(3, 1, 0, 2)  # OHWI
        name = "dense" if isinstance(layer, Dense) else "conv1d"
        scales = linear.scales.astype(np.float32)
        unit = (np.float32(codes.scale) * scales).tolist()
        given = self.tensor(name, (1, 1, after[0]) if flat else (1, *after), linear.output)
        inputs = [
            values,
            self.constant(f"{name}/kernel", np.ascontiguousarray(weights), scales.tolist()),
            self.constant(f"{name}/bias", linear.bias, unit),
        ]
        self.conv(inputs, given, padding, strides, dilation, linear.activation)
        return self.reshape(given, after, linear.output) if flat else given

    def add_model(self, content: bytes) -> tuple[int, int]:
        """All of another file's operations behind those that are here; its input and output tensor."""
        other = read_model(content)
        (graph,) = other.subgraphs
        tensors, buffers, opcodes = len(self.graph.tensors), len(self.model.buffers), len(self.model.operatorCodes)
        self.model.buffers += other.buffers[1:]  # the first is empty by convention, here and there
        self.model.operatorCodes += other.operatorCodes
        for tensor in graph.tensors:
            tensor.buffer = tensor.buffer and tensor.buffer + buffers - 1
            self.graph.tensors.append(tensor)
        for operator in graph.operators:
            operator.opcodeIndex += opcodes
            operator.inputs = [index + tensors if index >= 0 else index for index in operator.inputs]
            operator.outputs = [index + tensors for index in operator.outputs]
            self.graph.operators.append(operator)
        (source,), (given,) = graph.inputs, graph.outputs
        return source + tensors, given + tensors

    def conv(
        self,
        inputs: list[int],
        given: int,
        padding: str = "valid",
        strides: int = 1,
        dilation: int = 1,
        activation: str = "",
    ) -> None:
        self.operator(
            "CONV_2D",
            inputs,
            given,
            "Conv2DOptions",
            padding=_padding(padding),
            strideH=1,
            strideW=strides,
            dilationHFactor=1,
            dilationWFactor=dilation,
            fusedActivationFunction=_activation(activation),
        )

    def _max_pool(self, values: int, shape: Shape, codes: Codes, size: int, strides: int, padding: str) -> int:
        given = self.tensor("max_pool", shape, codes)
        self.operator(
            "MAX_POOL_2D",
            [values],
            given,
            "Pool2DOptions",
            padding=_padding(padding),
            strideH=1,
            strideW=strides,
            filterHeight=1,
            filterWidth=size,
        )
        return given

    def _pad(self, values: int, shape: Shape, codes: Codes, before: int, behind: int) -> int:
        given = self.tensor("pad", shape, codes)
        around = self.constant("padding", np.array([[0, 0], [0, 0], [before, behind], [0, 0]], np.int32))
        self.operator("PAD", [values, around], given, "PadOptions")
        return given

    def tensor(self, name: str, shape: Shape, codes: Codes) -> int:
        """An int8 tensor that is computed, of a batch that is 1 unless the runtime is told otherwise."""
        index = self._tensor(name, (1, *shape), "INT8", [codes.scale], [codes.zero_point])
        self.graph.tensors[index].shapeSignature = [-1, *shape]
        return index

    def constant(self, name: str, value: NDArray[Any], scales: Sequence[float] = ()) -> int:
        from ai_edge_litert import schema_py_generated as schema

        index = self._tensor(name, value.shape, value.dtype.name.upper(), scales, [0] * len(scales))
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def _tensor(
        self, name: str, shape: Sequence[int], dtype: str, scales: Sequence[float], zero_points: Sequence[int]
    ) -> int:
        from ai_edge_litert import schema_py_generated as schema

        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), getattr(schema.TensorType, dtype)
        if scales:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = list(scales), list(zero_points)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, kind: str, inputs: list[int], output: int, options: str, **attributes: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        if kind not in self.opcodes:
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
            code.version = VERSIONS[kind]
            self.opcodes[kind] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self.opcodes[kind], inputs, [output]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        operator.builtinOptions = getattr(schema, f"{options}T")()
        for attribute, value in attributes.items():
            setattr(operator.builtinOptions, attribute, value)
        self.graph.operators.append(operator)

    def finish(
        self, source: int, outputs: list[int], names: Sequence[str], facts: Mapping[str, Any] | None = None
    ) -> bytes:
        """The file; names and facts as its only signature and its metadata say them."""
        from ai_edge_litert import schema_py_generated as schema

        self.graph.inputs, self.graph.outputs = [source], outputs
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [_named(INPUT_NAME, source)]
        signature.outputs = [_named(*each) for each in zip(names, outputs, strict=True)]
        self.model.signatureDefs = [signature]
        if facts is None:
            return write_model(self.model)
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(json.dumps(facts, indent=1, sort_keys=True).encode(), np.uint8)
        self.model.buffers.append(buffer)
        entry.name, entry.buffer = METADATA_NAME, len(self.model.buffers) - 1
        self.model.metadata = [entry]
        return write_model(self.model)


def _named(name: str, tensor: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry


def _padding(word: str) -> int:
    from ai_edge_litert import schema_py_generated as schema

    return int(getattr(schema.Padding, word.upper()))


def _activation(name: str) -> int:
    from ai_edge_litert import schema_py_generated as schema

    return int(getattr(schema.ActivationFunctionType, name.upper() or "NONE"))
