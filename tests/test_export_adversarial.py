"""Datasets that make estimates small: found in every kind of network, checked with the float64 forward pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.adversarial import ADVERSARIAL_FILE, KEPT, save_adversarial
from export.conversion import convert
from tests.networks import NETWORKS, Example, example, exported
from toolkit.probes import stored_adversarial
from toolkit.reference import load_logits

LIMIT = 2.0**90


def search(network: Example, folder: Path) -> None:
    """Find them in this process, for a folder with the network in it."""
    import keras

    shutil.copy(network.keras_file, folder)
    model = keras.saving.load_model(network.keras_file, compile=False)
    path = folder / ADVERSARIAL_FILE
    save_adversarial(model, network.spec, network.datasets, LIMIT, path, network.keras_file)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_parameter_becomes_smaller_than_in_any_real_dataset(name: str, tmp_path: Path) -> None:
    network = exported(name)
    search(network, tmp_path)
    logits = load_logits(network.directory)
    smallest = logits(network.datasets).min(axis=0)
    beyond, within = stored_adversarial(tmp_path, network.spec)
    low, high = network.datasets.min(axis=(0, 1)), network.datasets.max(axis=(0, 1))
    assert np.all((within.datasets >= low) & (within.datasets <= high))
    assert np.abs(beyond.datasets).max() <= LIMIT
    for probes in (within, beyond):
        assert probes.datasets.shape == (KEPT * len(network.spec.parameters), *network.spec.shape)
        assert probes.datasets.dtype == np.float32 and np.isfinite(probes.datasets).all()
        found = logits(probes.datasets).reshape(len(network.spec.parameters), KEPT, -1)
        for parameter, (best, _) in enumerate(found):
            assert best[parameter] < smallest[parameter], (probes.kind, parameter)
    assert np.all(logits(beyond.datasets).min(axis=0) <= logits(within.datasets).min(axis=0) + 1e-3)
    if name == "standard":
        assert (tmp_path / ADVERSARIAL_FILE).stat().st_size < 30_000


def test_export_finds_the_same_again_and_needs_no_real_datasets(tmp_path: Path) -> None:
    network = example("flat")
    np.save(tmp_path / "datasets.npy", network.datasets)
    files = []
    for name, datasets in (("1", tmp_path / "datasets.npy"), ("2", tmp_path / "datasets.npy"), ("3", None)):
        folder = tmp_path / name
        folder.mkdir()
        assert convert(network.keras_file, network.spec, [], folder, datasets) == []
        files.append((folder / ADVERSARIAL_FILE).read_bytes())
    assert files[0] == files[1] != files[2]
    for probes in stored_adversarial(tmp_path / "3", network.spec):
        assert len(probes.datasets) == KEPT * len(network.spec.parameters)
