"""`toolkit simulate`: the file it writes, and what becomes of simulators that fail."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from toolkit.cores import usable_cores
from toolkit.datasets import read_column_names
from toolkit.errors import OutputError, SimulatorError
from toolkit.simulate import simulate
from toolkit.simulator import BLOCK, open_simulator
from toolkit.simulator.function import Function, Task, make

# Three parameters and 5 x 2 numbers, after a random delay: the blocks come in any order.
GOOD = """
import time
import numpy as np

COLUMNS = ("time", "signal")
PARAMETERS = ("a", "b", "c")

def simulate(count, rng):
    parameters = rng.uniform(1, 2, (count, 3))
    datasets = rng.normal(size=(count, 5, 2)) + parameters[:, :1, None]
    time.sleep(0.1 * rng.random())
    return datasets, parameters
"""


def write(folder: Path, source: str, name: str = "sim.py") -> str:
    (folder / name).write_text(source)
    return f"{folder / name}:simulate"


@pytest.fixture
def good(tmp_path: Path) -> str:
    return write(tmp_path, GOOD)


def by_hand(count: int, seed: int, block: int) -> tuple[Any, Any]:
    """The same numbers as GOOD gives, from the rule that the message of every failure states."""
    rng = np.random.default_rng([seed, block])
    parameters = rng.uniform(1, 2, (count, 3))
    return rng.normal(size=(count, 5, 2)) + parameters[:, :1, None], parameters


def test_simulate_writes_the_same_bytes_for_any_number_of_workers(good: str, tmp_path: Path) -> None:
    contents = []
    for workers in (1, 2, 3):
        simulate(good, 3 * BLOCK + 7, tmp_path / "datasets.parquet", seed=5, workers=workers)
        contents.append((tmp_path / "datasets.parquet").read_bytes())
    assert contents[0] == contents[1] == contents[2]
    simulate(good, 3 * BLOCK + 7, tmp_path / "datasets.parquet", seed=6)
    assert (tmp_path / "datasets.parquet").read_bytes() != contents[0], "the seed makes no difference"


def test_simulate_gives_each_block_a_generator_of_its_own(good: str, tmp_path: Path) -> None:
    output = tmp_path / "datasets.parquet"
    simulate(good, 2 * BLOCK + 7, output, seed=3)
    table = pq.read_table(output)
    x = np.array(table["x"].to_pylist(), np.float32)
    parameters = np.stack([table[name].to_numpy() for name in "abc"], axis=1)
    for block, count in enumerate([BLOCK, BLOCK, 7]):
        wanted = by_hand(count, 3, block)
        here = slice(block * BLOCK, block * BLOCK + count)
        assert np.array_equal(x[here], wanted[0].astype(np.float32))
        assert np.array_equal(parameters[here], wanted[1].astype(np.float32))


def test_simulate_writes_nested_fixed_size_lists_named_in_the_metadata(good: str, tmp_path: Path) -> None:
    output = tmp_path / "datasets.parquet"
    simulate(good, 10, output, workers=1)
    schema = pq.read_schema(output)
    assert schema.names == ["x", "a", "b", "c"]
    x = schema.field("x").type
    assert (x.list_size, x.value_type.list_size, x.value_type.value_type) == (5, 2, pa.float32())
    assert all(schema.field(name).type == pa.float32() for name in "abc")
    assert read_column_names(schema) == ("time", "signal")


def test_simulate_names_columns_by_number_when_the_file_does_not(tmp_path: Path) -> None:
    function = write(tmp_path, GOOD.replace("COLUMNS", "OTHER"))
    simulate(function, 10, tmp_path / "datasets.parquet", workers=1)
    assert read_column_names(pq.read_schema(tmp_path / "datasets.parquet")) == ("column_0", "column_1")


def test_simulate_writes_row_groups_of_bounded_size_in_order(tmp_path: Path) -> None:
    source = """
import numpy as np
PARAMETERS = ("p",)
def simulate(count, rng):
    p = rng.random(count, np.float32)
    return np.broadcast_to(p[:, None, None], (count, ROWS, 1)), p[:, None]
