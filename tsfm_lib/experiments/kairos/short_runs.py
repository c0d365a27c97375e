"""What slows the small model down: its own recipe for a few hundred steps, one thing changed at a time."""

from dataclasses import replace
from typing import Any

import pandas as pd

from tsfm_lib import checkpoints, paths
from tsfm_lib.evaluate import aggregate, forecasting
from tsfm_lib.experiments.trials import tasks
from tsfm_lib.train import fit
from tsfm_lib.train.recipes import RECIPES
from tsfm_lib.train.streams import generated

QUIET = {"quiet_start": 0.1}
MORE_CUTS = {
    "patch_lengths": (64, 32), "target_shares": (0.08, 0.64, 0.14, 0.14), "cuts": 8, "whole_prefix": 0.15, "prefix_lean": 1.0,
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "quiet start": QUIET,
    "more cuts": MORE_CUTS,
    "quiet start, more cuts": QUIET | MORE_CUTS,
}
"""Layers drawn so small that they start as nearly nothing; borders every 64 steps, of which up to eight are forecast from."""


def short_run(suite: str, variant: str, seed: int, steps: int, pool: int, count: int | None) -> list[dict[str, Any]]:
    """A row per data set of a suite, after an annealed run of so many steps."""
    recipe = RECIPES["kairos-nano"]
    recipe = replace(recipe, config=recipe.config | CHANGES[variant], seed=seed, steps=steps, pool=pool, warmup=min(200, steps // 2))
    stream = generated(replace(recipe, seed=0), folder=paths.BUILD / "pools", progress=False)
    run = fit(checkpoints.build(recipe.model, recipe.config, seed), replace(stream, recipe=recipe), recipe, progress=False)
    rows = forecasting.evaluate(run.model, tasks(suite, count), variant=variant, progress=False)
    table = aggregate.summary(rows, by=("dataset", "horizon"))
    return table[["dataset", "horizon", "MASE", "WQL"]].to_dict("records")


def relative_means(rows: pd.DataFrame, naive: pd.DataFrame) -> pd.DataFrame:
    """Geometric means over the sets, relative to the point seasonal naive, for each variant and seed."""
    reference = naive[naive["variant"] == "seasonal-naive"][["variant", "dataset", "horizon", "MASE", "WQL"]]
    found = []
    for (variant, seed), part in rows.groupby(["variant", "seed"], sort=False):
        ratios = aggregate.relative(pd.concat([reference, part[reference.columns]], ignore_index=True), to="seasonal-naive")
        means = aggregate.geometric_mean(ratios).set_index("variant").loc[variant, ["MASE", "WQL"]]
        found.append({"variant": variant, "seed": seed, **means})
    return pd.DataFrame(found)
