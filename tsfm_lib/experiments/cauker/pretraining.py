"""What a corpus is worth to an encoder that is pretrained on it (C1, C4, C6, C10), and how a pretraining fails.

One sweep trains every encoder once: `trial` for a model, a corpus and a seed. The experiments are selections of its rows. A seed fixes the
series of the corpus, the start of the weights and the order of the batches; corpora that differ in one step of the generator share all
other draws. All trainings of a model have the same number of steps, whatever the size of their corpus.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.evaluate import classification, comparison
from tsfm_lib.evaluate.classification import features
from tsfm_lib.experiments.cauker import encoders
from tsfm_lib.experiments.cauker.encoders import BATCH, effective_rank, small, unlabelled
from tsfm_lib.nn.objectives import mask_patches
from tsfm_lib.synth.cauker import CauKerConfig

MODELS = ("mantis", "moment")
RANDOM = "random-weights"
RIVALS = ("cauker", "mean-kernelsynth", "kernelsynth", "scm")
OTHER_MEANS = {"zero": CauKerConfig(means=("zero",)), "one": CauKerConfig(means=("linear",)), "loud": CauKerConfig(mean_scale=4.0)}
REAL = {"real-without-ucr": "real", "real-with-ucr": "real+ucr"}
"""Names in tables, and of the corpora: UEA sets and windows of forecasting sets, with or without the training parts of UCR sets."""
TWENTIETHS = {"cauker-twentieth": "cauker", "real-twentieth": "real-without-ucr"}
MADE, BESIDE = (*RIVALS, *OTHER_MEANS, "cauker-twentieth"), ("loud", "real-twentieth")
"""Those that are made; those of which no claim speaks: three seeds are enough, and one is not worth it."""

MEANS = {"zero": "zero", "one": "one", "cauker": "full", "loud": "four times the full"}
WITHOUT_GRAPH = {"kernelsynth": "zero", "mean-kernelsynth": "full"}
NEAREST = ("1nn-euclidean", "1nn-dtw")
BASELINES = {"raw values": "raw values", "random kernels": "random kernels", "1nn-euclidean": "1-NN Euclidean", "1nn-dtw": "1-NN DTW"}

WATCHED = 6                                                     # of the cheapest sets: for curves over a training

PAPER = {                                                       # Table 1, accuracy in percent, single runs
    "mantis": {"cauker": 78.31, "mean-kernelsynth": 78.20, "kernelsynth": 77.70, "scm": 73.49},
    "moment": {"cauker": 74.24, "mean-kernelsynth": 72.56, "kernelsynth": 69.31, "scm": 59.23},
}  # fmt: skip


# ---- one training ---------------------------------------------------------------------------------------------------------------


def series_of(corpus: str, n: int, seed: int) -> Float32[np.ndarray, "M T"]:
    """The series an encoder sees: n of a corpus, or the first twentieth of them."""
    if corpus in TWENTIETHS:
        return series_of(TWENTIETHS[corpus], n // 20, seed)
    return encoders.corpus(REAL.get(corpus, corpus), n, seed=seed, config=OTHER_MEANS.get(corpus))


def trial(model: str, corpus: str, seed: int, n: int, steps: int, few: int, looks: int) -> list[dict[str, Any]]:
    """One encoder, before (`random-weights`) or after its training: accuracy by set and read-out (experiment `scores`), how it ended
    (`ends`), and what it was at `looks` even places of its training (`curve`). `few`: only so many of the cheapest sets, 0 for all."""
    sets, watched, net = encoders.development(few > 0)[: few or None], [], encoders.untrained(model, seed)
    ends = {"series": 0, "epochs": 0.0, "loss": np.nan}
    if corpus != RANDOM:
        series = series_of(corpus, n, seed)
        look = lambda step, now: watched.append({"step": step, **state(now, seed, few)}) if looks and step % (steps // looks) == 0 else None
        run = encoders.pretrain(model, series, seed, steps, watch=look)
        net, loss = run.model, run.curve["loss"]
        ends = {"series": len(series), "epochs": steps * BATCH / len(series), "loss": float(loss.tail(max(1, steps // 10)).mean())}
        if looks:
            look(steps, run.raw)
            for one in watched[1:]:
                one["loss"] = float(loss[one["step"] - steps // looks : one["step"]].mean())
    ends["effective_rank"] = effective_rank(features(net, unlabelled()))
    curve = [{"experiment": "curve", "epoch": one["step"] * BATCH / ends["series"], **one} for one in watched]
    return [{"experiment": "scores", **row} for row in encoders.score(net, sets, seed=seed)] + [{"experiment": "ends", **ends}, *curve]


def state(net: nn.Module, seed: int, few: int) -> dict[str, float]:
    """Accuracy by forest over the cheapest sets, and the effective rank on generated series."""
    rows = encoders.score(net, encoders.development(True)[: few or WATCHED], ("forest",), seed)
    return {"accuracy": float(np.mean([row["accuracy"] for row in rows])), "effective_rank": effective_rank(features(net, unlabelled()))}


def cells(seeds: Sequence[int], real: bool, looks: int, **size: int) -> Iterator[dict[str, Any]]:
    """All trainings of the notebook, those that share a corpus one after the other; curves for the two corpora that C4 compares.

    >>> len(list(cells(range(5), real=True, looks=8, n=8192, steps=128, few=0)))
    112
    """
    for k, seed in enumerate(seeds):
        for corpus in (RANDOM, *MADE, *((*REAL, "real-twentieth") if real else ())):
            for model in MODELS if corpus not in BESIDE or (k < 3 and len(seeds) > 1) else ():
                yield {"model": model, "corpus": corpus, "seed": seed, "looks": looks * (corpus in ("cauker", "real-without-ucr")), **size}


def baselines(seed: int, few: int, nearest: bool) -> pd.DataFrame:
    """What needs no pretraining, on the same sets: raw values, random kernels, and (they are the same for all seeds) nearest neighbours."""
    sets = encoders.development(few > 0)[: few or None]
    names = ("raw", "random-kernels", *(NEAREST if nearest else ()))
    rows = classification.evaluate(None, sets, ("forest", "ridge"), (seed,), names, progress=False)
    alone = rows["readout"].isin(NEAREST)
    rows["variant"] = rows["readout"].where(alone, rows["variant"]).map(BASELINES)
    return rows.assign(readout=rows["readout"].mask(alone, "nearest"))[["dataset", "variant", "readout", "accuracy"]]


# ---- selections of its rows -----------------------------------------------------------------------------------------------------

SCORES = ["profile", "seed", "model", "dataset", "readout", "accuracy"]


def renamed(runs: pd.DataFrame, names: dict[str, str], column: str, experiment: str) -> pd.DataFrame:
    """Scores of some corpora in this order, which a column of this name calls as the rule of a claim does."""
    scores = runs[runs["experiment"] == "scores"]
    kept = pd.concat([scores[scores["corpus"] == name] for name in names])
    named = kept.assign(experiment=experiment, **{column: kept["corpus"].map(names)})
    return named[["experiment", *SCORES[:3], column, *SCORES[3:]]].reset_index(drop=True)


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over data sets, where the seed is the unit."""
    keys = [column for column in rows if column not in ("dataset", "accuracy")]
    return rows.groupby(keys, sort=False, dropna=False)["accuracy"].mean().reset_index()


