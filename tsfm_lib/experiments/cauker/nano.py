"""The shipped encoders on every set of the UCR suite: against random weights, and against what needs no pretraining (notebook 32).

Seed 0 of a trained model is the file that ships; every other seed is the same recipe with other series, another start and another order.
Protocol: official splits, frozen features, three read-outs; whitening is fitted on generated series, without labels.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

import tsfm_lib
from tsfm_lib import checkpoints
from tsfm_lib.evaluate import classification, comparison
from tsfm_lib.evaluate.comparison import Interval
from tsfm_lib.synth import cauker
from tsfm_lib.train import fit
from tsfm_lib.train.recipes import RECIPES
from tsfm_lib.train.streams import cauker_corpus, standardised

TRAINED, RANDOM, CHEAP = "trained", "random weights", "no pretraining"
SHIPPED = ("mantis-nano", "moment-nano")
READOUTS = ("forest", "whitened_forest", "ridge")
CHEAPLY = ("raw", "random-kernels", "1nn-euclidean", "1nn-dtw-10%")
WHITENING_SEED = 10**6                                       # no training seed comes near


def cells(seeds: dict[str, Sequence[int]], sets: Sequence[str] = (), steps: int | None = None) -> list[dict[str, Any]]:
    """The runs of a comparison: every model with its seeds, trained and not; and once what is cheap. `sets`: none means all of UCR.

    >>> [(cell["model"], cell["weights"], cell["seed"]) for cell in cells({"mantis-nano": (0, 1)})][:2]
    [('mantis-nano', 'trained', 0), ('mantis-nano', 'trained', 1)]
    """
    shared = {"sets": list(sets), "steps": steps}
    own = [{"model": model, "weights": weights, "seed": seed} for model, given in seeds.items() for weights in (TRAINED, RANDOM)
           for seed in given]  # fmt: skip
    return [cell | shared for cell in own] + [{"model": CHEAP, "weights": "", "seed": 0} | shared]


def suite_trial(model: str, weights: str, seed: int, sets: Sequence[str], steps: int | None) -> pd.DataFrame:
    """Accuracy on every set, through every read-out. `steps`: fewer than the recipe has, for a first look."""
    data = list(sets) or "ucr"
    if model == CHEAP:
        rows = classification.evaluate(None, data, READOUTS, range(5), CHEAPLY, progress=False)
        rows["model"] = rows["variant"]
    else:
        rows = classification.evaluate(encoder(model, weights, seed, steps), data, READOUTS, (seed,), baselines=False, progress=False,
                                       whiten_on=unlabelled())  # fmt: skip
        rows["model"] = model
    return rows[["dataset", "model", "readout", "seed", "accuracy", "unit"]]


def encoder(model: str, weights: str, seed: int, steps: int | None = None) -> Any:
    """A shipped model, or another seed of its recipe, or its architecture before any training."""
    if weights == TRAINED and seed == 0 and steps is None:
        return tsfm_lib.load(model)
    recipe = replace(RECIPES[model].with_budget(steps=steps), seed=seed)
    if steps is not None:
        recipe = replace(recipe, pool=min(recipe.pool, steps * recipe.batch))                            # no more than it will see
    built = checkpoints.build(recipe.model, recipe.config, seed)
    return built.eval() if weights == RANDOM else fit(built, cauker_corpus(recipe), recipe, progress=False).model


@cache
def unlabelled(n: int = 4096) -> Float[np.ndarray, "n 1 512"]:
    return standardised(cauker.generate(n, 512, WHITENING_SEED))[:, None]


# -- what the rows say --


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over sets, in percent: one line for every model and its weights, one column for every read-out."""
    rows = rows.fillna({"weights": ""})                                       # as recorded rows come back
    named = rows.assign(encoder=[_name(*pair) for pair in zip(rows["model"], rows["weights"])])
    means = named.groupby(["encoder", "readout"], sort=False)["accuracy"].mean() * 100
    known = list(dict.fromkeys(named["readout"]))
    order = [name for name in READOUTS if name in known] + [name for name in known if name not in READOUTS]
    return means.unstack("readout").loc[list(dict.fromkeys(named["encoder"])), order]


def gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """Trained minus random weights in points, for every model and read-out: over sets (bootstrap), and over seeds (t)."""
    found = []
    for (model, readout), part in rows[rows["weights"].isin((TRAINED, RANDOM))].groupby(["model", "readout"], sort=False):
        wide = part.pivot(index=["dataset", "seed"], columns="weights", values="accuracy")
        points = (100 * (wide[TRAINED] - wide[RANDOM])).rename("points").reset_index()
        for over in ("dataset", "seed"):
            means = points.groupby(over)["points"].mean()
            found.append({"model": model, "readout": readout, "over": over, **_row(comparison.interval(means.to_numpy()))})
    return pd.DataFrame(found)


def over_cheap(rows: pd.DataFrame, readout: str = "forest") -> pd.DataFrame:
    """Every trained model under one read-out minus everything that needs no pretraining, in points over sets."""
    rows = rows.fillna({"weights": ""})
    named = rows.assign(runner=list(zip(rows["model"], rows["weights"], rows["readout"])))
    means = 100 * named.pivot_table("accuracy", "dataset", "runner", sort=False).dropna()               # sets x runners
    own, cheap = ([r for r in means if r[1] == weights] for weights in (TRAINED, ""))
    return pd.DataFrame([{"model": us[0], "readout": readout, "rival": f"{rival[0]}, {rival[2]}",
                          **_row(comparison.interval((means[us] - means[rival]).to_numpy()))}
                         for us in own if us[2] == readout for rival in cheap])  # fmt: skip


def bars(found: pd.DataFrame, *columns: str) -> dict[str, Interval]:
    """The rows of `gaps` or `over_cheap` as intervals, named by these columns: for a forest plot."""
    return {", ".join(row[name] for name in columns): Interval(row["points"], row["low"], row["high"], row["units"], "")
            for row in found.to_dict("records")}  # fmt: skip


def _row(found: Interval) -> dict[str, float]:
    return {"points": found.estimate, "low": found.low, "high": found.high, "units": found.n}


def _name(model: str, weights: str) -> str:
    return f"{model}, {weights}" if weights else model
