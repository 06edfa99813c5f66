"""Every float32 there is, through the head and through the kernels that proofs make assumptions about.

    python tests/prove_exhaustive.py [--subjects head exp] [--workers 2] [--every 1] [--state build/exhaustive.jsonl]

A chunk is 2^22 bit patterns in one runtime; finished chunks are written down, and a second run goes on behind them.
It prints one line a subject and runtime, and exits with 1 where a result lies outside what proofs grant. `--every 64`
takes each 64th pattern.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parent)]

from tiny_files import OnnxFile, TfliteFile  # noqa: E402

from toolkit.proof import intervals  # noqa: E402
from toolkit.proof.elementwise import RULES  # noqa: E402
from toolkit.proof.intervals import FLOAT32, Bounds  # noqa: E402

Floats = NDArray[np.float32]

RUNTIMES = ("tflite-xnnpack", "tflite-builtin", "onnx-optimized", "onnx-unoptimized")
CODES = {  # kind of the proof's rule: TFLite's and ONNX's operation
    "exp": ("EXP", "Exp"),
    "log": ("LOG", "Log"),
    "sqrt": ("SQRT", "Sqrt"),
    "sigmoid": ("LOGISTIC", "Sigmoid"),
    "tanh": ("TANH", "Tanh"),
    "elu": ("ELU", "Elu"),
    "softplus": ("", "Softplus"),
    "pow": ("POW", "Pow"),  # of .5
    "floor": ("FLOOR", "Floor"),
}
SUBJECTS = ("head", *CODES)
WIDTH = 4096
CHUNK = 1 << 22
CALL = 1 << 20  # floats in one call of a runtime
PROMISED_ULP = 4.0  # of the head, for logits of -86 and more
ACCURATE_FROM = -86.0


@dataclass(frozen=True)
class Result:
    """What was seen over some floats.

    Attributes:
        outside: results outside what the proof grants.
        smallest: result.
        worst: largest error: of the head in ulp of the true value; of a kernel relative, where all is normal.
        example: an argument whose result lies outside.
    """

    floats: int = 0
    outside: int = 0
    smallest: float = float("inf")
    worst: float = 0.0
    example: float | None = None

    def __add__(self, other: Result) -> Result:
        return Result(
            self.floats + other.floats,
            self.outside + other.outside,
            min(self.smallest, other.smallest),
            max(self.worst, other.worst),
            self.example if self.example is not None else other.example,
        )


def floats(first: int, count: int, every: int = 1) -> Floats:
    """The finite float32 among bit patterns first, first + every, ...; padded with 0 to whole calls."""
    patterns = np.arange(first, first + count, every, dtype=np.uint64).astype(np.uint32).view(np.float32)
    finite = np.zeros(-(-len(patterns) // WIDTH) * WIDTH, np.float32)
    finite[: len(patterns)] = np.where(np.isfinite(patterns), patterns, np.float32(0))
    return finite


def write_kernel(kind: str, folder: Path) -> None:
    """`<kind>.tflite` and `<kind>.onnx`: one operation, float32 (batch, 1, WIDTH) -> (batch, 1, WIDTH)."""
    code, onnx_code = CODES[kind]
    file = OnnxFile(["batch", 1, WIDTH])
    first = [file.constant(0.5)] if kind == "pow" else []
    model = file.model([file.add(onnx_code, [*first, file.input])])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    (folder / f"{kind}.onnx").write_bytes(model.SerializeToString())
    if code:
        lite = TfliteFile((None, 1, WIDTH))
        inputs = [lite.constant(0.5), lite.input] if kind == "pow" else [lite.input]
        lite.save(folder / f"{kind}.tflite", [lite.add(code, inputs, lite.tensor((None, 1, WIDTH)))])


def write_head(folder: Path) -> None:
    """The exporter's head alone, `head.tflite` and `head.onnx`."""
    from test_head import convert_alone

    from export.head import positive_softplus

    convert_alone(positive_softplus, WIDTH, folder)


def runner(path: Path, kernels: str) -> Callable[[Floats], Floats]:
    """float32 (n,) -> float32 (n,), n a multiple of WIDTH, in calls of at most CALL floats."""
    call = _litert(path, kernels) if path.suffix == ".tflite" else _onnx(path, kernels)

    def run(arguments: Floats) -> Floats:
        parts = [call(arguments[at : at + CALL].reshape(-1, 1, WIDTH)) for at in range(0, len(arguments), CALL)]
        return np.concatenate([part.reshape(-1) for part in parts])

    return run


def _litert(path: Path, kernels: str) -> Callable[[Floats], Floats]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    builtin = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    resolver = builtin if kernels == "builtin" else OpResolverType.BUILTIN
    interpreter = Interpreter(str(path), experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def call(arguments: Floats) -> Floats:
        if tuple(interpreter.get_input_details()[0]["shape"]) != arguments.shape:
            interpreter.resize_tensor_input(source["index"], arguments.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], arguments)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(target["index"]))

    return call


def _onnx(path: Path, kernels: str) -> Callable[[Floats], Floats]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if kernels == "unoptimized":
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    return lambda arguments: np.asarray(session.run(None, {source.name: arguments})[0])