def corpora(runs: pd.DataFrame, cheap: pd.DataFrame) -> pd.DataFrame:
    """Rows of C1: made corpora, random weights, and what needs no pretraining (as model `none`)."""
    own = renamed(runs, {name: name for name in (*RIVALS, RANDOM)}, "variant", "corpora")
    return pd.concat([own, cheap.assign(experiment="corpora", model="none")[list(own)]], ignore_index=True)


def real_corpus(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of C10. `real` is, model by model, that real corpus which is better under the forest in the mean over seeds: a choice by the
    outcome that can only help the rival of the claim."""
    rows = by_seed(renamed(runs, {name: name for name in (RANDOM, "cauker", *REAL, *TWENTIETHS)}, "variant", "real_corpus"))
    forest = rows[(rows["readout"] == "forest") & rows["variant"].isin(list(REAL))]
    means = forest.groupby(["model", "variant"])["accuracy"].mean()
    best = [rows[(rows["model"] == model) & (rows["variant"] == means[model].idxmax())] for model in rows["model"].unique()
            if model in means]  # fmt: skip
    return pd.concat([rows, *(one.assign(variant="real") for one in best)], ignore_index=True)


def dynamics(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of C4: loss over the last tenth of a training, and the share of looks at which accuracy fell since the look before."""
    drops = runs[runs["experiment"] == "curve"].sort_values("step").groupby(["model", "corpus", "seed"])["accuracy"]
    share = drops.agg(lambda a: float((np.diff(a) < 0).mean())).rename("drops").reset_index()
    ends = runs[runs["experiment"] == "ends"][["profile", "model", "corpus", "seed", "loss", "epochs", "effective_rank"]]
    rows = share.merge(ends, on=["model", "corpus", "seed"])
    return rows.assign(experiment="dynamics", corpus=rows["corpus"].replace({"real-without-ucr": "real"}))


def table(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean accuracy in percent over sets and seeds: a line for every group (model by model), a column for every read-out."""
    percent = 100 * rows.groupby([*by, "readout"], sort=False)["accuracy"].mean()
    return percent.unstack("readout", sort=False).round(1).sort_index(level=0, sort_remaining=False, kind="stable")


def gain(rows: pd.DataFrame, model: str, better: str, than: str, readout: str = "forest", by: str = "variant") -> pd.Series:
    """By how many points one is ahead of the other, seed by seed; missing where either was not run."""
    kept = rows[(rows["model"] == model) & (rows["readout"] == readout)]
    wide = 100 * kept.pivot_table(index="seed", columns=by, values="accuracy").reindex(columns=[better, than])
    return wide[better] - wide[than]


def steps_of(rows: pd.DataFrame, order: Sequence[str], readout: str = "forest") -> dict[tuple[str, str], comparison.Interval]:
    """Gain in points of each corpus over the next, model by model, with an interval over data sets (means over seeds first)."""
    found = {}
    for model in MODELS:
        one = rows[(rows["model"] == model) & (rows["readout"] == readout)]
        wide = 100 * one.pivot_table(index="dataset", columns="variant", values="accuracy")
        for good, bad in zip(order, order[1:]):
            if good in wide and bad in wide and len(wide) > 1:
                found[model, f"{good} over {bad}"] = comparison.interval((wide[good] - wide[bad]).to_numpy())
    return found


def paper_steps(order: Sequence[str]) -> dict[tuple[str, str], float]:
    """The same differences as the paper has them."""
    return {(m, f"{good} over {bad}"): round(PAPER[m][good] - PAPER[m][bad], 2) for m in MODELS for good, bad in zip(order, order[1:])}


CHEAPEST = {"raw values": "forest", "random kernels": "ridge", "1-NN Euclidean": "nearest", "1-NN DTW": "nearest"}


def ranked(rows: pd.DataFrame, model: str, readout: str = "forest") -> comparison.Ranks:
    """Ranks over data sets, means over seeds first: every corpus and random weights by one read-out, and what needs no pretraining."""
    own = rows[(rows["model"] == model) & (rows["readout"] == readout)]
    cheap = rows[(rows["model"] == "none") & (rows["readout"] == rows["variant"].map(CHEAPEST))]
    wide = pd.concat([own, cheap]).pivot_table(index="dataset", columns="variant", values="accuracy")
    return comparison.ranks(wide.round(6), higher=True)                                 # ties stay ties when rows come from a file


# ---- break it -------------------------------------------------------------------------------------------------------------------


def attraction(net: nn.Module, batch: Float[Tensor, "B V T"], generator: torch.Generator) -> Float[Tensor, ""]:
    """Views of one series shall agree, and nothing shall differ: a contrast without negatives."""
    one, other = (F.normalize(net.project(view), dim=1) for view in net.views(batch[:, 0], generator))
    return (1 - (one * other).sum(1)).mean()


Change = Callable[[Float32[np.ndarray, "N T"]], Float32[np.ndarray, "N T"]]
BREAKS: dict[tuple[str, str], dict[str, Any]] = {
    ("mantis", "as it is"): {},
    ("mantis", "no negatives"): {"loss": attraction},
    ("mantis", "temperature 10"): {"config": small("mantis", temperature=10.0)},
    ("mantis", "temperature 0.01"): {"config": small("mantis", temperature=0.01)},
    ("mantis", "batches of 4"): {"batch": 4},
    ("mantis", "eight series"): {"change": lambda x: np.resize(x[:8], x.shape)},
    ("mantis", "flat series"): {"change": np.zeros_like},
    ("mantis", "shorter than warm-up"): {"warmup": 2000},
    ("moment", "as it is"): {},
    ("moment", "nine tenths hidden"): {"config": small("moment", mask_ratio=0.9)},
    ("moment", "eight series"): {"change": lambda x: np.resize(x[:8], x.shape)},
    ("moment", "flat series"): {"change": np.zeros_like},
    ("moment", "shorter than warm-up"): {"warmup": 2000},
}  # fmt: skip
"""Ways to spoil a pretraining on CauKer, each by one change."""


def broken(model: str, variant: str, seed: int, n: int, steps: int, few: int) -> dict[str, Any]:
    """A spoilt training: its loss at the end beside that of knowing nothing, and what became of the features.

    `alike`: mean cosine between the features of different generated series. `behind_head`: the same of what the contrast itself sees."""
    how = dict(BREAKS[model, variant])
    change: Change = how.pop("change", lambda x: x)
    series, x = change(encoders.corpus("cauker", n, seed=seed)), unlabelled()
    run = encoders.pretrain(model, series, seed, steps, **how)
    net, loss = run.model, float(run.curve["loss"].tail(max(1, steps // 10)).mean())
    found = {"loss": loss, **state(net, seed, few), "alike": alike(features(net, x))}
    if model == "moment":
        return found | {"knowing_nothing": filled_with_means(net, series[: len(x)], seed)}
    with torch.no_grad():
        behind = net.project(torch.from_numpy(x[:, 0])).numpy()
    nothing = 1.0 if variant == "no negatives" else float(np.log(how.get("batch", BATCH)))
    return found | {"knowing_nothing": nothing, "behind_head": alike(behind), "rank_behind_head": effective_rank(behind)}


def alike(z: Float[np.ndarray, "N D"]) -> float:
    """Mean cosine over all pairs of different rows: 1 when all point the same way.

    >>> alike(np.eye(3)), alike(np.ones((3, 2))).__round__(6)
    (0.0, 1.0)
    """
    unit = z.astype(np.float64) / np.linalg.norm(z, axis=1, keepdims=True).clip(1e-12)
    return float((np.square(unit.sum(0)).sum() - len(z)) / (len(z) * (len(z) - 1)))


@torch.no_grad()
def filled_with_means(net: nn.Module, series: Float32[np.ndarray, "N T"], seed: int) -> float:
    """The loss of a MOMENT that fills every hidden patch with the mean of what it sees."""
    rows = torch.from_numpy(series)
    hidden = mask_patches(torch.ones(len(rows), net.config.patches, dtype=torch.bool), net.config.mask_ratio,
                          torch.Generator().manual_seed(seed))  # fmt: skip
    raw, statistics = net.reconstruct(rows, hidden)
    return float(net.masked_error(rows, torch.zeros_like(raw), statistics, hidden))
