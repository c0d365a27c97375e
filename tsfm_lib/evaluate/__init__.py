"""Numbers: metrics, suites, forecasting and classification runs, comparisons.

>>> from tsfm_lib import evaluate
>>> sorted(evaluate.HIGHER)[0]
'accuracy'
"""

from tsfm_lib.lazy import attach

_HOME = {
    "HIGHER": "metrics", "DECILES": "metrics",
    "SUITES": "suites", "suite": "suites", "Task": "suites", "Windows": "suites",
    "evaluate": "forecasting", "predict": "forecasting", "rolling": "forecasting", "last_windows": "forecasting",
    "summary": "aggregate", "relative": "aggregate", "geometric_mean": "aggregate",
    "Interval": "comparison", "interval": "comparison", "paired": "comparison", "paired_t": "comparison", "bootstrap": "comparison",
    "bootstrap_ratio": "comparison", "equivalence": "comparison", "permutation": "comparison", "ranks": "comparison", "holm": "comparison",
}  # fmt: skip
_ROOMS = ("metrics", "suites", "forecasting", "aggregate", "comparison", "classification", "random_kernels", "dtw")
__all__ = [*_HOME, *_ROOMS]
__getattr__, __dir__ = attach(__name__, _HOME, _ROOMS)