"""
    large, small = tmp_path / "large.parquet", tmp_path / "small.parquet"
    simulate(
        write(tmp_path, source.replace("ROWS", "10_000")), 2 * BLOCK + 9, large
    )  # 40,000 bytes each: 419 in 16 MiB
    simulate(write(tmp_path, source.replace("ROWS", "1")), 8192 + BLOCK, small)
    for path, sizes in ((large, [BLOCK, BLOCK, 9]), (small, [8192, BLOCK])):
        file = pq.ParquetFile(path)
        assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == sizes
        p = file.read(["p"])["p"].to_numpy()
        assert np.array_equal(p[:BLOCK], np.random.default_rng([0, 0]).random(BLOCK, np.float32))
        batches = file.iter_batches(64, columns=["x"])
        first = np.concatenate([np.array([row[0][0].as_py() for row in batch["x"]]) for batch in batches])
        assert np.array_equal(first, p), "datasets and parameters are out of step"


def test_simulate_reports_datasets_as_they_are_made(good: str, tmp_path: Path) -> None:
    reports: list[tuple[int, ...]] = []
    simulate(good, 2 * BLOCK + 7, tmp_path / "out.parquet", report=lambda *told: reports.append(told))
    assert reports == [(done, 2 * BLOCK + 7, 0) for done in (0, BLOCK, 2 * BLOCK, 2 * BLOCK + 7)]


def test_simulate_replaces_an_older_file_and_leaves_nothing_else(good: str, tmp_path: Path) -> None:
    output = tmp_path / "datasets.parquet"
    output.write_text("old")
    simulate(good, 3, output)
    assert pq.read_metadata(output).num_rows == 3
    assert sorted(os.listdir(tmp_path)) == ["datasets.parquet", "sim.py"]


def test_simulate_needs_no_more_memory_for_more_datasets(tmp_path: Path) -> None:
    source = """
import numpy as np
PARAMETERS = ("p",)
def simulate(count, rng):
    return rng.random((count, 200, 2), np.float32), np.ones((count, 1))
"""
    function = write(tmp_path, source)
    program = f"""
import resource
from pathlib import Path
from toolkit.simulate import simulate
for count in (3 * 8192, 12 * 8192):
    simulate({function!r}, count, Path({str(tmp_path / "out.parquet")!r}), workers=1)
    print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    few, many = (int(line) / 1024 for line in run.stdout.split())
    # 73,728 datasets more are 118 MB. Measured: 4 or 17 MB, and 0 from 24,576 to 786,432 datasets in a warm process.
    assert many - few < 34, f"{few:.0f} MB became {many:.0f} MB"


