"""A network trained elsewhere becomes a model directory that is exported, verified and scored with like one of ours."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from export.keras_file import load_network, translate_network
from toolkit.adoption import adopt
from toolkit.cli import main
from toolkit.datasets import encode, read_datasets
from toolkit.errors import MissingExtra, ModelError, OutputError, ToolkitError
from toolkit.files import sha256_of
from toolkit.given import GivenNetwork
from toolkit.manifest import read_manifest
from toolkit.recovery import recovery_of
from toolkit.spec import FORMATS, Spec, file_name

PARAMETERS = ("height", "rate", "noise")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def given(path: Path) -> GivenNetwork:
    return GivenNetwork(path, load_network, translate_network)


def save(path: Path, *stack: Any, shape: tuple[int | None, ...] = (24, 2)) -> Path:
    """A functional model of these layers, one after the other."""
    import keras

    keras.utils.set_random_seed(1)
    values = inputs = keras.Input(shape)
    for layer in stack:
        values = layer(values)
    keras.Model(inputs, values).save(path)
    return path


def softplus(outputs: int = 3, **options: Any) -> Any:
    from keras import layers

    return layers.Dense(outputs, activation="softplus", bias_initializer="ones", **options)


def flat(path: Path, *head: Any) -> Path:
    """The smallest network for datasets of 24 x 2; three parameters unless a head says otherwise."""
    from keras import layers

    return save(path, layers.Flatten(), *(head or (softplus(),)))


@dataclass(frozen=True)
class Adopted:
    """A network, and what became of it: adopted, exported, verified, scored with.

    Attributes:
        datasets: float32 (n, rows, columns), that `predictions` are of.
        verdicts: the object that `verify --json` prints.
    """

    network: Path
    model: Path
    datasets: np.ndarray
    predictions: pa.Table
    verdicts: dict[str, Any]
    summary: dict[str, Any]


def adopt_export_verify_predict(network: Path, inputs: Path, spec: Spec, *options: object) -> Adopted:
    folder = network.parent
    model, output = folder / "model", folder / "predictions.parquet"
    for arguments in (
        ["adopt", network, "--parameters", ",".join(spec.parameters), *options, "--output", model],
        ["export", "--model", model, "--format", "all", "--precision", "all"],
    ):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
    verified = run("verify", "--model", model, "--json")
    scored = run("batch-predict", inputs, "--model", model, "--output", output, "--json", "--workers", 1)
    assert scored.exit_code == 0, scored.output
    datasets = read_datasets(inputs, spec)
    return Adopted(
        network, model, datasets, pq.read_table(output), json.loads(verified.stdout), json.loads(scored.stdout)
    )


@pytest.fixture(scope="module")
def convolutions(small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    """A functional model: batch normalization, average pooling, dropout, the softplus a layer of its own."""
    from keras import layers

    network = save(
        tmp_path_factory.mktemp("convolutions") / "net.keras",
        layers.Normalization(mean=[1.5, 1.0], variance=[0.8, 1.1]),
        layers.Conv1D(8, 3),
        layers.BatchNormalization(moving_mean_initializer="ones", gamma_initializer="ones"),
        layers.ReLU(),
        layers.AveragePooling1D(2),
        layers.Conv1D(8, 3, padding="same", activation="relu"),
        layers.Dropout(0.3),
        layers.Flatten(),
        layers.Dense(3, bias_initializer="ones"),
        layers.Activation("softplus"),
    )
    spec = Spec(24, ("time", "signal"), PARAMETERS)
    return adopt_export_verify_predict(network, small_datasets, spec, "--calibration", small_datasets)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    """Any number of rows, global pooling, no normalization: the first bias takes off an offset of 200."""
    import keras
    from keras import layers

    folder = tmp_path_factory.mktemp("raw")
    keras.utils.set_random_seed(1)
    first = layers.Conv1D(8, 3, activation="relu")
    network = keras.Sequential([keras.Input((None, 2)), first, layers.GlobalAveragePooling1D(), softplus(2)])
    first.bias.assign(-200 * np.asarray(first.kernel).sum(axis=(0, 1)))
    network.save(folder / "net.keras")
    values = np.random.default_rng(0).normal(200, 2, (300, 30, 2)).astype(np.float32)
    pq.write_table(pa.table({"trials": encode(values), "subject": list(range(300))}), folder / "trials.parquet")
    options = ("--columns", "left,right", "--calibration", folder / "trials.parquet")
    spec = Spec(30, ("left", "right"), ("gain", "loss"))
    return adopt_export_verify_predict(folder / "net.keras", folder / "trials.parquet", spec, *options)


@pytest.fixture(scope="module")
def dense(small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    """Dense layers alone, adopted without datasets; one parameter."""
    from keras import layers

    network = save(
        tmp_path_factory.mktemp("dense") / "net.keras",
        layers.BatchNormalization(moving_mean_initializer="ones"),
        layers.Flatten(),
        layers.Dense(16, activation="relu"),
        layers.Dropout(0.5),
        softplus(1),
    )
    return adopt_export_verify_predict(network, small_datasets, Spec(24, ("column_0", "column_1"), ("speed",)))


@pytest.mark.parametrize("name", ["convolutions", "raw", "dense"])
def test_an_adopted_network_is_exported_verified_and_scored_with_like_one_of_ours(
    name: str, request: pytest.FixtureRequest
) -> None:
    import keras

    adopted: Adopted = request.getfixturevalue(name)
    manifest = read_manifest(adopted.model)
    # All but the integer-only file, which none of these networks can have: it is left out, and no error.
    assert [file["file"] for file in adopted.verdicts["files"]] == [
        file_name(format, precision) for format in FORMATS for precision in ("float32", "float16", "int8")
    ]
    assert adopted.verdicts["passed"] is True
    assert adopted.summary["rows_predicted"] == len(adopted.datasets) == len(adopted.predictions)
    estimates = keras.saving.load_model(adopted.network).predict(adopted.datasets, verbose=0)
    for index, parameter in enumerate(manifest.spec.parameters):
        # Measured 1.8e-6 at most, in `raw`, whose first convolution takes the difference of large numbers.
        np.testing.assert_allclose(adopted.predictions[f"predicted_{parameter}"], estimates[:, index], rtol=4e-6)
    assert sha256_of(adopted.model / "model.keras") == sha256_of(adopted.network)


def test_adopt_records_ranges_and_metrics_of_the_calibration_data(convolutions: Adopted, small_datasets: Path) -> None:
    import keras

    manifest = read_manifest(convolutions.model)
    estimates = keras.saving.load_model(convolutions.network).predict(convolutions.datasets, verbose=0)
    table = pq.read_table(small_datasets)
    assert manifest.spec == Spec(24, ("time", "signal"), PARAMETERS)
    assert [(each.minimum, each.maximum) for each in manifest.column_ranges] == [
        (column.min(), column.max()) for column in np.moveaxis(convolutions.datasets, 2, 0)
    ]
    for index, parameter in enumerate(manifest.parameters):
        true = table[parameter.name].to_numpy()
        assert (parameter.minimum, parameter.maximum) == (true.min(), true.max())
        found = recovery_of(true, estimates[:, index])
        assert manifest.training.metrics[parameter.name]["rmse"] == pytest.approx(found.rmse, rel=1e-5)
    assert manifest.training.datasets == 0
    assert manifest.training.note == (
        "Adopted from net.keras with 2,000 datasets of datasets.parquet, compared with its true height, rate, noise."
    )
    assert set(manifest.versions) == {"softplus-toolkit", "keras"}
    kept = pq.read_table(convolutions.model / "calibration.parquet")
    assert kept.to_pydict() == table.to_pydict()


def test_adopt_records_ranges_of_estimates_when_true_values_are_not_known(raw: Adopted) -> None:
    manifest = read_manifest(raw.model)
    assert manifest.spec == Spec(30, ("left", "right"), ("gain", "loss"))
    for parameter in manifest.parameters:
        predicted = raw.predictions[f"predicted_{parameter.name}"].to_numpy()
        assert [parameter.minimum, parameter.maximum] == pytest.approx([predicted.min(), predicted.max()], rel=4e-6)
    assert manifest.training.metrics == {}
    assert manifest.training.note == "Adopted from net.keras with 300 datasets of trials.parquet."


def test_adopt_without_datasets_makes_random_ones_and_says_so(dense: Adopted) -> None:
    manifest = read_manifest(dense.model)
    assert manifest.training.note == (
        "Adopted from net.keras without datasets: calibration.parquet holds random ones of its first layer's mean and "
        "spread, and the ranges are those of the estimates for them."
    )
    assert manifest.column_ranges == ()
    values = read_datasets(dense.model / "calibration.parquet", manifest.spec)
    assert values.shape == (1000, 24, 2)
    # Mean and spread of the batch normalization, 1 and 1; 24,000 values a column: standard errors .006 and .005.
    assert values.mean(axis=(0, 1)) == pytest.approx([1, 1], abs=0.03)
    assert values.std(axis=(0, 1)) == pytest.approx([1, 1], abs=0.03)


# What follows needs no process of its own for Keras, which takes seconds to start.


class InThisProcess:
    def call(self, function: Callable[..., Any], *arguments: Any, where: object) -> Any:
        return function(*arguments)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def open_child() -> Iterator[InThisProcess]:
        yield InThisProcess()

    monkeypatch.setattr("toolkit.adoption.open_child", open_child)


def refusal(path: Path, *, parameters: tuple[str, ...] = PARAMETERS, **options: Any) -> str:
    """The message that a network is refused with; nothing may have been written."""
    output = path.parent / "refused"
    with pytest.raises(ToolkitError) as caught:
        adopt(given(path), parameters, output=output, **options)
    assert not output.exists()
    return str(caught.value)


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.usefixtures("in_this_process")
def test_adopt_refuses_a_linear_last_layer_with_the_way_out(tmp_path: Path) -> None:
    from keras import layers

    path = flat(tmp_path / "net.keras", layers.Dense(3))
    assert refusal(path) == (
        f"{path}: ends in a linear layer. The last layer must be Dense(3, activation='softplus'): it is what makes "
        "every estimate positive.\nPut softplus there and train on from these weights: "
        f"toolkit train DATASETS --parameters height,rate,noise --start-from {path}"
    )


@pytest.mark.usefixtures("in_this_process")
def test_adopt_names_what_a_network_cannot_be_exported_for(tmp_path: Path) -> None:
    import keras
    from keras import layers

    first, second = keras.Input((24, 2)), keras.Input((24, 2), name="second")
    flattened = layers.Flatten()(first)
    two_inputs, two_outputs = tmp_path / "two_inputs.keras", tmp_path / "two_outputs.keras"
    keras.Model([first, second], softplus()(flattened)).save(two_inputs)
    keras.Model(first, [flattened, softplus()(flattened)]).save(two_outputs)
    (tmp_path / "text.keras").write_text("no network")
    for path, reason in {
        flat(
            tmp_path / "lstm.keras", layers.Reshape((24, 2)), layers.LSTM(4, name="odd"), softplus()
        ): "layer 'odd' is a LSTM",
        flat(
            tmp_path / "gelu.keras", layers.Dense(4, "gelu", name="odd"), softplus()
        ): "layer 'odd' (Dense) has the acti",
        flat(tmp_path / "four.keras", softplus(4)): "gives outputs of shape (4,) for 3 parameters",
        save(
            tmp_path / "rank.keras", softplus(), shape=(40,)
        ): "takes inputs of shape (40,), not (rows, columns). Build",
        save(tmp_path / "rows.keras", softplus()): "gives outputs of shape (24, 3) for 3 parameters",
        two_inputs: "layer 'second' (InputLayer) does not follow the layer before it alone.",
        two_outputs: "the output is not that of the last layer.",
        tmp_path / "text.keras": "not a .keras file",
    }.items():
        assert refusal(path).startswith(f"{path}: {reason}")


@pytest.mark.usefixtures("in_this_process")
def test_adopt_says_which_names_or_sizes_do_not_fit(small_datasets: Path, tmp_path: Path) -> None:
    from keras import layers

    path = flat(tmp_path / "net.keras")
    any_rows = save(tmp_path / "any.keras", layers.GlobalMaxPooling1D(), softplus(), shape=(None, 2))
    other = parquet(tmp_path / "other.parquet", x=encode(np.zeros((3, 20, 2), np.float32)))
    swapped = {"columns": ("signal", "time"), "calibration": small_datasets}
    assert (
        refusal(path, columns=("a", "b", "c")) == f"{path}: takes 2 columns; 3 are named (a, b, c). Name 2: --columns."
    )
    assert refusal(path, rows=30) == f"{path}: takes 24 rows, not 30. Leave --rows out."
    assert (
        refusal(any_rows)
        == f"{any_rows}: takes any number of rows. Say how many a dataset has: --rows N, or --calibration FILE."
    )
    assert refusal(path, calibration=other).startswith(f"{other}: no column holds datasets of 24 rows x (column_0, ")
    assert "holds (time, signal), the model takes (signal, time)" in refusal(path, **swapped)
    assert adopt(given(any_rows), PARAMETERS, rows=7, output=tmp_path / "model").spec.shape == (7, 2)


@pytest.mark.usefixtures("in_this_process")
def test_adopt_names_the_row_of_the_calibration_file_that_is_wrong(tmp_path: Path) -> None:
    path = flat(tmp_path / "net.keras")
    values = np.ones((5, 24, 2), np.float32)
    empty = parquet(tmp_path / "empty.parquet", x=encode(values[:0]))
    wrong = parquet(tmp_path / "wrong.parquet", x=encode(values), rate=[1.0, 2.0, 3.0, 0.0, 1.0])
    values[3, 2, 1] = np.nan
    holed = parquet(tmp_path / "holed.parquet", x=encode(values))
    assert refusal(path, calibration=empty).startswith(f"{empty}: no datasets in it.")
    assert refusal(path, calibration=wrong).startswith(f"{wrong}, row 3: 'rate' is 0.0; a parameter must be positive")
    assert refusal(path, calibration=holed).startswith(f"{holed}, row 3: 'x' is no dataset of 24 rows x (column_0, col")


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(("bias", "estimate"), [(-100.0, "3.72e-44"), (-800.0, "0"), (np.nan, "nan"), (np.inf, "inf")])
def test_adopt_refuses_datasets_for_which_no_file_could_give_the_estimate(
    bias: float, estimate: str, tmp_path: Path
) -> None:
    import keras

    path = flat(tmp_path / "net.keras", softplus(kernel_initializer="zeros", name="head"))
    network = keras.saving.load_model(path)
    network.get_layer("head").bias.assign([1.0, bias, 1.0])
    network.save(path)
    datasets = parquet(tmp_path / "d.parquet", x=encode(np.zeros((4, 24, 2), np.float32)))
    assert refusal(path, calibration=datasets) == (
        f"{datasets}, row 0: the network gives rate = {estimate}, exported files no less than 1e-37. "
        "Are these the datasets it was trained for? Take others: --calibration FILE."
    )
    assert refusal(path).startswith(f"{path}: random datasets, row 0: the network gives rate = {estimate}, ")


@pytest.mark.usefixtures("in_this_process")
def test_adopt_keeps_datasets_from_all_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.calibration.MOST_KEPT", 5)
    monkeypatch.setattr("toolkit.calibration.READ_ROWS", 30)
    values = np.broadcast_to(np.arange(101, dtype=np.float32)[:, None, None], (101, 24, 2))
    true = np.arange(1.0, 102)
    datasets = parquet(tmp_path / "d.parquet", x=encode(values), rate=true, noise=np.full(101, 2.0))
    constant = flat(tmp_path / "net.keras", softplus(kernel_initializer="zeros"))
    manifest = adopt(given(constant), PARAMETERS, calibration=datasets, output=tmp_path / "model")
    kept = pq.read_table(tmp_path / "model" / "calibration.parquet")
    assert kept.column_names == ["x", "rate", "noise"]
    assert kept["rate"].to_pylist() == [1, 26, 51, 76, 101]
    assert read_datasets(tmp_path / "model" / "calibration.parquet", manifest.spec)[:, 0, 0].tolist() == [
        0,
        25,
        50,
        75,
        100,
    ]
    assert (manifest.parameters[1].minimum, manifest.parameters[1].maximum) == (1, 101)  # of all of them
    assert manifest.column_ranges[0].maximum == 100
    # `noise` is the same in every row: there is no spread that R2 could compare with.
    assert set(manifest.training.metrics) == {"rate"}


def test_adopt_leaves_a_folder_alone_that_holds_a_model_or_files_of_its_names(tmp_path: Path) -> None:
    path = flat(tmp_path / "model.keras")
    before = path.read_bytes()
    with pytest.raises(OutputError) as caught:
        adopt(given(path), PARAMETERS, output=tmp_path)
    assert str(caught.value) == f"{path}: is there already. Choose another --output, or move it away."
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match="already holds a model. Choose another --output, or move it away."):
        adopt(given(path), PARAMETERS, output=tmp_path)
    assert path.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} == {"model.keras", "manifest.json"}


def abort(path: Path) -> None:
    os.abort()


def test_adopt_survives_a_file_that_ends_the_process_which_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    path.write_bytes(b"anything")
    with pytest.raises(ModelError, match="net.keras: its process ended: SIGABRT"):
        adopt(GivenNetwork(path, abort, abort), PARAMETERS, output=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_adopt_says_that_tensorflow_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"toolkit adopt needs TensorFlow.*softplus-toolkit\[export\]"):
        adopt(given(tmp_path / "net.keras"), PARAMETERS, output=tmp_path / "model")


@pytest.mark.usefixtures("in_this_process")
def test_adopt_command_shows_what_is_recorded(dense: Adopted, small_datasets: Path, tmp_path: Path) -> None:
    arguments = ["adopt", dense.network, "--parameters", "rate", "--calibration", small_datasets, "--output"]
    shown = run(*arguments, tmp_path / "a", "--columns", "time,signal", "--rows", 24, "--column", "x", "--order", "row")
    assert shown.exit_code == 0, shown.output
    assert "median relative error" in shown.stdout
    assert "compared with its true rate. Next: toolkit export --format all" in shown.stdout
    assert run("adopt", dense.network).exit_code == 2
