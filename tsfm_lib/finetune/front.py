"""Fine-tuning in one call."""

from pathlib import Path
from typing import Any

from torch import nn

from tsfm_lib import front
from tsfm_lib.data import as_series_set
from tsfm_lib.errors import TsfmError, whole
from tsfm_lib.finetune.design import Design, Method
from tsfm_lib.finetune.multiscale import MultiScale
from tsfm_lib.finetune.readings import KNOWN
from tsfm_lib.finetune.targets import target
from tsfm_lib.finetune.tuning import Budget, budget_of, fit


def finetune(model: nn.Module | str | Path, data: Any, horizon: int | float | None = None, how: str | Design | Method = "msft",
             budget: str | Budget = "quick", *, context: int | None = None, seed: int = 0, together: bool = False,
             progress: bool = True) -> nn.Module:  # fmt: skip
    """A copy of `model` (or of the one with this name) fine-tuned on your series, ready for `tsfm_lib.forecast`.

    `data` is whatever `tsfm_lib.forecast` takes, or a data set. It is split as the field does (70 % to train on, 10 % to stop by, the rest
    untouched; collections: all but their last horizons). What was done stands in `.facts` and `.curve` of the result.

    >>> import numpy as np
    >>> from tsfm_lib import checkpoints
    >>> from tsfm_lib.models.units import UniTSConfig
    >>> tuned = finetune(checkpoints.build("units", UniTSConfig.tiny()), np.sin(np.arange(300.0)), horizon=8,
    ...                  budget=Budget(steps=2, batch=4, rates=1, every=1), progress=False)
    >>> tuned.facts["method"], tuned.facts["steps"], front.forecast(tuned, np.sin(np.arange(300.0)), 8, [0.5]).shape
    ('msft', 2, (8, 1))
    """
    model = front.load(model) if isinstance(model, (str, Path)) else model
    if not hasattr(getattr(model, "config", None), "context"):
        raise TsfmError(f"fine-tuning needs {KNOWN}, got {type(model).__name__}")
    found = as_series_set(data)
    horizon = horizon or found.horizon
    if not horizon:
        raise TsfmError(f"nothing says how far to forecast {found.name}: pass a horizon")
    cut = target(found, context or model.config.context, whole(horizon, "the horizon"), count=budget_of(budget).count, together=together)
    tuned = fit(model, cut, how, budget, seed, progress=progress)
    if isinstance(tuned.model, MultiScale):
        tuned.model.facts, tuned.model.curve = tuned.facts, tuned.curve
    return tuned.model