def test_command_simulates_a_sample_quietly(toolkit_command: Callable[..., Result], tmp_path: Path) -> None:
    sample = Path(__file__).parent.parent / "samples" / "diffusion.py"
    output = tmp_path / "datasets.parquet"
    result = toolkit_command("simulate", f"{sample}:simulate", output, "--count", 300, "--workers", 1, "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert pq.read_schema(output).names == ["x", "v", "a", "t0"]


def test_command_explains_a_failing_simulator_without_a_traceback(
    toolkit_process: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    function = write(tmp_path, GOOD.replace("return datasets", "return 1 / 0, datasets"))
    run = toolkit_process("simulate", function, tmp_path / "out.parquet", "--count", 5, "--seed", 4)
    assert run.returncode == 1
    assert "raised ZeroDivisionError: division by zero (sim.py, line 12)" in run.stderr
    assert "simulate(5, np.random.default_rng([4, 0]))" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out.parquet").exists()


# ---- what a simulator returns ----

ONES = np.ones((4, 5, 2)), np.ones((4, 3))


def made_from(returned: Any) -> tuple[Any, Any]:
    function = Function("sim.py:simulate", lambda count, rng: returned, ("time", "signal"), ("a", "b", "c"))
    return make(function, Task(seed=7, block=2, count=4))


@pytest.mark.parametrize(
    "returned",
    [ONES, list(ONES), (ONES[0].tolist(), ONES[1].astype(int)), (ONES[0] > 0, np.asfortranarray(ONES[1], np.float16))],
    ids=["float64", "a list of two", "lists and integers", "booleans and float16"],
)
def test_make_converts_real_numbers_to_float32(returned: Any) -> None:
    for array, wanted in zip(made_from(returned), ONES, strict=True):
        assert (array.dtype, array.flags.c_contiguous) == (np.float32, True)
        assert np.array_equal(array, wanted)


def with_value(value: float, *, of: int) -> tuple[Any, Any]:
    changed = [array.copy() for array in ONES]
    changed[of].flat[-1] = value
    return changed[0], changed[1]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (ONES[0], "returned ndarray. Return two arrays: datasets and parameters."),
        (None, "returned NoneType. Return two arrays"),
        ((*ONES, 1), "returned tuple. Return two arrays"),
        ((ONES[0][:3], ONES[1]), "datasets have shape (3, 5, 2). Return (4, rows, 2)."),
        ((ONES[0][..., :1], ONES[1]), "datasets have shape (4, 5, 1). Return (4, rows, 2)."),
        ((ONES[0][:, :0], ONES[1]), "datasets have shape (4, 0, 2). Return (4, rows, 2)."),
        ((ONES[0][:, 0], ONES[1]), "datasets have shape (4, 2). Return (4, rows, 2)."),
        ((ONES[0], ONES[1][:, :2]), "parameters have shape (4, 2). Return (4, 3)."),
        ((ONES[0], ONES[1][:, 0]), "parameters have shape (4,). Return (4, 3)."),
        (([[[1, 2]], [[1]]], ONES[1]), "datasets are not one array: "),
        ((ONES[0] + 1j, ONES[1]), "datasets have dtype complex128. Return real numbers."),
        ((ONES[0], [["1"] * 3] * 4), "parameters have dtype <U1. Return real numbers."),
        ((ONES[0], [[None] * 3] * 4), "parameters have dtype object. Return real numbers."),
        (with_value(np.nan, of=0), "datasets[3, 4, 1] is nan. Return numbers that are finite in float32."),
        (with_value(-np.inf, of=0), "datasets[3, 4, 1] is -inf."),
        (with_value(1e39, of=0), "datasets[3, 4, 1] is 1e+39."),
        (with_value(np.nan, of=1), "parameters[3, 2] is nan."),
    ],
)
def test_make_refuses_what_is_not_datasets_and_parameters(returned: Any, message: str) -> None:
    with pytest.raises(SimulatorError) as raised:
        made_from(returned)
    text = str(raised.value)
    assert text.startswith("sim.py:simulate, block 2 of seed 7: " + message)
    assert text.endswith("\nTo see it again: simulate(4, np.random.default_rng([7, 2]))")
    assert text.count("\n") == 1


def test_simulate_names_the_first_bad_block_whatever_the_number_of_workers(tmp_path: Path) -> None:
    source = GOOD.replace("return datasets", "datasets[rng.integers(5)] /= rng.integers(3)\n    return datasets")
    function = write(tmp_path, "import warnings; warnings.simplefilter('ignore')\n" + source)
    messages = set()
    for workers in (1, 3):
        with pytest.raises(SimulatorError) as raised:
            simulate(function, 20 * BLOCK, tmp_path / "out.parquet", workers=workers, seed=1)
        messages.add(str(raised.value))
    assert len(messages) == 1
    assert "datasets[" in messages.pop()
    assert os.listdir(tmp_path) == ["sim.py"]


def test_command_keeps_going_without_what_is_no_good(toolkit_command: Callable[..., Result], tmp_path: Path) -> None:
    # Of blocks of 256 the second raises, and of the others one dataset in a hundred is not finite.
    raising = "assert not np.isclose(parameters[0, 0], SECOND), 'unlucky'"
    second = by_hand(1, 3, 1)[1][0, 0]
    changed = f"datasets[50::100, 2, 1] = np.inf; {raising.replace('SECOND', repr(float(second)))}"
    function, output = write(tmp_path, GOOD.replace("    time", f"    {changed}\n    time")), tmp_path / "out.parquet"
    arguments = ("simulate", function, output, "--count", 3 * BLOCK + 7, "--seed", 3)
    assert toolkit_command(*arguments).exit_code == 1
    assert not output.exists()
    result = toolkit_command(*arguments, "--keep-going", "--workers", 2)
    assert result.exit_code == 3, result.output
    lines = result.stderr.splitlines()
    first = f"{function}, block 0 of seed 3: datasets[50, 2, 1] is inf. Return numbers that are finite in float32."
    assert f"left out 3 of a block. The first: {first}" in lines
    assert any("left out 256 of a block. " in line and "block 1 of seed 3: raised Assertion" in line for line in lines)
    assert "To see it again: simulate(256, np.random.default_rng([3, 1]))" in lines
    assert lines[-1] == f"{output}: 513 datasets; 262 of 775 are left out"
    wanted = [
        np.delete(by_hand(count, 3, block)[1], np.s_[50::100], 0) for block, count in ((0, 256), (2, 256), (3, 7))
    ]
    assert np.array_equal(pq.read_table(output)["a"].to_numpy(), np.concatenate(wanted)[:, 0].astype(np.float32))
    nothing = write(tmp_path, GOOD.replace("    return", "    return 1 / 0, "), "none.py")
    result = toolkit_command("simulate", nothing, tmp_path / "none.parquet", "--count", 300, "--keep-going")
    assert result.exit_code == 1 and "Nothing is left of 300 datasets. Mend the simulator." in result.stderr
    assert not (tmp_path / "none.parquet").exists()


