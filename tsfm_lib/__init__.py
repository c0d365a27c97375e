"""Time series foundation models in one vocabulary. Start here:

    import tsfm_lib as tsfm
    tsfm.models()                                                     # what there is
    tsfm.forecast("seasonal-naive", series, horizon=24)               # arrays, lists, pandas
    model = tsfm.load("kairos-nano")                                  # by name, from a folder, from the hub
    tuned = tsfm.finetune(model, series, horizon=24)                  # moirai, moment, units

Everything is imported when it is first asked for, so importing the library costs next to nothing.
"""

from importlib import import_module

__version__ = "0.1.0"
_FRONT = ("load", "save", "forecast", "embed")
_ROOMS = (
    "batch", "checkpoints", "claims", "data", "errors", "evaluate", "finetune", "interpret", "models", "nn",
    "page", "paths", "playground", "plotting", "synth", "train",
)  # fmt: skip
__all__ = [*_FRONT, *_ROOMS]


def __getattr__(name: str):
    if name in _FRONT:
        value = getattr(import_module("tsfm_lib.front"), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return import_module(f"tsfm_lib.{name}")
    raise AttributeError(f"module 'tsfm_lib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
