"""Run this folder's model files on this machine: python check.py [FILE...]. Exit code 1: one fails, or none runs."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent


def load(path: Path) -> Any:
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
        (source,), outputs = interpreter.get_input_details(), interpreter.get_output_details()

        def run(batch: Any) -> Any:
            interpreter.set_tensor(source["index"], batch)
            interpreter.invoke()
            return np.concatenate([interpreter.get_tensor(each["index"]) for each in outputs], axis=1)

        return run, int(source["shape"][0])
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[0]  # "batch" where any number will do
    return lambda batch: session.run(None, {"datasets": batch})[0], 1 if size == "batch" else size


def check(entry: Any) -> "tuple[bool, str]":
    run, size = load(HERE / entry["file"])
    inputs, truth = (np.load(HERE / name) for name in (entry["inputs"], "truth.npy"))
    padded = np.concatenate([inputs, np.zeros((-len(inputs) % size, *inputs.shape[1:]), inputs.dtype)])
    given = np.concatenate([run(padded[i : i + size]) for i in range(0, len(padded), size)])[: len(inputs)]
    if entry["table"]:  # an integer-only file gives codes, of which there are 256 for each parameter
        given = np.load(HERE / entry["table"])[given.astype(int) + 128, np.arange(given.shape[1])]
    good = np.isfinite(given) & (given >= np.array(entry["lower_bound"]))
    errors = np.abs(given[: len(truth)] / truth - 1)  # the first are like real data, the others are not
    passed = bool(np.all(good) and np.all(errors <= np.array(entry["largest_relative_error"])))
    return passed, f"{np.min(given):11.3g} {np.max(errors):11.2e} {np.sum(~good):12d}"


if __name__ == "__main__":
    verdicts = []
    print(f"{'file':40} {'smallest':>11} {'error':>11} {'not positive':>12}  verdict")
    for entry in json.loads((HERE / "pack.json").read_text())["files"]:
        if entry["file"] in (sys.argv[1:] or [entry["file"]]):
            passed = absent = False
            try:
                passed, found = check(entry)
                verdicts.append(passed)
            except Exception as error:
                absent, found = isinstance(error, ImportError), f"{error!r:.200}"  # absent: no runtime for this format
                verdicts += [] if absent else [False]
            print(f"{entry['file']:40} {found}  {'not run' if absent else 'passed' if passed else 'FAILED'}")
    sys.exit(0 if verdicts and all(verdicts) else 1)
