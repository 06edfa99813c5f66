"""The network is the one that is promised, and starts where it should."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from toolkit.datasets import encode
from toolkit.model import build_network, import_tensorflow, inverse_softplus, name_of_gpu
from toolkit.spec import Spec

SPEC = Spec(200, ("rt", "correct"), ("v", "a", "t0"))


def network(spec: Spec = SPEC, parameter_means: tuple[float, ...] = (2.0, 1.6, 0.35)):
    columns = len(spec.columns)
    means = np.array(parameter_means)
    return build_network(spec, np.full(columns, 3.0), np.full(columns, 4.0), means, means / 4)


def test_build_network_has_exactly_the_promised_layers() -> None:
    layers = [
        (type(layer).__name__, {key: layer.get_config()[key] for key in keys})
        for layer in network().layers
        for keys in [
            {
                "Conv1D": ("filters", "kernel_size", "activation", "padding"),
                "MaxPooling1D": ("pool_size",),
                "Dense": ("units", "activation"),
            }.get(type(layer).__name__, ())
        ]
    ]
    assert layers == [
        ("Normalization", {}),
        ("Conv1D", {"filters": 32, "kernel_size": (3,), "activation": "relu", "padding": "valid"}),
        ("MaxPooling1D", {"pool_size": (2,)}),
        ("Conv1D", {"filters": 64, "kernel_size": (3,), "activation": "relu", "padding": "valid"}),
        ("MaxPooling1D", {"pool_size": (2,)}),
        ("Conv1D", {"filters": 128, "kernel_size": (3,), "activation": "relu", "padding": "valid"}),
        ("Flatten", {}),
        ("Dense", {"units": 3, "activation": "softplus"}),
    ]


def test_build_network_first_estimates_are_the_parameter_means_for_an_average_dataset() -> None:
    average = np.full((1, 200, 2), 3.0, np.float32)  # normalized to 0, so that only the last bias is left
    # float32 softplus and its inverse: 1.2e-7 measured.
    np.testing.assert_allclose(network()(average).numpy()[0], [2.0, 1.6, 0.35], rtol=3e-7)


def test_build_network_first_logits_spread_with_the_parameters() -> None:
    datasets = np.random.default_rng(0).normal(3.0, 2.0, (200, 200, 2)).astype(np.float32)
    spreads = network(parameter_means=(2.0, 1.6, 4000.0))(datasets).numpy().std(axis=0)  # deviations .5, .4, 1000
    # A fresh network's, times the deviation where that exceeds 1. Measured: .07 to .1, .06 to .08, 84 to 113.
    assert np.all((spreads > [0.03, 0.03, 40]) & (spreads < [0.2, 0.2, 230]))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 17, 18, 19, 50, 1000])
def test_build_network_takes_any_number_of_rows_and_columns(rows: int) -> None:
    built = network(Spec(rows, ("only",), ("a", "b")), (0.01, 100.0))
    estimates = built(np.zeros((4, rows, 1), np.float32)).numpy()
    assert estimates.shape == (4, 2)
    assert np.all(estimates > 0)


def test_inverse_softplus_undoes_softplus_at_both_ends() -> None:
    y = np.array([1e-300, 1e-12, 1e-3, 0.5, 1.0, 20.0, 700.0])
    z = inverse_softplus(y)
    # A rounding of z by 1.1e-16 |z| moves exp(z) by as much: at 1e-300, where z is -691, 7e-14 is all float64 can give.
    assert np.all(np.abs(np.logaddexp(0, z) / y - 1) <= 2 * 2.2e-16 * np.maximum(1, np.abs(z)))


def test_nothing_pins_a_training_step_to_a_device(tmp_path: Path) -> None:
    from toolkit.trainer import Settings, Trainer
    from toolkit.training_files import open_training_data

    rng = np.random.default_rng(0)
    table = {"x": encode(rng.normal(size=(300, 24, 2)).astype(np.float32)), "p": rng.uniform(1, 2, 300)}
    pq.write_table(pa.table(table), tmp_path / "d.parquet")
    data = open_training_data([tmp_path / "d.parquet"], ["p"])
    tensorflow = import_tensorflow()
    moments = (data.column_means, data.column_variances, data.parameter_means, data.parameter_deviations)
    trainer = Trainer(tensorflow, build_network(data.spec, *moments), data, Settings(), None, tmp_path)
    datasets, targets = tensorflow.TensorSpec((8, 24, 2)), tensorflow.TensorSpec((8, 1))
    for function, taken in ((trainer._step, (datasets, targets)), (trainer._predict, (datasets,))):
        operations = function.get_concrete_function(*taken).graph.get_operations()
        assert {"Conv2D", "MatMul"} <= {operation.type for operation in operations}
        assert {operation.device for operation in operations} == {""}
    gpus = tensorflow.config.list_physical_devices("GPU")
    assert (name_of_gpu(tensorflow) is None) == (not gpus)
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
