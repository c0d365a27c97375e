"""What accuracy grows with (notebook 33): size of the corpus and of the model, length of series, depth and width of the graph, its banks.

One sweep trains every encoder once, `trial` by `trial`; experiments are selections of its rows, and most of them share a cell: the middle
encoder on the middle corpus of the released generator. A training seed fixes the corpus, the start and the order of batches, and the
generators of one seed differ in nothing but what is varied. All trainings have equally many steps, whatever the corpus.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float32
from scipy.spatial import cKDTree
from scipy.stats import spearmanr
from torch import nn

from tsfm_lib import checkpoints
from tsfm_lib.evaluate import classification
from tsfm_lib.evaluate.neighbours import resized
from tsfm_lib.experiments.cauker import encoders, growth
from tsfm_lib.experiments.cauker.encoders import LENGTH, small
from tsfm_lib.experiments.cauker.generator import bands, coverage, power, varies
from tsfm_lib.synth.cauker import BANK, FAMILIES, VARIANTS, CauKerConfig

RANDOM, RAW = NOTHING = ("random weights", "raw values")  # stand in the column `corpus`: what no corpus has touched
STATISTICS = ("coverage", "novelty", "entropy", "roughness")
READOUTS = ("forest", "ridge")
SHARE = 2 / 9  # of the nodes are roots, in graphs of 9, 18 and 54 nodes alike
DEPTHS, LENGTHS = (2, 4, 6, 8), (128, LENGTH, 512)

GENERATORS = {
    "full": CauKerConfig(),
    "half-bank": CauKerConfig(bank=BANK[::2]),  # every second entry of each family
    **{f"{family} only": CauKerConfig(bank=FAMILIES[family]) for family in ("dot", "rbf")},  # those of which the paper gives numbers
    **{f"{name} only": CauKerConfig(activations=(name,)) for name in ("linear", "relu")},
    "repaired": VARIANTS["repaired"],
    **{f"depth {d}": CauKerConfig(depth=d, root_share=SHARE) for d in DEPTHS},
    "narrow": CauKerConfig(nodes=9, depth=4, root_share=SHARE),
    "wide": CauKerConfig(nodes=54, depth=4, root_share=SHARE),
    "shallow": CauKerConfig(depth=1, root_share=SHARE, activations=("linear",)),
    "one of each": CauKerConfig(bank=("rbf 0.1",), activations=("linear",), means=("zero",)),
}
BANKS = {"full": "full", "half-bank": "half-bank", "dot only": "one-family", "rbf only": "one-family", "linear only": "one-activation",
         "relu only": "one-activation", "repaired": "repaired"}  # fmt: skip
"""The variant under which the rows of a generator are judged; where two share one, their mean is."""

MODELS = {
    "mantis": {
        "tiny": small("mantis", width=8, layers=1, heads=2, head_width=4, hidden=16, scalar_width=2, head_hidden=16),
        "small": small("mantis", width=16, layers=1, heads=2, head_width=8, hidden=32, scalar_width=4, head_hidden=32),
        "middle": small("mantis"),
        "large": small("mantis", width=64, layers=3, head_width=16, hidden=128, scalar_width=16, head_hidden=128),
    },
    "moment": {
        "small": small("moment", width=32, layers=1, head_width=8, hidden=64),
        "middle": small("moment"),
        "large": small("moment", width=96, head_width=24, hidden=192),
    },
}
"""Mantis: about 6, 30 and 150 thousand parameters (tiny: 2); MOMENT 12, 85 and 330. A wider encoder has more features to read out."""

BUDGET = {
    "quick": {"seeds": 2, "whole": 1, "steps": 4, "scored": "two", "sizes": {"small": 128, "middle": 256, "large": 4096}, "between": (),
              "models": ("small",), "architectures": ("mantis",)},
    "laptop": {"seeds": 5, "whole": 5, "steps": 90, "scored": "sixteen", "sizes": {"small": 128, "middle": 1024, "large": 8192},
               "between": (362, 2896), "models": ("small", "middle"), "architectures": ("mantis", "moment")},
    "full": {"seeds": 5, "whole": 5, "steps": 5000, "scored": "all",
             "sizes": {"small": 1024, "middle": 8192, "large": 65_536, "largest": 524_288}, "between": (2896, 23_170, 185_364),
             "models": ("small", "middle", "large"), "architectures": ("mantis", "moment")},
}  # fmt: skip
"""Seeds (the first of them, `whole`, for everything, the others for the size of corpora alone), steps, the sets to score on, series of the
corpora and (for the smallest encoder) of some in between, encoders for which the corpus grows, and
architectures that grow."""


def experiments(profile: str) -> dict[str, dict[str, tuple]]:
    """What every experiment tries, where it differs from BASE; all combinations of it are trained."""
    budget = BUDGET[profile]
    models, named = budget["models"], tuple(budget["sizes"])
    return {
        "corpus_size": {"corpus": ("cauker", "real"), "size": named, "model_size": models},
        "corpus_curve": {"corpus": ("cauker", "real"), "size": (*named, *map(str, budget["between"])), "model_size": models[:1]},
        "model_size": {"architecture": budget["architectures"], "model_size": ("small", "middle", "large")},
        "work": {"size": (named[0], named[-1]), "model_size": models[:1], "steps": (budget["steps"], 4 * budget["steps"])},
        "length": {"length": LENGTHS},
        "depth": {"generator": tuple(f"depth {d}" for d in DEPTHS)},
        "width": {"generator": ("narrow", "wide")},
        "bank": {"generator": tuple(BANKS)},
        "shallow": {"generator": ("full", "shallow"), "size": (named[0], named[-1]), "model_size": models[:1]},
        "capacity": {"generator": ("full", "one of each"), "model_size": ("tiny", "middle")},
    }


BASE = {"architecture": "mantis", "corpus": "cauker", "size": "middle", "length": LENGTH, "generator": "full", "model_size": "middle"}


def cells(profile: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every encoder of the notebook once, those that share a corpus one after the other.

    >>> made_once = cells("laptop", (0,))
    >>> sum(BASE.items() <= cell.items() for cell in made_once)
    1
    """
    budget, given = BUDGET[profile], experiments(profile)
    whole, part = (_cells(budget, names) for names in (tuple(given.values()), (given["corpus_size"],)))
    return [cell | {"seed": seed} for i, seed in enumerate(seeds) for cell in (whole if i < budget["whole"] else part)]


