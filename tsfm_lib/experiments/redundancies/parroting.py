"""Who repeats what was just heard, and at whose cost can it be stopped (notebook 52: R4, R10).

Motifs and seasons are planted, 48 steps are forecast. Nobody can foresee the break of a motif, so a gap far above 0 is a forecast that
trusts the copy. "Sharp" and "diffuse" are the ends of the entropy of attention on calibration windows; shares are fixed here. An ablation
that merely destroys a forecast also lowers its gap, so every drop stands beside the MASE that it costs on ordinary windows, and beside
random draws, with as many heads of each layer, that cost about as much.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import nn

import tsfm_lib
from tsfm_lib import interpret
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate.comparison import Interval, interval
from tsfm_lib.experiments.redundancies import growing, ranks, subjects
from tsfm_lib.experiments.trials import trained
from tsfm_lib.interpret.capturing import Run
from tsfm_lib.interpret.plans import Plan, head_sites, layers, sites
from tsfm_lib.interpret.ranking import Scores, together
from tsfm_lib.nn.sites import MLPSite
from tsfm_lib.synth import chaos, planted
from tsfm_lib.train.streams import rng_for

SHARP, DIFFUSE = 0.15, 0.3  # of all heads
MOTIF, PERIOD, CONTEXT = 32, 24, 512
COMMON = (24, 7, 12)  # periods that calendars have
SAME = 1.25  # costs that differ by no more than this factor are the same damage
FLAT = 0.8  # an error on motifs that go on that is no better than a flat line's (0.82 to 0.84): nothing is copied
LEAST = 2.0  # percent of MASE; less is no price to divide by
REPEATS = f"repeats the last {MOTIF} steps"


# ---- what is measured ------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def planted_motifs(n: int, seed: int, broken: bool = True, motif: int = MOTIF) -> planted.Motifs:
    return planted.motifs(n, CONTEXT, subjects.HORIZON, motif, rng_for(seed, motif, "motifs"), broken=broken)


@lru_cache(maxsize=4)
def planted_seasons(n: int, seed: int, period: int | None = PERIOD, after: int | str | None = "same") -> planted.Seasons:
    return planted.seasons(n, CONTEXT, subjects.HORIZON, period, after, rng_for(seed, period or 0, "seasons"))


class Measured(NamedTuple):
    """Under every plan: parrot gap and distance to the intact forecast on motifs, power of the season (1 = all of it), MASE in percent of
    the intact one."""

    gap: Float[np.ndarray, "P n"]
    moved: Float[np.ndarray, "P n"]
    power: Float[np.ndarray, "P n"]
    mase: Float[np.ndarray, "P N"]


def measured(model: nn.Module, plans: Sequence[Plan], n: int, seed: int, given: subjects.Windows | None) -> Measured:
    """`plans[0]` is the intact model."""
    masks, run = interpret.HeadMask(model, plans), subjects.medians(model)
    told, seasons = planted_motifs(n, seed), planted_seasons(n, seed)
    context = lambda made: torch.from_numpy(made.series[:, None, : made.context])
    said, swung = (masks.evaluate(run, context(made))[:, :, 0].numpy() for made in (told, seasons))
    gap = np.stack([interpret.parrot_gap(y, told).gap for y in said])
    moved = np.stack([interpret.spearman_distance(y, said[0]).distance for y in said])
    power = interpret.seasonal_power(swung, [PERIOD])[..., 0]
    mase = np.zeros((len(plans), 0))
    if given is not None:
        losses = masks.losses(run, given.x, given.target, subjects.mase)
        mase = subjects.shares(losses, given.dataset).numpy()
    return Measured(gap, moved, power, mase)


def entropies(model: nn.Module, suite: str, count: int | None) -> Scores:
    """Of the heads that have a choice."""
    known = subjects.affordable(model, subjects.windows(suite, count, "calibration"))
    found = interpret.sharpness(model, subjects.one_pass(model), subjects.told(model, known.x))
    return ranks.with_choice(found, {"entropy": found})


def tokens(model: nn.Module) -> tuple[int, int] | None:
    """Steps of a token and special tokens behind the context; None where tokens are not all of one size."""
    name, config = type(model).__name__, model.config
    if name == "Chronos":
        return 1, int(config.end)
    patched = name in ("ChronosBolt", "TimesFM", "Toto", "TimeTracker")
    return (config.patch, int(bool(getattr(config, "reg_token", False)))) if patched else None


def inductions(model: nn.Module, n: int, seed: int) -> Scores | None:
    """Attention to what followed the last time, on motifs of four tokens without noise (32 for tokens of one step)."""
    size = tokens(model)
    if size is None:
        return None
    period = 4 if size[0] > 1 else 32
    plain = {"broken": False, "smooth": 0.0, "noise": 0.0}
    made = planted.motifs(n, CONTEXT, subjects.HORIZON, period * size[0], rng_for(seed, 1, "induction"), **plain)
    x = subjects.told(model, torch.from_numpy(made.series[:, None, :CONTEXT]))
    try:
        return interpret.induction(model, subjects.one_pass(model), x, period, size[1])
    except TsfmError:  # a site without such a key: one query, or a context of fewer tokens
        usable = [s.name for s in head_sites(model) if s.kind != "space" and not (s.stack == "decoder" and s.kind == "self" and size[1])]
        return interpret.induction(model, subjects.one_pass(model), x, period, size[1], usable) if usable else None


# ---- intact models ---------------------------------------------------------------------------------------------------------------------


BASELINES = {"parrot": lambda: interpret.Parrot(MOTIF), "seasonal-naive": lambda: tsfm_lib.load("seasonal-naive", season=MOTIF)}


def baseline(name: str) -> Run:
    forecaster = BASELINES[name]()
    return lambda x: torch.as_tensor(forecaster.predict_quantiles(x, subjects.HORIZON, [0.5]))[..., 0].float()


def intact(variant: str, folder: str, weights: str, suite: str, count: int | None, n: int, seed: int) -> list[dict[str, Any]]:
    """Parrot gap of a model or a baseline on motifs that go on or break, and on chaos: is the forecast nearer to the truth than to what the
    parrot says? And its MASE on ordinary windows."""
    given = subjects.windows(suite, count, "test")
    if variant in BASELINES:
        run = baseline(variant)
    else:
        model = subjects.load(variant, folder)
        run, given = subjects.medians(model), subjects.affordable(model, given)
    rows = [{"series": "suite", "MASE": subjects.score(subjects.mase(run(given.x), given.target)[None], given.dataset)[0]}]
    for motif in (MOTIF, MOTIF * 3 // 4):
        for broken in (False, True):
            made = planted_motifs(n, seed, broken, motif)
            found = interpret.parrot_gap(run(torch.from_numpy(made.series[:, None, :CONTEXT]))[:, 0], made)
            rows.append({"series": f"motif of {motif}, {'broken' if broken else 'goes on'}",
                         **{name: float(getattr(found, name).mean()) for name in found._fields}})  # fmt: skip
    wild = torch.from_numpy(chaos.chaos(n, CONTEXT + subjects.HORIZON, rng_for(seed, 0, "chaos")))[:, None]
    truth, said, copy = wild[..., CONTEXT:], run(wild[..., :CONTEXT]), baseline("parrot")(wild[..., :CONTEXT])
    to_truth, to_copy = (float((said - other).abs().mean()) for other in (truth, copy))
    return [*rows, {"series": "chaos", "to_truth": to_truth, "to_copy": to_copy, "gap": to_truth - to_copy}]


def heads(variant: str, folder: str, weights: str, suite: str, count: int | None, n: int, seed: int) -> list[dict[str, Any]]:
    """A row per head: entropy, induction score, and what happens to gap, season and MASE without it."""
    model = subjects.load(variant, folder)
    sharp, copying = entropies(model, suite, count), inductions(model, n, seed) or {}
    single = [(site, h) for site, values in sharp.items() for h in range(len(values))]
    given = subjects.affordable(model, subjects.windows(suite, count, "test"))
    found = measured(model, [Plan(), *(together([head]) for head in single)], n, seed, given)
    gap, power, mase = (x.mean(1) for x in (found.gap, found.power, found.mase))
    return [{"site": site, "head": h, "entropy": float(sharp[site][h]), "induction": float(copying[site][h]) if site in copying else np.nan,
             "parrot_drop": gap[0] - gap[1 + i], "seasonal_drop": power[0] - power[1 + i], "increase": mase[1 + i] - 100}
            for i, (site, h) in enumerate(single)]  # fmt: skip


# ---- sharp, diffuse, random (R4) ---------------------------------------------------------------------------------------------------------


def matched(cost: Float[np.ndarray, " D"], to: float, keep: int) -> np.ndarray:
    """The draws whose cost is nearest to a given one.

    >>> matched(np.array([1.0, 9.0, 4.0]), 5.0, 1)
    array([2])
    """
    return np.argsort(np.abs(cost - to), kind="stable")[:keep]


def sharp_heads(variant: str, folder: str, weights: str, suite: str, count: int | None, n: int, seed: int, draws: int) -> list[dict]:
    """Rows per series, experiments:

    sharp_heads     the sharpest heads, random ones with the same counts per layer, and those of them that cost about as much MASE
    sharp_single    the sharpest head alone, and every other head
    diffuse_heads   MASE without the most diffuse heads, the sharpest ones, random ones, and intact; the unit is the series of a suite"""
    model, entropy = subjects.load(variant, folder), entropies(subjects.load(variant, folder), suite, count)
    given = subjects.affordable(model, subjects.windows(suite, count, "test"))
    sharp, diffuse = interpret.select(entropy, SHARP), interpret.select(entropy, DIFFUSE, highest=True)
    random = [interpret.random_like(model, sharp, 1000 * seed + i) for i in range(draws)]
    order = interpret.order(entropy)
    single = [together([head]) for head in order]
    plans = [Plan(), sharp, diffuse, interpret.random_like(model, diffuse, seed), *random, *single]
    found = measured(model, plans, n, seed, given)
    drop, fall = found.gap[:1] - found.gap, found.power[:1] - found.power
    cost = found.mase.mean(1) - 100
    first, last = 4, 4 + draws
    near = first + matched(cost[first:last], cost[1], max(1, draws // 4))
    groups = {
        "sharp_heads": {"sharp": [1], "random": range(first, last), "random, same damage": near},
        "sharp_single": {"sharpest": [last], "others": range(last + 1, len(plans))},
    }
    rows = []
    for experiment, variants in groups.items():
        for name, which in variants.items():
            which = list(which)
            common = {"experiment": experiment, "removed": name, "model": variant, "MASE_increase": cost[which].mean()}
            rows += [{**common, "unit": f"{variant}/{i}", "parrot_drop": drop[which, i].mean(), "seasonal_drop": fall[which, i].mean()}
                     for i in range(n)]  # fmt: skip
    for name, p in {"intact": 0, "diffuse removed": 2, "sharp removed": 1, "random removed": 3}.items():
        mean = pd.Series(found.mase[p]).groupby(given.series, sort=False).mean()
        rows += [{"experiment": "diffuse_heads", "removed": name, "model": variant, "unit": f"{variant}/{unit}", "MASE": value}
                 for unit, value in mean.items()]  # fmt: skip
    return rows


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """`variant` becomes what was removed, as R4 is judged from."""
    return rows.assign(variant=rows["removed"])


def sequential(variant: str, folder: str, weights: str, suite: str, count: int | None, n: int, seed: int, draws: int,
               shares: Sequence[int] = (0, 5, 10, 20, 30, 50)) -> list[dict[str, Any]]:  # fmt: skip
    """Heads go one after another: sharpest first, most copying first, each reversed and shuffled (means over `draws`)."""
    model, entropy = subjects.load(variant, folder), entropies(subjects.load(variant, folder), suite, count)
    given, rng = subjects.affordable(model, subjects.windows(suite, count, "test")), np.random.default_rng(seed)
    orders = {"sharp first": interpret.order(entropy), "diffuse first": interpret.order(entropy, highest=True)}
    if copying := inductions(model, n, seed):
        orders |= {"copying first": interpret.order(copying, highest=True), "copying last": interpret.order(copying)}
    every = orders["sharp first"]
    orders |= {f"shuffled {i}": [every[j] for j in rng.permutation(len(every))] for i in range(draws)}
    facts = [(name, share) for name in orders for share in shares]
    plans = [Plan(), *(together(orders[name][: round(share / 100 * len(every))]) for name, share in facts)]
    found = measured(model, plans, n, seed, given)
    return [{"order": name.partition(" ")[0] if name.startswith("shuffled") else name, "draw": int(name.rpartition(" ")[2])
             if name.startswith("shuffled") else 0, "share": share, "parrot_gap": found.gap[p].mean(), "moved": found.moved[p].mean(),
             "seasonal_power": found.power[p].mean(), "increase": found.mase[p].mean() - 100}
            for p, (name, share) in enumerate(facts, 1)]  # fmt: skip


# ---- cross-attention, self-attention, MLPs (R4) ------------------------------------------------------------------------------------------


def parrot_sites(variant: str, folder: str, weights: str, suite: str, count: int | None, n: int, seed: int) -> list[dict[str, Any]]:
    """One site at a time (mean over the layers of a stack), a row per kind of site and series. Encoder-decoders: "cross-attention",
    "self-attention" and "mlp" are the decoder's, the encoder's are named so."""
    model = subjects.load(variant, folder)
    given, kinds, plans = subjects.affordable(model, subjects.windows(suite, count, "test")), [], [Plan()]
    for name, site in sites(model).items():
        mlp = isinstance(site, MLPSite)
        what = "mlp" if mlp else "cross-attention" if site.kind == "cross" else "self-attention"
        kinds.append(what if site.stack == list(layers(model))[-1].partition(".")[0] else f"{site.stack} {what}")
        plans.append(Plan(mlps=[name]) if mlp else Plan(heads={name: range(site.n_heads)}))
    found, rows = measured(model, plans, n, seed, given), []
    for what in dict.fromkeys(kinds):
        which = [1 + p for p, name in enumerate(kinds) if name == what]
        drop, fall = (x[:1].mean(0) - x[which].mean(0) for x in (found.gap, found.power))
        common = {"removed": what, "model": variant, "kind": subjects.kind(model), "MASE_increase": found.mase[which].mean() - 100}
        rows += [{**common, "unit": f"{variant}/{i}", "parrot_drop": drop[i], "seasonal_drop": fall[i]} for i in range(n)]
    return rows


# ---- seasons that are not there ----------------------------------------------------------------------------------------------------------

CASES = {"goes on": (PERIOD, "same"), "changes to 36": (PERIOD, 36), "ends": (PERIOD, None), "never was": (None, None)}


def seasonal_bias(variant: str, folder: str, weights: str, suite: str, count: int | None, n: int, seed: int) -> list[dict[str, Any]]:
    """Seasonal power of forecast minus truth (1 = a whole season too much), at the context's period and at common ones; intact, and without
    the sharpest or the most diffuse heads."""
    model, entropy = subjects.load(variant, folder), entropies(subjects.load(variant, folder), suite, count)
    plans = {"intact": Plan(), "sharp removed": interpret.select(entropy, SHARP),
             "diffuse removed": interpret.select(entropy, DIFFUSE, highest=True)}  # fmt: skip
    rows = []
    for case, (period, after) in CASES.items():
        made = planted_seasons(n, seed, period, after)
        said = interpret.HeadMask(model, list(plans.values())).evaluate(
            subjects.medians(model), torch.from_numpy(made.series[:, None, :CONTEXT]))[:, :, 0].numpy()  # fmt: skip
        for name, y in zip(plans, said):
            bias = interpret.seasonal_bias(y, made.series[:, CONTEXT:], COMMON).mean(0)
            rows += [{"case": case, "removed": name, "period": p, "bias": float(b)} for p, b in zip(COMMON, bias)]
    return rows


# ---- parroting and accuracy (R10) --------------------------------------------------------------------------------------------------------


def motif_batch(n: int, length: int, step: int, seed: int, breaking: bool) -> Float[np.ndarray, "n length"]:
    """Motifs of many lengths; half of them broken, somewhere in the second half, if `breaking`."""
    rng = rng_for(seed, step, "motif batch")
    parts = [planted.motifs(n // 4, (at := int(rng.integers(length // 2, length - 8))), length - at, int(rng.integers(8, 48)), rng,
                            broken=breaking and part % 2 == 0).series for part in range(4)]  # fmt: skip
    return np.concatenate(parts)


def parrot_training(variant: str, steps: int, seed: int, count: int) -> dict[str, float]:
    """A small TimesFM trained half on ordinary series and half on motifs ("standard": they go on; "motif-breaking": half of them break);
    its gap on broken motifs, its error on motifs that go on, and its MASE on ordinary series, none of them seen."""
    _, config = growing.OBJECTIVES["next patch, quantiles"]
    length, breaking = growing.CONTEXT + growing.HORIZON, {"standard": False, "motif-breaking": True}[variant]
    ordinary = lambda step: growing.pool(seed, 8 * count).batch(16, length, rng_for(seed, step))
    draw = lambda step: torch.from_numpy(np.concatenate([ordinary(step), motif_batch(16, length, step, seed, breaking)]))[:, None]
    model = trained("timesfm", config, draw, seed, steps, horizon=growing.HORIZON, batch=32).model.eval()
    run = subjects.medians(model, growing.HORIZON)
    test = {broken: planted.motifs(count, growing.CONTEXT, growing.HORIZON, 24, rng_for(seed, 0, "test motifs"), broken=broken)
            for broken in (True, False)}  # fmt: skip
    gap, on = (interpret.parrot_gap(run(torch.from_numpy(m.series[:, None, : m.context]))[:, 0], m) for m in test.values())
    context, target = growing.unseen(seed, count)
    mase = subjects.mase(run(context), target).double().nanmean().item()
    errors = {"broken_error": float(gap.to_truth.mean()), "copy_error": float(on.to_truth.mean())}
    return {"parrot_gap": float(gap.gap.mean()), **errors, "MASE": mase}


# ---- what the rows say -------------------------------------------------------------------------------------------------------------------


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """"seasonal-naive" by what it does here: one season for every series is the season of few."""
    return rows.replace({"variant": {"seasonal-naive": REPEATS}})


def cannot_copy(rows: pd.DataFrame) -> list[str]:
    """Of rows of `intact`: who is no better than a flat line on motifs that go on. A share of such a model's gap means nothing."""
    error = rows[rows["series"] == f"motif of {MOTIF}, goes on"].set_index("variant")["to_truth"]
    return list(error.index[error >= FLAT])


