"""Files that must be refused, for datasets of 24 x 2 and three parameters, and a manifest that believes in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.tiny_files import OnnxFile, TfliteFile
from toolkit.files import sha256_of
from toolkit.manifest import read_manifest, write_manifest

LIMIT = 1e30  # of inputs, so that the proof is lost at the softplus and not at an overflow


def publish_unseen(path: Path, *, alone: bool = False) -> None:
    """Make the manifest believe that this file is the one that was published, and the only one if `alone`."""
    manifest = read_manifest(path.parent)
    entry = next(entry for entry in manifest.files if entry.file == path.name)
    changed = replace(entry, sha256=sha256_of(path), bytes=path.stat().st_size)
    files = (changed,) if alone else tuple(changed if each.file == path.name else each for each in manifest.files)
    write_manifest(path.parent, replace(manifest, files=files))


def plain_softplus_tflite(path: Path) -> Path:
    """Minus the first value of a dataset, three times, and softplus as TFLite converters write it."""
    file = TfliteFile([None, 24, 2])
    first = file.tensor([None, 1, 1])
    begin, end, strides = (file.constant(each, "int32") for each in ([0, 0, 0], [0, 1, 1], [1, 1, 1]))
    options = {"kind": "StridedSliceOptions", "beginMask": 1, "endMask": 1}
    file.add("STRIDED_SLICE", [file.input, begin, end, strides], first, **options)
    flat, below, limited = (file.tensor([None, 1]) for _ in range(3))
    file.add("RESHAPE", [first, file.constant([-1, 1], "int32")], flat)
    file.add("MINIMUM", [flat, file.constant(np.float32(LIMIT))], below)
    file.add("MAXIMUM", [below, file.constant(np.float32(-LIMIT))], limited)
    logits, exp, plus, log = (file.tensor([None, 3]) for _ in range(4))
    weights = file.constant(-np.ones((3, 1)))
    bias = file.constant(np.zeros(3))
    file.add("FULLY_CONNECTED", [limited, weights, bias], logits, kind="FullyConnectedOptions")
    file.add("EXP", [logits], exp, kind="ExpOptions")
    file.add("ADD", [exp, file.constant(np.float32(1))], plus, kind="AddOptions")
    file.add("LOG", [plus], log)
    return file.save(path, [log])


def _logits_onnx(file: OnnxFile) -> str:
    axes = [file.constant(each, "int64") for each in ([0, 0], [1, 1], [1, 2])]
    flat = file.add("Reshape", [file.add("Slice", [file.input, *axes]), file.constant([-1, 1], "int64")])
    limited = file.add("Clip", [flat, file.constant(np.float32(-LIMIT)), file.constant(np.float32(LIMIT))])
    return file.add("MatMul", [limited, file.constant(-np.ones((1, 3)))])


def plain_softplus_onnx(path: Path) -> Path:
    """Minus the first value of a dataset, three times, and ONNX's Softplus."""
    file = OnnxFile(["batch", 24, 2])
    return file.save(path, [file.add("Softplus", [_logits_onnx(file)])], 3)


def log_onnx(path: Path) -> Path:
    """The logarithm of the same: infinite at 0, and NaN where it is negative."""
    file = OnnxFile(["batch", 24, 2])
    return file.save(path, [file.add("Log", [_logits_onnx(file)])], 3)


def flat_onnx(path: Path) -> Path:
    """48 estimates for three parameters: the dataset itself."""
    file = OnnxFile(["batch", 24, 2])
    return file.save(path, [file.add("Flatten", [file.input])], 48)
