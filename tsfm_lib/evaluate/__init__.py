"""Numbers: metrics, suites, forecasting and classification runs, comparisons.

>>> from tsfm_lib import evaluate
>>> sorted(evaluate.HIGHER)[0]
'accuracy'
"""

from importlib import import_module

_HOME = {
    "HIGHER": "metrics", "DECILES": "metrics",
    "SUITES": "suites", "suite": "suites", "Task": "suites", "Windows": "suites",
    "evaluate": "forecasting", "predict": "forecasting", "rolling": "forecasting", "last_windows": "forecasting",
    "summary": "aggregate", "relative": "aggregate", "geometric_mean": "aggregate",
    "Interval": "comparison", "interval": "comparison", "paired": "comparison", "paired_t": "comparison", "bootstrap": "comparison",
    "bootstrap_ratio": "comparison", "equivalence": "comparison", "permutation": "comparison", "ranks": "comparison", "holm": "comparison",
}  # fmt: skip
_ROOMS = ("metrics", "suites", "forecasting", "aggregate", "comparison", "classification", "dtw")
__all__ = [*_HOME, *_ROOMS]


def __getattr__(name: str):
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