def _cells(budget: dict[str, Any], tried: Sequence[dict[str, tuple]]) -> list[dict[str, Any]]:
    """All combinations of each experiment, and their encoders before any training; raw values."""
    base = BASE | {"steps": budget["steps"]}
    found = [base | dict(zip(one, choice)) for one in tried for choice in product(*one.values())]
    idle = base | {"size": "", "length": 0, "generator": ""}
    found += [idle | {"corpus": RANDOM, "architecture": cell["architecture"], "model_size": cell["model_size"]} for cell in found]
    found.append(idle | {"corpus": RAW, "architecture": "", "model_size": ""})
    sizes = budget["sizes"] | {str(n): n for n in budget["between"]}
    order = ("corpus", "size", "length", "generator", "architecture", "model_size", "steps")
    once = {tuple(cell[k] for k in order): cell for cell in found}
    return [once[at] | {"n": sizes.get(at[1], 0), "scored": budget["scored"]} for at in sorted(once)]


def sets_of(scored: str) -> tuple[str, ...]:
    """Of the development sets two, those with at least 100 test series, or all; without any of them the one that ships with a package."""
    if scored == "two":
        return encoders.development(few=True)[:2]
    every = encoders.development()
    return every if scored == "all" else tuple(s for s in every if len(encoders.prepared(s).y_test) >= 100)


