"""What training says of odd datasets: where, what, and what to do; and that it says nothing of good ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from tests.training_files import write_training_file
from toolkit.errors import InputError
from toolkit.simulator import open_simulator
from toolkit.training_checks import warnings_of_size
from toolkit.training_files import open_training_data
from toolkit.training_simulator import simulated_data

COUNT, ROWS = 600, 5
Numbers = dict[str, np.ndarray]


@pytest.fixture
def good() -> tuple[np.ndarray, Numbers]:
    """Datasets of which there is nothing to say; response times have long tails."""
    rng = np.random.default_rng(0)
    datasets = np.stack([rng.lognormal(0, 1, (COUNT, ROWS)), rng.integers(0, 2, (COUNT, ROWS))], axis=2)
    return datasets, {"p": rng.uniform(1, 2, COUNT), "q": np.exp(rng.uniform(np.log(1e-3), 0, COUNT))}


def warnings(folder: Path, datasets: np.ndarray, targets: Numbers) -> list[str]:
    path = write_training_file(folder / "d.parquet", datasets, targets)
    return [line.replace(str(path), "FILE") for line in open_training_data([path], list(targets)).warnings]


def test_nothing_is_said_of_good_datasets(good: tuple[np.ndarray, Numbers], tmp_path: Path) -> None:
    assert warnings(tmp_path, *good) == []


def test_a_column_that_never_varies_is_named_and_trained_on(good: tuple[np.ndarray, Numbers], tmp_path: Path) -> None:
    good[0][:, :, 1] = 0.25
    assert warnings(tmp_path, *good) == [
        "warning: FILE: column 'second' is 0.25 in every row and tells nothing. It can be left out."
    ]


def test_a_column_that_is_the_same_in_all_datasets_is_no_mistake(
    good: tuple[np.ndarray, Numbers], tmp_path: Path
) -> None:
    good[0][:, :, 1] = np.arange(ROWS)  # the times at which something was measured
    assert warnings(tmp_path, *good) == []


def test_datasets_that_are_all_the_same_are_said_to_be(good: tuple[np.ndarray, Numbers], tmp_path: Path) -> None:
    good[0][:] = good[0][0]
    assert warnings(tmp_path, *good) == [
        "warning: FILE: all datasets are the same; nothing in them tells of the parameters. Look at what made them."
    ]


@pytest.mark.parametrize("sentinel", [-9999.0, 1e6])
def test_an_extreme_value_is_named_by_its_row(
    sentinel: float, good: tuple[np.ndarray, Numbers], tmp_path: Path
) -> None:
    good[0][437, 3, 0] = sentinel
    (line,) = warnings(tmp_path, *good)
    assert line.startswith(
        f"warning: FILE, row 437: column 'first' is {sentinel:.4g}, where 99.9% of its values are from "
    )
    assert line.endswith(". Such a value takes the scale from all others: mend or remove it.")


def test_parameters_that_are_copies_of_each_other_are_named(good: tuple[np.ndarray, Numbers], tmp_path: Path) -> None:
    good[1]["r"] = good[1]["p"]
    good[1]["s"] = 3 - 0.5 * good[1]["q"]
    assert warnings(tmp_path, *good) == [
        "warning: FILE: 'p' and 'r' are equal in every dataset. Estimate one of the two.",
        "warning: FILE: 's' follows from 'q' by a straight line. Estimate one of the two.",
    ]


def test_a_parameter_over_many_orders_of_magnitude_is_named(good: tuple[np.ndarray, Numbers], tmp_path: Path) -> None:
    good[1]["q"] = np.geomspace(1e-5, 2, COUNT)
    assert warnings(tmp_path, *good) == [
        "warning: FILE: 'q' is from 1e-05 to 2, over 5 orders of magnitude; its small values may be estimated poorly. "
        "Look at them with toolkit evaluate, or estimate a root of it."
    ]


def test_a_parameter_that_varies_by_a_small_part_of_itself_is_named(
    good: tuple[np.ndarray, Numbers], tmp_path: Path
) -> None:
    good[1]["p"] = 20_000 + good[1]["p"]
    assert warnings(tmp_path, *good) == [
        "warning: FILE: 'p' is from 20001 to 20002 and varies by 1e-05 of its size, of which float32 keeps few digits. "
        "Estimate by how much it is above a fixed value."
    ]


@pytest.mark.parametrize("unit", [1e-25, 1e25])
def test_a_parameter_whose_square_is_no_float32_is_refused_with_advice(
    unit: float, good: tuple[np.ndarray, Numbers], tmp_path: Path
) -> None:
    good[1]["p"] *= unit
    with pytest.raises(
        InputError, match=r"'p' varies by \S+ around \S+, which training in float32 cannot follow. Give"
    ):
        warnings(tmp_path, *good)


def test_warnings_of_size_compare_true_values_with_weights() -> None:
    assert warnings_of_size(334, 1000, 3) == ()
    (line,) = warnings_of_size(333, 1000, 3)
    assert line == (
        "warning: 333 datasets to train on, with 3 values each, for a network of 1,000 weights, which can learn them "
        "by heart. Simulate 334 or more."
    )


def test_a_simulator_that_draws_from_few_datasets_is_told_to_draw_afresh(tmp_path: Path) -> None:
    path = tmp_path / "pool.py"
    path.write_text(
        "import numpy as np\nPARAMETERS = ('p', 'q')\n"
        "P = np.random.default_rng(0).uniform(1, 2, (50, 2))\n"
        "X = P[:, None] + np.random.default_rng(1).normal(0, 1, (50, 6, 2))\n"
        "def simulate(count, rng):\n"
        "    which = rng.integers(50, size=count)\n"
        "    return X[which], P[which]\n"
    )
    with open_simulator(f"{path}:simulate", workers=1) as simulator:
        (line,) = simulated_data(simulator, count=2000).warnings
    assert line == (
        f"warning: {path}:simulate: 350 of 400 datasets that are held out are copies of others, parameters included. "
        "A simulator is to draw from the generator it is given, and from nothing else."
    )


def test_train_command_says_warnings_and_trains(
    toolkit_command: Callable[..., Result], good: tuple[np.ndarray, Numbers], tmp_path: Path
) -> None:
    good[0][:, :, 1] = 0.25
    path = write_training_file(tmp_path / "d.parquet", *good)
    result = toolkit_command("train", path, "--parameters", "p,q", "--output", tmp_path / "model", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert f"warning: {path}: column 'second' is 0.25 in every row" in result.stderr
    assert "warning: 480 datasets to train on, with 2 values each, for a network of " in result.stderr
    assert "epoch 1 of 1: " in result.stderr
    assert pq.read_metadata(tmp_path / "model" / "calibration.parquet").num_rows == 60
