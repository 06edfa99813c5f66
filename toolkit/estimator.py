"""A model file as Python code uses it: an array of datasets in, an array of estimates out, both held to the promise."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from toolkit.datasets import sort_rows
from toolkit.errors import InputError, ModelError, NotPositive, printable
from toolkit.interval_facts import without_intervals
from toolkit.intervals import DEFAULT_LEVEL, FACT, intervals_of
from toolkit.manifest import MANIFEST, check_unchanged, find_file, read_manifest
from toolkit.metadata import read_metadata
from toolkit.promise import keeps_promise
from toolkit.runtime import load as load_engine
from toolkit.runtime import runtime_for
from toolkit.spec import Spec, file_name

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Predict

DEFAULT_FILE = file_name("tflite", "float32")  # scores where no other is named


class Estimator:
    """A model file as a function of datasets; `toolkit.load` makes one.

    Calls from several threads take turns. For estimates in parallel, load the file once in each thread: while one
    computes, the others run.

    Attributes:
        path: the model file.
        runtime: what runs it: 'litert', 'onnxruntime', 'openvino' or 'keras'.
        spec: rows of a dataset, names of its columns and of the parameters, as the manifest beside the file tells, or
            else the file itself; None where neither does.
    """

    def __init__(self, path: Path, runtime: str, spec: Spec | None, predict: Predict) -> None:
        self.path, self.runtime, self.spec = path, runtime, spec
        self._predict = predict
        self._sorted = spec is not None and spec.sorted_rows
        self._turn = threading.Lock()

    def __call__(self, datasets: ArrayLike) -> FloatArray:
        """The estimates of each dataset, in order. A dataset's estimates do not depend on the others beside it.

        Args:
            datasets: (n, rows, columns), finite; any n, 0 included. What is not float32 is converted to it.
        Returns:
            float32 (n, parameters), each a finite normal number above 0.
        Raises:
            InputError: another shape, or a number that is NaN, infinite or beyond float32's range.
            NotPositive: the file gave what is no such estimate.
            ModelError: the file cannot be run.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            given = np.asarray(datasets, np.float32)
        if given.ndim == 2:
            shape = "(n, rows, columns)"
            raise InputError(f"the model takes datasets of shape {shape}, not {given.shape}. One: dataset[np.newaxis]")
        finite = np.isfinite(given)
        if not finite.all():  # an int8 network would make an estimate of it that looks like any other
            raise InputError(f"dataset {np.argwhere(~finite)[0][0]}: holds a number that is not finite. Leave it out.")
        with self._turn:
            estimates = self._predict(sort_rows(given) if self._sorted and given.ndim == 3 else given)
        passed = keeps_promise(estimates)
        if not np.all(passed):
            row, column = np.argwhere(~passed)[0]
            raise NotPositive(
                f"{self.path}: gave {estimates[row, column]:.9g} for dataset {row}, which is not a finite normal "
                "positive number. Do not use this file: export it again."
            )
        return estimates

    def interval(self, estimates: ArrayLike, level: float = DEFAULT_LEVEL) -> tuple[FloatArray, FloatArray]:
        """Both ends of an interval around each estimate that this file gave: see toolkit/intervals.py.

            >>> low, high = estimate.interval(estimate(datasets), 0.9)

        Args:
            estimates: (n, parameters).
            level: the share of datasets, of all that are like those of training, whose true value is inside.
        Returns:
            low, high: float32 (n, parameters), 2^-126 <= low <= estimate <= high, finite.
        Raises:
            ModelError: the file was made without true values, so that nothing is known of intervals.
            InputError: a level that is not between 0 and 1, or that takes more calibration datasets than there were; or
                what is no estimate of this file.
        """
        if self.spec is None:
            raise ModelError(f"{self.path}: carries no names of its parameters, nor intervals around them.")
        intervals = intervals_of(self.path, _interval_facts(self.path), self.spec.parameters)
        if intervals is None:
            raise ModelError(without_intervals(str(self.path), "toolkit export --calibration FILE", self.spec))
        given = np.asarray(estimates, np.float32)
        if given.ndim != 2 or given.shape[1] != len(self.spec.parameters) or not keeps_promise(given).all():
            raise InputError(f"{self.path}: intervals are made around estimates of this file, (n, parameters).")
        return intervals.at(level, self.path)(given)

    def __repr__(self) -> str:
        takes = f": {printable(self.spec.describe())}" if self.spec else ""
        return f"<Estimator {self.path}{takes}, {self.runtime}>"


def load(path: Path | str = "model", *, threads: int = 1, runtime: str | None = None) -> Estimator:
    """Load a model file, or the default file of a model directory, as a function of datasets.

        >>> estimate = toolkit.load("samples/model")
        >>> estimate
        <Estimator samples/model/model.float32.tflite: 200 sorted rows x (rt, correct) -> v, a, t0, litert>
        >>> estimate(datasets).shape  # float32 (n, 200, 2) -> float32 (n, 3)
        (16, 3)

    Args:
        path: an exported .tflite or .onnx file, a .keras file (which needs TensorFlow), or a model directory: its
            model.float32.tflite then, refused where it is not the file that the manifest is about.
        threads: what the runtime may use inside one call.
        runtime: 'litert', 'onnxruntime', 'openvino' or 'keras', where it reads such files; the usual one for the file's
            ending by default.
    Raises:
        ModelError: no such file or directory, another ending, or content that is damaged or no such model.
        MissingExtra: the runtime is not installed.
    """
    path = Path(path)
    if path.is_dir():
        path = check_unchanged(path, find_file(path, DEFAULT_FILE))
    predict = load_engine(path, threads=threads, runtime=runtime)
    return Estimator(path, runtime_for(path, runtime), _spec_of(path), predict)


def _interval_facts(path: Path) -> dict[str, Any] | None:
    """What the file itself says, or else the manifest beside it: .keras and quantized files hold none of it."""
    facts = None if path.suffix == ".keras" else read_metadata(path).get(FACT)
    if facts is None and (path.parent / MANIFEST).is_file():
        manifest = read_manifest(path.parent)
        of_files = {entry.file: entry.interval for entry in manifest.files}
        facts = manifest.interval if path.suffix == ".keras" else of_files.get(path.name)
    return facts if isinstance(facts, dict) else None


def _spec_of(path: Path) -> Spec | None:
    """The names: not needed for computing, so that a file without them is as good as any."""
    try:
        if (path.parent / MANIFEST).is_file():
            manifest = read_manifest(path.parent)
            if path.name in ("model.keras", *(entry.file for entry in manifest.files)):
                return manifest.spec
        facts = {} if path.suffix == ".keras" else read_metadata(path)
        rows, columns, parameters = facts["input"]["rows"], facts["input"]["columns"], facts["parameters"]
        names = [*columns, *parameters]
        known = isinstance(rows, int) and isinstance(columns, list) and all(isinstance(name, str) for name in names)
        sorted_rows = facts["input"].get("sorted_rows", False) is True
        return Spec(rows, tuple(columns), tuple(parameters), sorted_rows) if known else None
    except (ModelError, KeyError, TypeError, ValueError):
        return None
