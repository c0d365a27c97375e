"""Experts per series (T2, T5, T8): against dense networks, evenly loaded or not, chosen for whole series or for tokens.

The series are `planted.regimes`: periodic regimes, each with a period and a waveform of its own. A seed fixes the waveforms, the batches,
the initial draws and the test windows; the variants of one seed are compared with each other.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float32
from scipy.stats import spearmanr
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from tsfm_lib.experiments.time_tracker.trials import SMALL, forecasts, parameters, scores, trained
from tsfm_lib.models.time_tracker import Encoded, TimeTracker, TimeTrackerConfig
from tsfm_lib.nn.moe import entropy, max_violation
from tsfm_lib.nn.patching import patch
from tsfm_lib.synth import planted
from tsfm_lib.train.streams import rng_for

RATE = 6e-3
"""Of AdamW, picked on another seed: the best of three for the mixture and for both dense networks alike."""

ROUTINGS = {"channel": "channel", "prefix": "channel_prefix", "token": "token"}


# ---- series and models -----------------------------------------------------------------------------------------------------------------


def series(n: int, seed: int, rng: np.random.Generator, regimes: int = 8, shift: str = "off", imbalance: float = 0.0) -> planted.Regimes:
    """Windows of context and horizon in eight regimes, or all in one of these eight (which one, turns with the seed).

    shift="on": every series switches once, at a random patch, and the context ends with at least one patch of the regime to be forecast."""
    context, horizon, size = SMALL.context, SMALL.horizon, SMALL.patch
    how = {"patch": size, "imbalance": imbalance, "shapes_seed": seed, "only": seed % 8 if regimes == 1 else None}
    if shift == "off":
        return planted.regimes(n, context + horizon, 8, rng, switching=0, **how)
    drawn = planted.regimes(2 * n, context + horizon, 8, rng, switching=1, **how)
    kept = np.flatnonzero(drawn.switch <= context - size)[:n]
    return planted.Regimes(drawn.series[kept], drawn.labels[kept], drawn.switch[kept], drawn.periods)


def stream(seed: int, batch: int = 48, **kind: Any) -> Callable[[int], Tensor]:
    return lambda step: torch.from_numpy(series(batch, seed, rng_for(seed, step), **kind).series)[:, None]


def fresh(seed: int, windows: int, **kind: Any) -> planted.Regimes:
    return series(windows, seed, rng_for(seed, 0, "test"), **kind)


@lru_cache(maxsize=64)
def model_of(config: TimeTrackerConfig, seed: int, steps: int, regimes: int, shift: str, /) -> TimeTracker:
    """A trained model; experiments that ask different things of the same model train it once."""
    return trained(config, stream(seed, regimes=regimes, shift=shift), seed, steps, rate=RATE).model


@torch.no_grad()
def encoded(model: TimeTracker, windows: Float32[np.ndarray, "n T"]) -> tuple[Encoded, Float[Tensor, "n T"]]:
    """The contexts as the stack sees them, and the whole windows in the units of their contexts."""
    whole = torch.as_tensor(windows, dtype=torch.float32)[:, None]
    z, seen, statistics = model.normalise(model.window(whole[..., : model.config.context]))
    return model.encode(z, seen), statistics.apply(whole)[:, 0]


# ---- against dense networks (T8) -------------------------------------------------------------------------------------------------------


def dense(size: int, active: bool, config: TimeTrackerConfig = SMALL) -> TimeTrackerConfig:
    """One feed-forward network a block, as wide as makes `size` parameters."""
    one = replace(config, shared_experts=1, private_experts=0, active_experts=0)
    least = parameters(one, active)
    slope = parameters(replace(one, hidden=one.hidden + 1), active) - least
    return replace(one, hidden=one.hidden + round((size - least) / slope))


def variants(config: TimeTrackerConfig = SMALL) -> dict[str, TimeTrackerConfig]:
    """The mixture with and without a shared expert, and dense networks of as many active and as many parameters in all.

    >>> sizes = {name: (parameters(c, active=True), parameters(c)) for name, c in variants().items()}
    >>> abs(sizes["moe"][0] / sizes["dense-active"][0] - 1) < 0.001, abs(sizes["moe"][1] / sizes["dense-total"][1] - 1) < 0.001
    (True, True)
    """
    one_more = config.shared_experts
    alone = replace(config, shared_experts=0, private_experts=config.private_experts + one_more,
                    active_experts=config.active_experts + one_more)  # fmt: skip
    return {"moe": config, "moe-no-shared": alone, "dense-active": dense(parameters(config, active=True), True, config),
            "dense-total": dense(parameters(config), False, config)}  # fmt: skip


def moe_dense(variant: str, regimes: int, seed: int, steps: int, windows: int) -> dict[str, Any]:
    """One variant on one or on eight regimes."""
    config = variants()[variant]
    model = model_of(config, seed, steps, regimes, "off")
    sizes = {"parameters": parameters(config), "active_parameters": parameters(config, active=True)}
    return scores(model, fresh(seed, windows, regimes=regimes).series) | sizes


# ---- how evenly are experts loaded (T2) ------------------------------------------------------------------------------------------------


def evenness(load: Float[Tensor, " E"]) -> dict[str, float]:
    """Share of experts with more than a tenth of an even load, entropy over that of an even load, the busiest over the mean minus one.

    >>> evenness(torch.tensor([60.0, 60.0, 0.0, 0.0]))
    {'utilisation': 0.5, 'entropy': 0.5, 'max_violation': 1.0}
    """
    share = load / load.sum()
    used = (share > 0.1 / len(share)).double().mean().item()
    return {"utilisation": used, "entropy": entropy(share), "max_violation": max_violation(share)}


def mean_evenness(loads: list[Tensor]) -> dict[str, float]:
    """Of several layers or batches."""
    return pd.DataFrame(map(evenness, loads)).mean().to_dict()


def spread(model: TimeTracker, windows: Float32[np.ndarray, "n T"]) -> dict[str, float]:
    """Of the choices of a model, mean over its layers."""
    return mean_evenness([routing.load for routing in encoded(model, windows)[0].routing])


def audit(experts: int, active: int, rate: float, seed: int, steps: int, windows: int) -> list[dict[str, Any]]:
    """Loads on held-out series of regimes of which some are rare, and how they came about batch by batch."""
    config = replace(SMALL, private_experts=experts, active_experts=active, balance_rate=rate)
    history: list[list[Tensor]] = [[] for _ in range(config.layers)]

    def watch(model: TimeTracker) -> None:
        for layer, loads in zip(model.layers, history):
            layer.router.register_forward_hook(lambda m, _, routing, loads=loads: loads.append(routing.load) if m.training else None)

    model = trained(config, stream(seed, imbalance=1.0), seed, steps, rate=RATE, prepare=watch).model
    test = fresh(seed, windows, imbalance=1.0).series
    late = [loads[-max(1, steps // 3) :] for loads in history]
    apart, pooled = mean_evenness([load for loads in late for load in loads]), mean_evenness([sum(loads) for loads in late])
    names = {"batch_violation": apart["max_violation"], "pooled_violation": pooled["max_violation"]}
    variant = "bias" if rate else "no bias"
    rows = [{"experiment": "experts", "variant": variant, **spread(model, test), **names, **scores(model, test)}]
    piece = max(1, steps // 20)
    for first in range(0, steps - piece + 1, piece):
        seen = mean_evenness([load for loads in history for load in loads[first : first + piece]])
        rows.append({"experiment": "loads_in_training", "variant": variant, "step": first + piece, **seen})
    return rows


def collapse(seed: int, steps: int, windows: int, rate: float = 1e-2) -> list[dict[str, Any]]:
    """The balance with its sign turned round, a mistake of one character, feeds the experts that are full already. Then as many steps
    again: of the healthy model, and of the collapsed one with the bias frozen, with the right sign, and with the bias set to zero first."""
    test = fresh(seed, windows).series
    go = lambda rate, **how: trained(replace(SMALL, balance_rate=rate), stream(seed), seed, steps, rate=RATE, **how).model
    right, wrong = go(rate), go(-rate)
    again = lambda model, rate, **how: go(rate, start=model.mixed(alpha=0, balance_rate=rate), **how)
    stages = {
        "right sign": right, "wrong sign": wrong, "right, and on": again(right, rate), "wrong, then frozen": again(wrong, 0.0),
        "wrong, then right": again(wrong, rate), "wrong, then from zero": again(wrong, rate, prepare=without_bias),
    }  # fmt: skip
    return [{"variant": name, **spread(model, test), **scores(model, test)} for name, model in stages.items()]


def without_bias(model: TimeTracker) -> None:
    for layer in model.layers:
        layer.router.bias.zero_()


# ---- for series or for tokens (T5) -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def leak(model: TimeTracker, windows: Float32[np.ndarray, "n T"]) -> Float[np.ndarray, " N"]:
    """How far the prediction of each token moves, at most, when only the last patch of the normalised context is replaced."""
    x = torch.as_tensor(windows[:, None, : model.config.context], dtype=torch.float32)
    z, seen, _ = model.normalise(model.window(x))
    changed = z.clone()
    changed[..., -model.config.patch :] = z.roll(1, 0)[..., -model.config.patch :]  # by that of another series
    before, after = (model.head(model.encode(x, seen).hidden) for x in (z, changed))
    return (before - after).abs().amax((0, 1, 3)).numpy()


@torch.no_grad()
def errors_by_token(model: TimeTracker, windows: Float32[np.ndarray, "n T"]) -> Float[np.ndarray, "n N"]:
    """Squared error of the patch behind every token, in units of the context."""
    found, whole = encoded(model, windows)
    target = patch(whole[:, model.config.patch :], model.config.horizon, model.config.step)
    return (model.head(found.hidden[:, 0]) - target).square().mean(-1).numpy()


def agreement(model: TimeTracker, given: planted.Regimes) -> float:
    """Normalised mutual information of the experts chosen for the last token and the regime that it is in, mean over layers."""
    found, n = encoded(model, given.series)[0].routing, len(given.series)
    last = [routing.indices.unflatten(0, (n, -1))[:, -1].sort(-1).values for routing in found]
    names = [np.unique(chosen.numpy(), axis=0, return_inverse=True)[1].ravel() for chosen in last]
    return float(np.mean([normalized_mutual_info_score(given.labels[:, -1], name) for name in names]))


def shifted(variant: str, shift: str, seed: int, steps: int, windows: int, supervision: str = "all") -> list[dict[str, Any]]:
    """One way to route, with or without a change of regime inside the context; `experiment` says what a row is about."""
    model = model_of(replace(SMALL, routing=ROUTINGS[variant], supervision=supervision), seed, steps, 8, shift)
    given = fresh(seed, windows, shift=shift)
    name = "routing_shift" if supervision == "all" else "routing_shift_last"
    tokens = errors_by_token(model, given.series)
    early = {"early": float(tokens[:, : tokens.shape[1] // 2].mean())}
    rows = [{"experiment": name, **scores(model, given.series), **early, "agreement": agreement(model, given)}]
    if supervision == "all":
        moved = leak(model, given.series)
        rows += [{"experiment": "routing_leak", "position": i + 1, "moved": float(x)} for i, x in enumerate(moved)]
    if supervision == "all" and shift == "on":
        error = np.square(forecasts(model, given.series[:, None])[:, 0] - given.series[:, SMALL.context :]).mean(1)
        age = (SMALL.context - given.switch) // SMALL.patch
        rows += [{"experiment": "routing_age", "since": int(n), "MSE": float(error[age == n].mean())} for n in np.unique(age)]
    return rows


def gap(rows: pd.DataFrame) -> pd.DataFrame:
    """How much higher the error of channel routing is than that of token routing, by shift and seed.

    >>> rows = pd.DataFrame({"variant": ["channel", "token"], "shift": "on", "seed": 0, "profile": "quick", "MSE": [0.5, 0.2]})
    >>> gap(rows)["gap"].round(3).tolist()
    [0.3]
    """
    wide = rows.pivot(index=["profile", "shift", "seed"], columns="variant", values="MSE").reset_index().rename_axis(columns=None)
    found = wide.assign(experiment="routing_shift_gap", gap=wide["channel"] - wide["token"])
    return found[["experiment", "profile", "shift", "seed", "gap"]]


# ---- outside the regimes of pretraining ------------------------------------------------------------------------------------------------


def groups(seed: int, windows: int) -> dict[str, Float32[np.ndarray, "n T"]]:
    """Series like those of the training, and ever less so."""
    other, length = seed + 10**6, SMALL.context + SMALL.horizon
    new = lambda count: planted.regimes(windows, length, count, rng_for(seed, count, "other"), switching=0, shapes_seed=other).series
    walk = rng_for(seed, 0, "walk").standard_normal((windows, length), np.float32).cumsum(1)
    return {"seen": fresh(seed, windows).series, "switching": fresh(seed, windows, shift="on").series, "new waveforms": new(8),
            "new periods too": new(9), "random walk": walk}  # fmt: skip


@torch.no_grad()
def confidence_of(model: TimeTracker, windows: Float32[np.ndarray, "n T"]) -> dict[str, Float[np.ndarray, " n"]]:
    """Per series, mean over layers: affinity to the chosen experts, and by how much the last chosen is ahead of the first that is not."""
    found = defaultdict(list)
    k, taps = model.config.active_experts, []

    def look(router, inputs, routing):
        means = router.affinity(*inputs)[:, 0]
        ranked = (means + router.bias).sort(-1, descending=True).values
        found["margin"].append(ranked[:, k - 1] - ranked[:, k])
        found["affinity"].append(means.gather(-1, routing.indices).mean(-1))

    taps = [layer.router.register_forward_hook(look) for layer in model.layers]
    encoded(model, windows)
    for tap in taps:
        tap.remove()
    return {name: torch.stack(values).mean(0).numpy() for name, values in found.items()}


def borrowed(model: TimeTracker, windows: Float32[np.ndarray, "n T"]) -> Float[np.ndarray, " n"]:
    """Errors of the last token when every series is sent to the experts (and given the gates) of another one of its group."""
    lend = lambda router, _, routing: routing._replace(indices=routing.indices.roll(1, 0), gates=routing.gates.roll(1, 0))
    taps = [layer.router.register_forward_hook(lend) for layer in model.layers]
    errors = errors_by_token(model, windows)[:, -1]
    for tap in taps:
        tap.remove()
    return errors


def confidence(seed: int, steps: int, windows: int) -> list[dict[str, Any]]:
    """Zero-shot error beside what the router says of itself, by group; then how well the one tells the other, series by series."""
    model, pooled, rows = model_of(SMALL, seed, steps, 8, "off"), [], []
    usual = [routing.load / routing.load.sum() for routing in encoded(model, fresh(seed, windows).series)[0].routing]
    for name, windows_of in groups(seed, windows).items():
        tokens, said = errors_by_token(model, windows_of), confidence_of(model, windows_of)
        loads = [routing.load / routing.load.sum() for routing in encoded(model, windows_of)[0].routing]
        unlike = float(np.mean([(load - before).abs().sum() / 2 for load, before in zip(loads, usual)]))
        one = pd.DataFrame({"group": name, "error": tokens[:, -1], "error before": tokens[:, -2], **said})
        pooled.append(one)
        row = one.drop(columns="group").mean().to_dict() | {"borrowed": float(borrowed(model, windows_of).mean()), "unlike": unlike}
        rows.append({"experiment": "confidence", "group": name, **row, **spread(model, windows_of)})
    for name, part in [*((one["group"][0], one) for one in pooled), ("all groups", pd.concat(pooled))]:
        for by, sign in {"margin": -1, "affinity": -1, "error before": 1}.items():  # low confidence should go with high error
            rho = spearmanr(sign * part[by], part["error"]).statistic
            rows.append({"experiment": "confidence_rho", "group": name, "variant": by, "rho": float(rho)})
    return rows
