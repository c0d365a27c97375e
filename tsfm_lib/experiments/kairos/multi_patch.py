"""How many forecast tokens should one pass of Kairos make? (K4)

A pass forecasts J tokens of H steps. J can be swept at a fixed H (a pass reaches further) or at a fixed J x H (the same reach, cut into
more tokens): two questions, and both are asked here over the same horizon, which shorter passes reach by rolling out.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tsfm_lib import data
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate import metrics
from tsfm_lib.experiments.kairos.trials import SMALL, fixed, trained
from tsfm_lib.models.kairos import Kairos, KairosConfig, with_tokens
from tsfm_lib.nn.outputs import roll_out
from tsfm_lib.synth.mixture import Mixture, Pool, make_pool
from tsfm_lib.train.streams import rng_for

TOKENS = (1, 2, 4, 6)
HORIZON = 144  # steps every model forecasts in the end, in as many passes as it needs
BLOCK = 4  # steps that are scored together; every pass and every token ends at the border of a block
BUCKETS = {"short": (0, 24), "medium": (24, 48), "long": (48, 144)}  # the first H, the second H and the rest, H of J = 2
BUDGETS = {"H fixed": {j: 24 for j in TOKENS}, "JH fixed": {j: 48 // j for j in TOKENS}}  # H of each J; the two meet at J = 2
DOMAINS = {"seasonal": "seasonal", "daily profiles": "templates", "business": "ets", "autoregressive": "arma", "random walk": "walks",
           "chaos": "chaos"}  # fmt: skip
TRIAL = replace(SMALL, **fixed(16))
"""Patches of one length and instance-adaptive frequencies: what is tried is the decoder alone."""


# ---- series -------------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def pool(seed: int) -> Pool:
    """The series all models of a seed learn from, as many of each domain."""
    return make_pool(Mixture.only(**dict.fromkeys(DOMAINS.values(), 1)), 1536, 640, seed, progress=False)


def stream(config: KairosConfig, seed: int, seen: int = HORIZON, batch: int = 48) -> Callable[[int], Tensor]:
    """Batches for a model: whatever its J and H, the contexts of a step are the same, and so is what follows them.

    Steps of the future beyond `seen` are missing, as in a corpus of series that end there.
    """
    stop = config.context + config.forecast_tokens * config.horizon

    def batches(step: int) -> Tensor:
        x = pool(seed).batch(batch, config.context + max(HORIZON, stop - config.context), rng_for(seed, step))
        x[:, config.context + seen :] = np.nan
        return torch.from_numpy(x[:, None, :stop])

    return batches


def held_out(domain: str, count: int, seed: int, context: int = TRIAL.context, steps: int = HORIZON) -> Float[np.ndarray, "N T"]:
    """Fresh z-scored windows of one domain, a context and what follows: none of them from a pool that models learn from."""
    return Mixture.only(**{DOMAINS[domain]: 1}).draw(count, context + steps, rng_for(seed, list(DOMAINS).index(domain), "held out"))


def observed_windows(name: str, per_channel: int = 8, channels: int = 7, context: int = TRIAL.context) -> Float[np.ndarray, "N T"]:
    """Evenly spaced windows of the test part of a set, channels z-scored by their train part."""
    found, kept = data.load(name), []
    for i, values in enumerate(found.series):
        values = data.Scaler.fit(values[:, found.split("train", i)]).apply(values)[:channels]
        test = found.split("test", i)
        at = data.starts(max(context, test.start), values.shape[1] if test.stop is None else test.stop, HORIZON, per_channel)
        past, future = data.windows(values, context, HORIZON, at)
        kept.append(rearrange(np.concatenate([past, future], axis=-1), "N V T -> (N V) T"))
    return np.concatenate(kept)


# ---- forecasts ----------------------------------------------------------------------------------------------------------------------


def passes(tokens: int, horizon: int, steps: int = HORIZON) -> int:
    """Forward passes a roll-out over `steps` takes.

    >>> passes(2, 24), passes(6, 24), passes(6, 8)
    (3, 1, 3)
    """
    return -(-steps // (tokens * horizon))


def forecast(model: Kairos, context: Float[Tensor, "B T"], steps: int = HORIZON, feed: str = "median") -> Float[np.ndarray, "B h Q"]:
    """Quantiles of the next steps; `feed`: what a roll-out takes as observed, the median or every quantile on its own. The Chronos-Bolt
    authors repaired their roll-out in the second way; Kairos feeds back the median."""
    if feed not in ("median", "quantiles"):
        raise TsfmError(f"feed should be 'median' or 'quantiles', got {feed!r}")
    if feed == "quantiles":
        return roll_out(lambda x: model(x).sort(-1).values, context, steps, model.config.quantiles).numpy()
    return model.predict_quantiles(context[:, None], steps, model.config.quantiles)[:, 0].double().numpy()


# ---- scores -------------------------------------------------------------------------------------------------------------------------


def by_block(windows: Float[np.ndarray, "N T"], quantiles: Float[np.ndarray, "N h Q"], levels: Sequence[float]) -> pd.DataFrame:
    """One row per block of steps: both parts of WQL, MASE (scale: one-step naive of the context), and how the 80 % interval fares."""
    steps, outer = quantiles.shape[1], [list(levels).index(0.1), list(levels).index(0.9)]
    context, future = (x[:, None].astype(np.float64) for x in (windows[:, :-steps], windows[:, -steps:]))
    fan = quantiles[:, None].astype(np.float64)  # N 1 h Q
    scale = metrics.seasonal_scale(context, 1)
    low, high = (fan[..., i] for i in outer)
    inside, rows = (low <= future) & (future <= high), []
    for first in range(0, steps, BLOCK):
        here = np.s_[:, :, first : first + BLOCK]
        loss, size = metrics.weighted_parts(future[here], fan[here], levels)
        error = metrics.mase(future[here], metrics.point(fan[here], levels), scale)
        rows.append((first, loss.sum(), size.sum(), np.nanmean(error), inside[here].mean(), (high - low)[here].mean()))
    return pd.DataFrame(rows, columns=["step", "loss", "size", "MASE", "coverage", "width"])


def trial(seed: int, J: int, H: int, steps: int, each: int, ways: Sequence[Sequence[Any]] = (), cross_rotary: bool = True,
          seen: int = HORIZON, sets: Sequence[str] = ()) -> list[dict[str, Any]]:  # fmt: skip
    """Train one model and let it forecast `each` windows of every domain, and of the observed `sets`.

    `ways`: (tokens per pass, what is fed back); by default its own J and the median. Seconds are CPU seconds.
    """
    config = replace(TRIAL, forecast_tokens=J, horizon=H, cross_rotary=cross_rotary)
    began = time.process_time()
    model = trained(config, stream(config, seed, seen), seed, steps).model
    spent, rows = time.process_time() - began, []
    windows = {name: held_out(name, each, seed) for name in DOMAINS} | {name: observed_windows(name) for name in sets}
    stacked = torch.from_numpy(np.concatenate([x[:, : config.context] for x in windows.values()])).float()
    for tokens, feed in ways or ((J, "median"),):
        began = time.process_time()
        quantiles = forecast(with_tokens(model, tokens), stacked, feed=feed)
        facts = {"tokens": tokens, "feed": feed, "passes": passes(tokens, H), "train_seconds": spent,
                 "predict_seconds": time.process_time() - began, "parameters": sum(p.numel() for p in model.parameters())}  # fmt: skip
        places = np.split(quantiles, np.cumsum([len(x) for x in windows.values()])[:-1])
        for (name, x), mine in zip(windows.items(), places):
            found = by_block(x, mine, config.quantiles).assign(dataset=name, observed=name not in DOMAINS, windows=len(x), **facts)
            rows += found.to_dict("records")
    return rows


def answers(model: Any, ways: Mapping[str, tuple[int | None, str]], seed: int, each: int, context: int, steps: int) -> pd.DataFrame:
    """A ready model on fresh windows of every domain, a row per way, domain and block. A way is (tokens per pass, what is fed back);
    without tokens the model is called as it is, whatever its kind."""
    rows = []
    for name in DOMAINS:
        windows = held_out(name, each, seed, context, steps)
        past = torch.from_numpy(windows[:, :context])
        for way, (tokens, feed) in ways.items():
            if tokens is None:
                quantiles = model.predict_quantiles(past[:, None], steps, metrics.DECILES)[:, 0].double().numpy()
            else:
                quantiles = forecast(with_tokens(model, tokens), past, steps, feed)
            rows.append(by_block(windows, quantiles, metrics.DECILES).assign(variant=way, dataset=name, seed=seed))
    return pd.concat(rows, ignore_index=True)


# ---- grids and what is read off them ------------------------------------------------------------------------------------------------


BUDGET = {
    "quick": {"seeds": 1, "steps": 30, "each": 12},
    "laptop": {"seeds": 5, "steps": 200, "each": 64},
    "full": {"seeds": 10, "steps": 4000, "each": 256},
}
"""Training seeds, steps per model and windows per domain of each profile."""


def grid(seeds: Sequence[int], steps: int, each: int, sets: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The cells of the sweep: every (J, H) of both budgets once per seed; those of H = 24 also forecast in ways they were not made for."""
    pairs = dict.fromkeys((j, h) for budget in BUDGETS.values() for j, h in budget.items())
    further = {(1, 24): ((1, "quantiles"),), (2, 24): ((2, "quantiles"), (6, "median")),
               (6, 24): ((1, "median"), (2, "median"), (4, "median"))}  # fmt: skip
    return [{"seed": seed, "J": j, "H": h, "steps": steps, "each": each, "sets": tuple(sets),
             "ways": ((j, "median"), *further.get((j, h), ()))} for seed in seeds for j, h in pairs]  # fmt: skip


