"""What a model directory or one model file is, and what is known of it: files are read, not run, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.contained import Child, open_child
from toolkit.contents import Contents, read_contents
from toolkit.errors import ModelError
from toolkit.files import sha256_of
from toolkit.json_values import jsonable
from toolkit.keras_zip import check_config, read_keras_zip
from toolkit.manifest import KERAS_FILE, MANIFEST, Manifest, read_manifest, to_json
from toolkit.metadata import read_metadata
from toolkit.proof import prove

if TYPE_CHECKING:
    from toolkit.proof.verdict import Proof

ENDINGS = (".tflite", ".onnx", ".ort", ".keras")


@dataclass(frozen=True)
class InspectedFile:
    """One model file.

    Attributes:
        precision: what its metadata or the manifest say; None where neither does.
        unchanged: its sha256 is the manifest's; None where no manifest names it.
        contents: None where the file cannot be read.
        metadata: the facts of ours that it carries; empty for a file of somebody else.
        proof: None for a .keras file, and where `problems` says why the file cannot be proved.
        parameters: a name for each bound of the proof.
        problems: what does not hold, or cannot be said.
    """

    file: str
    format: str
    bytes: int
    sha256: str
    contents: Contents | None
    precision: str | None = None
    unchanged: bool | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    proof: Proof | None = None
    parameters: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def batch(self) -> int | str | None:
        """Size of the first axis of the first input: a number, a name, or None where it is open or unknown."""
        inputs = self.contents.inputs if self.contents else ()
        return inputs[0].shape[0] if inputs and inputs[0].shape else None

    @property
    def lower_bound(self) -> dict[str, float]:
        return dict(zip(self.parameters, self.proof.lower, strict=True)) if self.proof else {}

    @property
    def upper_bound(self) -> dict[str, float]:
        return dict(zip(self.parameters, self.proof.upper, strict=True)) if self.proof else {}

    def to_json(self) -> dict[str, Any]:
        """A bound that is infinite is null."""
        content: dict[str, Any] = {
            **{name: getattr(self, name) for name in ("file", "format", "precision", "bytes", "sha256", "unchanged")},
            "batch": self.batch,
            **(asdict(self.contents) if self.contents else {}),
            "proof": None,
            "metadata": self.metadata,
            "problems": self.problems,
        }
        if self.proof:
            content["proof"] = {
                "passed": self.proof.passed,
                "arithmetic": self.proof.arithmetic,
                "required": self.proof.required,
                "lower_bound": self.lower_bound,
                "upper_bound": self.upper_bound,
                "input_limit": self.proof.input_limit,
                "failures": self.proof.failures,
                "assumptions": self.proof.assumptions,
            }
        return dict(jsonable(content))


@dataclass(frozen=True)
class Inspection:
    """A model directory and its files, or one file.

    Attributes:
        manifest: of the directory; None where one file was asked for.
        files: of a directory, those of its manifest and then the trained network.
    """

    path: Path
    manifest: Manifest | None
    files: tuple[InspectedFile, ...]

    def to_json(self) -> dict[str, Any]:
        model = to_json(replace(self.manifest, files=())) if self.manifest else None
        return dict(
            jsonable({"path": str(self.path), "model": model, "files": [file.to_json() for file in self.files]})
        )


def inspect(path: Path | str) -> Inspection:
    """Look at a model directory, or at one .tflite, .onnx or .keras file, ours or not.

    The files are read in a child process: what a hostile one leads to there stays there.

    Raises:
        ModelError: neither, or a single file that cannot be read; a file of a directory says so in its `problems`.
    """
    path = Path(path)
    with open_child() as child:
        if path.is_dir():
            manifest = read_manifest(path)
            names = [
                *(entry.file for entry in manifest.files),
                *([KERAS_FILE] if (path / KERAS_FILE).is_file() else []),
            ]
            return Inspection(path, manifest, tuple(_one_of(child, path / name, manifest) for name in names))
        if path.suffix not in ENDINGS or not path.is_file():
            what = "no such file or directory" if not path.exists() else f"not a model file ({', '.join(ENDINGS)})"
            raise ModelError(f"{path}: {what}. Name a model directory or a model file.")
        beside = read_manifest(path.parent) if (path.parent / MANIFEST).is_file() else None
        return Inspection(path, None, (_with_evidence(child.call(examine, path, where=path), beside),))


def _one_of(child: Child, path: Path, manifest: Manifest) -> InspectedFile:
    try:
        return _with_evidence(child.call(examine, path, where=path), manifest)
    except ModelError as error:
        known = path.is_file()
        size, checksum = (path.stat().st_size, sha256_of(path)) if known else (0, "")
        unread = InspectedFile(
            path.name, path.suffix[1:], size, checksum, contents=None, problems=(_reason(path, error),)
        )
        return _with_evidence(unread, manifest)


def _with_evidence(file: InspectedFile, manifest: Manifest | None) -> InspectedFile:
    """What the manifest knows of the file, and names for its outputs."""
    entry = next((entry for entry in manifest.files if entry.file == file.file), None) if manifest else None
    problems = [*file.problems]
    if entry is not None and entry.sha256 != file.sha256:
        problems.append(f"sha256 differs from {MANIFEST}: the evidence there is about another file.")
    claimed = file.metadata.get("lower_bound")
    names = _names(file, manifest.spec.parameters if manifest and entry else ())
    file = replace(
        file,
        precision=file.precision or (entry.precision if entry else None),
        unchanged=None if entry is None else entry.sha256 == file.sha256,
        parameters=names,
    )
    if file.proof and not file.proof.passed:
        problems += [f"not proved: {failure}" for failure in file.proof.failures]
    if file.proof and claimed is not None:
        problems += _overstated(claimed, file.lower_bound)
    return replace(file, problems=tuple(problems))


def _names(file: InspectedFile, known: Sequence[str]) -> tuple[str, ...]:
    """A name for each bound: those of the parameters, where there are as many."""
    count = len(file.proof.lower) if file.proof else 0
    told = file.metadata.get("parameters")
    for names in (told if isinstance(told, list) else [], known):
        if len(names) == count and len(set(map(str, names))) == count:
            return tuple(map(str, names))
    outputs = file.contents.outputs if file.contents else ()
    output = outputs[0].name if len(outputs) == 1 else "output"
    return tuple(f"{output}[{index}]" for index in range(count))


def _overstated(claimed: object, proved: Mapping[str, float]) -> list[str]:
    """Bounds that a file states of itself are only worth what its own graph proves."""
    if not isinstance(claimed, dict) or set(claimed) != set(proved):
        return ["its metadata states bounds for other parameters than it gives."]
    return [
        f"its metadata states {name} >= {claimed[name]:.3g}, its graph proves {bound:.3g}."
        for name, bound in proved.items()
        if not (isinstance(claimed[name], int | float) and claimed[name] <= bound * (1 + 1e-9))
    ]


def examine(path: Path) -> InspectedFile:
    """What one file says of itself, and its proof; for one that cannot be proved, why.

    Raises:
        ModelError: it cannot be read as a model.
    """
    facts = {} if path.suffix == ".keras" else read_metadata(path)
    file = InspectedFile(
        file=path.name,
        format=path.suffix[1:],
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        contents=read_contents(path),
        precision=facts["precision"] if isinstance(facts.get("precision"), str) else None,
        metadata=facts,
    )
    try:
        if path.suffix != ".keras":
            return replace(file, proof=prove(path, "float16" if facts.get("arithmetic") == "float16" else "float32"))
        check_config(path, read_keras_zip(path).config)
    except ModelError as error:
        return replace(file, problems=(_reason(path, error),))
    return file


def _reason(path: Path, error: ModelError) -> str:
    return str(error).removeprefix(f"{path}: ")
