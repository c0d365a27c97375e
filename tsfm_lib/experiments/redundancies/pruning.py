"""How much can go at once, in which order, and what it buys (notebook 53: R3, R8).

Heads are chosen over the whole model, MLPs from the middle of the last stack outwards, the same ones for every order, so that orders
differ in heads alone. Random draws take as many heads of each layer as "stable-rank" does. Rankings that look at data look at calibration
windows; scores are those of test windows.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from tsfm_lib import interpret
from tsfm_lib.experiments.redundancies import ranks, subjects
from tsfm_lib.experiments.redundancies.layers import from_the_middle
from tsfm_lib.interpret.plans import Plan, head_sites, thirds
from tsfm_lib.interpret.ranking import Scores

ORDERS = ("stable-rank", "stable-rank reversed", "entropy", "oracle")
HEADS, MLPS, DRAWN = (0, 14, 28, 42, 56), (0, 1, 2, 4), (0, 2)  # percent, number, number of MLPs beside random heads
DOSE = (28, 2)  # the one of the claim
MIDDLE = 30  # percent of the heads of the middle third


def middle_mlps(model: nn.Module, count: int) -> Plan:
    """So many MLPs of the last stack, from its middle outwards.

    >>> from tsfm_lib.checkpoints import build
    >>> middle_mlps(build("timesfm"), 2).mlps
    ('decoder.10.mlp', 'decoder.9.mlp')
    """
    return Plan(mlps=from_the_middle(list(thirds(model)))[:count])


def by_orders(model: nn.Module, found: Mapping[str, Scores], share: float | int, draws: int, seed: int) -> dict[str, list[Plan]]:
    every = ranks.plans_for(model, found, share, draws, seed)
    return {name: every[name] for name in (*ORDERS, "random")}


def dose(variant: str, folder: str, weights: str, suite: str, count: int | None, draws: int, heads: Sequence[int] = HEADS,
         mlps: Sequence[int] = MLPS, state: str = "trained") -> list[dict[str, Any]]:  # fmt: skip
    """The grid: a row per order (`order`; `draw` of random ones), percent of heads and number of MLPs."""
    model = subjects.in_state(variant, state, folder)
    known, unseen = (subjects.affordable(model, subjects.windows(suite, count, part)) for part in ("calibration", "test"))
    found, seed = ranks.scores(model, known), subjects.training_seed(variant)
    mlps = [n for n in mlps if n <= len(thirds(model))]
    plans, facts = [Plan()], [{}]
    for share in heads:
        for name, group in by_orders(model, found, share, draws if share else 1, seed).items():
            for n in [n for n in mlps if name != "random" or n in DRAWN]:
                plans += [plan | middle_mlps(model, n) for plan in group]
                facts += [{"order": name, "draw": i, "heads": share, "mlps": n} for i in range(len(group))]
    losses = interpret.HeadMask(model, plans).losses(subjects.medians(model), unseen.x, unseen.target, subjects.mase)
    mase = subjects.score(losses, unseen.dataset)
    return [{**fact, "seed": seed, "MASE": m, "increase": 100 * (m / mase[0] - 1)} for fact, m in zip(facts[1:], mase[1:])]


def middle(variant: str, folder: str, weights: str, suite: str, count: int | None, draws: int) -> list[dict[str, Any]]:
    """The summary's own experiment: 30 % of the heads of the middle third of the last stack, by every order."""
    model = subjects.load(variant, folder)
    known, unseen = (subjects.affordable(model, subjects.windows(suite, count, part)) for part in ("calibration", "test"))
    here = [name for name, third in thirds(model).items() if third == "middle"]
    names = {site.name for site in head_sites(model, here)} if here else set()
    found = {ranking: {site: v for site, v in scores.items() if site in names} for ranking, scores in ranks.scores(model, known).items()}
    if not names:
        return []
    groups = by_orders(model, found, MIDDLE, draws, subjects.training_seed(variant))
    plans = [Plan(), *(plan for group in groups.values() for plan in group)]
    losses = interpret.HeadMask(model, plans).losses(subjects.medians(model), unseen.x, unseen.target, subjects.mase)
    mase = subjects.score(losses, unseen.dataset)
    names_of = [name for name, group in groups.items() for _ in group]
    return [{"order": name, "removed": sum(map(len, plan.heads.values())), "MASE": m, "increase": 100 * (m / mase[0] - 1)}
            for name, plan, m in zip(names_of, plans[1:], mase[1:])]  # fmt: skip