def broken(seeds: Sequence[int], steps: int, each: int) -> list[dict[str, Any]]:
    """The cells that provoke failure, all at J = 6: no rotation in cross-attention, and targets that end after 48 of 144 steps."""
    same = {"J": 6, "H": 24, "steps": steps, "each": each}
    changes = ({"cross_rotary": False, "seen": HORIZON, "ways": ((6, "median"),)},
               {"cross_rotary": True, "seen": 48, "ways": ((6, "median"), (2, "median"))})  # fmt: skip
    return [{"seed": seed, **same, **change} for seed in seeds for change in changes]


def own_way(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of models that forecast with the J they were trained for and feed back the median."""
    return rows[(rows["tokens"] == rows["J"]) & (rows["feed"] == "median")]


def in_budgets(rows: pd.DataFrame) -> pd.DataFrame:
    """Own ways with a column `budget`; the model both budgets share stands in both."""
    own = own_way(rows)
    return pd.concat([own[own["J"].map(sizes) == own["H"]].assign(budget=name) for name, sizes in BUDGETS.items()], ignore_index=True)


def pooled(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Blocks joined: WQL as a ratio of sums, the rest as means. Domains or sets not among the keys weigh the same each."""
    inner = rows.groupby([*keys, *({"dataset"} - set(keys))], sort=False, observed=True)
    found = inner[["loss", "size"]].sum().join(inner[["MASE", "coverage", "width"]].mean())
    found.insert(0, "WQL", found.pop("loss") / found.pop("size"))
    return found.groupby(level=list(keys), sort=False, observed=True).mean().reset_index()


def in_buckets(rows: pd.DataFrame, keys: Sequence[str] = ("budget", "J", "H", "seed", "dataset")) -> pd.DataFrame:
    """`pooled` within the short, medium and long part of the horizon."""
    edges = [first for first, _ in BUCKETS.values()] + [HORIZON]
    part = pd.cut(rows["step"], edges, right=False, labels=list(BUCKETS)).astype(str)
    return pooled(rows.assign(bucket=part), [*keys, "bucket"]).assign(horizon=HORIZON)


def gains(rows: pd.DataFrame, keys: Sequence[str], best: int = 2) -> pd.DataFrame:
    """How much lower the WQL of J = `best` is than that of each other J, in percent of the other, pair by pair."""
    wide = rows.pivot(index=[*keys], columns="J", values="WQL")
    others = [j for j in wide if j != best]
    found = pd.concat({j: 100 * (wide[j] - wide[best]) / wide[j] for j in others}, names=["over"])
    return found.rename("gain").reset_index()


def cost(rows: pd.DataFrame) -> pd.DataFrame:
    """Passes, parameters and CPU seconds of each model; predicting is given per 100 windows over the whole horizon."""
    keys, count = ["budget", "J", "H", "seed"], rows.groupby(["budget", "J", "H", "seed", "step"], sort=False)["windows"].sum()
    found = rows.groupby(keys, sort=False)[["passes", "parameters", "train_seconds", "predict_seconds", "steps"]].first()
    found["predict_seconds"] *= 100 / count.groupby(level=keys).first()
    found["train_seconds"] /= found.pop("steps") / 100
    return found.reset_index()
