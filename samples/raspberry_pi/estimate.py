"""Estimates from trials in a CSV file, on a Raspberry Pi: NumPy and ai-edge-litert, nothing else.

    python estimate.py trials.csv --model model.int8.tflite
    some-experiment | python estimate.py

The CSV has a heading with the model's columns. All rows are one dataset, or, with --by, those with the same value in
that column are. Prints CSV: one line a dataset, one column a parameter. Exit code 1, and a line on stderr, for a file
that it cannot take.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np

SMALLEST = 2.0**-126  # what every estimate is proved to be at least, see lower_bound in manifest.json
LARGEST = float(np.finfo(np.float32).max)


class Problem(Exception):
    """What is wrong with a file, in a line for people."""


class Estimator:
    """One exported .tflite file."""

    def __init__(self, path: Path, takes: dict[str, Any]) -> None:
        """takes: what manifest.json says of the input."""
        from ai_edge_litert.interpreter import Interpreter

        self.sorted_rows = takes.get("sorted_rows", False)
        try:
            self.interpreter: Any = Interpreter(str(path))  # not CompiledModel, which ends on the Cortex-A72 of a Pi 4
            self.interpreter.allocate_tensors()
        except ValueError as error:
            raise Problem(f"{path}: no TFLite file that LiteRT can run.") from error
        (self.taken,), self.given = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        if self.taken["dtype"] is not np.float32:
            raise Problem(f"{path}: takes integers, for microcontrollers. Take model.int8.tflite.")
        if tuple(self.taken["shape"]) != (1, takes["rows"], len(takes["columns"])):
            raise Problem(f"{path}: takes {self.taken['shape'].tolist()}, not one dataset. Export it with --batch 1.")

    def __call__(self, dataset: Any) -> Any:
        """float32 (parameters,) for float32 (rows, columns)."""
        if self.sorted_rows:
            dataset = sort_rows(dataset)
        self.interpreter.set_tensor(self.taken["index"], dataset[np.newaxis])
        self.interpreter.invoke()
        estimates = self.interpreter.get_tensor(self.given[0]["index"])[0]
        if not np.all(np.isfinite(estimates) & (estimates >= SMALLEST)):  # NaN fails this
            raise Problem(f"gave {estimates}, which the file is proved not to: is it damaged?")
        return estimates


def sort_rows(dataset: Any) -> Any:
    """Ascending by the first column, rows alike there by the second, and so on: networks that take no notice of the
    order in which trials came want them so."""
    return dataset[np.lexsort(dataset.T[::-1])]


def read_manifest(path: Path) -> Any:
    if not path.is_file():
        raise Problem(f"{path}: no such file. Copy a .tflite file and manifest.json here, or name it with --model.")
    manifest = path.with_name("manifest.json")
    if not manifest.is_file():
        raise Problem(f"{manifest}: not there. Copy it from the model directory, together with {path.name}.")
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        if path.name not in [file["file"] for file in content["files"]]:
            raise Problem(f"{manifest}: is that of another model; {path.name} is not in it.")
        return content
    except (ValueError, KeyError, TypeError) as error:
        raise Problem(f"{manifest}: not a manifest. Copy it from the model directory again.") from error


def read_datasets(source: TextIO, name: str, columns: list[str], by: str | None) -> dict[str, list[list[float]]]:
    """The rows of each dataset, in the order of the columns; datasets in the order in which they begin."""
    datasets: dict[str, list[list[float]]] = {}
    reader = csv.DictReader(source, skipinitialspace=True)
    wanted = [*columns, *([by] if by else [])]
    missing = [column for column in wanted if column not in (reader.fieldnames or [])]
    if missing:
        heading = ",".join(reader.fieldnames or []) or "nothing"
        raise Problem(
            f"{name}, line 1: no column {missing[0]!r}. It takes {','.join(wanted)}; the heading is {heading}."
        )
    for row in reader:
        numbers = [number_in(row[column], f"{name}, line {reader.line_num}: {column}") for column in columns]
        datasets.setdefault(str(row[by]) if by else "", []).append(numbers)
    if not datasets:
        raise Problem(f"{name}: no rows below the heading.")
    return datasets


def number_in(text: str | None, where: str) -> float:
    try:
        number = float(text if text is not None else "missing")
    except ValueError as error:
        raise Problem(f"{where} is {text!r}, not a number.") from error
    if not abs(number) <= LARGEST:  # NaN fails this
        raise Problem(f"{where} is {text!r}. The model takes finite numbers; leave this row out, or mend it.")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimates from trials in a CSV file.")
    parser.add_argument("trials", nargs="?", default="-", help="CSV file; standard input by default")
    parser.add_argument("--model", type=Path, default=Path("model.float32.tflite"), help="beside its manifest.json")
    parser.add_argument("--by", help="column whose values tell datasets apart; else all rows are one")
    arguments = parser.parse_args()
    name = "standard input" if arguments.trials == "-" else arguments.trials
    try:
        manifest = read_manifest(arguments.model)
        takes, parameters = manifest["input"], [parameter["name"] for parameter in manifest["parameters"]]
        with open(0 if arguments.trials == "-" else arguments.trials, newline="", encoding="utf-8-sig") as source:
            datasets = read_datasets(source, name, takes["columns"], arguments.by)
        for key, rows in datasets.items():
            if len(rows) != takes["rows"]:
                which = f", {arguments.by} {key}" if arguments.by else ""
                raise Problem(f"{name}{which}: {len(rows)} rows, the model takes {takes['rows']} a dataset.")
        estimator = Estimator(arguments.model, takes)
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([*([arguments.by] if arguments.by else []), *parameters])
        for key, rows in datasets.items():
            estimates = estimator(np.array(rows, np.float32))
            writer.writerow([*([key] if arguments.by else []), *(f"{float(each):.7g}" for each in estimates)])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        sys.exit(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error}).")
    except Problem as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
