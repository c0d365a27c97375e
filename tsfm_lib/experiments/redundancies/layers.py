"""What a layer is worth, and what it does to the forecast (notebook 50: R1, R5, R9).

Thirds are fixed before anything is removed: the layers of a stack in three runs, `interpret.thirds`. Every cost stands beside that of two
other states of the model: fresh weights, in which redundancy means nothing, and a training that stopped half-way.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from torch import Tensor, nn

from tsfm_lib import claims, interpret
from tsfm_lib.evaluate import comparison
from tsfm_lib.experiments.redundancies import subjects
from tsfm_lib.interpret.capturing import Run
from tsfm_lib.interpret.plans import Plan, layers, sites, thirds
from tsfm_lib.nn.sites import MLPSite

PARTS = ("whole", "heads", "mlp")
THIRDS = ("early", "middle", "late")


# ---- ablation curves (R1) --------------------------------------------------------------------------------------------------------------


def part_of(model: nn.Module, layer: str, part: str) -> Plan:
    """A whole layer, its heads (of self- and cross-attention together) or its MLP."""
    here = layers(model)[layer]
    mlps = [site.name for site in here if isinstance(site, MLPSite)]
    heads = {site.name: range(site.n_heads) for site in here if not isinstance(site, MLPSite)}
    return Plan(layers=[layer]) if part == "whole" else Plan(heads=heads) if part == "heads" else Plan(mlps=mlps)


def places(model: nn.Module) -> list[dict[str, Any]]:
    """Where every layer stands: stack, number, depth from 0 (first of its stack) to 1, third."""
    found = []
    for stack in dict.fromkeys(name.partition(".")[0] for name in layers(model)):
        named = thirds(model, stack)
        for i, (name, third) in enumerate(named.items()):
            found.append({"stack": stack, "layer": i, "depth": i / max(len(named) - 1, 1), "third": third, "name": name})
    return found


def layer_costs(variant: str, state: str, folder: str, weights: str, suite: str, count: int | None, means: bool = True) -> list[dict]:
    """A row per layer, part, kind of ablation and data set, and one per data set for the intact model.

    `mode` is zero, or mean: the mean over positions and series of the calibration windows. `spearman`: how far the order of the forecast's
    steps has moved from the intact one, 0 not at all; `constants` counts forecasts without any order."""
    model = subjects.in_state(variant, state, folder)
    given = subjects.affordable(model, subjects.windows(suite, count, "test"))
    run, where = subjects.medians(model), places(model)
    plans = [Plan(), *(part_of(model, w["name"], part) for w in where for part in PARTS)]
    facts = [{"part": "none", "mode": "zero"}, *({**w, "part": part, "mode": "zero"} for w in where for part in PARTS)]
    forecasts = interpret.HeadMask(model, plans).evaluate(run, given.x)
    if means:
        seen = subjects.affordable(model, subjects.windows(suite, count, "calibration")).x[:32]
        known = interpret.calibrate(model, subjects.one_pass(model), subjects.told(model, seen))
        whole = [part_of(model, w["name"], "whole") for w in where]
        mean = interpret.HeadMask(model, whole).evaluate(run, given.x, mode="mean", calibration=known)
        forecasts = torch.cat([forecasts, mean])
        facts += [{**w, "part": "whole", "mode": "mean"} for w in where]
    losses = torch.stack([subjects.mase(each, given.target) for each in forecasts])
    moved = [interpret.spearman_distance(each[:, 0], forecasts[0, :, 0]) for each in forecasts]
    seed = subjects.training_seed(variant.removesuffix("-half"))
    common = {"experiment": "layer_curves", "state": state, "kind": subjects.kind(model), "seed": seed}
    rows = subjects.by_dataset(losses, given.dataset)
    places_of = {name: given.dataset == name for name in dict.fromkeys(given.dataset)}
    rows["spearman"] = [moved[p].distance[places_of[name]].mean() for p, name in zip(rows["plan"], rows["dataset"])]
    rows["constants"] = [int(moved[p].constant[places_of[name]].sum()) for p, name in zip(rows["plan"], rows["dataset"])]
    return [{**common, **facts[row.pop("plan")], **row} for row in rows.to_dict("records")]


def removed(rows: pd.DataFrame, name: str = "layers", state: str = "trained") -> pd.DataFrame:
    """The rows that R1 is judged from: models of several training seeds, whole layers, zeros; `variant` says which third.

    >>> row = {"variant": "timesfm-nano", "state": "trained", "part": "whole", "mode": "zero", "third": "middle", "MASE": 1.0}
    >>> removed(pd.DataFrame([row]))["variant"].tolist()
    ['middle removed']
    """
    names = subjects.SEEDS if state == "trained" else subjects.HALF
    chosen = rows[rows["variant"].isin(names) & (rows["state"] == state) & (rows["mode"] == "zero") & rows["part"].isin(["none", "whole"])]
    third = chosen["third"].astype(object).where(chosen["part"] == "whole", "")
    return chosen.assign(experiment=name, model=chosen["variant"], variant=[f"{t} removed" if t else "intact" for t in third])


def thirds_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Percent that one whole layer of each third costs, a line a model, state and stack."""
    whole = rows[(rows["part"] == "whole") & (rows["mode"] == "zero")]
    mean = whole.groupby(["variant", "state", "stack", "third"], sort=False)["increase"].mean().unstack()
    return mean.reindex(columns=list(THIRDS))


