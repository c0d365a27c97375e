"""What the four notebooks share: pretrained starts, sets to fine-tune on, one fine-tuning and what it came to.

A cell of a sweep holds plain values only; `budget` are fields of `finetune.Budget`, `weights` the fingerprint of shipped weights (""
where a small model is pretrained instead), so that other weights or budgets make other cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from torch import nn

from tsfm_lib import data, finetune, front
from tsfm_lib.data import SeriesSet, as_series_set
from tsfm_lib.evaluate.metrics import DECILES
from tsfm_lib.experiments import trials
from tsfm_lib.models.chronos_bolt import ChronosBoltConfig
from tsfm_lib.models.moirai import MoiraiConfig
from tsfm_lib.models.moment import MomentConfig
from tsfm_lib.models.timesfm import TimesFMConfig
from tsfm_lib.models.units import UniTSConfig
from tsfm_lib.train import Recipe, streams
from tsfm_lib.train.streams import rng_for

CONTEXT, HORIZON = 256, 96
BACKBONES = ("moirai", "moment", "units")
SMALL = {
    "moirai": MoiraiConfig(context=CONTEXT, patch=16, patch_sizes=(16, 32), width=64, layers=3, head_width=16),
    "moment": MomentConfig(context=CONTEXT, patch=16, width=64, layers=3, heads=4, head_width=16, hidden=128, positions=64, dropout=0.0),
    "units": UniTSConfig(context=CONTEXT, horizon=HORIZON, patch=16, width=64, layers=3, heads=4, hidden=128, head_hidden=128, tokens=32,
                         positions=64, dropout=0.0, scales=4),
    "timesfm": TimesFMConfig(context=CONTEXT, patch=16, horizon=HORIZON, spread_horizon=None, width=64, heads=4, hidden=128, layers=3,
                             rope_base=100.0, mean=False, gaps="mask", asinh=True),
    "chronos-bolt": ChronosBoltConfig(context=CONTEXT, horizon=HORIZON, patch=16, width=64, heads=4, head_width=16, hidden=128,
                                      encoder_layers=2, decoder_layers=2, dropout=0.0, asinh=True, cuts=4, scaled_scores=True,
                                      quiet_start=0.1),
}  # fmt: skip
"""Where no weights ship: models that learn to forecast in a minute of one CPU core."""

MADE = ("days and weeks", "days alone")
"""Sets that need no download: 4 channels of hours with a season of a day, in the first also one of a week, which is slow enough for coarse
scales to keep."""


def weights_of(backbone: str) -> str:
    return trials.fingerprint(f"{backbone}-nano")


@lru_cache(maxsize=4)
def start(backbone: str, seed: int, steps: int) -> nn.Module:
    """Shipped weights; else SMALL after some steps on generated series, of which a third are shown coarse. All methods of a seed begin
    there."""
    if weights_of(backbone):
        return front.load(f"{backbone}-nano")
    config = SMALL[backbone]
    recipe = Recipe("start", backbone, {}, seed=seed, steps=steps, context=CONTEXT, horizon=HORIZON, pool=2048, coarse=0.33)
    stream = streams.generated(recipe, progress=False)
    return trials.trained(backbone, config, stream, seed, steps, horizon=HORIZON, batch=recipe.batch, rate=2e-3, matrices="^$").model


@lru_cache(maxsize=16)
def source(name: str, seed: int = 0) -> SeriesSet:
    """A benchmark by name, or a made set, which every seed draws anew."""
    if name not in MADE:
        return data.load(name)
    rng, t = rng_for(seed, MADE.index(name), "made"), np.arange(4000)
    wave = lambda period: np.sin(2 * np.pi * (t / period + rng.random((4, 1)))) * rng.uniform(0.7, 1.3, (4, 1))
    noise = 0.3 * rng.standard_normal((4, len(t)))
    return as_series_set(wave(24) + (wave(168) if name == MADE[0] else 0) + noise, name)


@lru_cache(maxsize=16)
def cut(name: str, seed: int, horizon: int, count: int, tested: int | None, context: int = CONTEXT) -> finetune.Target:
    return finetune.target(source(name, seed if name in MADE else 0), context, horizon, count=count, tested=tested)


def tuned(backbone: str, how: Any, on: finetune.Target, seed: int, steps: int, budget: Mapping[str, Any]) -> finetune.Tuned:
    return finetune.fit(start(backbone, seed, steps), on, how, finetune.Budget(**budget), seed)


def row(done: finetune.Tuned, on: finetune.Target, levels: Sequence[float] = DECILES) -> dict[str, Any]:
    """Errors on the test windows, and what they cost."""
    kept = ("trainable", "rate", "steps", "ms_per_step", "seconds", "val_MSE", "best_step")
    scores = on.test.scores(done.model, levels if done.model.probabilistic else (0.5,))
    if "CRPS" not in scores:
        scores["CRPS"] = scores["MAE"]  # of a point forecast the two are the same
    return scores | {name: done.facts[name] for name in kept if name in done.facts} | {"tokens": tokens(done.model)}


def tokens(model: nn.Module) -> int:
    """That a window of one variate has at all scales; 0 for a model that is not fine-tuned here."""
    if not isinstance(model, finetune.MultiScale):
        return 0
    size = model.model.config.patch
    if (beside := getattr(model.model, "beside", None)) is not None:  # no horizon tokens
        return sum(-(-n // size) + beside for n in model.contexts)
    ahead = [0] * len(model.horizons) if model.heads else model.horizons
    return sum(-(-n // size) + -(-h // size) for n, h in zip(model.contexts, ahead))


def other_windows(name: str, seed: int, horizon: int, count: int, names: Sequence[str], context: int = CONTEXT
                  ) -> dict[str, finetune.targets.Windows]:  # fmt: skip
    """The test windows of the sets that were not trained on."""
    return {other: cut(other, seed, horizon, count, count, context).test for other in names if other != name}


def with_design(done: finetune.Tuned, **changes: Any) -> nn.Module:
    """The same trained model with another way to put its scales together."""
    done.model.design = replace(done.model.design, **changes)
    return done.model
