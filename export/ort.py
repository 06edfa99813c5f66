"""ONNX file -> ONNX Runtime's own format, which its small builds for phones and for the browser read."""

from __future__ import annotations

import tempfile
from pathlib import Path

from toolkit.spec import METADATA_NAME

# What a graph becomes for every processor alike: operations of the ONNX standard only. The next level fuses into
# operations of ONNX Runtime's own, in other ways on ARM than on x86.
LEVEL = "ORT_ENABLE_BASIC"
# Folding would store half-precision weights as float32, twice as large; widening them takes a microsecond a call.
KEPT_IN_HALF = ["ConstantFolding"]
# The facts go into a file that is finished and judged, and nothing but ONNX Runtime writes this format: room for them
# is left as white space, which JSON may end with.
ROOM_BYTES = 8192
ROOM_BYTES_FOR_EACH = 4096  # parameter


def to_ort(content: bytes, precision: str, parameters: int) -> bytes:
    """Convert a file that `to_onnx` has written.

    Args:
        parameters: how many outputs the metadata will have facts about.
    Returns:
        The file; its metadata of ours is white space. Graph and weights are the same each time, not the bytes: ONNX
        Runtime writes its tables in the order of a hash map.
    """
    import onnx
    import onnxruntime

    model = onnx.load_model_from_string(content)
    room = " " * (ROOM_BYTES + ROOM_BYTES_FOR_EACH * parameters)
    onnx.helper.set_model_props(model, {METADATA_NAME: room})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.ort")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVEL)
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=KEPT_IN_HALF if precision == "float16" else [],
        )
        return path.read_bytes()