def test_simulate_refuses_another_shape_in_a_later_block(tmp_path: Path) -> None:
    function = write(tmp_path, GOOD.replace("size=(count, 5, 2)", f"size=(count, 5 if count == {BLOCK} else 6, 2)"))
    with pytest.raises(
        SimulatorError, match=r"block 1 of seed 0: datasets of shape \(6, 2\), \(5, 2\) before. Make all"
    ):
        simulate(function, BLOCK + 1, tmp_path / "out.parquet")


def test_simulate_leaves_an_older_file_alone_when_the_simulator_fails_late(tmp_path: Path) -> None:
    function = write(tmp_path, GOOD.replace("    return", f"    assert count == {BLOCK}, 'too few'\n    return"))
    output = tmp_path / "datasets.parquet"
    output.write_text("old")
    with pytest.raises(SimulatorError, match=r"block 1 of seed 0: raised AssertionError: too few \(sim.py, line 12\)"):
        simulate(function, BLOCK + 1, output)
    assert output.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["datasets.parquet", "sim.py"]


@pytest.mark.parametrize(
    ("death", "how"),
    [
        ("os._exit(3)", "exit code 3"),
        ("os._exit(0)", "exit code 0"),
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL). Out of memory? Use fewer --workers."),
        ("os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("sys.exit('stop')", "raised SystemExit: stop (sim.py, line 12)."),
    ],
)
def test_simulate_reports_a_worker_that_dies(tmp_path: Path, death: str, how: str) -> None:
    function = write(tmp_path, "import os, sys" + GOOD.replace("    return", f"    {death}\n    return"))
    with pytest.raises(SimulatorError) as raised:
        simulate(function, 5, tmp_path / "out.parquet", seed=2)
    assert f"{function}, block 0 of seed 2: " in str(raised.value)
    assert how in str(raised.value)
    assert str(raised.value).endswith("\nTo see it again: simulate(5, np.random.default_rng([2, 0]))")
    assert os.listdir(tmp_path) == ["sim.py"]


def test_simulate_does_not_wait_for_a_worker_that_closed_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.simulator.workers.DYING_SECONDS", 0.2)
    closing = "os.closerange(3, 256); time.sleep(600)"
    function = write(tmp_path, "import os" + GOOD.replace("    return", f"    {closing}\n    return"))
    with pytest.raises(SimulatorError, match="ended .it closed file descriptors that are not its own"):
        simulate(function, 5, tmp_path / "out.parquet")


