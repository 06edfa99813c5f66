"""What a benchmark has found, and its form as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from toolkit.benchmark.accuracy import Accuracy
from toolkit.benchmark.machine import Machine
from toolkit.benchmark.rounds import Speed
from toolkit.json_values import jsonable


@dataclass(frozen=True)
class FileResult:
    """One file.

    Attributes:
        recipe: how a plain conversion was made, in words; empty for a file of the model directory.
        bytes: 0 where there is no file.
        speed, accuracy: None where the file could not be run.
        proved: every output is proved finite and at least the smallest normal number.
        lower_bound: by parameter; empty where the file could not be read.
        failures: what is wrong with it, for people.
    """

    file: str
    format: str
    precision: str
    recipe: str
    bytes: int
    speed: Speed | None
    accuracy: Accuracy | None
    proved: bool
    lower_bound: dict[str, float]
    failures: tuple[str, ...]

    @property
    def plain(self) -> bool:
        return bool(self.recipe)


@dataclass(frozen=True)
class Benchmark:
    """All files of a model directory in the manifest's order, then the plain conversions.

    Attributes:
        sources: the files that the datasets are from; datasets: how many there were.
        batch: datasets a call, but for latency and start-up, which are of one.
        workers: threads that `all_cores` is of.
        seconds: of timed scoring asked for, each file.
    """

    model: Path
    parameters: tuple[str, ...]
    machine: Machine
    sources: tuple[Path, ...]
    datasets: int
    batch: int
    workers: int
    rounds: int
    seconds: float
    files: tuple[FileResult, ...]

    @property
    def passed(self) -> bool:
        """Nothing is wrong with a file of the model directory. Plain conversions do not count: they show what is."""
        return not any(file.failures for file in self.files if not file.plain)

    @property
    def slowed(self) -> float:
        """How much longer the clock ran than the processor, median over the files: 1 on a quiet machine."""
        slowed = [file.speed.slowed for file in self.files if file.speed]
        return median(slowed) if slowed else 1.0

    def speed_over_float32(self, file: FileResult) -> float | None:
        """One thread's datasets a second over those of the fastest float32 file for the same runtime."""
        bases = [
            other.speed.one_thread
            for other in self.files
            if other.speed and (other.format, other.precision) == (file.format, "float32")
        ]
        return file.speed.one_thread / max(bases) if file.speed and bases else None

    def to_json(self) -> dict[str, Any]:
        """The object that `benchmark --json` prints; a number that is NaN, infinite or was not measured is null."""
        return {
            "passed": self.passed,
            "model": str(self.model),
            "machine": {**asdict(self.machine), "slowed": self.slowed},
            "datasets": {"sources": [str(source) for source in self.sources], "count": self.datasets},
            "batch": self.batch,
            "workers": self.workers,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "parameters": list(self.parameters),
            "files": [self._file_to_json(file) for file in self.files],
        }

    def _file_to_json(self, file: FileResult) -> dict[str, Any]:
        speed, accuracy = file.speed, file.accuracy
        return {
            "file": file.file,
            "format": file.format,
            "precision": file.precision,
            "recipe": file.recipe or None,
            "bytes": file.bytes or None,
            "start_up_seconds": speed and speed.start_up_seconds,
            "datasets_per_second": {
                "one_thread": speed and speed.one_thread,
                "all_cores": speed and speed.all_cores,
            },
            "speed_over_float32": self.speed_over_float32(file),
            "latency_seconds": {"p50": speed and speed.p50_seconds, "p99": speed and speed.p99_seconds},
            "relative_error": {
                name: jsonable(asdict(error)) for name, error in (accuracy.relative_error if accuracy else {}).items()
            },
            "rmse": jsonable(accuracy.rmse) if accuracy else {},
            "minimum_seen": jsonable(accuracy.minimum) if accuracy else {},
            "not_positive": accuracy and accuracy.not_positive,
            "not_finite": accuracy and accuracy.not_finite,
            "proved": file.proved,
            "lower_bound": jsonable(file.lower_bound),
            "failures": list(file.failures),
        }
