"""The Android sample is not run here; what it names is what the sample model has."""

from __future__ import annotations

import re
from pathlib import Path

from toolkit.manifest import find_file, read_manifest

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
KOTLIN = (SAMPLES / "android" / "Estimates.kt").read_text()
README = (SAMPLES / "android" / "README.md").read_text()


def value_of(name: str) -> str:
    found = re.search(rf"^(?:const )?val {name} = (.*)$", KOTLIN, re.MULTILINE)
    assert found, f"no {name} in Estimates.kt"
    return found[1]


def names_of(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r'"(\w+)"', value_of(name)))


def test_kotlin_names_the_rows_columns_parameters_and_order_of_the_sample_model() -> None:
    spec = read_manifest(SAMPLES / "model").spec
    assert int(value_of("ROWS")) == spec.rows
    assert names_of("COLUMNS") == spec.columns and names_of("PARAMETERS") == spec.parameters
    assert value_of("SORTED_ROWS") == str(spec.sorted_rows).lower()


def test_kotlin_names_a_float_file_of_the_sample_model() -> None:
    file = find_file(SAMPLES / "model", value_of("MODEL_FILE").strip('"'))
    assert file.format == "tflite" and file.integer is None and file.batch is None


def test_readme_is_a_page_says_that_it_was_not_run_and_has_the_same_dependency_lines() -> None:
    assert len(README.splitlines()) <= 40 and "**Not run here**" in README
    in_readme, in_kotlin = (set(re.findall(r'implementation\("(.*?)"\)', text)) for text in (README, KOTLIN))
    assert in_readme == in_kotlin == {"com.google.ai.edge.litert:litert:1.4.2"}
