"""Channels apart or mixed, in pretraining and in fine-tuning (T4); how many blocks mix; what switching the graph on costs at first.

Pretraining reads groups of four generated series: half of them two drivers and what follows them, by a law that is drawn anew for every
batch (or is the target's own), half of them unrelated series of the mixture `final`. All arms of a seed see the same groups, then the
same windows of the target.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tsfm_lib.data import SeriesSet
from tsfm_lib.experiments.time_tracker.targets import DRIVERS, MIXED, PLANTED, ROWS, TARGET_LAW, ahead, errors, target, tuned, windows
from tsfm_lib.experiments.time_tracker.trials import SMALL, trained
from tsfm_lib.models.time_tracker import TimeTracker
from tsfm_lib.synth import planted
from tsfm_lib.synth.mixture import MIXTURES, Pool, make_pool
from tsfm_lib.train.streams import rng_for

ARMS = {"apart-apart": (False, False), "apart-mixed": (False, True), "mixed-mixed": (True, True), "mixed-apart": (True, False)}
"""Are channels mixed in pretraining, are they in fine-tuning?"""

RATE = 5e-3  # of pretraining
DEEP = replace(SMALL, independent_layers=4, mixed_layers=0)
FIRST_BIASES = (-8, -4, -2, 0, 2, "normal")
"""v at the start of fine-tuning; "normal": u and v are drawn from N(0, 1), as in published code."""


@lru_cache(maxsize=2)
def pool(seed: int) -> Pool:
    return make_pool(MIXTURES["final"], 2048, 1024, seed, progress=False)


def groups(seed: int, law: str, length: int = SMALL.context + SMALL.horizon) -> Callable[[int], Tensor]:
    """Batches [B V T]; `law` is "own" (each batch has one of its own, never the target's) or "shared" (always the target's)."""

    def stream(step: int) -> Tensor:
        rng, half = rng_for(seed, step, "groups"), ROWS // DRIVERS["variates"] // 2
        fresh = {"law_seed": int(rng.integers(1, 2**31)), "lags": (24, 48)}
        coupled = planted.drivers(half, length, rng=rng, **DRIVERS, **(TARGET_LAW if law == "shared" else fresh)).series
        alone = pool(seed).batch(half * DRIVERS["variates"], length, rng).reshape(coupled.shape)
        return torch.from_numpy(np.concatenate([coupled, alone]))

    return stream


@lru_cache(maxsize=8)
def pretrained(mixed: bool, seed: int, steps: int, law: str = "own", deep: bool = False) -> TimeTracker:
    config = replace(DEEP if deep else SMALL, **(MIXED if mixed else {}))
    return trained(config, groups(seed, law), seed, steps, batch=ROWS // DRIVERS["variates"], rate=RATE).model


def scored(model: TimeTracker, found: SeriesSet, count: int | None) -> dict[str, float]:
    return errors(model, found, model.config.context, ahead(found.name), count)


def arms(seed: int, dataset: str, law: str, steps: int, tune: int, count: int | None) -> list[dict[str, Any]]:
    """The four orders after equal steps of both stages, and what they know before the second."""
    found, rows = target(dataset, seed), []
    for variant, (first, then) in ARMS.items():
        start = pretrained(first, seed, steps, law).mixed(**(MIXED if then else {"alpha": 0.0}))
        after = scored(tuned(start, found, seed, tune), found, count)
        rows.append({"variant": variant, "horizon": ahead(dataset), "MSE_before": scored(start, found, count)["MSE"]} | after)
    return rows


def blocks(seed: int, dataset: str, steps: int, tune: int, count: int | None) -> list[dict[str, Any]]:
    """One start of four blocks, of which the last 0 to 4 mix channels in fine-tuning."""
    start, found, rows = pretrained(False, seed, steps, deep=True), target(dataset, seed), []
    for mixing in range(DEEP.layers + 1):
        layers = {"independent_layers": DEEP.layers - mixing, "mixed_layers": mixing}
        model = tuned(start.mixed(**layers, **(MIXED if mixing else {"alpha": 0.0})), found, seed, tune)
        rows.append({"variant": "blocks", "blocks": mixing, "horizon": ahead(dataset)} | scored(model, found, count))
    return rows


# ---- the shock of the first step ----------------------------------------------------------------------------------------------------


def with_bias(start: TimeTracker, v: float | int | str, seed: int) -> TimeTracker:
    """`start` with the graph switched on and this v in every head."""
    model = start.mixed(**MIXED | ({} if v == "normal" else {"other_bias": v}))
    if v == "normal":
        generator = torch.Generator().manual_seed(seed)
        for layer in model.layers:
            for bias in (layer.attend.same, layer.attend.other):
                nn.init.normal_(bias, generator=generator)
    return model


@torch.no_grad()
def first_loss(model: TimeTracker, batches: list[Tensor], full: bool = False) -> float:
    """Mean loss in evaluation mode, along the model's own edges or along all."""
    edges = lambda x: torch.ones(len(x), x.shape[1], x.shape[1], dtype=torch.bool) if full else None
    return float(np.mean([model.eval().loss(x, adjacency=edges(x)) for x in batches]))


def shock(seed: int, dataset: str, v: float | int | str, steps: int, tune: int, count: int | None) -> dict[str, Any]:
    """By how many per cent the loss rises when the graph is switched on, and the error after fine-tuning from there."""
    start, found = pretrained(False, seed, steps), target(dataset, seed)
    stream = windows(found, SMALL.context + SMALL.horizon, seed)
    batches = [stream(step) for step in range(8)]
    model, apart = with_bias(start, v, seed), first_loss(start, batches)
    rises = {name: 100 * (first_loss(model, batches, full) / apart - 1) for name, full in (("rise", False), ("rise_full", True))}
    return {"variant": f"v = {v}", "horizon": ahead(dataset)} | rises | scored(tuned(model, found, seed, tune), found, count)


# ---- what is run ----------------------------------------------------------------------------------------------------------------------

BUDGET = {
    "quick": {"steps": 6, "tune": 4, "count": 8},
    "laptop": {"steps": 200, "tune": 60, "count": 64},
    "full": {"steps": 5000, "tune": 1000, "count": 512},
}
"""Steps of pretraining and of fine-tuning, windows of the test part."""


def grid(profile: str, seeds: Sequence[int], observed: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The cells of every sweep, by name. Blocks and shocks are shown, not judged: three seeds serve."""
    budget, everywhere, few = BUDGET[profile], (PLANTED, *observed), seeds[:3]
    one = [name for name in everywhere if name in (PLANTED, "ETTh2")]
    cell = lambda seed, dataset, **more: {"seed": seed, "dataset": dataset, **more, **budget}
    return {
        "pipelines": [cell(seed, name, law="own") for seed in seeds for name in everywhere],
        "pipelines_shared_law": [cell(seed, PLANTED, law="shared") for seed in seeds],
        "blocks": [cell(seed, name) for seed in few for name in one],
        "shock": [cell(seed, name, v=v) for seed in few for name in one for v in FIRST_BIASES],
    }
