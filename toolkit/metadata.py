"""The facts a model file carries inside: JSON in a TFLite metadata buffer, or in ONNX metadata_props."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.errors import ModelError
from toolkit.files import appears_whole
from toolkit.json_values import readable
from toolkit.ort_file import as_onnx, with_metadata
from toolkit.spec import METADATA_NAME

TFLITE_IDENTIFIER = b"TFL3"
TFLITE_ALIGNMENT = 16  # bytes: the schema's force_align for weights, which the Python flatbuffers code leaves out


def read_metadata(path: Path) -> dict[str, Any]:
    """The facts inside `path`, empty where the file carries none of ours.

    Raises:
        ModelError: the file cannot be read as a model, or its facts are not JSON.
    """
    try:
        text = _read_tflite(path) if path.suffix == ".tflite" else _read_onnx(path)
        facts = json.loads(text) if text.strip() else {}
        if not isinstance(facts, dict):
            raise ValueError("facts that are no object")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    except ModelError:
        raise
    except Exception as error:  # flatbuffers and protobuf raise whatever a broken file leads them to
        raise ModelError(f"{path}: not a readable {path.suffix[1:]} model ({type(error).__name__}).") from error
    return facts


def write_metadata(path: Path, facts: dict[str, Any]) -> None:
    """Put `facts` into the file, in place of any it carried; the computation is untouched."""
    if path.suffix == ".ort":
        content = with_metadata(path, path.read_bytes(), json.dumps(facts, sort_keys=True))
        with appears_whole(path) as partial:
            partial.write_bytes(content)
        return
    text = readable(facts, sort_keys=True)
    content = _with_tflite(path, text) if path.suffix == ".tflite" else _with_onnx(path, text)
    with appears_whole(path) as partial:
        partial.write_bytes(content)


def _tflite_model(path: Path) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    if content[4:8] != TFLITE_IDENTIFIER:
        raise ValueError("no TFLite identifier")
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def _read_tflite(path: Path) -> str:
    model = _tflite_model(path)
    for entry in model.metadata or []:
        if entry.name.decode() == METADATA_NAME:
            return bytes(model.buffers[entry.buffer].data).decode()
    return ""


def _with_tflite(path: Path, text: str) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = _tflite_model(path)
    model.metadata = [entry for entry in model.metadata or [] if entry.name.decode() != METADATA_NAME]
    buffer = schema.BufferT()
    buffer.data = list(text.encode())
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = METADATA_NAME, len(model.buffers) - 1
    model.metadata.append(entry)

    class Builder(flatbuffers.Builder):
        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
            return super().StartVector(elemSize, numElems, TFLITE_ALIGNMENT if elemSize == 1 else alignment)

    builder = Builder(path.stat().st_size + len(text))
    builder.Finish(model.Pack(builder), file_identifier=TFLITE_IDENTIFIER)
    return bytes(builder.Output())


def _read_onnx(path: Path) -> str:
    model = _onnx_model(path)
    return next((entry.value for entry in model.metadata_props if entry.key == METADATA_NAME), "")


def _onnx_model(path: Path) -> Any:
    import onnx

    if path.suffix == ".ort":
        return as_onnx(path, path.read_bytes())
    return onnx.load_model(str(path), load_external_data=False)


def _with_onnx(path: Path, text: str) -> bytes:
    import onnx

    model = onnx.load_model(str(path), load_external_data=False)
    others = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**others, METADATA_NAME: text})
    return bytes(model.SerializeToString(deterministic=True))
