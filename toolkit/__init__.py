"""Train, export, verify and score Conv1D estimators of strictly positive parameters.

    toolkit.train(["datasets.parquet"], ["v", "a", "t0"])       a model directory
    toolkit.load("model")(datasets)                             estimates of an array
    toolkit.verify("model")                                     the evidence for every exported file
    toolkit.evaluate("model", ["unseen.parquet"])               how well true values are recovered
    toolkit.batch_predict(["input.parquet"])                    a Parquet file of estimates

Nothing heavy is imported before one of them is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.batch import batch_predict
    from toolkit.estimator import load
    from toolkit.evaluation import evaluate
    from toolkit.training import train
    from toolkit.verification import verify

__version__ = "0.1.0"
__all__ = ["batch_predict", "evaluate", "load", "train", "verify"]

# No room is named like a verb: importing toolkit.train would put the module where the function belongs.
_ROOMS = {
    "train": "toolkit.training",
    "load": "toolkit.estimator",
    "verify": "toolkit.verification",
    "evaluate": "toolkit.evaluation",
    "batch_predict": "toolkit.batch",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    import importlib

    verb = getattr(importlib.import_module(_ROOMS[name]), name)
    globals()[name] = verb
    return verb


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
