"""ONNX files as C on microcontrollers that QEMU emulates: the target `cortex-m`, and `toolkit verify --on cortex-m`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from tests.edge_inputs import MODEL, entries, extreme_datasets, real_datasets, require, sweep_file
from tests.edge_web import check_extreme, check_promise, check_real, check_sweep, largest
from toolkit.errors import InputError, ModelError, TargetError
from toolkit.manifest import read_manifest, write_manifest
from toolkit.targets.cortex_m import COMPILER, FIRMWARE, PROCESSORS, QEMU, TARGET, compile_for, run_on_board

FILES = [entry.file for entry in entries().values() if entry.format == "onnx"]
FLOAT = "model.float32.onnx"
FLASH_BEYOND_WEIGHTS = 10_000  # bytes of code and library beside the file's weights; measured 7,000


@pytest.fixture(scope="module", autouse=True)
def cortex_m() -> None:
    require(TARGET.why_not())


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("file", FILES)
def test_estimates_of_microcontrollers_are_positive_and_those_of_the_host(
    file: str, processor: str, tmp_path: Path
) -> None:
    entry = entries()[file]
    predict = TARGET.load(MODEL / file, entry, processor)
    check_real(predict(real_datasets()), real_datasets(), file, entry.precision)
    check_extreme(predict(extreme_datasets()), extreme_datasets(), file)
    head, logits = sweep_file(entry, tmp_path)
    check_sweep(TARGET.load(head, entry, processor)(logits), logits)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_processor_that_flushes_to_zero_gives_the_same_positive_estimates(processor: str, tmp_path: Path) -> None:
    entry = entries()[FLOAT]
    usual, flushing = (TARGET.load(MODEL / FLOAT, entry, processor, flush_to_zero=each) for each in (False, True))
    for datasets in (real_datasets()[:8], extreme_datasets()[::4]):
        estimates = flushing(datasets)
        check_promise(estimates)
        # Numbers below 2^-126 are 0 inside the network: nothing that an estimate shows. Measured: no difference.
        assert largest(estimates, usual(datasets)) <= 1e-6
    head, logits = sweep_file(entry, tmp_path)
    check_sweep(TARGET.load(head, entry, processor, flush_to_zero=True)(logits), logits)


SUBNORMAL = """
#include "board.h"
int main(void)
{
    volatile float small = 1e-30f;
#ifdef FLUSH_TO_ZERO
    board_flush_to_zero();
#endif
    const float product = small * 1e-10f;
    return board_write(board_open("product", 1), &product, sizeof product) != sizeof product;
}
"""


@pytest.mark.parametrize(("define", "product"), [([], 1e-40), (["-DFLUSH_TO_ZERO"], 0.0)])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_emulated_processors_keep_subnormals_or_flush_them_as_they_are_told(
    processor: str, define: list[str], product: float, tmp_path: Path
) -> None:
    """Without it, the test above would show nothing."""
    (tmp_path / "product.c").write_text(SUBNORMAL)
    program = tmp_path / "product.elf"
    compile_for(processor, [FIRMWARE / "board.c", tmp_path / "product.c"], program, [f"-I{FIRMWARE}", *define])
    given = run_on_board(program, processor, {}, ["product"], 60)["product"]
    assert np.frombuffer(given, "<f4")[0] == np.float32(product)


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("file", FILES)
def test_flash_and_stack_are_those_of_weights_and_layers(file: str, processor: str) -> None:
    entry = entries()[file]
    TARGET.load(MODEL / file, entry, processor)
    memory = TARGET.memory(MODEL / file, entry, processor)
    assert set(memory) == {"flash", "stack"}
    weights = sum(_bytes_of_weights(MODEL / file))
    assert weights < memory["flash"] < weights + FLASH_BEYOND_WEIGHTS
    # Measured 224 KB; 414 KB and 478 KB where weights are unpacked on the stack.
    assert 4 * 97 * 64 < memory["stack"] < (300_000 if entry.precision == "float32" else 600_000)


def _bytes_of_weights(path: Path) -> list[int]:
    import onnx

    return [onnx.numpy_helper.to_array(each).nbytes for each in onnx.load_model(path).graph.initializer]


def test_a_painted_stack_is_measured_to_its_depth(tmp_path: Path) -> None:
    """A function that writes an array of 50,000 bytes takes that much, and little more."""
    (tmp_path / "deep.c").write_text(
        '#include "board.h"\n'
        "__attribute__((noinline)) static int deep(void)\n"
        "{ volatile char held[50000]; for (int i = 0; i < 50000; i++) held[i] = (char)i; return held[7]; }\n"
        'int main(void) { deep(); unsigned s = board_stack(); return board_write(board_open("stack", 1), &s, 4) != 4; }'
    )
    program = tmp_path / "deep.elf"
    compile_for("Cortex-M4", [FIRMWARE / "board.c", tmp_path / "deep.c"], program, [f"-I{FIRMWARE}"])
    (depth,) = np.frombuffer(run_on_board(program, "Cortex-M4", {}, ["stack"], 60)["stack"], "<u4")
    assert 50_000 <= depth < 50_600


def test_a_stack_beyond_the_memory_is_an_error_and_no_estimate(tmp_path: Path) -> None:
    (tmp_path / "deep.c").write_text(
        "int main(void) { volatile char held[5000000]; held[0] = 1; return held[0] + held[4999999] < 0; }"
    )
    program = tmp_path / "deep.elf"
    compile_for("Cortex-M7", [FIRMWARE / "board.c", tmp_path / "deep.c"], program)
    with pytest.raises(TargetError, match="Cortex-M7: the program ended with an error"):
        run_on_board(program, "Cortex-M7", {}, [], 60)


def test_a_program_beyond_the_flash_is_an_error_that_says_by_how_much(tmp_path: Path) -> None:
    (tmp_path / "large.c").write_text(
        "const volatile char held[5000000] = {1}; int main(void) { return held[4999999]; }"
    )
    with pytest.raises(
        TargetError, match=r"^Cortex-M4: the program cannot be built \(.*FLASH.* overflowed by \d+ bytes"
    ):
        compile_for("Cortex-M4", [FIRMWARE / "board.c", tmp_path / "large.c"], tmp_path / "large.elf")


def test_a_file_beyond_the_memory_is_named_and_nothing_of_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    cache = tmp_path / "cache"
    monkeypatch.setenv("SOFTPLUS_TOOLKIT_CACHE", str(cache))
    model = onnx.load_model(MODEL / FLOAT)
    repeats = 400_000  # of 3 estimates: 4.8 MB
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, repeats]), "repeats"))
    (output,) = model.graph.output
    model.graph.node.append(onnx.helper.make_node("Tile", [output.name, "repeats"], ["further"]))
    output.name, output.type.tensor_type.shape.dim[1].dim_value = "further", 3 * repeats
    onnx.save_model(model, tmp_path / FLOAT)
    with pytest.raises(ModelError, match=r"^model.float32.onnx on Cortex-M7: the program cannot be built .*overflowed"):
        TARGET.load(tmp_path / FLOAT, entries()[FLOAT], "Cortex-M7")
    assert [each.suffix for each in cache.iterdir()] == [".lock"]


def test_files_that_are_not_taken_are_named_with_the_reason(tmp_path: Path) -> None:
    entry = entries()[FLOAT]
    tflite = entries()["model.float32.tflite"]
    assert TARGET.runs(tflite) == "emx-onnx-cgen makes C of .onnx files, not of .tflite"
    assert "it takes 8 datasets a call" in TARGET.runs(replace(entry, batch=8)) and not TARGET.runs(entry)
    damaged = tmp_path / FLOAT
    damaged.write_bytes(b"\x08nothing")
    with pytest.raises(ModelError, match=r"^model.float32.onnx: not a usable onnx model"):
        TARGET.load(damaged, entry, "Cortex-M7")
    with pytest.raises(InputError, match=r"takes an array of shape \(n, 200, 2\), not \(64, 199, 2\)"):
        TARGET.load(MODEL / FLOAT, entry, "Cortex-M7")(real_datasets()[:, 1:])


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / COMPILER).symlink_to(shutil.which(COMPILER) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert TARGET.why_not().endswith("apt-get install --no-install-recommends qemu-system-arm.")
    (tmp_path / COMPILER).unlink()
    assert "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm" in TARGET.why_not()


def test_names_in_a_file_do_not_end_the_comment_they_are_put_in(tmp_path: Path) -> None:
    import onnx

    model = onnx.load_model(MODEL / FLOAT)
    onnx.helper.set_model_props(model, {"softplus_toolkit": "*/ #error \n/*"})
    onnx.save_model(model, tmp_path / FLOAT)
    estimates = TARGET.load(tmp_path / FLOAT, entries()[FLOAT], "Cortex-M4")(real_datasets()[:1])
    check_promise(estimates)


def test_verify_on_cortex_m_judges_the_onnx_files_and_states_flash_and_stack(
    toolkit_command: Callable[..., Result], tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(MODEL, tmp_path / "model"))
    manifest = read_manifest(directory)
    chosen = tuple(each for each in manifest.files if each.file in (FLOAT, "model.integer.tflite"))
    write_manifest(directory, replace(manifest, files=chosen))
    datasets = Path(__file__).parents[2] / "samples" / "response_times.parquet"
    result = toolkit_command("verify", "--model", directory, datasets, "--on", "cortex-m", "--json")
    judged = json.loads(result.stdout)
    assert result.exit_code == 0, result.stderr
    assert [each["file"] for each in judged["files"]] == [FLOAT] and judged["passed"]
    assert judged["not_run"][0]["file"] == "model.integer.tflite"
    assert [each["variant"] for each in judged["memory"]] == list(PROCESSORS)
    assert all(each["bytes"]["flash"] > 190_000 for each in judged["memory"])


def test_the_emulator_is_one_that_knows_the_boards() -> None:
    machines = subprocess.run([QEMU, "-M", "help"], capture_output=True, text=True, check=True).stdout
    assert all(each.machine in machines for each in PROCESSORS.values())
