"""The model card says what manifest.json says, to people, and leaves their own README.md alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.card import CARD, CONFIGURATION, MARK, card, write_card
from toolkit.manifest import (
    Manifest,
    ModelFile,
    Parameter,
    Range,
    RelativeError,
    Training,
    read_manifest,
    write_manifest,
)
from toolkit.trainer import Settings

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "model"
ERROR = RelativeError(1.5e-7, 2e-7, 3e-6)
MANIFEST = Manifest(
    rows=24,
    columns=("time", "signal"),
    column_ranges=(Range(0.0, 3.0), Range(-1.25, 5.5)),
    parameters=(Parameter("height", 1.0, 4.0), Parameter("noise", 0.02, 0.4)),
    training=Training(
        datasets=1800,
        seed=7,
        metrics={
            "height": {"r2": 0.98765, "rmse": 0.12345, "median_relative_error": 0.054321},
            "noise": {"r2": 0.9, "rmse": 0.01, "median_relative_error": 0.1},
        },
        configuration={"epochs": 12, "loss": "squares", "exchangeable_rows": True, "new_setting": 0.25},
    ),
    files=(
        ModelFile("model.float32.tflite", "tflite", "float32", 209808, "0" * 64,
                  {"height": 4.4712e-38, "noise": 4.4712e-38}, {"height": ERROR, "noise": ERROR}),
        ModelFile("model.integer.tflite", "tflite", "integer", 61552, "0" * 64,
                  {"height": 0.25, "noise": 0.0125}, {"height": ERROR, "noise": RelativeError(1e-3, 2e-3, 3e-3)}),
    ),
    versions={"softplus-toolkit": "0.1.0", "keras": "3.15"},
)  # fmt: skip


def rows_of(text: str) -> list[list[str]]:
    """The cells of every line of a table."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_card_says_what_goes_in_and_what_comes_out() -> None:
    text = card(MANIFEST)
    assert "# Estimator of height and noise" in text
    assert "one dataset of 24 rows and 2 columns (time, signal)" in text
    rows = rows_of(text)
    assert ["time", "0", "3"] in rows and ["signal", "-1.25", "5.5"] in rows
    assert ["parameter", "smallest in training", "largest", "R2", "RMSE", "median relative error"] in rows
    assert ["height", "1", "4", "0.988", "0.1235", "5.43%"] in rows
    assert ["noise", "0.02", "0.4", "0.900", "0.01", "10.00%"] in rows


def test_card_says_how_the_network_was_trained() -> None:
    rows = rows_of(card(MANIFEST))
    for row in (
        *(["datasets", "1,800"], ["seed", "7"], ["epochs at most", "12"], ["loss", "squares"]),
        *(["order of rows carries nothing", "yes"], ["new\\_setting", "0.25"]),
    ):
        assert row in rows
    assert "The order of rows was taken to carry nothing" in card(MANIFEST)


def test_card_lists_every_file_with_its_bound_and_errors() -> None:
    rows = rows_of(card(MANIFEST))
    assert ["`model.float32.tflite`", "float32", "210", "4.47e-38", "float32", "1.5e-07", "3.0e-06"] in rows
    integer = ["`model.integer.tflite`", "integer", "62", "height 0.25, noise 0.0125", "float32"]
    assert [*integer, "height 1.5e-07, noise 1.0e-03", "height 3.0e-06, noise 3.0e-03"] in rows
    assert "--file model.integer.tflite" in card(MANIFEST)  # the smallest


def test_card_of_a_network_that_was_trained_elsewhere_says_what_is_not_known() -> None:
    adopted = replace(MANIFEST, column_ranges=(), training=Training(0, 0, {}, "Adopted from net.keras."), files=())
    text = card(adopted)
    assert "Adopted from net.keras." in text and "## How it was trained" not in text
    assert ["signal", "not known", "not known"] in rows_of(text)
    assert "The ranges of the training data are not known" in text
    assert "None has been exported yet" in text


