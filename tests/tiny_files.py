"""TFLite and ONNX files of a few operations, built by hand: no converter decides what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPSET = 18


class TfliteFile:
    """Tensors and operations, added in order; keys are the schema's tensor indices."""

    def __init__(self, shape: Sequence[int | None], dtype: str = "float32", scale: tuple[float, int] | None = None):
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, b"tiny"
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]
        self.input = self.tensor(shape, dtype, scale)

    def tensor(
        self, shape: Sequence[int | None], dtype: str = "float32", scale: tuple[Any, Any] | None = None, axis: int = 0
    ) -> int:
        """A tensor that is computed; None for an open size."""
        tensor = self.schema.TensorT()
        tensor.name = f"t{len(self.graph.tensors)}".encode()
        tensor.shape = [1 if size is None else size for size in shape]
        if None in shape:
            tensor.shapeSignature = [-1 if size is None else size for size in shape]
        tensor.type = getattr(self.schema.TensorType, dtype.upper())
        if scale is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = [float(one) for one in np.atleast_1d(scale[0])]
            zero_points = np.broadcast_to(scale[1], np.atleast_1d(scale[0]).shape)
            tensor.quantization.zeroPoint = [int(one) for one in zero_points]
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, value: Any, dtype: str = "float32", scale: tuple[Any, Any] | None = None, axis: int = 0) -> int:
        """A tensor stored in the file."""
        array = np.asarray(value, dtype=dtype)
        key = self.tensor(array.shape, dtype, scale, axis)
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors[key].buffer = len(self.model.buffers) - 1
        return key

    def add(self, code: str, inputs: Sequence[int], output: int, version: int = 1, **options: Any) -> int:
        """An operation; `options` by the schema's names, `kind` the name of their table."""
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._code(code, version)
        operator.inputs, operator.outputs = list(inputs), [output]
        kind = options.pop("kind", None)
        if kind is not None:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(self.schema, f"{kind}T")()
            for name, value in options.items():
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)
        return output

    def _code(self, code: str, version: int) -> int:
        entry = self.schema.OperatorCodeT()
        entry.builtinCode = getattr(self.schema.BuiltinOperator, code)
        entry.deprecatedBuiltinCode = min(entry.builtinCode, 127)
        entry.version = version
        self.model.operatorCodes.append(entry)
        return len(self.model.operatorCodes) - 1

    def save(self, path: Path, outputs: Sequence[int]) -> Path:
        import flatbuffers

        self.graph.inputs, self.graph.outputs = [self.input], list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


class OnnxFile:
    """Nodes and initializers, added in order; keys are names."""

    def __init__(self, shape: Sequence[int | str], dtype: str = "float32", opset: int = OPSET):
        import onnx

        self.onnx = onnx
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.opset = opset
        self.input = "datasets"
        self.shape, self.dtype = list(shape), dtype

    def constant(self, value: Any, dtype: str = "float32") -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def add(self, code: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(code, list(inputs), [output], **attributes))
        return output

    def model(self, outputs: Sequence[str], columns: int | None = None, dtype: str = "float32") -> Any:
        helper = self.onnx.helper
        types = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7, "float16": 10}
        source = helper.make_tensor_value_info(self.input, types[self.dtype], self.shape)
        given = [helper.make_tensor_value_info(name, types[dtype], [self.shape[0], columns]) for name in outputs]
        graph = helper.make_graph(self.nodes, "tiny", [source], given, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)

    def save(self, path: Path, outputs: Sequence[str], columns: int | None = None, dtype: str = "float32") -> Path:
        path.write_bytes(self.model(outputs, columns, dtype).SerializeToString())
        return path


def run_tflite(path: Path, datasets: NDArray[Any], kernels: str) -> list[NDArray[Any]]:
    """Every output, by XNNPACK (`xnnpack`) or LiteRT's own kernels (`builtin`); codes as the real numbers they mean."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = {"xnnpack": OpResolverType.AUTO, "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}[kernels]
    interpreter = Interpreter(str(path), experimental_op_resolver_type=resolver, num_threads=1)
    (source,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(source["index"], datasets.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], datasets)
    interpreter.invoke()
    return [_real(interpreter.get_tensor(output["index"]), output) for output in interpreter.get_output_details()]


def _real(values: NDArray[Any], details: dict[str, Any]) -> NDArray[Any]:
    scale, zero_point = details["quantization"]
    return scale * (values.astype(np.float64) - zero_point) if scale else values.copy()


def run_onnx(path: Path, datasets: NDArray[Any], kernels: str) -> list[NDArray[Any]]:
    """Every output, by ONNX Runtime with its optimizations (`optimized`) or without (`unoptimized`)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if kernels == "unoptimized":
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    return list(session.run(None, {source.name: datasets}))
