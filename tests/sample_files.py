"""The sample simulators, loaded by path as a user's file is: they are no package."""

import importlib.util
from pathlib import Path
from types import ModuleType

SAMPLES = Path(__file__).parent.parent / "samples"


def load_sample(name: str) -> ModuleType:
    """A fresh module object of samples/<name>.py."""
    spec = importlib.util.spec_from_file_location(f"sample_{name}", SAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