# ---- the user's file ----


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def simulate(count, rng:\n", "cannot be loaded: SyntaxError: '(' was never closed (sim.py, line 1)."),
        ("import nowhere_to_be_found\n", "No module named 'nowhere_to_be_found' (sim.py, line 1)."),
        ("raise SystemExit('not this way')\n", "cannot be loaded: SystemExit: not this way (sim.py, line 1)."),
        ("import os\nos._exit(9)\n", "a worker process ended while it loaded the file (exit code 9)."),
        (
            "from math import pi\ndef other(): pass\nclass Third: pass\n",
            "no function 'simulate'. It defines: other, Third.",
        ),
        ("simulate = 3\n", "no function 'simulate'. It defines: none."),
        ("def simulate(count, rng): pass\n", "PARAMETERS is missing. Name what simulate returns second"),
        (GOOD + "PARAMETERS = 'v'\n", "PARAMETERS is 'v'. Make it a tuple of different names, no commas"),
        (GOOD + "PARAMETERS = ()\n", "PARAMETERS is (). Make it"),
        (GOOD + "PARAMETERS = ('a', 'a')\n", "PARAMETERS is ('a', 'a'). Make it"),
        (GOOD + "PARAMETERS = ('a', 'b,c')\n", "PARAMETERS is ('a', 'b,c'). Make it"),
        (GOOD + "PARAMETERS = ('a', 'x')\n", "no commas, none of them 'x'."),
        (GOOD + "COLUMNS = ('a', 1)\n", "COLUMNS is ('a', 1). Make it a tuple of different names, no commas."),
    ],
)
def test_simulate_explains_a_file_that_is_no_simulator(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(SimulatorError) as raised:
        simulate(write(tmp_path, source), 5, tmp_path / "out.parquet")
    assert str(tmp_path / "sim.py") in str(raised.value)
    assert message in str(raised.value)
    assert os.listdir(tmp_path) == ["sim.py"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("sim.py", "sim.py: not FILE.py:FUNCTION."),
        ("sim.py:", "sim.py:: not FILE.py:FUNCTION."),
        (":simulate", ":simulate: not FILE.py:FUNCTION."),
        ("absent.py:simulate", "absent.py: no such file."),
        ("notes.txt:simulate", "notes.txt: not a Python file."),
    ],
)
def test_simulate_explains_a_wrong_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "", "notes.txt")
    with pytest.raises(SimulatorError) as raised:
        simulate(function, 5, Path("out.parquet"))
    assert str(raised.value).startswith(message)


