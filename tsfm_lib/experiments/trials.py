"""Small models trained for one experiment: the same start, the same batches, and nothing different but what is tried."""

import copy
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pandas as pd
from torch import Tensor, nn

from tsfm_lib import checkpoints
from tsfm_lib.train import Recipe, Run, fit


def trained(architecture: str, config: Any, stream: Callable[[int], Tensor], seed: int, steps: int, *, horizon: int, batch: int = 48,
            start: nn.Module | None = None, prepare: Callable[[nn.Module], Any] | None = None,
            loss: Callable[..., Tensor] | None = None, **recipe: Any) -> Run:  # fmt: skip
    """One model after `steps` batches of `stream`. Models that share a seed start from the same draws and see the same batches.

    `start` is a model to go on from: a copy of it is trained. `prepare(model)` is called before the first step, to hang up a hook or to
    change what is there. `loss(model, batch, generator)` replaces the model's own."""
    settings = {"warmup": min(50, steps), "rate": 1e-3} | recipe
    given = Recipe("trial", architecture, asdict(config), seed=seed, steps=steps, batch=batch, context=config.context, horizon=horizon,
                   **settings)  # fmt: skip
    model = checkpoints.build(architecture, config, seed) if start is None else copy.deepcopy(start).requires_grad_(True)
    if prepare is not None:
        prepare(model)
    return fit(model, stream, given, progress=False, loss=loss)


def gains(rows: pd.DataFrame, by: str, metric: str, of: str) -> pd.DataFrame:
    """By how many percent the metric of the variant `of` is below that of each rival, seed by seed; negative where it is above.

    >>> rows = pd.DataFrame({"regimes": 8, "seed": 0, "variant": ["moe", "dense"], "MSE": [0.9, 1.0]})
    >>> gains(rows, "regimes", "MSE", "moe")["gain"].round(6).tolist()
    [10.0]
    """
    wide = rows.pivot(index=[by, "seed"], columns="variant", values=metric)
    rivals = [name for name in dict.fromkeys(rows["variant"]) if name != of]
    percent = 100 * (1 - wide[rivals].rdiv(wide[of], axis=0))
    return percent.melt(var_name="rival", value_name="gain", ignore_index=False).reset_index()
