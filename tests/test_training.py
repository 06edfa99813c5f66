"""Training: it learns, repeats itself to the bit, resumes, and writes a model directory."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from export.keras_file import load_network, read_network, translate_network
from toolkit.datasets import read_datasets
from toolkit.errors import ExportError, ModelError, OutputError
from toolkit.files import sha256_of
from toolkit.given import GivenNetwork, _fit
from toolkit.manifest import read_manifest
from toolkit.recovery import recovery_of
from toolkit.trainer import Settings
from toolkit.training import train

PARAMETERS = ["height", "rate", "noise"]
SHORT = Settings(epochs=3, batch_size=64)


def weights_of(directory: Path) -> list[np.ndarray]:
    import keras

    return keras.saving.load_model(directory / "model.keras", compile=False).get_weights()


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def without_warnings(lines: list[str]) -> list[str]:
    """What was said of the epochs. Datasets this few are warned of, whatever is trained on them."""
    return [line for line in lines if not line.startswith("warning: ")]


def given(path: Path) -> GivenNetwork:
    return GivenNetwork(path, load_network, translate_network)


def save_network(
    path: Path, last: Any = "linear", *, rows: int = 24, outputs: int = 3, inside: Any = None, behind: Any = None
) -> Path:
    """A small network of a user's own, untrained: convolution, batch normalization, dropout, Dense."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    usual = [layers.Conv1D(16, 3, activation="relu"), layers.BatchNormalization(momentum=0.9), layers.Dropout(0.1)]
    stack = [*usual, inside, layers.Flatten(), layers.Dense(outputs, activation=last), behind]
    keras.Sequential([keras.Input((rows, 2)), *filter(None, stack)]).save(path)
    return path


def test_train_writes_a_model_directory(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        *("manifest.json", "README.md", "model.keras", "calibration.parquet", "training.csv", "recovery.png"),
    }
    manifest = read_manifest(trained)
    assert manifest.spec.describe() == "24 rows x (time, signal) -> height, rate, noise"
    assert manifest.training.datasets == 1600
    assert set(manifest.versions) == {"softplus-toolkit", "tensorflow", "keras"}
    assert [1 <= p.minimum < p.maximum <= 4 for p in manifest.parameters[:1]] == [True]
    assert (trained / "recovery.png").read_bytes().startswith(b"\x89PNG")
    with (trained / "training.csv").open(newline="") as source:
        records = list(csv.DictReader(source))
    assert [int(record["epoch"]) for record in records] == [1, 2, 3, 4, 5, 6]
    rates = [float(record["learning_rate"]) for record in records]
    assert rates == sorted(rates, reverse=True)
    assert rates[2] > 3e-4 and rates[5] < 1.1e-5  # it falls over the whole run


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_train_learns_every_parameter_whatever_its_unit(
    unit: float, trained: Path, small_datasets: Path, tmp_path: Path
) -> None:
    table = pq.read_table(small_datasets)
    changed = pc.multiply(table["noise"], unit)
    pq.write_table(table.set_column(table.schema.get_field_index("noise"), "noise", changed), tmp_path / "d.parquet")
    settings = Settings(epochs=6, batch_size=32)  # as `trained`
    found = train([tmp_path / "d.parquet"], PARAMETERS, output=tmp_path / "model", settings=settings).training.metrics
    usual = read_manifest(trained).training.metrics
    # Without a scale of its own a thousandth would carry 1e-8 of the loss, and the logits of a thousandfold would take
    # thousands of steps to spread as far as it does: R2 0 both. Measured: .954, .870, .834; in thousandths the same to
    # .001; a thousandfold .957, .873, .881, since softplus is straight where its values are large.
    for name in PARAMETERS:
        assert usual[name]["r2"] > 0.7
        assert found[name]["r2"] == pytest.approx(usual[name]["r2"], abs=0.1)


def test_train_metrics_are_those_of_the_stored_network(trained: Path, small_datasets: Path) -> None:
    import keras

    table = pq.read_table(trained / "calibration.parquet")
    datasets = read_datasets(trained / "calibration.parquet", read_manifest(trained).spec)
    estimates = keras.saving.load_model(trained / "model.keras", compile=False).predict(datasets, verbose=0)
    for index, name in enumerate(PARAMETERS):
        found = recovery_of(table[name].to_numpy(), estimates[:, index])
        # Metrics are of the calibration datasets, all of which are kept; only the batching of the forward pass differs.
        assert found.rmse == pytest.approx(read_manifest(trained).training.metrics[name]["rmse"], rel=1e-5)