def test_a_simulator_may_use_modules_beside_it_and_classes_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "HEIGHT = 2.5\n", "heights.py")
    source = """
import dataclasses, pickle
import heights
import numpy as np
PARAMETERS = ("p",)
@dataclasses.dataclass
class Setting:
    height: "float"
def simulate(count, rng):
    height = pickle.loads(pickle.dumps(Setting(heights.HEIGHT))).height
    return np.full((count, 3, 1), height), np.full((count, 1), height)
"""
    simulate(write(tmp_path, source), 4, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["p"].to_pylist() == [2.5] * 4


def test_workers_run_one_thread_each_in_numpy_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import os, numpy as np
PARAMETERS = ("threads",)
def simulate(count, rng):
    return np.ones((count, 1, 1)), np.full((count, 1), int(os.environ["OPENBLAS_NUM_THREADS"]))
"""
    function = write(tmp_path, source)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    for wanted in (1, 3):
        with open_simulator(function, workers=1) as simulator:
            assert [truths[0, 0] for _, truths in simulator.blocks(1)] == [wanted]
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")  # the user's word counts


# ---- blocks, as training takes them ----


def test_blocks_are_the_same_after_an_earlier_call_was_left_unfinished(good: str) -> None:
    with open_simulator(good, workers=2) as simulator:
        for _ in simulator.blocks(4 * BLOCK, seed=1):
            break
        second = list(simulator.blocks(2 * BLOCK, seed=2))
    assert [len(datasets) for datasets, _ in second] == [BLOCK, BLOCK]
    for block, (datasets, truths) in enumerate(second):
        wanted = by_hand(BLOCK, 2, block)
        assert np.array_equal(datasets, wanted[0].astype(np.float32))
        assert np.array_equal(truths, wanted[1].astype(np.float32))


def test_open_simulator_ends_its_processes(good: str) -> None:
    with open_simulator(good, workers=2) as simulator:
        next(simulator.blocks(4 * BLOCK))
        processes = [worker.process for worker in simulator.workers]
        assert len({process.pid for process in processes}) == 2
    assert all(process.returncode is not None for process in processes)


def test_simulate_refuses_counts_seeds_and_workers_that_make_no_sense(good: str, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    with pytest.raises(SimulatorError, match="--count 0: ask for at least 1 dataset"):
        simulate(good, 0, output)
    with pytest.raises(SimulatorError, match="--workers 0: ask for at least 1 process"):
        simulate(good, 1, output, workers=0)
    with pytest.raises(SimulatorError, match="--seed -1: the seed is a whole number from 0 up"):
        simulate(good, 1, output, seed=-1)
    assert os.listdir(tmp_path) == ["sim.py"]


def test_usable_cores_follow_the_affinity_of_the_process() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    program += "from toolkit.cores import usable_cores; print(usable_cores())"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"
    assert usable_cores() == len(os.sched_getaffinity(0))


# ---- the output, and interruptions ----


def test_simulate_checks_the_place_of_its_output_first(good: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"is a folder. Name a Parquet file"):
        simulate(good, 5, tmp_path)
    with pytest.raises(OutputError, match=r"there is no folder .*nowhere. Create it first."):
        simulate(good, 5, tmp_path / "nowhere" / "out.parquet")


def test_simulate_checks_that_the_folder_is_writable(
    good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anywhere
    with pytest.raises(OutputError, match=r"cannot be written to. Choose another one."):
        simulate(good, 5, tmp_path / "out.parquet")


def test_simulate_reports_a_full_disk_and_leaves_the_older_file(tmp_path: Path) -> None:
    source = "import numpy as np\nPARAMETERS = ('p',)\n"
    source += "def simulate(count, rng): return rng.random((count, 500, 2)), rng.random((count, 1))\n"
    function, output = write(tmp_path, source), tmp_path / "out.parquet"
    output.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # a write beyond it fails as on a full disk
    try:
        with pytest.raises(OutputError, match=r"cannot be written \(.+\). What was there before is unchanged."):
            simulate(function, 2 * BLOCK, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert output.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["out.parquet", "sim.py"]


@pytest.fixture
def slow(tmp_path: Path) -> Callable[[float], subprocess.Popen[str]]:
    """Start a simulation whose blocks take so many seconds, and wait until its two workers are at work."""

    def start(seconds: float) -> subprocess.Popen[str]:
        pid_file = f"    open({str(tmp_path)!r} + f'/pid.{{os.getpid()}}', 'w').close()\n    time.sleep({seconds})\n"
        function = write(tmp_path, "import os" + GOOD.replace("    return", pid_file + "    return"))
        program = "from pathlib import Path; from toolkit.simulate import simulate; "
        program += f"simulate({function!r}, 100_000, Path('out.parquet'), workers=2)"
        command = [sys.executable, "-c", program]
        run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert eventually(lambda: run.poll() is not None or len(list(tmp_path.glob("pid.*"))) == 2)
        assert run.poll() is None, run.communicate()
        return run

    return start


def eventually(claim: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.02)
    return claim()


def is_running(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"  # an orphan stays a zombie where process 1 does not collect it


def test_interrupt_ends_a_slow_simulation_at_once_and_leaves_nothing(
    slow: Callable[[float], subprocess.Popen[str]], tmp_path: Path
) -> None:
    run = slow(600)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to every process in the group of the command
    _, errors = run.communicate(timeout=60)
    assert errors.count("Traceback") == 1, "a worker printed a traceback of its own: " + errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    workers = {path.name for path in tmp_path.glob("pid.*")}
    assert set(os.listdir(tmp_path)) == {"sim.py", *workers}
    assert not any(is_running(int(name.removeprefix("pid."))) for name in workers)


@pytest.mark.parametrize("seconds", [0.2, 600], ids=["between blocks", "deep in a block"])
def test_workers_end_without_a_word_when_the_command_is_killed(
    slow: Callable[[float], subprocess.Popen[str]], tmp_path: Path, seconds: float
) -> None:
    run = slow(seconds)
    run.kill()
    _, errors = run.communicate(timeout=60)  # ends when the last worker has closed its stderr
    workers = [int(path.suffix[1:]) for path in tmp_path.glob("pid.*")]
    assert len(workers) == 2
    assert eventually(lambda: not any(map(is_running, workers)))
    assert errors == ""


def test_simulate_does_not_run_the_script_that_calls_it_again(good: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    call = f"simulate({good!r}, 5, Path({str(tmp_path / 'out.parquet')!r}))"
    script.write_text(f"from pathlib import Path\nfrom toolkit.simulate import simulate\nprint('once')\n{call}\n")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("once\n", "")
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == 5
