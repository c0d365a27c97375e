"""Could one have known which heads can go? Rankings against costs, layer by layer (notebook 51: R2, R6, R7).

Costs that a ranking is judged by are measured on the test windows; whatever may look at data (entropy, the oracle, the choice of a
direction) looks at the calibration windows. "stable-rank" removes the highest numbers first, as the claim has it; "stable-rank reversed"
the lowest, as the public code does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tsfm_lib import interpret
from tsfm_lib.evaluate.comparison import Interval
from tsfm_lib.experiments.redundancies import subjects
from tsfm_lib.interpret.plans import Plan, head_sites
from tsfm_lib.interpret.ranking import Scores, order, together

ORDERS = {
    "stable-rank": ("raw", True), "stable-rank reversed": ("raw", False), "folded": ("folded", True), "entropy": ("entropy", True),
    "entropy reversed": ("entropy", False), "magnitude": ("magnitude", False), "attention-svd": ("attention_svd", True),
    "attention-svd reversed": ("attention_svd", False), "output-svd": ("output_svd", False), "oracle": ("cost", False),
}  # fmt: skip
"""An order of removal: the ranking, and whether its highest numbers go first."""

AT_ORDERS = ("stable-rank", "stable-rank reversed", "entropy", "magnitude", "attention-svd", "oracle")  # layer by layer
SHARES = (7, 14, 28, 42, 56)  # percent of all heads


# ---- a table of heads ------------------------------------------------------------------------------------------------------------------


def scores(model: nn.Module, known: subjects.Windows, *, oracle: bool = True) -> dict[str, Scores]:
    """Every ranking of every head; what looks at data looks at `known`. `cost`: percent of MASE lost without this head."""
    run, x = subjects.one_pass(model), subjects.told(model, known.x)
    found = {
        "raw": interpret.stable_rank(model), "folded": interpret.stable_rank(model, folded=True),
        "null": interpret.random_stable_rank(model), "weights": interpret.magnitude(model),
        "entropy": interpret.sharpness(model, run, x), "magnitude": interpret.magnitude(model, run, x),
        "attention_svd": interpret.attention_svd(model, run, x), "output_svd": interpret.output_svd(model, run, x),
    }  # fmt: skip
    return found | {"cost": costs(model, known)} if oracle else found


def costs(model: nn.Module, given: subjects.Windows) -> Scores:
    """By how many percent MASE is higher without each head: windows count alike, in units of their data set's intact mean."""
    losses = interpret.HeadMask(model, [Plan(), *interpret.single_heads(model)]).losses(
        subjects.medians(model), given.x, given.target, subjects.mase)  # fmt: skip
    increase = subjects.shares(losses, given.dataset).mean(1) - 100
    here = head_sites(model)
    return dict(zip((site.name for site in here), increase[1:].split([site.n_heads for site in here])))


def trivial(found: Mapping[str, Scores]) -> list[str]:
    """Sites without a choice: a single key, so that all attention has no entropy at all (the self-attention of Bolt's decoder, attention
    across variates where there is one)."""
    return [site for site, values in found["entropy"].items() if (values == 0).all()]


def with_choice(scores: Scores, found: Mapping[str, Scores]) -> Scores:
    """Without trivial sites: their heads would be removed for nothing."""
    return {site: values for site, values in scores.items() if site not in trivial(found)}


def heads(variant: str, state: str, folder: str, weights: str, suite: str, count: int | None) -> list[dict[str, Any]]:
    """A row per head that has a choice: all rankings, and what it costs on calibration (`cost`) and on test windows (`test_cost`)."""
    model = subjects.in_state(variant, state, folder)
    known, unseen = (subjects.affordable(model, subjects.windows(suite, count, part)) for part in ("calibration", "test"))
    found = scores(model, known)
    table = interpret.table(model, **found, test_cost=costs(model, unseen))
    table = table[~table["site"].isin(trivial(found))]
    return table.assign(experiment="heads", state=state, seed=subjects.training_seed(variant)).to_dict("records")


def within(table: pd.DataFrame, ranking: str, cost: str = "test_cost") -> pd.DataFrame:
    """Spearman's correlation of a ranking and the costs over the heads of each layer of each model, a row a layer.

    >>> table = pd.DataFrame({"variant": "m", "state": "trained", "site": "decoder.0.self", "raw": [1, 2, 3], "test_cost": [3, 2, 1]})
    >>> within(table, "raw")[["layer", "rho"]].values.tolist()
    [['m/decoder.0.self', -1.0]]
    """
    from scipy import stats

    rows = []
    for (variant, state, site), one in table.groupby(["variant", "state", "site"], sort=False):
        varies = len(one) > 2 and one[ranking].nunique() > 1 and one[cost].nunique() > 1
        rho = stats.spearmanr(one[ranking], one[cost]).statistic if varies else np.nan
        rows.append({"layer": f"{variant}/{site}", "variant": variant, "state": state, "heads": len(one), "rho": float(rho)})
    return pd.DataFrame(rows)


