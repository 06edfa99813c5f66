"""The work folder beside the output: which run its parts belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from toolkit import __version__
from toolkit.batch.ahead import ahead
from toolkit.batch.lock import LOCK_FILE
from toolkit.batch.sources import Source
from toolkit.batch.storage import Place, open_folder
from toolkit.manifest import ModelFile

RUN_FILE = "run.json"
PACKAGES = (
    "pyarrow",
    "numpy",
    "ai-edge-litert",
    "onnxruntime",
    "openvino",
)  # whose versions decide about bytes, beside ours


@dataclass(frozen=True)
class RunKey:
    """What a run's result depends on. Parts of one key may be put together; parts of two may not.

    Where the result goes is no part of it, nor is the number of workers.

    Attributes:
        options: by the name of the flag.
        models: sha256 of each exported file that is run.
    """

    options: Mapping[str, str]
    models: Mapping[str, str]
    inputs: tuple[Mapping[str, Any], ...]
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "options": dict(self.options),
            "models": dict(self.models),
            "inputs": [dict(source) for source in self.inputs],
            "versions": dict(self.versions),
        }

    @property
    def digest(self) -> str:
        """Hexadecimal sha256 of all but the times of change: the same for a copy of the same files."""
        content = self.to_json()
        for source in content["inputs"]:
            del source["modified_ns"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def difference(self, earlier: Mapping[str, Any]) -> str | None:
        """The first thing in which an earlier run's key differs, for people; None when nothing does."""
        now = self.to_json()
        for flag, value in now["options"].items():
            if earlier["options"].get(flag) != value:
                return f"{flag} was {earlier['options'].get(flag)}, now it is {value}"
        if list(earlier["models"]) != list(now["models"]):
            return f"the exported files were {', '.join(earlier['models'])}, now they are {', '.join(now['models'])}"
        for file, sha256 in now["models"].items():
            if earlier["models"][file] != sha256:
                return f"{file} is another one now (its sha256 differs)"
        names, before = ([source["name"] for source in key["inputs"]] for key in (now, earlier))
        for name in [*before, *names]:
            if (name in before) != (name in names):
                return f"the input {name} " + ("is not named any more" if name in before else "was not named")
        if names != before:
            return "the inputs are named in another order"
        for source, other in zip(now["inputs"], earlier["inputs"], strict=True):
            if source["layout"] != other["layout"]:
                return f"the datasets in {source['name']} were read as {other['layout']}, now as {source['layout']}"
            if source.get("lost") != other.get("lost"):
                return f"other row groups of {source['name']} are left out now"
            if source != other:
                return f"the input {source['name']} has changed"
        for package, number in now["versions"].items():
            if earlier["versions"].get(package) != number:
                return f"{package} was {earlier['versions'].get(package)}, now it is {number}"
        return None


def run_key(options: Mapping[str, str], models: tuple[ModelFile, ...], sources: tuple[Source, ...]) -> RunKey:
    """The key of a run. A model file counts by its content, an input by its size, time of change and footer."""
    inputs = tuple(
        {
            "name": source.name,
            "bytes": source.bytes,
            "modified_ns": source.modified_ns,
            "footer_sha256": source.footer_sha256,
            "layout": source.layout.describe(),
            **({"lost": list(source.lost)} if source.lost else {}),
        }
        for source in sources
    )
    return RunKey(options, {model.file: model.sha256 for model in models}, inputs, versions())


def unfinished_run(place: Place) -> dict[str, Any] | None:
    """The key of the run whose parts are in the folder; None when there are none to go on from."""
    try:
        content = json.loads(open_folder(place).read(RUN_FILE) or b"")
    except (OSError, ValueError):
        return None
    return (
        content if isinstance(content, dict) and {"options", "models", "inputs", "versions"} <= set(content) else None
    )


def begin(place: Place, key: RunKey) -> None:
    """Empty the folder and note which run it is for from now on."""
    clear(place)
    open_folder(place).write(RUN_FILE, (json.dumps(key.to_json(), indent=2) + "\n").encode())


def clear(place: Place) -> None:
    """Remove everything but the lock. run.json goes first: parts without it belong to no run."""
    folder = open_folder(place)
    folder.remove(RUN_FILE)
    for _ in ahead(folder.remove, [name for name in folder.names() if name != LOCK_FILE]):
        pass


def clear_partial(place: Place) -> None:
    """Remove what a killed process had not finished writing."""
    folder = open_folder(place)
    for name in folder.names():
        if name.endswith(".partial"):
            folder.remove(name)


def versions() -> dict[str, str]:
    """Of this toolkit and of the packages that decide about bytes; 'none' where one is not installed."""
    found = {"softplus-toolkit": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found
