"""Every error that the toolkit raises on purpose, each with a message a person can act on.

ToolkitError                one or two lines: where, what, what to do; the command line prints it and exits with 1
 ├─ InputError              datasets that cannot be read, or hold what the model does not take
 │   └─ DamagedInput        a file, or a row group, whose bytes are not those that somebody wrote
 ├─ OutputError             a result that cannot be written where it was asked for
 ├─ ModelError              a model directory or model file that is absent, changed or unusable
 │   └─ NotPositive         a model file that gave, or could give, an output that is not finite and positive
 ├─ ExportError             a conversion that failed or was refused
 ├─ SimulatorError          the user's simulator raised, or returned what it must not
 ├─ ClusterError            a Ray cluster that cannot be reached, or whose workers die or differ
 ├─ TargetError             an emulated target that cannot be set up on this machine, or that fails
 └─ MissingExtra            a command needs a part of the install that is not there
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_REASON = 240  # characters


def printable(text: str) -> str:
    """`text` without what a terminal would obey: names in somebody else's file, or of it, may hold anything."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def reason_of(error: BaseException) -> str:
    """What a library says of an error, as a part of our own message: one line, printable, of bounded length.

    What matters is at the ends of a long one: ONNX Runtime writes C++ signatures between them.
    """
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    said = printable(first).rstrip(" .:")
    half = LONGEST_REASON // 2
    return said if len(said) <= LONGEST_REASON else f"{said[:half]} ... {said[-half:]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, to be put after a sentence that says what is not there; nothing when nothing is near."""
    from difflib import get_close_matches

    by_lower_case = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), by_lower_case, n=1)
    return f" Did you mean {printable(by_lower_case[near[0]])!r}?" if near else ""


class ToolkitError(Exception):
    """Base of all errors below; `str(error)` is the message for the user."""


class InputError(ToolkitError):
    """Datasets that cannot be read, or hold what the model does not take."""


class DamagedInput(InputError):
    """A file, or a row group, whose bytes are not those that somebody wrote."""


class OutputError(ToolkitError):
    """A result that cannot be written where it was asked for."""


class ModelError(ToolkitError):
    """A model directory or model file that is absent, changed or unusable."""


class NotPositive(ModelError):
    """A model file that gave, or could give, an output that is not finite and positive."""


class ExportError(ToolkitError):
    """A conversion that failed or was refused."""


class SimulatorError(ToolkitError):
    """The user's simulator raised, or returned what it must not."""


class ClusterError(ToolkitError):
    """A Ray cluster that cannot be reached, or whose workers die or differ."""


class TargetError(ToolkitError):
    """An emulated target that cannot be set up on this machine, or that fails."""


class MissingExtra(ToolkitError):
    """A command needs a part of the install that is not there."""

    def __init__(self, command: str, extra: str, package: str) -> None:
        super().__init__(
            f"toolkit {command} needs {package}, which is not installed. "
            f"Install it: pip install 'softplus-toolkit[{extra}]'"
        )