def gains(rows: pd.DataFrame, metric: str, one: str, other: str, percent: bool = False) -> pd.Series:
    """`metric` without `one` minus that without `other` (or in percent of it), by model and series."""
    wide = rows.pivot(index=["model", "unit"], columns="removed", values=metric).reindex(columns=[one, other])
    return (100 * (wide[one] / wide[other] - 1) if percent else wide[one] - wide[other]).dropna()


def by_model(gain: pd.Series) -> dict[str, Interval]:
    return {str(name): interval(part.to_numpy()) for name, part in gain.groupby("model", sort=False)}


def over_models(gain: Mapping[str, pd.Series]) -> pd.DataFrame:
    """The interval of a mean with the series and with the model as what is independent, and who goes the other way.

    >>> gain = pd.Series([1.0, 2.0, -1.0], pd.MultiIndex.from_tuples([("a", 0), ("a", 1), ("b", 0)], names=["model", "unit"]))
    >>> over_models({"drop": gain}).loc["drop", ["models", "other sign"]].tolist()
    [2, 'b']
    """
    rows, told = {}, lambda x: str(interval(x.to_numpy())) if len(x) > 1 else "-"
    for what, values in gain.items():
        mean = values.groupby("model", sort=False).mean()
        other = ", ".join(mean.index[mean * mean.mean() < 0])
        rows[what] = {"over series": told(values), "over models": told(mean), "models": len(mean), "other sign": other or "none"}
    return pd.DataFrame(rows).T


