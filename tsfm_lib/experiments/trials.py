"""What experiments of several papers share.

Small models trained for one experiment: the same start, the same batches, and nothing different but what is tried. Shipped weights by
name and fingerprint, and a few windows of each set of a suite.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from tsfm_lib import checkpoints
from tsfm_lib.evaluate import suites
from tsfm_lib.evaluate.suites import Windows
from tsfm_lib.models.listing import shipped
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


# ---- what ships, and windows to judge it on ----------------------------------------------------------------------------------------------


def fingerprint(variant: str) -> str:
    """The digest of shipped weights; "" for a model without."""
    folder = shipped().get(variant)
    return "" if folder is None else digest(folder)


def digest(folder: Path) -> str:
    """The first 16 digits of the sha256 of all weights in a folder: new weights invalidate their own cells of a sweep and no others."""
    found = sha256()
    for file in sorted(folder.glob("*.safetensors")):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def thin(found: Windows, count: int | None) -> Windows:
    """At most `count` of the windows, evenly spaced; None keeps all."""
    if count is None or len(found) <= count:
        return found
    kept = np.linspace(0, len(found) - 1, count).round().astype(int)
    names = tuple(found.series[i] for i in kept)
    return replace(found, contexts=found.contexts[kept], targets=found.targets[kept], series=names, starts=found.starts[kept])


@lru_cache(maxsize=2)
def tasks(suite: str, count: int | None) -> tuple[Windows, ...]:
    return tuple(thin(task.load(), count) for task in suites.suite(suite))