def parts_of_the_dose(rows: pd.DataFrame) -> pd.DataFrame:
    """What the claim's dose is made of, by stable rank, over training seeds: percent of MASE lost, interval, lowest and highest."""
    kept = judged(rows)
    kept = kept[kept["order"] == "stable-rank"]
    found = {}
    for heads, mlps in ((0, 1), (0, 2), (DOSE[0], 0), (DOSE[0], 1), DOSE):
        lost = kept.loc[(kept["heads"] == heads) & (kept["mlps"] == mlps), "increase"]
        found[f"{heads} % of heads, {mlps} MLPs"] = subjects.over(lost) | {"lowest": lost.min(), "highest": lost.max()}
    return pd.DataFrame(found, dtype=float).T


def to_the_end(variant: str, folder: str, weights: str, suite: str, count: int | None,
               chosen: Sequence[int] = (28, 42, 56, 70, 85, 100)) -> list[dict[str, Any]]:  # fmt: skip
    """More and more heads, at each share by the order that costs least on calibration windows, up to all of them: what that costs on test
    windows, beside a seasonal naive forecast of the same windows (`naive`), both in percent above the intact model."""
    model = subjects.load(variant, folder)
    known, unseen = (subjects.affordable(model, subjects.windows(suite, count, part)) for part in ("calibration", "test"))
    found, names = ranks.scores(model, known), ORDERS
    plans = [Plan(), *(ranks.plans_for(model, found, share, 0)[name][0] for share in chosen for name in names)]
    masks, run = interpret.HeadMask(model, plans), subjects.medians(model)
    scored = lambda given: subjects.score(masks.losses(run, given.x, given.target, subjects.mase), given.dataset)
    on = {"known": scored(known), "test": scored(unseen)}
    naive = subjects.score(subjects.mase(subjects.seasonal_naive(unseen), unseen.target)[None], unseen.dataset)[0]
    rows, above = [], lambda mase: 100 * (mase / on["test"][0] - 1)
    for i, share in enumerate(chosen):
        here = np.arange(len(names)) + 1 + i * len(names)
        best = here[on["known"][here].argmin()]
        rows.append({"share": share, "order": names[best - here[0]], "increase": above(on["test"][best]), "naive": above(naive),
                     "seed": subjects.training_seed(variant)})  # fmt: skip
    return rows


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that R3 is judged from: models of several training seeds, `variant` the order."""
    kept = rows[rows["variant"].isin(subjects.SEEDS)]
    return kept.assign(experiment="dose", model=kept["variant"], variant=kept["order"])


# ---- removed for real, and timed (R8) --------------------------------------------------------------------------------------------------


def timed(runs: Mapping[str, Callable[[], Any]], rounds: int) -> list[dict[str, Any]]:
    """Seconds of each run, taking turns, after one that is not counted; every second round goes backwards."""
    for run in runs.values():
        run()
    rows = []
    for i in range(rounds):
        for name in list(runs)[:: 1 if i % 2 == 0 else -1]:
            began = time.perf_counter()
            runs[name]()
            rows.append({"what": name, "round": i, "seconds": time.perf_counter() - began})
    return rows


def latency(variant: str, folder: str, weights: str, batch: int, rounds: int, share: int = DOSE[0], mlps: int = DOSE[1]) -> list[dict]:
    """Intact, ablated by masks, pruned by the same plan (stable rank, from its highest), and pruned of its heads alone: seconds of one
    forecast of `batch` series, and parameters. `same`: the largest difference between what the ablated and the pruned model say, in units
    of the series."""
    model = subjects.load(variant, folder)
    t = torch.arange(512) / 24
    x = torch.sin(6.2832 * t).expand(batch, 1, -1) + 0.1 * torch.randn(batch, 1, 512, generator=torch.Generator().manual_seed(0))
    sharpness = interpret.sharpness(model, subjects.one_pass(model), subjects.told(model, x))
    heads = interpret.select(ranks.with_choice(interpret.stable_rank(model), {"entropy": sharpness}), share / 100, highest=True)
    plan = heads | middle_mlps(model, min(mlps, len(thirds(model))))
    models = {"intact": model, "pruned": interpret.prune(model, plan), "heads pruned": interpret.prune(model, heads)}
    says = {name: partial(subjects.medians(one), x) for name, one in models.items()}

    def ablated() -> torch.Tensor:
        with interpret.ablate(model, plan):
            return says["intact"]()

    same = float((ablated() - says["pruned"]()).abs().max())
    sizes = {name: interpret.parameters(one) for name, one in models.items()} | {"ablated": interpret.parameters(model)}
    rows = timed(says | {"ablated": ablated}, rounds)
    common = {"same": same, "heads": share, "mlps": mlps}
    return [{**row, **common, "unit": f"{variant}/{batch}/{row['round']}", "parameters": sizes[row["what"]]} for row in rows]


def time_left(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """Seconds of `what` in percent of the intact model's in the same round: median and quartiles over rounds, by model and batch.

    >>> rows = pd.DataFrame({"model": "m", "batch": 1, "round": [0, 0, 1, 1], "variant": ["intact", "pruned"] * 2})
    >>> rows["seconds"] = [2.0, 1.0, 2.0, 1.0]
    >>> time_left(rows, "pruned").values.tolist()
    [['50 [50, 50]']]
    """
    wide = rows.pivot_table(index=["model", "batch", "round"], columns="variant", values="seconds", sort=False)
    share = (100 * wide[what] / wide["intact"]).groupby(level=[0, 1], sort=False)
    text = share.quantile([0.5, 0.25, 0.75]).unstack().apply(lambda q: f"{q[0.5]:.0f} [{q[0.25]:.0f}, {q[0.75]:.0f}]", axis=1)
    return text.rename(what).to_frame()


def saved_by_model(rows: pd.DataFrame, what: str) -> pd.Series:
    """Percent of the time that a model saves: of the mean over rounds and batch sizes of the logarithm of the ratio; one number a model."""
    if what not in set(rows.get("variant", ())):
        return pd.Series(dtype=float)
    wide = rows.pivot_table(index=["model", "batch", "round"], columns="variant", values="seconds", sort=False)
    return 100 * (1 - np.exp(np.log(wide[what] / wide["intact"]).groupby(level=0, sort=False).mean()))


def amdahl(variant: str, folder: str, weights: str, batch: int, rounds: int, shares: Sequence[int] = (0, 25, 50, 75, 100)) -> list[dict]:
    """Seconds with a share of the heads of every layer really gone. The last share, all of them, is the time that heads cannot save."""
    model = subjects.load(variant, folder)
    x = torch.randn(batch, 1, 512, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    runs = {}
    for share in shares:
        small = interpret.prune(model, interpret.select(interpret.stable_rank(model), share / 100, highest=True, per_site=True))
        runs[str(share)] = partial(subjects.medians(small), x)
    return [{"share": int(row["what"]), "round": row["round"], "seconds": row["seconds"]} for row in timed(runs, rounds)]


def line(rows: pd.DataFrame) -> pd.DataFrame:
    """Median time per share, in percent of the intact model's, beside Amdahl's line between none and all.

    >>> rows = pd.DataFrame({"share": [0, 50, 100], "seconds": [2.0, 1.8, 1.0]})
    >>> line(rows)[["measured", "Amdahl"]].values.tolist()
    [[100.0, 100.0], [90.0, 75.0], [50.0, 50.0]]
    """
    seconds = rows.groupby("share")["seconds"].quantile([0.5, 0.25, 0.75]).unstack()
    table = (100 * seconds / seconds.loc[0, 0.5]).set_axis(["measured", "low", "high"], axis=1).reset_index()
    return table.assign(Amdahl=np.interp(table["share"], [0, 100], [100.0, table["measured"].iloc[-1]]))