RANKINGS = {"stable rank": "raw", "stable rank, folded": "folded", "entropy": "entropy", "size of weights": "weights",
            "size of what is added": "magnitude", "attention-svd": "attention_svd", "output-svd": "output_svd",
            "cost on calibration": "cost"}  # fmt: skip


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """`within` for all rankings (column `baseline`): experiment "rank_cost" for the stable rank of trained models, which R2 is judged from,
    "rank_cost_baselines" for their other rankings, "rank_cost_controls" for models that were not trained to the end."""
    frames = []
    for baseline, column in RANKINGS.items():
        rows = within(table, column).assign(baseline=baseline)
        name = "rank_cost" if baseline == "stable rank" else "rank_cost_baselines"
        frames.append(rows.assign(experiment=np.where(rows["state"] == "trained", name, "rank_cost_controls")))
    return pd.concat(frames, ignore_index=True)


def summed(rho: pd.Series) -> dict[str, float]:
    """Mean of the within-layer correlations with its interval over layers, how many are below and above zero, and the sign test.

    >>> {k: round(v, 3) for k, v in summed(pd.Series([-0.5, -0.1, -0.3, 0.2])).items()}
    {'mean': -0.175, 'low': -0.65, 'high': 0.3, 'below': 3, 'above': 1, 'sign test': 0.625}
    """
    from scipy import stats

    below, above = int((rho < 0).sum()), int((rho > 0).sum())
    p = stats.binomtest(below, below + above).pvalue if below + above else np.nan
    found = subjects.over(rho)
    del found["n"]
    return found | {"below": below, "above": above, "sign test": float(p)}