def seasonal_naive(suite: str, count: int | None) -> list[dict]:
    """MASE of repeating each set's own season, on the windows that the models are judged on, and on every eighth of them (`affordable`)."""
    given, rows = subjects.windows(suite, count, "test"), []
    for name, part in (("all", given), ("every eighth", given[::8])):
        error = subjects.mase(subjects.seasonal_naive(part), part.target).double().numpy()
        for dataset, one in pd.Series(error).groupby(part.dataset, sort=False):
            rows.append({"suite": suite, "count": count, "windows": name, "dataset": dataset, "n": len(one), "MASE": one.mean()})
    return rows


def something_to_lose(rows: pd.DataFrame, naive: pd.DataFrame) -> pd.DataFrame:
    """Geometric means over sets: intact models, and the seasonal naive on the windows of each (`NaN`: recorded on another suite)."""
    geometric = lambda values: np.exp(np.log(values).mean())
    intact = rows[rows["part"] == "none"].groupby(["variant", "state", "suite"], sort=False)["MASE"].agg(geometric).reset_index("suite")
    known = naive.groupby(["suite", "windows"])["MASE"].agg(geometric)
    seen = ["every eighth" if variant.startswith("chronos-t5") else "all" for variant, _ in intact.index]
    base = np.array([known.get(key, np.nan) for key in zip(intact["suite"], seen)])
    return pd.DataFrame({"MASE": intact["MASE"], "seasonal naive": base, "ratio": intact["MASE"] / base, "windows": seen})


def over_sets(rows: pd.DataFrame, margin: float = 5.0, level: float = 25.0) -> pd.DataFrame:
    """The rows of R1 with the data set as the unit: what a layer of each third costs, in percent, with 95 % intervals over sets.

    Seeds and layers are averaged within a set first. The worst set is the one in which a middle layer costs most."""
    intact = rows[rows["variant"] == "intact"].set_index(["model", "dataset"])["MASE"]
    gone = rows[rows["variant"] != "intact"]
    ratio = np.log(gone["MASE"].to_numpy() / intact.reindex(pd.MultiIndex.from_frame(gone[["model", "dataset"]])).to_numpy())
    sets = gone.assign(ratio=ratio).groupby(["dataset", "third"])[["increase", "ratio"]].mean().unstack()
    cost, ratio = (sets[of].reindex(columns=list(THIRDS)) for of in ("increase", "ratio"))
    worst, rise = cost["middle"].idxmax(), lambda x: 100 * (np.exp(x) - 1)

    def said(values: pd.Series, back: Callable[[float], float] = float) -> str:
        found = comparison.interval(values.to_numpy())
        return f"{back(found.estimate):.1f} [{back(found.low):.1f}, {back(found.high):.1f}]"

    fits = (cost["middle"] < margin) & (cost["early"] > level) & (cost["late"] > level)
    lines = {
        "mean over sets": [said(cost[t]) for t in THIRDS],
        f"mean without {worst}": [said(cost[t].drop(worst)) for t in THIRDS],
        "geometric mean over sets": [said(ratio[t], rise) for t in THIRDS],
        "median set": [f"{cost[t].median():.1f}" for t in THIRDS],
        f"sets below {margin:g} %": [f"{(cost[t] < margin).sum()} of {len(cost)}" for t in THIRDS],
        f"sets above {level:g} %": [f"{(cost[t] > level).sum()} of {len(cost)}" for t in THIRDS],
        "sets that read as R1 says in all three": ["", f"{fits.sum()} of {len(cost)}", ""],
    }
    return pd.DataFrame.from_dict(lines, orient="index", columns=list(THIRDS))


