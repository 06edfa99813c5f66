"""The float64 forward pass, against Keras itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import NETWORKS, exported

from toolkit.errors import ModelError
from toolkit.reference import load_logits, load_reference

AGAIN = "Export the model again: toolkit export --format all"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory to write into: `flat`, one row of 12 columns, four parameters."""
    source = exported("flat").directory
    for name in ("model.keras", "weights.npz"):
        shutil.copy(source / name, tmp_path / name)
    return tmp_path


def change_weights(directory: Path, **changes: Any) -> None:
    with np.load(directory / "weights.npz") as archive:
        np.savez(directory / "weights.npz", **{**archive, **changes})


@pytest.mark.parametrize("name", NETWORKS)
def test_load_reference_gives_what_keras_gives(name: str) -> None:
    import keras

    network = exported(name)
    estimates = keras.saving.load_model(network.keras_file)(network.datasets).numpy()
    truth = load_reference(network.directory)(network.datasets)
    assert truth.dtype == np.float64
    # float32 against float64: measured 4.2e-7 at most, in `standard`.
    np.testing.assert_allclose(estimates, truth, rtol=9e-7)


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129])
def test_load_reference_takes_any_number_of_datasets(count: int) -> None:
    network = exported("standard")
    forward = load_reference(network.directory)
    truth = forward(network.datasets[:count])
    assert truth.shape == (count, 3)
    # Matrix products of another height add up in another order: measured 5e-16.
    np.testing.assert_allclose(truth, forward(network.datasets)[:count], rtol=1e-15)


def test_load_reference_is_the_true_softplus_where_float32_has_none(directory: Path) -> None:
    bias = np.array([-700.0, -100.0, 0.0, 800.0], np.float32)
    change_weights(directory, **{"8.bias": bias, "8.kernel": np.zeros((16, 4), np.float32)})
    truth = load_reference(directory)(np.zeros((1, 1, 12), np.float32))[0]
    np.testing.assert_allclose(truth, [np.exp(-700.0), np.exp(-100.0), np.log(2.0), 800.0], rtol=1e-14)


def test_load_logits_leaves_the_softplus_out(directory: Path) -> None:
    bias = np.array([-700.0, -100.0, 0.0, 800.0], np.float32)
    change_weights(directory, **{"8.bias": bias, "8.kernel": np.zeros((16, 4), np.float32)})
    assert np.array_equal(load_logits(directory)(np.zeros((1, 1, 12), np.float32))[0], bias)


def test_load_reference_names_an_absent_file(directory: Path) -> None:
    (directory / "weights.npz").unlink()
    with pytest.raises(ModelError) as caught:
        load_reference(directory)
    assert str(caught.value) == f"{directory / 'weights.npz'}: not there. {AGAIN}"


def test_load_reference_refuses_weights_of_another_model(directory: Path) -> None:
    shutil.copy(exported("standard").keras_file, directory / "model.keras")
    with pytest.raises(
        ModelError, match=r"weights\.npz: made from another model\.keras than the one beside it\. Export"
    ):
        load_reference(directory)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"\x80\x04K\x01."])
def test_load_reference_refuses_a_damaged_file(content: bytes, directory: Path) -> None:
    (directory / "weights.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.npz: cannot be read \(.*Export the model again"):
        load_reference(directory)


def test_load_reference_unpickles_nothing(directory: Path) -> None:
    change_weights(directory, network=np.array([{"layers": []}], dtype=object))
    with pytest.raises(ModelError, match=r"cannot be read \(Object arrays cannot be loaded"):
        load_reference(directory)


def test_load_reference_names_a_layer_that_it_does_not_know(directory: Path) -> None:
    with np.load(directory / "weights.npz") as archive:
        network = json.loads(str(archive["network"]))
    network["layers"][0]["kind"] = "Attention"
    change_weights(directory, network=np.array(json.dumps(network)))
    with pytest.raises(
        ModelError, match="holds a Attention layer, which this toolkit does not know. Update the toolkit"
    ):
        load_reference(directory)


def test_load_reference_needs_no_tensorflow(directory: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np; from toolkit.reference import load_reference\n"
        f"print(load_reference(Path({str(directory)!r}))(np.zeros((2, 1, 12), np.float32)).shape)\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "(2, 4)\n"), ran.stderr