def test_card_is_the_same_for_the_same_manifest_however_it_was_read(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert card(read_manifest(tmp_path)) == card(MANIFEST)
    # Not part of a line: no date, no path of this machine.
    assert str(tmp_path) not in card(MANIFEST)


def test_card_shows_hostile_names_as_they_are_written() -> None:
    hostile = "a|b\n# <script>`[x](http://y)`\x1b[31m"
    parameters = (Parameter(hostile, 0.0, 1.0), MANIFEST.parameters[1])
    file = replace(MANIFEST.files[0], file="x`y|z\n; rm -rf .tflite", bytes=3)
    text = card(replace(MANIFEST, parameters=parameters, columns=(hostile, "b"), files=(file,)))
    assert "<script>" not in text and "\x1b" not in text and "\n# &lt;script" not in text
    assert "[x](http" not in text
    widths = [len(row) for row in rows_of(text)]
    assert len(widths) == len(rows_of(card(replace(MANIFEST, files=MANIFEST.files[:1])))), "a name has begun a line"
    assert "--file 'x`y|z?; rm -rf .tflite'" in text  # as one word of a shell


def test_write_card_leaves_a_readme_that_a_person_has_written(tmp_path: Path) -> None:
    path = tmp_path / CARD
    write_card(tmp_path, MANIFEST)
    assert path.read_text() == card(MANIFEST) and path.read_text().startswith(MARK + "\n")
    write_card(tmp_path, replace(MANIFEST, files=()))
    assert path.read_text() == card(replace(MANIFEST, files=()))
    for own in ("My notes.\n", "", card(MANIFEST).removeprefix(MARK + "\n")):
        path.write_text(own)
        write_card(tmp_path, MANIFEST)
        assert path.read_text() == own
    path.write_bytes(b"\xff\xfe")
    write_card(tmp_path, MANIFEST)
    assert path.read_bytes() == b"\xff\xfe"
    assert [each.name for each in tmp_path.iterdir()] == [CARD]


def test_train_writes_its_configuration_and_the_card(trained: Path) -> None:
    manifest = read_manifest(trained)
    configuration = manifest.training.configuration
    assert (trained / CARD).read_text() == card(manifest)
    assert configuration["epochs"] == 6 and configuration["batch_size"] == 32  # those of the fixture
    assert configuration["exchangeable_rows"] is False and configuration["patience"] == Settings().patience
    assert 1 <= configuration["best_epoch"] <= configuration["epochs_run"] <= 6  # type: ignore[operator]
    assert configuration["validation_datasets"] == 200
    assert set(configuration) <= set(CONFIGURATION)
    for metrics in manifest.training.metrics.values():
        assert set(metrics) == {"r2", "rmse", "bias", "median_relative_error", "p90_relative_error"}


def test_export_writes_the_card_anew(exported: Path) -> None:
    manifest = read_manifest(exported)
    assert len(manifest.files) == 4
    assert (exported / CARD).read_text() == card(manifest)


def test_card_of_the_sample_model_is_that_of_its_manifest() -> None:
    manifest = read_manifest(SAMPLE)  # of a toolkit that did not write how the network was trained
    assert (SAMPLE / CARD).read_text() == card(manifest), "export the sample model again"
    for entry in manifest.files:
        assert f"`{entry.file}`" in card(manifest)


@pytest.mark.parametrize("configuration", [[], {"epochs": [1]}, {"epochs": None}, "twelve"])
def test_read_manifest_refuses_a_configuration_of_another_kind(tmp_path: Path, configuration: object) -> None:
    import json

    from toolkit.errors import ModelError

    write_manifest(tmp_path, MANIFEST)
    content = json.loads((tmp_path / "manifest.json").read_text())
    content["training"]["configuration"] = configuration
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="not a manifest this toolkit can read"):
        read_manifest(tmp_path)
    del content["training"]["configuration"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert read_manifest(tmp_path).training.configuration == {}