def blocks(variant: str, folder: str, weights: str, suite: str, count: int | None) -> list[dict]:
    """Layers of the last stack removed together, from the middle outwards: what that costs, and what the same layers cost one by one."""
    model = subjects.load(variant, folder)
    given = subjects.affordable(model, subjects.windows(suite, count, "test"))
    order = from_the_middle(list(thirds(model)))
    plans = [Plan(), *(Plan(layers=[name]) for name in order), *(Plan(layers=order[:n]) for n in range(2, len(order) + 1))]
    losses = interpret.HeadMask(model, plans).losses(subjects.medians(model), given.x, given.target, subjects.mase)
    mase, n = subjects.score(losses, given.dataset), len(order)
    increase = 100 * (mase / mase[0] - 1)
    joint, added = [increase[1], *increase[1 + n :]], increase[1 : 1 + n].cumsum()
    return [{"removed": i + 1, "of": n, "together": joint[i], "one by one": added[i]} for i in range(n)]


# ---- MLPs alone (R5) -------------------------------------------------------------------------------------------------------------------


def from_the_middle(names: Sequence[str]) -> list[str]:
    """Names of layers from the middle outwards, the earlier one first.

    >>> from_the_middle(["0", "1", "2", "3"])
    ['1', '2', '0', '3']
    """
    centre = (len(names) - 1) / 2
    return [names[i] for i in sorted(range(len(names)), key=lambda i: (abs(i - centre), i))]


def mlp_costs(variant: str, folder: str, weights: str, suite: str, count: int | None) -> list[dict]:
    """MLPs removed from the middle of a stack outwards, 1, 2, ... all. A row per number and series (experiment "mlps_by_number"); those of
    all MLPs of the decoder once more as "mlps", which R5 is judged from. `increase` is in percent of the data set's intact MASE."""
    model = subjects.load(variant, folder)
    given = subjects.affordable(model, subjects.windows(suite, count, "test"))
    plans, facts = [Plan()], [{"stack": "", "removed": 0, "of": 0}]
    for stack in dict.fromkeys(name.partition(".")[0] for name in layers(model)):
        order = from_the_middle([n for n, s in sites(model, [stack]).items() if isinstance(s, MLPSite)])
        plans += [Plan(mlps=order[:n]) for n in range(1, len(order) + 1)]
        facts += [{"stack": stack, "removed": n, "of": len(order)} for n in range(1, len(order) + 1)]
    losses = interpret.HeadMask(model, plans).losses(subjects.medians(model), given.x, given.target, subjects.mase)
    share = subjects.shares(losses, given.dataset) - subjects.shares(losses, given.dataset)[0]
    rows = []
    for fact, increase in zip(facts[1:], share[1:]):
        units = pd.Series(increase.numpy()).groupby(given.series, sort=False).mean()
        common = {"model": variant, "kind": subjects.kind(model), **fact}
        rows += [{"experiment": "mlps_by_number", **common, "unit": unit, "increase": value} for unit, value in units.items()]
        if fact["stack"] == "decoder" and fact["removed"] == fact["of"]:
            rows += [{"experiment": "mlps", **common, "unit": unit, "increase": value} for unit, value in units.items()]
    return rows


# ---- what the forecast is behind every layer (R9) --------------------------------------------------------------------------------------


class Look(NamedTuple):
    """How a lens looks at a model."""

    run: Run
    read: Callable[[Tensor], Tensor] | None
    levels: Sequence[float] | None


DECILES = tuple(i / 10 for i in range(1, 10))


def look(model: nn.Module, x: Tensor, horizon: int = subjects.HORIZON) -> Look | None:
    """None for models whose stream has no read-out of its own before the end."""
    run = subjects.one_pass(model, horizon)
    if type(model).__name__ == "Moirai":
        rows = rearrange(x, "B V T -> (B V) T")[:, None]
        z, seen, _ = model.normalise(rows[..., -model.config.context :])
        tokens = model.embed_tokens(z, seen, horizon)
        return Look(lambda x: model.distribution(x, horizon).mean(), lambda h: _flat(model.project(h, tokens, horizon)), DECILES)
    if type(model).__name__ == "Toto":
        return Look(run, lambda h: model.mixture(model.read_out(h[:, -1])).quantiles(DECILES), DECILES)
    return Look(run, None, None) if hasattr(model, "lens") else None


def _flat(mixture: Any) -> Tensor:
    return rearrange(mixture.quantiles(DECILES), "B ... h Q -> (B ...) h Q")


