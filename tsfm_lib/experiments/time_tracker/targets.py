"""The sets that small Time Trackers are tuned and tested on: standard splits, z-scored by the train part, errors in those units.

A target is a `SeriesSet` of one wide series. What is planted looks like the rest: 8000 steps of coupled series, split 7:1:2.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tsfm_lib import data
from tsfm_lib.data import Scaler, SeriesSet, as_series_set
from tsfm_lib.evaluate import forecasting
from tsfm_lib.experiments.time_tracker.trials import trained
from tsfm_lib.models.time_tracker import TimeTracker
from tsfm_lib.nn.patching import patch
from tsfm_lib.synth import planted
from tsfm_lib.train import streams

ROWS = 56  # series in a batch, whatever the number of variates
PLANTED = "planted-drivers"
DRIVERS = {"variates": 4, "roots": 2}  # two that lead, two that follow one of them
TARGET_LAW = {"law_seed": 0, "lags": (24, 24), "signed": False}  # one patch later, the same sign
MIXED = {"alpha": 0.75, "neighbours": 6, "other_bias": 0.0}
"""Where channels are mixed: edges at a quarter of the way from noise to equality, at most 6 variates to read, v from 0, for with the
model's own -2 a short fine-tuning hardly begins to mix."""
UNWATCHED = {"diverged_factor": 1e9}
"""A batch is a few windows of one set, and some months are ten times as hard as others: that is no divergence."""


@lru_cache(maxsize=16)
def target(name: str, seed: int = 0) -> SeriesSet:
    """A benchmark by name, or the planted target, which every seed draws anew under the same law."""
    if name != PLANTED:
        return data.load(name)
    return as_series_set(planted.drivers(1, 8000, rng=streams.rng_for(seed, 0, PLANTED), **DRIVERS, **TARGET_LAW).series[0], PLANTED)


def ahead(name: str) -> int:
    """The horizon: one patch where the planted law reaches no further, the usual 96 elsewhere."""
    return 24 if name == PLANTED else 96


def windows(found: SeriesSet, length: int, seed: int, share: float | int = 100, together: bool = True) -> streams.Windows:
    """Batches from the train part: about ROWS series each. `share`: the earliest per cent of its windows, of every variate."""
    train = found.series[0][:, found.split("train")]
    kept = length - 1 + max(1, round(share / 100 * (train.shape[1] - length + 1)))
    scaled = Scaler.fit(train).apply(train)[:, :kept]
    batch = max(1, ROWS // len(train)) if together else ROWS
    return streams.Windows((scaled,), length, batch, seed, together, f"{found.name}, {share} % of train")


def errors(model: Any, found: SeriesSet, context: int, horizon: int, count: int | None) -> dict[str, float]:
    """MSE and MAE over `count` evenly spaced windows of the test part (None: all of them), mean over windows, variates and steps."""
    [rolled] = forecasting.rolling(found, context, horizon, count=count)
    rows = forecasting.evaluate(model, rolled, levels=(0.5,), progress=False)
    return {"MSE": float(rows["MSE"].mean()), "MAE": float(rows["MAE"].mean()), "windows": len(rows)}


def scaled_error(model: TimeTracker, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
    """Next-patch error of all tokens in the units of the scaled series, as the benchmark counts it. The model's own loss is in units of
    each window, where nearly constant windows weigh most."""
    c = model.config
    context = model.window(batch[..., : -c.horizon])
    z, seen, statistics = model.normalise(context)
    encoded = model.encode(z, seen, model.links(z, generator=generator))
    if model.training and c.balance_rate:
        for layer, routing in zip(model.layers, encoded.routing):
            layer.router.rebalance(routing.load)
    whole = torch.cat([context, batch[..., -c.horizon :]], dim=-1)[..., c.patch :]
    wanted = patch(whole, c.horizon, c.step).flatten(-2)  # B V (N h)
    point, known = statistics.invert(model.head(encoded.hidden).flatten(-2).double()), wanted.isfinite()
    error = torch.where(known, point - wanted.nan_to_num(), 0)
    return (error.square().sum() / known.sum().clamp_min(1)).float()


def tuned(start: TimeTracker, found: SeriesSet, seed: int, steps: int, share: float | int = 100, rate: float = 1e-3,
          together: bool = True, context: int | None = None, loss: Callable[..., Tensor] = scaled_error) -> TimeTracker:  # fmt: skip
    """A copy of `start` after some steps on the train part of a target; `context`: steps that are read, where patches need padding."""
    c = start.config
    stream = windows(found, (context or c.context) + c.horizon, seed, share, together)
    return trained(c, stream, seed, steps, batch=stream.batch, start=start, loss=loss, rate=rate, warmup=min(10, steps), **UNWATCHED).model
