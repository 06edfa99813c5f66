"""The host side of integer-only files: datasets to codes, codes to estimates, and numbers that must be refused."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integer_files import FACTS

from toolkit.errors import ModelError
from toolkit.integer import Host, host_of, softplus

NOWHERE = Path("model.integer.tflite")


@pytest.fixture
def host() -> Host:
    found = host_of(NOWHERE, FACTS)
    assert found is not None
    return found


def codes_of_one(value: float, column: dict[str, Any]) -> list[int]:
    """In exact arithmetic: the oracle. Steps of powers of two, so that float32 rounds nothing on the way."""
    inside = min(max(value, column["minimum"]), column["maximum"])
    count = round((Fraction(inside) - Fraction(column["minimum"])) * Fraction(column["multiplier"]))  # halves to even
    whole, left = divmod(count, column["fine"])
    return [whole - 128, left - 128] if column["fine"] > 1 else [whole - 128]


def test_codes_are_those_of_exact_arithmetic_with_halves_to_even() -> None:
    columns = [
        {"minimum": -4.0, "maximum": 59.75, "multiplier": 32.0, "fine": 8},
        {"minimum": 0.0, "maximum": 1.0, "multiplier": 16.0, "fine": 1},
    ]
    host = host_of(NOWHERE, {"integer": {**FACTS["integer"], "columns": columns}})
    assert host is not None and host.channels == 3
    values = np.random.default_rng(0).integers(-400, 5000, (300, 2)) / 64.0  # many other one lies halfway
    datasets = values.astype(np.float32).reshape(10, 30, 2)
    expected = [codes_of_one(a, columns[0]) + codes_of_one(b, columns[1]) for a, b in values.tolist()]
    assert host.codes(datasets).dtype == np.int8
    assert np.array_equal(host.codes(datasets).reshape(-1, 3), expected)


def test_codes_saturate_beyond_the_ranges(host: Host) -> None:
    far = np.array([[np.inf, np.inf], [3e38, 3e38], [9.5, 1.0]], np.float32)[np.newaxis]
    near = np.array([[-np.inf, -np.inf], [-3e38, -3e38], [-0.5, 0.0]], np.float32)[np.newaxis]
    assert np.array_equal(host.codes(far)[0], [[127, 127 - 240, -88]] * 3)  # 4,095 = 255 * 16 + 15 steps; 40 steps
    assert np.array_equal(host.codes(near)[0], [[-128, -128, -128]] * 3)


def test_every_count_fits_its_channels(host: Host) -> None:
    values = np.linspace(-1, 10, 20_001, dtype=np.float32)
    codes = host.codes(np.stack([values, values], axis=-1)[np.newaxis]).astype(int)[0] + 128
    count = codes[:, 0] * 16 + codes[:, 1]
    assert np.all(np.diff(count) >= 0) and (count[0], count[-1]) == (0, 4095)


def test_table_is_the_softplus_of_each_code_s_logit(host: Host) -> None:
    table = host.table()
    assert table.shape == (256, 3) and table.dtype == np.float32
    for index, output in enumerate(FACTS["integer"]["outputs"]):
        for code in (-128, -1, 0, 127):
            logit = output["scale"] * (code - output["zero_point"]) + output["centre"]
            assert table[code + 128, index] == pytest.approx(math.log1p(math.exp(logit)), rel=1e-7)


def test_softplus_is_positive_and_right_for_every_finite_logit() -> None:
    logits = np.concatenate([np.linspace(-200, 200, 40_001), [-3e38, 3e38, -0.0]]).astype(np.float32)
    estimates = softplus(logits)
    assert np.all(np.isfinite(estimates) & (estimates >= 2.0**-126))
    kept = logits >= -86
    truth = np.logaddexp(0.0, logits[kept].astype(np.float64))
    # Measured: .5 ulp, the rounding to float32 itself.
    assert np.max(np.abs(estimates[kept] - truth) / truth) <= 2.0**-24 * 1.001


def test_facts_go_through_json_unchanged(host: Host) -> None:
    assert host.to_json() == FACTS["integer"]
    assert host_of(NOWHERE, {"integer": host.to_json()}) == host
    assert host_of(NOWHERE, {"format": "tflite"}) is None


def damaged(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    facts = copy.deepcopy(FACTS)
    place = facts["integer"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return facts


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("columns", 0, "minimum"), float("nan")),
        (("columns", 0, "maximum"), -0.5),
        (("columns", 0, "multiplier"), 0.0),
        (("columns", 0, "multiplier"), 410.0),  # 4,100 steps do not fit
        (("columns", 0, "multiplier"), 0.1),  # no float32
        (("columns", 0, "multiplier"), "409.5"),
        (("columns", 0, "fine"), 0),
        (("columns", 0, "fine"), 16.0),
        (("columns", 1), {"minimum": 0.0}),
        (("columns",), []),
        (("outputs",), []),
        (("outputs", 1, "scale"), -0.0078125),
        (("outputs", 1, "scale"), float("inf")),
        (("outputs", 1, "centre"), 1e39),
        (("outputs", 1, "zero_point"), 128),
        (("outputs", 1, "zero_point"), True),
        (("outputs", 1, "more"), 1),
        (("arena_bytes",), 0),
        (("arena_bytes",), "24 KiB"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_host_of_refuses_numbers_that_cannot_be_used(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(ModelError, match=r"model\.integer\.tflite: the numbers of its host side are damaged \(.+\)"):
        host_of(NOWHERE, damaged(path, value))


@pytest.mark.parametrize("stored", [[], "integer", 3, {"columns": 1, "outputs": 2, "arena_bytes": 3}])
def test_host_of_refuses_what_is_no_host_side(stored: Any) -> None:
    with pytest.raises(ModelError, match="are damaged"):
        host_of(NOWHERE, {"integer": stored})