def test_train_gives_the_same_weights_twice_and_others_for_another_seed(small_datasets: Path, tmp_path: Path) -> None:
    for name, settings in (("a", SHORT), ("b", SHORT), ("c", Settings(epochs=3, batch_size=64, seed=5))):
        train([small_datasets], PARAMETERS, output=tmp_path / name, settings=settings)
    assert same(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))
    assert not same(weights_of(tmp_path / "a"), weights_of(tmp_path / "c"))


def test_train_resumes_to_the_weights_of_an_undisturbed_run(small_datasets: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop_after_two(line: str) -> None:
        if line.startswith("epoch 2"):
            raise Stop

    settings = Settings(epochs=4, batch_size=64, exchangeable_rows=True)
    train([small_datasets], PARAMETERS, output=tmp_path / "whole", settings=settings)
    with pytest.raises(Stop):
        train([small_datasets], PARAMETERS, output=tmp_path / "cut", settings=settings, say=stop_after_two)
    assert not (tmp_path / "cut" / "manifest.json").exists()
    with pytest.raises(OutputError, match="had --epochs 4, not 3; --exchangeable-rows True, not False. Repeat its"):
        train([small_datasets], PARAMETERS, output=tmp_path / "cut", settings=SHORT, resume=True)
    lines: list[str] = []
    train([small_datasets], PARAMETERS, output=tmp_path / "cut", settings=settings, resume=True, say=lines.append)
    assert [line.split(":")[0] for line in without_warnings(lines)] == [
        "resuming after epoch 2",
        "epoch 3 of 4",
        "epoch 4 of 4",
    ]
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut"))
    assert not (tmp_path / "cut" / ".training").exists()


TRANSFORMED = {
    "as they are": lambda true: true,
    "as logarithms": np.log,
    "standardized": lambda true: (true - true.mean(axis=0)) / true.std(axis=0),
}


@pytest.mark.parametrize("learned", TRANSFORMED)
def test_train_starts_from_a_network_with_a_linear_last_layer_whatever_it_has_learned(
    learned: str, small_datasets: Path, tmp_path: Path
) -> None:
    import keras

    table = pq.read_table(small_datasets)
    datasets = np.array(table["x"].to_pylist(), np.float32)
    true = np.stack([table[name].to_numpy() for name in PARAMETERS], axis=1)
    path = save_network(tmp_path / "net.keras")
    network = keras.saving.load_model(path)
    network.compile("adam", "mse")
    network.fit(datasets, TRANSFORMED[learned](true), epochs=4, verbose=0)
    network.save(path)
    lines: list[str] = []
    settings = Settings(epochs=2, batch_size=32)
    manifest = train(
        [small_datasets],
        PARAMETERS,
        output=tmp_path / "model",
        settings=settings,
        start_from=given(path),
        say=lines.append,
    )
    losses = [float(line.split("validation ")[1].split()[0].rstrip(",")) for line in without_warnings(lines)]
    assert lines[0].startswith("given network: validation ")
    # Each parameter's mean as its estimate has the loss 1. Measured: .53, .47 and .28 when softplus has been put there,
    # .41, .37 and .20 an epoch or two later.
    assert losses[0] < 0.7 and min(losses[1:]) < min(0.5, losses[0])
    assert manifest.training.note == f"Trained on from net.keras (sha256 {sha256_of(path)})."
    _, read = read_network(tmp_path / "model" / "model.keras", manifest.spec)  # it can be exported: softplus is there
    assert [type(layer).__name__ for layer in read.layers] == [
        *("Conv1D", "Activation", "BatchNormalization", "Reshape", "Dense"),
    ]


def test_fit_finds_the_line_from_what_was_learned_to_the_logits() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform([1e-3, 0.5, 500], [1e-1, 3, 2500], (1000, 3)).astype(np.float32)
    logits = true.astype(np.float64) + np.log(-np.expm1(-true.astype(np.float64)))
    slopes, offsets = _fit((logits - [3.0, -1.0, 200.0]) / [2.0, 0.5, 1e4], true)
    np.testing.assert_allclose(slopes, [2.0, 0.5, 1e4], rtol=1e-9)
    np.testing.assert_allclose(offsets, [3.0, -1.0, 200.0], rtol=1e-9)


def test_fit_leaves_the_slope_of_a_network_that_says_nothing() -> None:
    true = np.random.default_rng(0).uniform(1, 2, (100, 1)).astype(np.float32)
    slopes, offsets = _fit(np.full((100, 1), 7.0), true)
    assert slopes == 1
    # The mean is 1.5 and its logit 1.25; larger values weigh more, whose estimates follow their logits more closely.
    assert offsets + 7 == pytest.approx(1.25, abs=0.15)


def test_train_from_a_network_that_ends_in_softplus_is_never_worse_than_it(
    trained: Path, small_datasets: Path, tmp_path: Path
) -> None:
    table = pq.read_table(small_datasets).slice(0, 300)
    pq.write_table(table, tmp_path / "d.parquet")
    lines: list[str] = []
    settings = Settings(epochs=9, batch_size=32, patience=2)
    mean_only = save_network(tmp_path / "mean.keras", "softplus")
    network = load_network(mean_only)
    network.layers[-1].kernel.assign(np.zeros_like(network.layers[-1].kernel))
    means = np.array([table[name].to_numpy().mean() for name in PARAMETERS])
    network.layers[-1].bias.assign(np.log(np.expm1(means)))
    network.save(mean_only)
    others = pq.read_table(small_datasets).slice(300, 100)  # of which the given network is right: nothing is better
    for name, mean in zip(PARAMETERS, means, strict=True):
        others = others.set_column(others.schema.get_field_index(name), name, [np.full(100, mean)])
    pq.write_table(others, tmp_path / "validation.parquet")
    train(
        [tmp_path / "d.parquet"],
        PARAMETERS,
        output=tmp_path / "model",
        validation=tmp_path / "validation.parquet",
        settings=settings,
        start_from=given(mean_only),
        say=lines.append,
    )
    assert len(without_warnings(lines)) == 3 and "(best)" not in "".join(lines)
    assert same(weights_of(tmp_path / "model"), network.get_weights())


def test_train_from_a_network_with_dropout_resumes_to_the_same_weights_and_from_no_other_network(
    small_datasets: Path, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop_after_one(line: str) -> None:
        if line.startswith("epoch 1"):
            raise Stop

    def run(output: str, network: str = "net.keras", **options: Any) -> None:
        train(
            [small_datasets],
            PARAMETERS,
            output=tmp_path / output,
            settings=Settings(epochs=2, batch_size=128),
            start_from=given(tmp_path / network),
            **options,
        )

    save_network(tmp_path / "net.keras")
    save_network(tmp_path / "other.keras", "softplus")
    run("whole")
    with pytest.raises(Stop):
        run("cut", say=stop_after_one)
    with pytest.raises(OutputError, match="had another network to start from. Repeat its command"):
        run("cut", "other.keras", resume=True)
    run("cut", resume=True)
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut"))


def test_train_refuses_a_network_that_does_not_fit(small_datasets: Path, tmp_path: Path) -> None:
    import keras
    from keras import layers

    frozen = save_network(tmp_path / "frozen.keras", "softplus")
    network = keras.saving.load_model(frozen)
    network.trainable = False
    network.save(frozen)
    refused = {
        save_network(tmp_path / "longer.keras", rows=30): "takes inputs of shape (30, 2), the datasets have",
        save_network(tmp_path / "four.keras", outputs=4): "gives outputs of shape (4,) for 3 parameters",
        save_network(
            tmp_path / "odd.keras", inside=layers.Dense(8, activation="gelu", name="odd")
        ): "layer 'odd' (Dense)",
        save_network(tmp_path / "new.keras", inside=layers.LayerNormalization(name="n")): "layer 'n' is a LayerNorm",
        save_network(
            tmp_path / "relu.keras", behind=layers.ReLU()
        ): "ends in ReLU, so softplus cannot be put there. Let",
        frozen: "no layer can be trained (trainable=False)",
    }
    for path, reason in refused.items():
        with pytest.raises((ExportError, ModelError)) as caught:
            train([small_datasets], PARAMETERS, output=tmp_path / "model", start_from=given(path))
        assert str(caught.value).startswith(f"{path}: {reason}")
        assert not (tmp_path / "model").exists()


def test_train_stops_early_and_keeps_the_best_weights(small_datasets: Path, tmp_path: Path) -> None:
    # A step this large, and targets that rows shuffled across datasets say nothing about: nothing to gain for long.
    table = pq.read_table(small_datasets).slice(0, 300)
    shuffled = table.set_column(1, "height", [np.random.default_rng(0).permutation(table["height"].to_numpy())])
    pq.write_table(shuffled, tmp_path / "d.parquet")
    validation = tmp_path / "validation.parquet"
    pq.write_table(pq.read_table(small_datasets).slice(300, 100), validation)
    lines: list[str] = []
    manifest = train(
        [tmp_path / "d.parquet"],
        ["height"],
        output=tmp_path / "model",
        validation=validation,
        settings=Settings(epochs=60, batch_size=32, patience=2),
        say=lines.append,
    )
    epochs = without_warnings(lines)
    assert 3 <= len(epochs) < 60
    best = min(float(line.split("validation ")[1].split()[0].rstrip(",")) for line in epochs)
    with (tmp_path / "model" / "training.csv").open(newline="") as source:
        rmse = [float(record["validation_rmse_height"]) for record in csv.DictReader(source)]
    assert "(best)" not in lines[-1]
    assert best > 0
    # The stored network is that of the best epoch, not of the last: float32 batches of another size, 1e-6 measured.
    estimates = load_network(tmp_path / "model" / "model.keras").predict(read_datasets(validation, manifest.spec))
    found = recovery_of(pq.read_table(validation)["height"].to_numpy(), estimates[:, 0])
    assert found.rmse == pytest.approx(min(rmse), rel=1e-5)


def test_train_refuses_a_folder_that_holds_a_model(trained: Path, small_datasets: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in trained.iterdir())
    with pytest.raises(OutputError, match="already holds a model. Choose another --output, or move it away."):
        train([small_datasets], PARAMETERS, output=trained)
    assert sorted(path.stat().st_mtime_ns for path in trained.iterdir()) == before


def test_train_command_takes_every_option(
    toolkit_command: Callable[..., Result], small_datasets: Path, tmp_path: Path
) -> None:
    validation = tmp_path / "validation.parquet"
    pq.write_table(pq.read_table(small_datasets).slice(300, 250), validation)
    result = toolkit_command(
        *("train", small_datasets, "--parameters", "rate,noise", "--output", tmp_path / "model", "--epochs", 1),
        *("--batch-size", 100, "--seed", 3, "--exchangeable-rows", "--calibration-count", 50, "--column", "x"),
        *("--validation", validation),
    )
    assert result.exit_code == 0, result.output
    assert "epoch 1 of 1" in result.stderr
    assert "median relative error" in result.stdout
    manifest = read_manifest(tmp_path / "model")
    # Neither the 250 that validate are trained on, nor a tenth of the others, which calibrate.
    assert (manifest.training.datasets, manifest.training.seed) == (2000 - 250 - 175, 3)
    assert f"{validation}: holds 250 of the 2,000 datasets to train on. They are not trained on" in result.stderr
    assert pq.read_metadata(tmp_path / "model" / "calibration.parquet").num_rows == 50


def test_train_command_starts_from_a_network(
    toolkit_command: Callable[..., Result], small_datasets: Path, tmp_path: Path
) -> None:
    path = save_network(tmp_path / "net.keras")
    arguments = ["train", small_datasets, "--parameters", "height,rate,noise", "--output", tmp_path / "model"]
    result = toolkit_command(*arguments, "--epochs", 1, "--start-from", path)
    assert result.exit_code == 0, result.output
    assert "given network: validation " in result.stderr
    assert "Trained on 1,600 datasets. Trained on from net.keras (sha256 " in result.stdout
    assert toolkit_command(*arguments, "--start-from", tmp_path / "absent.keras").exit_code == 2


def test_train_command_says_in_one_line_what_is_wrong(
    toolkit_command: Callable[..., Result], small_datasets: Path, tmp_path: Path
) -> None:
    result = toolkit_command("train", small_datasets, "--parameters", "speed", "--output", tmp_path / "model")
    assert result.exit_code == 1
    assert (
        result.stderr
        == f"Error: {small_datasets}: no column 'speed' for a parameter. It has: x, height, rate, noise.\n"
    )
    assert not (tmp_path / "model").exists()
    assert toolkit_command("train", small_datasets, "--parameters", "a,,b").exit_code == 2
    assert toolkit_command("train", tmp_path / "absent.parquet", "--parameters", "a").exit_code == 2
