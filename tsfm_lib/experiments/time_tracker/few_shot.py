"""What a pretrained start is worth (T7): none, 5, 10 or 20 % of the target's train windows, against the same model from scratch.

Pretraining is channel by channel, on generated series alone (the mixture `final`, roughened as for the shipped models); with the target's
windows the graph is switched on, for both. "Some per cent" are the earliest windows, of every variate; scaling uses the whole train part.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import tsfm_lib
from tsfm_lib import checkpoints
from tsfm_lib.experiments.time_tracker.targets import MIXED, errors, target, tuned
from tsfm_lib.experiments.time_tracker.trials import SMALL, trained
from tsfm_lib.experiments.trials import fingerprint
from tsfm_lib.models.time_tracker import TimeTracker
from tsfm_lib.train import Recipe, streams

SHARES = (5, 10, 20)
HORIZON = 96
NANO = "time-tracker-nano"


@lru_cache(maxsize=2)
def pretrained(seed: int, steps: int) -> TimeTracker:
    """SMALL after some steps on generated series; whoever asks with the same seed gets the same start."""
    recipe = Recipe("start", "time-tracker", asdict(SMALL), seed=seed, steps=steps, batch=64, context=SMALL.context, horizon=SMALL.horizon,
                    pool=4096)  # fmt: skip
    return trained(SMALL, streams.generated(recipe, progress=False), seed, steps, batch=recipe.batch, rate=3e-3).model


def zero_shot(seed: int, dataset: str, steps: int, count: int | None) -> list[dict[str, Any]]:
    """The start as it is, beside seasonal naive, a mean of the context and a start without any training."""
    untrained = checkpoints.build("time-tracker", SMALL, seed)
    models = {"pretrained": pretrained(seed, steps), "seasonal-naive": tsfm_lib.load("seasonal-naive"), "random-weights": untrained}
    scored = {name: errors(model, target(dataset), SMALL.context, HORIZON, count) for name, model in models.items()}
    return [{"variant": name, "share": 0, "horizon": HORIZON} | found for name, found in scored.items()]


def few_shot(seed: int, dataset: str, share: int, steps: int, tune: int, count: int | None) -> list[dict[str, Any]]:
    """Pretrained and not, after equal steps on the same windows."""
    starts = {"pretrained": pretrained(seed, steps), "scratch": checkpoints.build("time-tracker", SMALL, seed)}
    return [shot(name, start, seed, dataset, share, tune, count) for name, start in starts.items()]


def longer(seed: int, dataset: str, share: int, tune: int, count: int | None) -> dict[str, Any]:
    """From scratch with more steps: is the lead of the pretrained start only a head start?"""
    return shot("scratch, longer", checkpoints.build("time-tracker", SMALL, seed), seed, dataset, share, tune, count)


def shot(variant: str, start: TimeTracker, seed: int, dataset: str, share: int, tune: int, count: int | None) -> dict[str, Any]:
    found = target(dataset)
    model = tuned(start.mixed(**MIXED), found, seed, tune, share, rate=2e-3)
    return {"variant": variant, "share": share, "horizon": HORIZON} | errors(model, found, SMALL.context, HORIZON, count)


def shipped(dataset: str, count: int | None, weights: str) -> dict[str, Any]:
    """The shipped model without training, at its own look-back; `weights` is their fingerprint."""
    model = tsfm_lib.load(NANO)
    row = {"variant": NANO, "share": 0, "horizon": HORIZON, "context": model.config.context}
    return row | errors(model, target(dataset), model.config.context, HORIZON, count)


# ---- what is run ----------------------------------------------------------------------------------------------------------------------

BUDGET = {
    "quick": {"steps": 12, "tune": 4, "count": 8},
    "laptop": {"steps": 1000, "tune": 40, "count": 64},
    "full": {"steps": 20_000, "tune": 1000, "count": 512},
}
"""Steps of pretraining and with the target's windows, windows of the test part."""


def grid(profile: str, seeds: Sequence[int], observed: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The cells of every sweep, by name; all cells of a seed stand together, for they have one start. `longer` is shown, not judged."""
    budget, hourly = BUDGET[profile], [name for name in observed if name.startswith("ETTh")]
    more = {"tune": 5 * budget["tune"], "count": budget["count"]}
    found = {
        "zero_shot": [{"seed": seed, "dataset": name, "steps": budget["steps"], "count": budget["count"]}
                      for seed in seeds for name in observed],
        "few_shot": [{"seed": seed, "dataset": name, "share": share, **budget}
                     for seed in seeds for name in observed for share in SHARES],
        "longer": [{"seed": seed, "dataset": name, "share": share, **more}
                   for seed in seeds[:3] for name in hourly for share in (SHARES[0], SHARES[-1])],
        "shipped": [],
    }  # fmt: skip
    if weights := fingerprint(NANO):
        found["shipped"] = [{"dataset": name, "count": budget["count"], "weights": weights} for name in observed]
    return found
