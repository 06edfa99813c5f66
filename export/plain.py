"""The network converted as the libraries' own guides do it: what our files are compared with, and nothing to deploy."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.child import MODULE, check_installed, last_words, run_worker, what_happened
from toolkit.spec import Spec

WORKER = (*MODULE, "export.plain_worker")


@dataclass(frozen=True)
class Recipe:
    """One way to convert: how it is done, in words, and the numbers that the file computes with."""

    format: str
    precision: str
    words: str

    @property
    def file(self) -> str:
        return f"plain.{self.precision}.{self.format}"


RECIPES = (
    Recipe("tflite", "float32", "tf.lite"),
    Recipe("tflite", "dynamic", "tf.lite, dynamic range"),
    Recipe("tflite", "int8", "tf.lite, full integer"),
    Recipe("tflite", "int16x8", "tf.lite, int16 x int8"),
    Recipe("onnx", "float32", "tf2onnx"),
    Recipe("onnx", "int8", "ORT, QDQ of all nodes"),
)


@dataclass(frozen=True)
class Attempt:
    """What became of one recipe: a file, or why there is none."""

    recipe: Recipe
    path: Path
    failure: str = ""


def convert_plainly(
    keras_file: Path, spec: Spec, directory: Path, datasets: Path, recipes: Sequence[Recipe] = RECIPES
) -> list[Attempt]:
    """Write one file for each recipe into `directory`. Nothing about them is checked: they are as the libraries make
    them, with whatever is wrong in them.

    A recipe that fails, or that ends its process, is one failed attempt; the others go on.

    Args:
        datasets: .npy file, float32 (datasets, rows, columns), at least one: what the integer recipes calibrate on.
    Raises:
        MissingExtra: TensorFlow or tf2onnx is not installed.
    """
    check_installed("benchmark --vs")
    attempts: dict[str, Attempt] = {}
    while left := [recipe for recipe in recipes if recipe.file not in attempts]:
        attempts |= {
            attempt.recipe.file: attempt for attempt in _try_in_child(keras_file, spec, directory, datasets, left)
        }
    return [attempts[recipe.file] for recipe in recipes]


def _try_in_child(
    keras_file: Path, spec: Spec, directory: Path, datasets: Path, recipes: Sequence[Recipe]
) -> list[Attempt]:
    """At least one attempt: where the child ends early, the last is the recipe that it was at; all, where it never came
    to the first."""
    with tempfile.TemporaryDirectory(prefix="toolkit-plain-") as folder:
        answer = Path(folder, "answer.jsonl")
        request = {
            "keras_file": str(keras_file.absolute()),
            "rows": spec.rows,
            "columns": spec.columns,
            "parameters": spec.parameters,
            "wanted": [(recipe.format, recipe.precision, recipe.file) for recipe in recipes],
            "datasets": str(datasets.absolute()),
            "directory": str(directory.absolute()),
            "answer": str(answer),
        }
        child = run_worker(WORKER, json.dumps(request))
        begun = answer.is_file()
        failures: list[str] = []  # one a recipe, "" where it worked
        if begun:
            failures = [json.loads(line) for line in answer.read_text(encoding="utf-8").splitlines()]
    if len(failures) < len(recipes):
        failure = f"{what_happened(child)}. {last_words(child)}"
        failures += [failure] if begun else [failure] * len(recipes)
    return [
        Attempt(recipe, directory / recipe.file, failure) for recipe, failure in zip(recipes, failures, strict=False)
    ]
