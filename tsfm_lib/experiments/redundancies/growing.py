"""Redundancy while it comes about: small models of several depths, widths, ages and objectives, all trained on the same generated series.

A layer that can go from a model that has learnt nothing says nothing, so every row carries the error of the intact model and that of
the naive forecast beside it (notebook 50: the controls of R1).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tsfm_lib import checkpoints, interpret
from tsfm_lib.experiments.redundancies import subjects
from tsfm_lib.experiments.redundancies.layers import places
from tsfm_lib.experiments.trials import trained
from tsfm_lib.interpret.plans import Plan
from tsfm_lib.models.chronos import ChronosConfig
from tsfm_lib.models.chronos_bolt import ChronosBoltConfig
from tsfm_lib.models.moirai import MoiraiConfig
from tsfm_lib.models.timesfm import TimesFMConfig
from tsfm_lib.synth.mixture import Mixture, make_pool
from tsfm_lib.train.streams import rng_for

CONTEXT, HORIZON = 256, 16
_T5 = {"context": CONTEXT, "horizon": HORIZON, "width": 64, "heads": 4, "head_width": 16, "hidden": 128, "encoder_layers": 3,
       "decoder_layers": 3, "dropout": 0.0, "scaled_scores": True}  # fmt: skip
OBJECTIVES = {
    "next patch, quantiles": ("timesfm", TimesFMConfig(
        context=CONTEXT, patch=16, horizon=HORIZON, spread_horizon=None, width=64, heads=4, hidden=128, layers=4, head_hidden=128,
        mean=False, rope_base=100.0, gaps="mask", asinh=True, cuts=8)),
    "one token, quantiles": ("chronos-bolt", ChronosBoltConfig(**_T5, patch=16, asinh=True, cuts=4)),
    "token by token": ("chronos-t5", ChronosConfig(**{**_T5, "context": 64}, tokens=256)),
    "hidden patches": ("moirai", MoiraiConfig(context=CONTEXT, patch=16, patch_sizes=(16,), width=64, layers=4, head_width=16)),
}  # fmt: skip
"""The second and the third share one backbone, T5's; their contexts differ, as one reads patches and the other steps."""


@lru_cache(maxsize=2)
def pool(seed: int, count: int) -> Any:
    return make_pool(Mixture.only(seasonal=2, templates=1, arma=1, walks=1), count, 512, seed, progress=False)


def unseen(seed: int, count: int) -> tuple[Float[Tensor, "n 1 T"], Float[Tensor, "n 1 _"]]:
    """Contexts of the same kinds that nobody was trained on, and futures behind the unit of MASE (season 1)."""
    x = torch.from_numpy(pool(seed + 10**6, count).batch(count, CONTEXT + HORIZON, rng_for(seed, 0, "test"))[:, None])
    context, future = x[..., :CONTEXT], x[..., CONTEXT:]
    unit = context.diff(dim=-1).abs().nanmean(-1, keepdim=True)
    good = (unit[:, 0, 0] > 1e-6) & future.isfinite().any(-1)[:, 0] & context[:, 0, -1].isfinite()
    return context[good], torch.cat([unit, future], dim=-1)[good]


def grown(objective: str, depth: int, width: int, steps: int, seed: int, count: int) -> list[dict[str, Any]]:
    """What every layer of such a model costs (whole, zeros) on `count` series of the kinds it was trained on, after so many steps."""
    architecture, config = OBJECTIVES[objective]
    if objective == "next patch, quantiles":
        config = replace(config, layers=depth, width=width, hidden=2 * width, head_hidden=2 * width, heads=max(width // 16, 1))
    length = CONTEXT + HORIZON
    draw = lambda step: torch.from_numpy(pool(seed, 8 * count).batch(32, length, rng_for(seed, step))[:, None])
    model = checkpoints.build(architecture, config, seed)
    model = (trained(architecture, config, draw, seed, steps, horizon=HORIZON, batch=32).model if steps else model).eval()
    context, target = unseen(seed, count)
    plans = [Plan(), *(Plan(layers=[place["name"]]) for place in places(model))]
    losses = interpret.HeadMask(model, plans).losses(subjects.medians(model, HORIZON), context, target, subjects.mase)
    mean = losses.double().nanmean(1).numpy()
    naive = subjects.mase(context[..., -1:].expand(-1, -1, HORIZON), target).double().nanmean().item()
    return [{"MASE": mean[0], "naive": naive, "increase": 100 * (mean[1 + i] / mean[0] - 1),
             **{key: place[key] for key in ("stack", "layer", "third")}, "at": place["depth"]}
            for i, place in enumerate(places(model))]  # fmt: skip


def grid(profile: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The cells: depth at one width, width at one depth, time at one size, and the other objectives at their own."""
    long, count, kept = {"quick": (12, 64, 1), "laptop": (300, 512, 3), "full": (5000, 1024, 5)}[profile]
    first, *others = OBJECTIVES
    sizes = [(2, 64, long), (8, 64, long)] if profile == "quick" else [(2, 64, long), (4, 64, long), (8, 64, long), (4, 32, long)]
    sizes += [(4, 64, 0)] if profile == "quick" else [(4, 64, 0), (4, 64, long // 10)]
    cells = [(first, *size) for size in sizes] + [(name, 3, 64, long) for name in others]
    names = ("objective", "depth", "width", "steps")
    return [dict(zip(names, cell)) | {"seed": seed, "count": count} for seed in seeds[:kept] for cell in cells]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per setting: training seeds, error beside the naive one, cost of a layer of each third in percent, and the extremes.

    >>> row = {"objective": "o", "depth": 1, "width": 8, "steps": 0, "seed": 0, "third": "early", "increase": 1.0}
    >>> summary(pd.DataFrame([row | {"MASE": 4.0, "naive": 3.0}]))["worse than naive"].tolist()
    ['yes: says nothing']
    """
    keys = ["objective", "depth", "width", "steps"]
    per = rows.groupby(keys, sort=False)
    table = per[["MASE", "naive"]].mean().assign(seeds=per["seed"].nunique())
    table["worse than naive"] = (table["MASE"] >= table["naive"]).map({True: "yes: says nothing", False: "no"})
    thirds = rows.pivot_table("increase", keys, "third", sort=False)
    table[["early", "middle", "late"]] = thirds.reindex(columns=["early", "middle", "late"])
    return table.assign(least=per["increase"].min(), most=per["increase"].max())
