"""Patch length against the season (T3): one set resampled to periods of 20, 24 and 30 steps, at a fixed look-back of 384 steps.

Small models, channel by channel, trained from scratch in equal steps on the same windows, horizon 96. The rolled head forecasts one patch
a pass, as published, so that short patches need more passes; the direct head forecasts all 96 steps in one. A look-back that patches do
not fill is padded in front.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tsfm_lib import checkpoints
from tsfm_lib.data import SeriesSet
from tsfm_lib.experiments.time_tracker.targets import errors, target, tuned
from tsfm_lib.experiments.time_tracker.trials import SMALL
from tsfm_lib.models.time_tracker import TimeTrackerConfig

PATCHES = (16, 20, 24, 30, 32, 40, 48, 60, 96, 192)
PERIODS = (20, 24, 30)
HEADS = ("rolled", "direct")
LOOK_BACK, HORIZON = 384, 96
RESAMPLED = "ETTh1"


def config(patch: int, head: str) -> TimeTrackerConfig:
    """One block; the context is the look-back, filled up to whole patches.

    >>> config(30, "direct").context, config(30, "rolled").horizon
    (390, 30)
    """
    context = -(-LOOK_BACK // patch) * patch
    return replace(SMALL, context=context, patch=patch, horizon=patch if head == "rolled" else HORIZON, mixed_layers=0)


def resampled(found: SeriesSet, period: int) -> SeriesSet:
    """The set with a season of `period` steps, by straight lines between its values; the splits move with it.

    >>> from tsfm_lib.data import as_series_set
    >>> daily = replace(as_series_set(np.arange(240.0)), card=replace(as_series_set([1.0, 2.0]).card, season=24, splits="144/48/48"))
    >>> half = resampled(daily, 12)
    >>> half.season, half.card.splits, half.series[0][0, :3].tolist()
    (12, '72/24/24', [0.0, 2.0, 4.0])
    """
    if period == found.season:
        return found
    [values], factor = found.series, period / found.season
    at = np.arange(int(values.shape[1] * factor)) / factor  # behind the last value it is repeated
    series = np.stack([np.interp(at, np.arange(len(row)), row) for row in values])
    rows = [found.split(part) for part in ("train", "val", "test")]
    splits = "/".join(str(int((part.stop - part.start) * factor)) for part in rows)
    return replace(found, series=(series,), stamps=(None,), card=replace(found.card, season=period, splits=splits))


def one(seed: int, dataset: str, period: int, patch: int, head: str, steps: int, count: int | None) -> dict[str, Any]:
    """One patch length at one period. `variant` is the patch length: claims compare periods at one and the same."""
    found, chosen = resampled(target(dataset), period), config(patch, head)
    start = checkpoints.build("time-tracker", chosen, seed)
    model = tuned(start, found, seed, steps, rate=2e-3, together=False, context=LOOK_BACK)
    row = {"variant": f"P = {patch}", "horizon": HORIZON, "alignment": "other" if patch % period else "multiple"}
    return row | errors(model, found, LOOK_BACK, HORIZON, count)


def relative(rows: pd.DataFrame) -> pd.DataFrame:
    """Beside each error its ratio to the mean over the patch lengths of the same seed, set, period and head.

    >>> rows = pd.DataFrame({"seed": 0, "dataset": "x", "period": 20, "head": "rolled", "patch": [20, 24], "MSE": [1.0, 3.0]})
    >>> relative(rows)["relative_MSE"].tolist()
    [0.5, 1.5]
    """
    return rows.assign(relative_MSE=rows["MSE"] / rows.groupby(["seed", "dataset", "period", "head"])["MSE"].transform("mean"))


BUDGET = {
    "quick": {"patches": (24, 30), "steps": 3, "count": 4},
    "laptop": {"patches": PATCHES, "steps": 40, "count": 48},
    "full": {"patches": PATCHES, "steps": 2000, "count": 512},
}
"""Patch lengths, training steps, windows of the test part."""


def grid(profile: str, seeds: Sequence[int], observed: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The cells of both sweeps: the resampled set, and others at their own season with the rolled head (shown, not judged)."""
    budget = dict(BUDGET[profile])
    patches = budget.pop("patches")
    few = lambda name: {"count": min(budget["count"], 8)} if name == "ecl_203ch_1000h" else {}  # 203 channels a window
    cell = lambda seed, name, period, patch, head: {"seed": seed, "dataset": name, "period": period, "patch": patch, "head": head}
    resample = [RESAMPLED] if RESAMPLED in observed else []
    others = [name for name in observed if name != RESAMPLED]
    return {
        "patch_season": [cell(seed, name, period, patch, head) | budget
                         for seed in seeds for name in resample for period in PERIODS for patch in patches for head in HEADS],
        "patch_sizes": [cell(seed, name, target(name).season, patch, "rolled") | budget | few(name)
                        for seed in seeds[:3] for name in others for patch in patches],
    }  # fmt: skip