def parameters(architecture: str, model_size: str) -> int:
    """Of an encoder with the head of its pretraining."""
    with torch.device("meta"):
        return sum(p.numel() for p in checkpoints.build(architecture, MODELS[architecture][model_size], 0).parameters())


# ---- corpora ---------------------------------------------------------------------------------------------------------------------------


def series_of(corpus: str, n: int, length: int, seed: int, generator: str) -> Float32[np.ndarray, "N T"]:
    """A corpus, drawn at its own length and brought to that of the encoder."""
    series = encoders.corpus(corpus, n, length, seed, GENERATORS[generator] if corpus == "cauker" else None)
    return series if length == LENGTH else resized(series[:, None], LENGTH)[:, 0]


@lru_cache(8)
def archive_bands(scored: str, per_set: int = 20) -> Float[np.ndarray, "N E"]:
    """Power by octave of training series of the sets that are scored, without their labels."""
    x = np.concatenate([encoders.prepared(s).x_train[:per_set, 0] for s in sets_of(scored)])
    return bands(x[varies(x)])


def statistics(series: Float[np.ndarray, "N T"], real: Float[np.ndarray, "M E"]) -> dict[str, float]:
    """What a corpus can be described by before anything is trained on it.

    coverage: share of archive series with one of the corpus nearby, in power by octave; novelty: median distance to the nearest other
    series of the corpus, same space; entropy of the spectra, 1 = white; roughness: share of power in the upper half of the frequencies.
    """
    own, share = bands(series), power(series[:2048])
    nearest, spectrum = cKDTree(own).query(own[:1024], 2)[0][:, 1], np.maximum(share, 1e-12)
    return {"coverage": coverage(real, own), "novelty": float(np.median(nearest)),
            "entropy": float(-(spectrum * np.log(spectrum)).sum(1).mean() / np.log(spectrum.shape[1])),
            "roughness": float(share[:, share.shape[1] // 2 :].sum(1).mean())}  # fmt: skip


@lru_cache(1)
def described(corpus: str, n: int, length: int, seed: int, generator: str, scored: str, /) -> dict[str, float]:
    return statistics(series_of(corpus, n, length, seed, generator), archive_bands(scored))


# ---- one encoder -----------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def loss_on(model: nn.Module, series: Float32[np.ndarray, "N T"], seed: int, batch: int = 100) -> float:
    """Of the pretraining, without dropout, on at most two batches of one size: what a contrast costs depends on the size."""
    found = []
    for first in range(0, min(len(series), 2 * batch) - batch + 1, batch):
        rows = torch.from_numpy(series[first : first + batch])[:, None]
        found.append(model.loss(rows, torch.Generator().manual_seed(seed)).item())
    return float(np.mean(found))


def trial(architecture: str, corpus: str, size: str, n: int, length: int, generator: str, model_size: str, seed: int, steps: int,
          scored: str) -> list[dict[str, Any]]:  # fmt: skip
    """Train one encoder (or leave it as it was drawn) and score it: rows of accuracy, and of the loss in ten pieces (`loss_curves`).

    Beside the loss at the end of the training: without dropout on series it has `seen`, on `fresh` ones of the same corpus, and on ones
    of the released generator (`common`)."""
    sets = sets_of(scored)
    if corpus == RAW:
        rows = classification.evaluate(None, sets, READOUTS, (seed,), ("raw",), progress=False)
        return rows[["dataset", "readout", "accuracy"]].to_dict("records")
    config, facts, curve = MODELS[architecture][model_size], {"parameters": parameters(architecture, model_size)}, []
    if corpus == RANDOM:
        model = checkpoints.build(architecture, config, seed).eval()
    else:
        series, fresh = (series_of(corpus, *which, generator) for which in ((n, length, seed), (256, length, seed + 10**6)))
        run = encoders.pretrain(architecture, series, seed, steps, config=config)
        model, losses = run.model, run.curve["loss"].to_numpy()
        on = {"seen": series, "fresh": fresh, "common": encoders.unlabelled()[:, 0]}
        facts |= described(corpus, n, length, seed, generator, scored)
        facts |= {"start": float(losses[0]), "loss": float(losses[-max(1, steps // 10) :].mean())}
        facts |= {name: loss_on(model, x, seed) for name, x in on.items()}
        curve = [{"experiment": "loss_curves", "step": int(piece[-1]) + 1, "loss": float(losses[piece].mean())}
                 for piece in np.array_split(np.arange(steps), min(10, steps))]  # fmt: skip
    return [facts | row for row in encoders.score(model, sets, READOUTS, seed)] + curve


# ---- experiments: selections of the rows -----------------------------------------------------------------------------------------------

CELL = ["profile", "architecture", "corpus", "size", "n", "length", "generator", "model_size", "steps", "seed"]
FACTS = ("parameters", *STATISTICS, "start", "loss", "seen", "fresh", "common")


def per_encoder(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per encoder: what is known of it, and its mean accuracy over sets in a column per read-out."""
    if not len(runs):
        return runs
    rows = runs[runs["experiment"] == "runs"]
    accuracy = rows.groupby([*CELL, "readout"], sort=False)["accuracy"].mean().unstack("readout")
    known = rows.groupby(CELL, sort=False)[list(FACTS)].first()
    return known.join(accuracy).reset_index().assign(experiment="encoders")


def select(rows: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Those rows (per set or per encoder) that one experiment varies, and random weights of the same encoders and raw values."""
    if not len(rows):
        return rows
    profile = rows["profile"].iloc[0]
    base = BASE | {"steps": BUDGET[profile]["steps"]}
    tried = {column: (value,) for column, value in base.items()} | experiments(profile)[experiment]
    rows = rows.fillna(dict.fromkeys(("architecture", "size", "generator", "model_size"), ""))      # as they were before a CSV
    trained = rows[np.logical_and.reduce([rows[column].isin(values) for column, values in tried.items()])]
    same = rows["architecture"].isin(tried["architecture"]) & rows["model_size"].isin(tried["model_size"])
    found = pd.concat([trained, rows[(rows["corpus"] == RANDOM) & same], rows[rows["corpus"] == RAW]], ignore_index=True)
    named = {"variant": (found["architecture"] + " " + found["model_size"]).str.strip(),
             "label": found["generator"].where(~found["corpus"].isin(NOTHING), found["corpus"])}  # fmt: skip
    found = found.assign(experiment=experiment, **named)
    if experiment == "depth":
        found["depth"] = pd.to_numeric(found["generator"].str.extract(r"depth (\d+)")[0])
    if experiment == "width":
        found["width"] = found["generator"].replace("", np.nan)
    if experiment == "bank":
        found["variant"] = found["generator"].map(BANKS).fillna(found["corpus"])
    if experiment == "model_size":
        found["variant"] = found["architecture"]
    return found


def judged(runs: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """What a verdict is computed from: accuracy by set and read-out, without what is known of the encoders."""
    if not len(runs):
        return runs
    return select(runs[runs["experiment"] == "runs"].drop(columns=["step", "scored", *FACTS]), experiment)


def table(rows: pd.DataFrame, by: Sequence[str], facts: Sequence[str] = ()) -> pd.DataFrame:
    """Means over seeds of rows per encoder: accuracies in percent, other facts as they are."""
    groups = rows.groupby(list(by), sort=False, dropna=False)
    accuracy = (100 * groups[list(READOUTS)].mean()).round(2)
    return accuracy.join(groups[list(facts)].mean().round(3)).join(groups["seed"].nunique().rename("seeds"))


def gains(rows: pd.DataFrame, by: str, of: Any) -> pd.DataFrame:
    """Points by which every level of `by` is above the level `of`, seed by seed, for each read-out (rows per encoder).

    >>> rows = pd.DataFrame({"seed": 0, "variant": ["full", "half"], "forest": [0.8, 0.7], "ridge": [0.8, 0.9]})
    >>> gains(rows, "variant", "full")["gain"].round(6).tolist()
    [-10.0, 10.0]
    """
    long = rows.melt(["seed", by], list(READOUTS), "readout", "accuracy")
    wide = 100 * long.groupby(["seed", "readout", by], sort=False)["accuracy"].mean().unstack(by)
    order = [level for level in dict.fromkeys(rows[by]) if level != of]
    return wide.sub(wide[of], axis=0)[order].melt(var_name=by, value_name="gain", ignore_index=False).reset_index()


# ---- growth ----------------------------------------------------------------------------------------------------------------------------


def curves(encoders: pd.DataFrame, readout: str = "forest") -> pd.DataFrame:
    """Accuracy of every encoder trained on released or on real series, by the size of the corpus (from rows per encoder)."""
    if not len(encoders):
        return encoders
    rows = pd.concat([select(encoders, "corpus_size"), select(encoders, "corpus_curve")])
    rows = rows[~rows["corpus"].isin(NOTHING)].drop_duplicates(["seed", "variant", "corpus", "n"])
    return rows.assign(accuracy=rows[readout]).sort_values(["corpus", "n"], kind="stable").reset_index(drop=True)


def ranked(encoders: pd.DataFrame, readout: str = "forest") -> pd.DataFrame:
    """Is growth monotone? Per seed, encoder and corpus: rank correlation of size and accuracy, steps up, points per tenfold size."""
    keys, found = ["profile", "seed", "variant", "corpus"], curves(encoders, readout)
    if not len(found):
        return found
    rows = [dict(zip(keys, at)) | growth.growth(one["n"], one["accuracy"]) for at, one in found.groupby(keys, sort=False)]
    return pd.DataFrame(rows).assign(experiment="corpus_size_rank")


def fits(encoders: pd.DataFrame, readout: str = "forest") -> pd.DataFrame:
    """Every curve fitted to the mean over seeds without the largest corpus, and by how much it misses there."""
    keys, found = ["profile", "variant", "corpus"], curves(encoders, readout)
    if not len(found):
        return found
    means = found.groupby([*keys, "n"], sort=False)["accuracy"].mean().reset_index()
    rows = [dict(zip(keys, at)) | fit for at, one in means.groupby(keys, sort=False) for fit in growth.held_out(one["n"], one["accuracy"])]
    return pd.DataFrame(rows).assign(experiment="fits")


KNOWN = ("n", *STATISTICS, "loss")


def predictors(encoders: pd.DataFrame, readout: str = "forest") -> pd.DataFrame:
    """Rank correlation of what is known of a corpus (or of a training on it) with accuracy, seed by seed.

    over "sizes": among corpora of one source that differ in size alone, mean over sources and encoders; over "generators": among all
    corpora of the middle size on which the middle encoder was trained.
    """
    sized = curves(encoders, readout)
    if not len(sized):
        return sized
    like = {name: BASE[name] for name in ("architecture", "size", "model_size")}
    made = encoders[np.logical_and.reduce([encoders[column] == value for column, value in like.items()])]
    groups = {"sizes": (sized, ["profile", "seed", "variant", "corpus"]), "generators": (made, ["profile", "seed"])}
    found = [{"over": over, **dict(zip(keys, at)), "statistic": name, "rho": spearmanr(one[name], one[readout]).statistic}
             for over, (rows, keys) in groups.items() for at, one in rows.groupby(keys) for name in KNOWN
             if one[name].nunique() > 1 and one[readout].nunique() > 1]  # fmt: skip
    keys = ["profile", "over", "statistic", "seed"]
    return pd.DataFrame(found).groupby(keys, sort=False)["rho"].mean().reset_index().assign(experiment="predictors")