def damage(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `sharp_heads`: percent of MASE lost without the sharpest heads and without the draws nearest in cost; is it the same?"""
    cost = rows.groupby(["model", "removed"], sort=False)["MASE_increase"].mean().unstack()
    cost = cost[["sharp", "random", "random, same damage"]].set_axis(["sharp", "random", "nearest random"], axis=1)
    ratio = cost["sharp"] / cost["nearest random"]
    return cost.assign(ratio=ratio, same=ratio.between(1 / SAME, SAME) & (cost["sharp"] > 0))


def against_random(rows: pd.DataFrame, metric: str) -> dict[str, Interval]:
    """Of `sharp_heads`, for a forest: drop by sharp heads minus drop by random ones, by those of the same damage, and by the nearest
    where even they are not."""
    every, near = (by_model(gains(rows, metric, "sharp", rival)) for rival in ("random", "random, same damage"))
    cost = damage(rows)
    seen = {f"{name}, random": one for name, one in every.items()}
    seen |= {f"{name}, same damage": one for name, one in near.items() if cost.loc[name, "same"]}
    paid = {name: f"{cost.loc[name, 'sharp']:.0f} : {cost.loc[name, 'nearest random']:.0f} %" for name in near}
    return seen | {f"{name}, unmatched {paid[name]}": one for name, one in near.items() if not cost.loc[name, "same"]}


def diffuse_cost(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `sequential`: percent of MASE lost without the most diffuse heads and without as many shuffled ones, at each share."""
    some = rows[(rows["share"] > 0) & rows["order"].isin(["diffuse first", "shuffled"])].copy()
    first = some[some["order"] == "diffuse first"].set_index(["variant", "share"])["increase"]
    some["draws that cost more"] = 100.0 * (some["increase"] > first.reindex([*zip(some["variant"], some["share"])]).to_numpy())
    mean = some.groupby(["order", "variant", "share"], sort=False)[["increase", "draws that cost more"]].mean().unstack("share")
    parts = {order: mean.loc[order, "increase"] for order in ("diffuse first", "shuffled")}
    return pd.concat(parts | {"% of draws that cost more": mean.loc["shuffled", "draws that cost more"]}, axis=1)


def changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `parrot_training`: motif-breaking minus standard of each seed, and in percent of standard."""
    metrics = ["parrot_gap", "broken_error", "copy_error", "MASE"]
    whole = rows.melt(["variant", "seed"], metrics, var_name="metric").pivot(index=["metric", "seed"], columns="variant", values="value")
    difference = whole["motif-breaking"] - whole["standard"]
    found = whole.assign(difference=difference, percent=100 * difference / whole["standard"].abs())
    return found.loc[metrics].reset_index().rename_axis(columns=None)