def lens_rows(variant: str, state: str, folder: str, weights: str, suite: str, count: int | None) -> list[dict]:
    """A row per layer of the last stack: entropy of the forecast that could be read off behind it and by how much the layer changed it, how
    many forecasts are in play, how far it still is from the last one, how much its update resembles the one before."""
    model = subjects.in_state(variant, state, folder)
    x = subjects.told(model, subjects.affordable(model, subjects.windows(suite, count, "test")).x)
    how = look(model, x)
    if how is None:
        return []
    seen = interpret.lens(model, how.run, x, read=how.read, levels=how.levels)
    mean = lambda values: values.double().mean(1).numpy()
    entropy, similarity = mean(seen.entropy()), mean(seen.similarity())
    candidates, distance = mean(seen.candidates()), mean(seen.distance())
    name = "lens" if state == "trained" and variant in subjects.SEEDS else "lens_beside"
    where = {place["name"]: place for place in places(model)}
    rows = []
    for i, layer in enumerate(seen.names):
        at = {key: where[layer][key] for key in ("layer", "depth", "third")} if layer in where else {"layer": -1}
        change = {"entropy_change": entropy[i] - entropy[i - 1], "similarity": similarity[i]} if i else {}
        rows.append({"experiment": name, "state": state, "seed": subjects.training_seed(variant), **at, "entropy": entropy[i],
                     "candidates": candidates[i], "distance": distance[i], **change})  # fmt: skip
    return rows


def slope(depths: np.ndarray, values: np.ndarray) -> float:
    """Spearman's correlation of the distance from the middle and a number per layer: above 0, the middle is cheap.

    >>> round(slope(np.array([0.0, 0.5, 1.0]), np.array([3.0, 1.0, 2.0])), 3)
    0.866
    """
    from scipy import stats

    return float(stats.spearmanr(np.abs(np.asarray(depths) - 0.5).round(9), values).statistic)


# ---- beside the verdicts ---------------------------------------------------------------------------------------------------------------


def widened(verdicts: Iterable[claims.Verdict], rows: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Of every judged part the interval that is shown, and the wider one that must lie wholly outside for "refuted here"."""
    lines = []
    for verdict, found in zip(verdicts, rows):
        alpha = claims.ALPHA / verdict.claim.comparisons
        one, two = (claims.judge(verdict.claim.id, found, alpha=alpha / sides, widen=False).parts for sides in (1, 2))
        for part, *wide in zip(verdict.parts, one, two):
            if part.interval and not part.beside:
                range_ = wide[int(np.isfinite(part.region).all())].range()
                lines.append({"part": f"{verdict.claim.id} {part.words}", "recorded": part.measured(), "interval": part.range(),
                              "refutes where wholly outside": range_, "verdict": part.verdict})  # fmt: skip
    return pd.DataFrame(lines)


def without_the_decoders_mlps(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `mlp_costs` ("mlps_by_number") with all MLPs of the decoder gone, as R5 is judged from, of every model that has one."""
    return rows[(rows["stack"] == "decoder") & (rows["removed"] == rows["of"])].assign(experiment="mlps")


def other_casts(rows: pd.DataFrame, beyond: Sequence[str] = ()) -> pd.DataFrame:
    """R5's three numbers as judged, without each of its encoder-decoders, and with each of those `beyond` the five architectures."""
    kinds = rows.groupby("model", sort=False)["kind"].first()
    five, pairs = [n for n in kinds.index if n in subjects.SUBJECTS], [n for n in kinds.index if kinds[n] == "encoder-decoder"]
    casts = {"as judged": five} | {f"without {name}": [n for n in five if n != name] for name in pairs if name in five}
    casts |= {f"with {name}": [*five, name] for name in pairs if name in beyond}
    words = ("encoder-decoder", "decoder", "gain of encoder-decoder over decoder")
    lines = {}
    for label, names in casts.items():
        parts = claims.judge("R5", rows[rows["model"].isin(names)]).parts
        lines[label] = {word: f"{part.measured()} {part.range()}" for word, part in zip(words, parts)}
    return pd.DataFrame.from_dict(lines, orient="index")


def per_model(rows: pd.DataFrame, level: float = 10.0) -> pd.DataFrame:
    """How many series each model was read on, and where its median series stands."""
    per = rows.groupby(["kind", "model"], sort=False)["increase"]
    return pd.DataFrame({"series": per.size(), "mean": per.mean(), "median": per.median(),
                         f"% of series below {level:g}": per.agg(lambda x: 100 * (x < level).mean())})  # fmt: skip