def judge_kernel(kind: str, arguments: Floats, results: Floats) -> Result:
    """Against the bounds that a proof gives the operation at each argument, inside the rule's domain."""
    rule = RULES[kind]
    with np.errstate(all="ignore"):
        exact_argument = arguments.astype(np.float64)
        point = intervals.flushed(Bounds(exact_argument, exact_argument), FLOAT32)
        operands = [intervals.point(0.5), point] if kind == "pow" else [point]
        exact = rule.rule(operands, {})
        granted = intervals.rounded(exact, FLOAT32, rule.steps * FLOAT32.step + rule.relative, rule.absolute)
        known = intervals.is_known(granted) & (exact_argument >= rule.domain[0]) & (exact_argument <= rule.domain[1])
        inside = (results >= granted.low) & (results <= granted.high)  # NaN is not inside
        outside = np.flatnonzero(known & ~inside)
        true = rule.rule([*operands[:-1], Bounds(exact_argument, exact_argument)], {}).low
        tiny = FLOAT32.smallest_normal * (1 + 2**-14)
        normal = known & (np.abs(true) >= tiny) & (np.abs(exact_argument) >= tiny)
        error = np.abs(results - true)[normal] / np.abs(true)[normal]
    return Result(
        int(known.sum()),
        len(outside),
        float(results[known].min(initial=np.inf)),
        float(error.max(initial=0.0)),
        float(arguments[outside[0]]) if len(outside) else None,
    )


def judge_head(arguments: Floats, results: Floats, lower: float, upper: float) -> Result:
    """Against the proved bounds of the file, and the promised distance from log(1 + exp(z))."""
    logits = arguments.astype(np.float64)
    accurate = logits >= ACCURATE_FROM
    true = np.logaddexp(0.0, logits[accurate])
    ulp = np.ldexp(1.0, np.frexp(true)[1] - 24)  # float32 has 24 bits
    error = np.zeros(len(arguments))
    error[accurate] = np.abs(results[accurate] - true) / ulp
    outside = np.flatnonzero(~((results >= lower) & (results <= upper)) | ~(error <= PROMISED_ULP))
    return Result(
        len(arguments),
        len(outside),
        float(results.min()),
        float(error.max()),
        float(arguments[outside[0]]) if len(outside) else None,
    )


@dataclass(frozen=True)
class Task:
    """One chunk of bit patterns, of one subject, in one runtime."""

    subject: str
    runtime: str
    first: int
    every: int
    folder: str


_runners: dict[tuple[str, str], Any] = {}


def run_task(task: Task) -> tuple[Task, Result]:
    """The runtimes of a worker process are made once; the true values are computed before they run."""
    format, kernels = task.runtime.split("-")
    path = Path(task.folder, f"{task.subject}.{format}")
    key = (str(path), kernels)
    if key not in _runners:
        from toolkit.proof import prove

        proof = prove(path) if task.subject == "head" else None
        _runners[key] = runner(path, kernels), proof
    run, proof = _runners[key]
    arguments = floats(task.first, CHUNK, task.every)
    results = run(arguments)
    if proof is None:
        return task, judge_kernel(task.subject, arguments, results)
    return task, judge_head(arguments, results, proof.lower[0], proof.upper[0])


def tasks(subjects: list[str], every: int, folder: Path) -> Iterator[Task]:
    for subject in subjects:
        for runtime in RUNTIMES:
            if (folder / f"{subject}.{runtime.split('-')[0]}").exists():
                for first in range(0, 1 << 32, CHUNK):
                    yield Task(subject, runtime, first, every, str(folder))


def main() -> int:
    arguments = _arguments()
    state: Path = arguments.state
    state.parent.mkdir(parents=True, exist_ok=True)
    done = _read_state(state)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for subject in arguments.subjects:
            write_head(folder) if subject == "head" else write_kernel(subject, folder)
        waiting = [task for task in tasks(arguments.subjects, arguments.every, folder) if _key(task) not in done]
        print(f"{len(waiting)} chunks to do, {len(done)} done before", flush=True)
        begun = time.monotonic()
        context = multiprocessing.get_context("spawn")
        with context.Pool(arguments.workers) as pool, state.open("a") as log:
            for count, (task, result) in enumerate(pool.imap_unordered(run_task, waiting), 1):
                done[_key(task)] = result
                log.write(json.dumps([_key(task), asdict(result)]) + "\n")
                log.flush()
                if count % 256 == 0 or count == len(waiting):
                    left = (time.monotonic() - begun) / count * (len(waiting) - count)
                    print(f"{count} of {len(waiting)} chunks, {left / 60:.0f} min left", flush=True)
    return _report(done, arguments.subjects, arguments.every)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=["head", "exp"])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--state", type=Path, default=Path("build/exhaustive.jsonl"))
    return parser.parse_args()


def _key(task: Task) -> str:
    return f"{task.subject} {task.runtime} {task.first} {task.every}"


def _read_state(path: Path) -> dict[str, Result]:
    if not path.exists():
        return {}
    entries = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}]")]
    return {key: Result(**result) for key, result in entries}


def _report(done: dict[str, Result], subjects: list[str], every: int) -> int:
    totals: dict[tuple[str, str], Result] = {}
    for key, result in done.items():
        subject, runtime, _, stride = key.split()
        if subject in subjects and int(stride) == every:
            totals[subject, runtime] = totals.get((subject, runtime), Result()) + result
    print(f"{'':32}{'floats':>15}{'outside':>10}{'smallest':>16}{'worst error':>14}")
    for (subject, runtime), total in totals.items():
        unit = "ulp" if subject == "head" else "rel"
        line = f"{subject + ' ' + runtime:32}{total.floats:15,}{total.outside:10,}{total.smallest:16.8g}"
        print(f"{line}{total.worst:10.3g} {unit}" + (f"  e.g. {total.example!r}" if total.outside else ""))
    return int(any(total.outside for total in totals.values()))


if __name__ == "__main__":
    sys.exit(main())
