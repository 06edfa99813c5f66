"""Whatever happens to a child process, the caller gets a result or one error, and soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import contained_functions as functions
import numpy as np
import pytest

from toolkit.contained import Child, open_child, run_contained
from toolkit.errors import MissingExtra, ModelError, NotPositive, ToolkitError

WHERE = "model.tflite"


def is_running(pid: int) -> bool:
    """A process that has ended but not been waited for is not running."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until_gone(pid: int, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_running(pid)


def test_run_contained_returns_what_the_function_returns_from_another_process() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    np.testing.assert_array_equal(run_contained(functions.doubled, values, where=WHERE), values * 2)
    assert run_contained(functions.process_of_it, where=WHERE) != os.getpid()


def test_run_contained_returns_arrays_that_can_be_written() -> None:
    result = run_contained(functions.doubled, np.ones(3), where=WHERE)
    result += 1
    assert result.tolist() == [3, 3, 3]


def test_open_child_uses_one_process_for_many_calls() -> None:
    with open_child() as child:
        pids = {child.call(functions.process_of_it, where=WHERE) for _ in range(5)}
        assert (len(pids), child.starts) == (1, 1)
    assert until_gone(*pids)


def run_script(path: Path, *lines: str) -> subprocess.Popen[str]:
    """Start a script as its user would, without the guard that multiprocessing asks for."""
    path.write_text("\n".join(["import contained_functions", "from toolkit.contained import run_contained", *lines]))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, str(path)], env=environment, stdout=subprocess.PIPE, text=True)


def test_a_child_runs_neither_the_callers_script_nor_heavy_imports(tmp_path: Path) -> None:
    script = run_script(
        tmp_path / "script.py",
        f"open({str(tmp_path / 'runs')!r}, 'a').write('x')",
        "import onnx",
        "for name in ('numpy', 'onnx'):",  # the functions' module itself imports NumPy
        "    print(run_contained(contained_functions.has_module, name, where='here'))",
    )
    assert script.communicate()[0].split() == ["True", "False"]
    assert (tmp_path / "runs").read_text() == "x"


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        (functions.read_null, (), "its process ended: SIGSEGV"),
        (functions.abort_with_words, (), r"its process ended: SIGABRT \(corrupted size vs. prev_size\)"),
        (functions.end_by, (signal.SIGKILL,), "its process ended: SIGKILL, perhaps for want of memory"),
        (functions.end_by, (signal.SIGFPE,), "its process ended: SIGFPE"),
        (functions.end_by, (signal.SIGRTMIN + 1,), "its process ended: signal 35"),
        (functions.exit_with, (3,), "its process ended: exit code 3"),
        (functions.exit_with, (0,), "its process ended: exit code 0"),
        (functions.raise_value_error, (), "ValueError: first line"),
        (functions.allocate, (1 << 40,), "it asks for more memory than a model needs"),
    ],
)
def test_what_goes_wrong_in_a_child_is_one_model_error(
    function: functions.Function, arguments: tuple[object, ...], said: str
) -> None:
    with pytest.raises(ModelError, match=rf"^model.tflite: {said}\. The file is damaged, or no model for") as caught:
        run_contained(function, *arguments, where=WHERE)
    assert "\n" not in str(caught.value)


def test_a_call_after_a_crash_gets_another_child() -> None:
    with open_child() as child:
        for _ in range(3):
            with pytest.raises(ModelError, match="SIGSEGV"):
                child.call(functions.read_null, where=WHERE)
            assert child.call(functions.doubled, np.ones(1), where=WHERE) == 2
        assert child.starts == 4  # one lost child each time, and the last one running


def test_a_hang_ends_with_the_timeout_and_takes_the_child_along() -> None:
    with open_child(timeout_seconds=1.0) as child:
        pid = child.call(functions.process_of_it, where=WHERE)
        with pytest.raises(ModelError, match=r"model.tflite: no end after 1 s"):
            child.call(functions.sleep_deeply, 600.0, where=WHERE)
        assert until_gone(pid)
        assert child.call(functions.process_of_it, where=WHERE) != pid


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    call = f"contained_functions.leave_pid_and_hang, {str(noted)!r}"
    script = run_script(tmp_path / "script.py", f"run_contained({call}, where='here', timeout_seconds=1.0)")
    end = time.monotonic() + 60
    while not (noted.is_file() and noted.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    script.kill()
    script.communicate()
    assert until_gone(int(noted.read_text()))


@pytest.mark.parametrize(
    ("function", "arguments", "error"),
    [
        (functions.refuse, (Path("a.onnx"),), NotPositive("a.onnx: gives 0.")),
        (functions.miss_extra, (), MissingExtra("export", "export", "TensorFlow")),
        (functions.fail_with_row, (), ModelError("one row is wrong")),
    ],
)
def test_errors_of_the_toolkit_pass_through_as_they_are(
    function: functions.Function, arguments: tuple[object, ...], error: ToolkitError
) -> None:
    with pytest.raises(type(error)) as caught:
        run_contained(function, *arguments, where=WHERE)
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    assert getattr(caught.value, "row", 7) == 7


def test_memory_is_limited_to_what_was_asked_for() -> None:
    size = 300 << 20
    assert run_contained(functions.allocate, size, where=WHERE, memory_bytes=4 << 30) == size
    with pytest.raises(ModelError, match="more memory than a model needs"):
        run_contained(functions.allocate, size, where=WHERE, memory_bytes=200 << 20)


def test_what_a_child_writes_is_kept_off_the_callers_terminal_and_never_blocks_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run_contained(functions.write_a_lot, where=WHERE) == "done"
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_call_leaves_no_child_and_no_stale_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_child() as child:
        pid = child.call(functions.process_of_it, where=WHERE)
        with monkeypatch.context() as patched:
            patched.setattr("multiprocessing.connection.Connection.poll", interrupt)
            with pytest.raises(KeyboardInterrupt):
                child.call(functions.doubled, np.ones(1), where=WHERE)
        assert until_gone(pid)
        assert child.call(functions.doubled, np.full(1, 5.0), where=WHERE) == 10


def interrupt(*_: object) -> bool:
    raise KeyboardInterrupt


def test_stop_can_be_called_twice() -> None:
    child = Child(10.0, 1 << 32)
    child.call(functions.process_of_it, where=WHERE)
    child.stop()
    child.stop()
