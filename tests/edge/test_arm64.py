"""Every exported file on a Cortex-A72 and a Cortex-A76 under QEMU: LiteRT's and ONNX Runtime's own arm64 kernels."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import Result

from tests.edge_inputs import EACH, MODEL, ROOT, entries, extreme_datasets, real_datasets, require, sweep_file, truth_of
from toolkit.cores import usable_cores
from toolkit.manifest import ModelFile, read_manifest, write_manifest
from toolkit.runtime import load
from toolkit.spec import SMALLEST_NORMAL_FLOAT16, SMALLEST_NORMAL_FLOAT32
from toolkit.targets import find_target
from toolkit.targets.arm64 import A72, A76, A76_FLOAT16
from toolkit.targets.sysroot import PROCESSORS, command_on

if TYPE_CHECKING:
    from toolkit.spec import FloatArray
    from toolkit.targets.frame import Target

SMALLEST = 4.4737793e-38  # exp(-86) in float32
# The largest relative error on 64 real datasets by precision: measured 1.0e-6, 6.7e-4, .044, .055.
OFF_TRUTH = {"float32": 2e-6, "float16": 1.4e-3, "int8": 0.088, "integer": 0.11}
# From the host's outputs: measured 2.7e-6 on real datasets, 1.9e-4 on extreme ones, whose sums cancel.
OFF_HOST_REAL, OFF_HOST_EXTREME = 5.4e-6, 4e-4
OFF_SWEEP = 4e-7  # measured 1.8e-7, 1.5 units in the last place


@dataclass(frozen=True)
class Given:
    """float32 (datasets, parameters): estimates of real and of extreme datasets, and along the logit; None of an
    integer-only file, whose logits are codes, every one of which the proof looks at."""

    real: FloatArray
    extreme: FloatArray
    logits: FloatArray | None
    sweep: FloatArray | None


CASES = [(file, variant) for file in entries() for variant in (A72, A76)]


@pytest.fixture(scope="module")
def arm64() -> Target:
    target = find_target("arm64")
    require(target.why_not())
    return target


def run_on(target: Target, path: Path, entry: ModelFile, variant: str, folder: Path) -> Given:
    estimates = target.load(path, entry, variant)(np.concatenate([real_datasets(), extreme_datasets()]))
    real, extreme = estimates[:EACH], estimates[EACH:]
    if entry.precision == "integer":
        return Given(real, extreme, None, None)
    head, logits = sweep_file(path, folder)
    return Given(real, extreme, logits[:, 0, :], target.load(head, entry, variant)(logits))


@pytest.fixture(scope="module")
def given(arm64: Target, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Given]:
    """Of every file on both processors; as many at a time as this machine has cores."""
    arm64.load(MODEL / CASES[0][0], entries()[CASES[0][0]], A72)  # what is downloaded is downloaded once

    def run(case: tuple[str, str]) -> Given:
        file, variant = case
        return run_on(arm64, MODEL / file, entries()[file], variant, tmp_path_factory.mktemp("head"))

    with ThreadPoolExecutor(usable_cores()) as threads:
        return dict(zip(CASES, threads.map(run, CASES), strict=True))


@pytest.mark.parametrize("name", PROCESSORS)
def test_programs_see_the_arm_processor_that_is_asked_for(arm64: Target, name: str, tmp_path: Path) -> None:
    script = tmp_path / "processor.py"
    script.write_text("import os, platform\nprint(platform.machine(), os.cpu_count(), open('/proc/cpuinfo').read())\n")
    command, environment = command_on(name, script)
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("aarch64 1 ") and f"CPU part\t: {PROCESSORS[name].part}\n" in shown


@pytest.mark.parametrize(("file", "variant"), CASES)
def test_every_estimate_is_finite_and_a_normal_float32(
    given: dict[tuple[str, str], Given], file: str, variant: str
) -> None:
    found = given[file, variant]
    everything = [found.real, found.extreme, *([] if found.sweep is None else [found.sweep])]
    for estimates in everything:
        assert estimates.dtype == np.float32
        assert np.all(np.isfinite(estimates) & (estimates >= SMALLEST_NORMAL_FLOAT32))


@pytest.mark.parametrize(("file", "variant"), CASES)
def test_estimates_are_those_of_the_float64_truth_and_of_the_host(
    given: dict[tuple[str, str], Given], file: str, variant: str
) -> None:
    found, precision = given[file, variant], entries()[file].precision
    truth = truth_of(real_datasets())
    assert np.all(np.abs(found.real - truth) <= OFF_TRUTH[precision] * truth)
    host = load(MODEL / file)
    real, extreme = (host(datasets).astype(np.float64) for datasets in (real_datasets(), extreme_datasets()))
    if precision == "integer":  # the same codes, so the same numbers
        assert np.array_equal(found.real, real) and np.array_equal(found.extreme, extreme)
    assert np.all(np.abs(found.real - real) <= OFF_HOST_REAL * real)
    assert np.all(np.abs(found.extreme - extreme) <= OFF_HOST_EXTREME * extreme)


@pytest.mark.parametrize(("file", "variant"), [case for case in CASES if entries()[case[0]].precision != "integer"])
def test_the_last_step_is_softplus_along_the_logit_and_levels_off_above_0(
    given: dict[tuple[str, str], Given], file: str, variant: str
) -> None:
    found = given[file, variant]
    assert found.logits is not None and found.sweep is not None
    truth = np.logaddexp(0.0, found.logits.astype(np.float64))
    exact = found.logits >= -86
    assert np.all(np.abs(found.sweep - truth)[exact] <= OFF_SWEEP * truth[exact])
    assert found.sweep[~exact] == pytest.approx(SMALLEST, rel=1e-5)


@pytest.mark.parametrize("file", [file for file in entries() if file.endswith("float32.tflite")])
def test_a_file_for_float32_arithmetic_is_no_use_in_float16_and_is_not_said_to_be(
    arm64: Target, file: str, tmp_path: Path
) -> None:
    """Every logit below 0 gives exactly 0, and estimates of real datasets are 31% off in the median."""
    entry = entries()[file]
    assert A76_FLOAT16 not in arm64.variants(entry)
    found = run_on(arm64, MODEL / file, entry, A76_FLOAT16, tmp_path)
    assert found.logits is not None and found.sweep is not None
    assert np.all(found.sweep[found.logits < 0] == 0)
    truth = truth_of(real_datasets())
    assert np.median(np.abs(found.real - truth) / truth) > 0.1


@pytest.fixture(scope="module")
def for_float16(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ModelFile]]:
    """A file of the sample model for float16 arithmetic."""
    from toolkit.cli import main

    directory = Path(shutil.copytree(MODEL, tmp_path_factory.mktemp("float16") / "model"))
    arguments = ["export", "--model", str(directory), "--format", "tflite", "--arithmetic", "float16", "--quiet"]
    main(arguments, standalone_mode=False)
    (entry,) = (each for each in read_manifest(directory).files if each.arithmetic == "float16")
    yield directory / entry.file, entry


def test_a_file_for_float16_arithmetic_gives_normal_float16_numbers_in_it(
    arm64: Target, for_float16: tuple[Path, ModelFile], tmp_path: Path
) -> None:
    path, entry = for_float16
    assert arm64.variants(entry) == (A72, A76, A76_FLOAT16)
    found = run_on(arm64, path, entry, A76_FLOAT16, tmp_path)
    assert found.logits is not None and found.sweep is not None
    for estimates in (found.real, found.extreme, found.sweep):
        assert np.all(np.isfinite(estimates) & (estimates >= SMALLEST_NORMAL_FLOAT16))  # measured 6.205e-5
    truth = truth_of(real_datasets())
    assert np.all(np.abs(found.real - truth) <= 0.042 * truth)  # measured .021, .0021 in the median
    near = np.abs(found.logits) <= 9
    along = np.logaddexp(0.0, found.logits.astype(np.float64))
    assert np.all(np.abs(found.sweep - along)[near] <= 0.01 * along[near])  # measured .0051


def test_verify_on_arm64_says_where_the_files_were_run(
    arm64: Target, toolkit_command: Callable[..., Result], tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(MODEL, tmp_path / "model"))
    manifest = read_manifest(directory)
    chosen = tuple(each for each in manifest.files if each.file in ("model.float32.onnx", "model.integer.tflite"))
    write_manifest(directory, replace(manifest, files=chosen))
    datasets = ROOT / "samples" / "response_times.parquet"
    report = tmp_path / "report.html"
    result = toolkit_command(
        *("verify", "--model", directory, datasets, "--on", "arm64", "--json", "--report", report),
        *("--gate", "float32:max=1e-9"),
    )
    assert result.exit_code == 1, result.output
    said = json.loads(result.stdout)
    assert said["target"] == arm64.description and said["not_run"] == []
    passed = {each["file"]: each["passed"] for each in said["files"]}
    assert passed == {"model.float32.onnx": False, "model.integer.tflite": True}
    (failed,) = (each for each in said["files"] if not each["passed"])
    assert all("the gate for float32 is 1e-09" in failure for failure in failed["failures"])
    assert f"{arm64.description}: {A72} and {A76}" in report.read_text()