def pooled(table: pd.DataFrame, x: str, y: str, draws: int = 1000, seed: int = 0) -> Interval:
    """Spearman over all heads at once, with the interval that resamples layers (heads of one layer are not independent)."""
    from scipy import stats

    groups = [one[[x, y]].to_numpy() for _, one in table.groupby(["variant", "site"], sort=False)]
    rng = np.random.default_rng(seed)
    rho = lambda parts: stats.spearmanr(*np.concatenate(parts).T).statistic
    drawn = [rho([groups[i] for i in rng.integers(0, len(groups), len(groups))]) for _ in range(draws)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Interval(float(rho(groups)), float(low), float(high), len(groups), "bootstrap over layers")


# ---- heads@Xpp (R6) --------------------------------------------------------------------------------------------------------------------


def layer_orders(found: dict[str, Scores], site: str, draws: int = 0, seed: int = 0) -> dict[str, list[tuple[str, int]]]:
    """The orders in which the heads of one site may go, and `draws` random ones."""
    orders = {name: order({site: found[ORDERS[name][0]][site]}, ORDERS[name][1]) for name in AT_ORDERS}
    n, rng = len(found["raw"][site]), np.random.default_rng(seed)
    return orders | {f"random {i}": [(site, int(h)) for h in rng.permutation(n)] for i in range(draws)}


def heads_at(variant: str, folder: str, weights: str, suite: str, count: int | None, draws: int = 0, state: str = "trained",
             pp: float | int = 1.0) -> list[dict]:  # fmt: skip
    """heads@1pp of every layer by the first crossing on calibration windows, and what it then costs on test windows.

    "heads_at_1pp": by stable rank in the direction with the lower mean score on calibration, the published procedure with a second split;
    "heads_at_1pp_orders": every order, and the number that the published rule (the largest level within the limit) would have given.
    Models that were not trained to the end have "heads_at_1pp_controls" only."""
    model = subjects.in_state(variant, state, folder)
    known, unseen = (subjects.affordable(model, subjects.windows(suite, count, part)) for part in ("calibration", "test"))
    found, rows = scores(model, known), []
    for site in head_sites(model):
        if site.name in trivial(found):
            continue
        orders = layer_orders(found, site.name, draws)
        sets = [tuple(sorted(heads[:n])) for heads in orders.values() for n in range(site.n_heads + 1)]
        once = {heads: i for i, heads in enumerate(dict.fromkeys(sets))}  # orders share many levels
        masks, run = interpret.HeadMask(model, [together(heads) for heads in once]), subjects.medians(model)
        seen, test = (masks.losses(run, w.x, w.target, subjects.mase)[[once[heads] for heads in sets]] for w in (known, unseen))
        seen, test = (subjects.shares(one, w.dataset).unflatten(0, (len(orders), -1)) for one, w in ((seen, known), (test, unseen)))
        for name, own, other in zip(orders, seen, test):
            first, last = (interpret.heads_at(own, pp, known.series, rule=rule, draws=200) for rule in ("first", "last"))
            part = lambda n, site=site: n / site.n_heads
            rows.append({
                "experiment": "heads_at_1pp_orders", "state": state, "layer": f"{variant}/{site.name}", "stack": site.stack,
                "number": site.layer, "order": name, "heads": site.n_heads, "kept": first.kept, "removable": part(first.removable),
                "low": part(first.low), "high": part(first.high), "published_rule": part(last.removable), "increase": first.increase,
                "test_increase": float(other[first.removable].mean() - 100), "mean_score": float(own.mean()),
                "seed": subjects.training_seed(variant)})  # fmt: skip
        both = [row for row in rows[-len(orders) :] if row["order"].startswith("stable-rank")]
        rows.append(min(both, key=lambda row: row["mean_score"]) | {"experiment": "heads_at_1pp"})
    if state == "trained":
        return rows
    return [row | {"experiment": "heads_at_1pp_controls"} for row in rows if row["experiment"] == "heads_at_1pp"]


# ---- removing a share of all heads (R7) ------------------------------------------------------------------------------------------------


def plans_for(model: nn.Module, found: dict[str, Scores], share: float | int, draws: int, seed: int = 0) -> dict[str, list[Plan]]:
    """Plans by order of removal: a share of the heads that have a choice, in all layers, and `draws` random ones with as many heads of each
    layer as "stable-rank" takes."""
    chosen = {ranking: with_choice(found[ranking], found) for ranking, _ in ORDERS.values()}
    plans = {name: [interpret.select(chosen[ranking], share / 100, highest)] for name, (ranking, highest) in ORDERS.items()}
    control = plans["stable-rank"][0]
    return plans | {"random": [interpret.random_like(model, control, 1000 * seed + i) for i in range(draws)]}


def rankings(variant: str, folder: str, weights: str, suite: str, count: int | None, draws: int,
             chosen: Sequence[int] = SHARES) -> list[dict]:  # fmt: skip
    """MASE on test windows (geometric mean over data sets) after shares of all heads have gone, by every order; `draw`: of random ones."""
    model = subjects.load(variant, folder)
    known, unseen = (subjects.affordable(model, subjects.windows(suite, count, part)) for part in ("calibration", "test"))
    found = scores(model, known)
    plans, facts = [Plan()], [{"order": "intact", "share of heads": 0, "draw": 0}]
    for share in chosen:
        for name, group in plans_for(model, found, share, draws).items():
            plans += group
            facts += [{"order": name, "share of heads": share, "draw": i} for i in range(len(group))]
    losses = interpret.HeadMask(model, plans).losses(subjects.medians(model), unseen.x, unseen.target, subjects.mase)
    mase = subjects.score(losses, unseen.dataset)
    seed = subjects.training_seed(variant)
    return [{**fact, "seed": seed, "MASE": m, "increase": 100 * (m / mase[0] - 1)} for fact, m in zip(facts, mase)]


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that R7 is judged from: models of several training seeds, `variant` the order."""
    kept = rows[rows["variant"].isin(subjects.SEEDS)]
    return kept.assign(experiment="rankings", model=kept["variant"], variant=kept["order"])


def gains(rows: pd.DataFrame, share: float | int) -> pd.DataFrame:
    """By how many percent MASE is lower than by "stable-rank", for every other order at a share of heads: mean and interval over seeds.

    >>> rows = pd.DataFrame({"variant": "timesfm-nano", "seed": [0, 0, 1, 1], "order": ["stable-rank", "oracle"] * 2,
    ...                      "share of heads": 28, "MASE": [1.0, 0.9, 1.0, 0.8]})
    >>> gains(rows, 28).round(2).values.tolist()
    [[15.0, -48.53, 78.53, 2.0]]
    """
    kept = judged(rows[rows["share of heads"] == share])
    wide = kept.groupby(["seed", "order"], sort=False)["MASE"].mean().unstack("order")
    lower = 100 * (1 - wide.drop(columns="stable-rank", errors="ignore").div(wide.get("stable-rank"), axis=0))
    return pd.DataFrame({name: subjects.over(one) for name, one in lower.items()}, dtype=float).T


# ---- the kernel that a head is said to be ------------------------------------------------------------------------------------------------


def bandwidth(q: Float[Tensor, "K D"], k: Float[Tensor, "K D"], scale: float | int, n: int = 256, seed: int = 0) -> tuple[float, float]:
    """Stable rank of A = q^T k and mean entropy of softmax(scale x^T A y) over `n` random unit vectors: stable rank does not know `scale`.

    >>> eye = torch.eye(4)
    >>> a, b = bandwidth(eye, eye, 1), bandwidth(eye, eye, 30)
    >>> a[0] == b[0], a[1] > b[1] + 1
    (True, True)
    """
    x = torch.nn.functional.normalize(torch.randn(2, n, q.shape[1], generator=torch.Generator().manual_seed(seed)), dim=-1)
    pattern = (scale * (x[0] @ q.mT) @ (x[1] @ k.mT).mT).softmax(-1)
    return float(interpret.ranking.rank_of_product(q[None], k[None])[0]), float(interpret.entropy(pattern).mean())
