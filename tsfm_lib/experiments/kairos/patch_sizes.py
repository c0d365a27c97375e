"""What the router of Kairos sees, and what its bias holds (K2, K5).

Small models are trained on series whose bursts lie in known blocks, each as long as the longest patch. Then one looks at the router
alone: which sizes it gives to burst and calm blocks, whether the choice survives x -> -x or a burst that slides by one step, and which
shares of the gate mass the experts get.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from sklearn.metrics import mutual_info_score, roc_auc_score
from torch import Tensor

from tsfm_lib import checkpoints
from tsfm_lib.errors import TsfmError
from tsfm_lib.experiments.kairos.trials import SMALL, trained
from tsfm_lib.models.kairos import Kairos, KairosConfig
from tsfm_lib.synth import planted
from tsfm_lib.train.streams import rng_for

MODELS = {"small": replace(SMALL, encoder_layers=1, decoder_layers=1), "mini": KairosConfig.mini()}
"""The router stands before the first layer: in the small one a layer on either side is enough to teach it, and halves the time."""

TARGETS = {"even": None, "tilted": (0.45, 0.20, 0.05, 0.15, 0.15)}
"""Target shares of the three sizes, coarse to fine, and the two null experts."""

COLLAPSED = 1.5
"""Bias for the longest patch and the null experts, and minus that for the shorter ones: every patch stays whole."""

CELL = {"model": "small", "router": "linear", "eta": 1e-3, "target": "even", "burst": "sine", "start": "fresh", "steps": 300, "batch": 32}
"""What a trained model is known by, besides its seed: the paper's router, eta_b as in the authors' code, equal target shares."""


def cell(seed: int, **changes: Any) -> dict[str, Any]:
    """One model of a grid, all settings spelled out.

    >>> cell(3, eta=0.0)["eta"], cell(3)["router"]
    (0.0, 'linear')
    """
    if unknown := set(changes) - set(CELL):
        raise TsfmError(f"a cell is described by {', '.join(CELL)}, got {sorted(unknown)[0]!r}")
    return {"seed": seed} | CELL | changes


class Sizes(NamedTuple):
    """What the router chose for every longest patch."""

    finest: Int[np.ndarray, "N n"]  # smallest chosen patch length
    mean: Float[np.ndarray, "N n"]  # gate-weighted mean of the chosen lengths
    mass: Float[np.ndarray, "N n E"]  # gate mass of each expert, null experts included


@torch.no_grad()
def sizes(model: Kairos, series: Float[np.ndarray, "N T"]) -> Sizes:
    """Route contexts, each normalised on its own; the part of the model behind the router is not run."""
    z, seen, _ = model.normalise(model.fill(torch.as_tensor(series, dtype=torch.float32)))
    longest = model.config.patch_lengths[0]
    routing = model.router(rearrange(z, "N (n P) -> N n P", P=longest), rearrange(seen, "N (n P) -> N n P", P=longest).any(-1))
    lengths = torch.tensor(model.config.patch_lengths)
    whole = routing.share.sum(-1)
    mean = torch.where(whole > 0, (routing.share * lengths).sum(-1) / whole.clamp_min(1e-9), longest)  # nothing but null experts: whole
    return Sizes(lengths[routing.finest].numpy(), mean.numpy(), gate_mass(routing, model.config.experts).numpy())


def gate_mass(routing: Any, experts: int) -> Float[Tensor, "B N E"]:
    return torch.zeros(*routing.gates.shape[:-1], experts).scatter(-1, routing.indices, routing.gates.detach().float())


def along(model: Kairos, series: Float[np.ndarray, " T"]) -> pd.DataFrame:
    """Sizes along one long series: context after context without overlap, what is left at the front is not used."""
    context, longest = model.config.context, model.config.patch_lengths[0]
    count = len(series) // context
    if not count:
        raise TsfmError(f"expected a series of at least one context, {context} points, got {len(series)}: give a longer one")
    found = sizes(model, series[-count * context :].reshape(count, context).astype(np.float32))
    steps = np.arange(found.mean.size) * longest
    return pd.DataFrame({"start": steps, "finest": found.finest.ravel(), "mean_size": found.mean.ravel()})


# ---- how well sizes follow bursts ---------------------------------------------------------------------------------------------------


def follow(model: Kairos, test: planted.Density) -> dict[str, float]:
    """Mean sizes in burst and calm blocks, how well the finest level tells them apart, and how often -x is cut otherwise than x.

    Blocks that are half a burst (shifted ones) count as neither. `bits` is the mutual information of finest level and kind of block.
    """
    found, flipped = sizes(model, test.series), sizes(model, -test.series)
    clear = (test.bursts == 0) | (test.bursts == 1)
    burst, finest = test.bursts[clear] == 1, found.finest[clear]
    row = {"flip_rate": float((found.finest != flipped.finest).mean()), "size_spread": float(found.mean.std())}
    for name, kind in (("burst", burst), ("calm", ~burst)):
        row[f"mean_size_{name}"] = float(found.mean[clear][kind].mean()) if kind.any() else np.nan
        row[f"finest_{name}"] = float(finest[kind].mean()) if kind.any() else np.nan
    both = burst.any() and not burst.all()
    row["auc"] = float(roc_auc_score(burst, -finest)) if both else np.nan
    row["bits"] = float(mutual_info_score(burst, finest) / np.log(2))
    return row


def against_roughness(model: Kairos, series: Float[np.ndarray, "N T"]) -> dict[str, float]:
    """Where nothing is known about bursts: rank correlation of the mean size with the mean |step to step change| of its patch, in
    normalised values. The paper's picture is a negative one."""
    found, flipped = sizes(model, series), sizes(model, -series)
    z, _, _ = model.normalise(model.fill(torch.as_tensor(series, dtype=torch.float32)))
    rough = rearrange(z, "N (n P) -> N n P", P=model.config.patch_lengths[0]).diff(dim=-1).abs().mean(-1).numpy()
    return {
        "correlation": float(spearmanr(found.mean.ravel(), rough.ravel()).statistic),
        "flip_rate": float((found.finest != flipped.finest).mean()), "patches": found.mean.size,
    }  # fmt: skip


def probes(amplitude: float, slides: int, n: int, config: KairosConfig, seed: int) -> tuple[Float[np.ndarray, "s n T"], int]:
    """Calm series with one burst of period 6 in a middle patch, which slides under a fixed envelope one step at a time; its place."""
    calm = planted.density(n, config.context, 0.0, rng_for(seed, 0, "probe")).series
    longest = config.patch_lengths[0]
    place = config.context // longest // 2
    steps = np.arange(longest) + np.arange(slides)[:, None]  # s P
    x = np.repeat(calm[None], slides, 0)
    x[:, :, place * longest : (place + 1) * longest] += amplitude * np.sin(2 * np.pi * steps / 6)[:, None]
    return x.astype(np.float32), place


# ---- trained models -----------------------------------------------------------------------------------------------------------------


class Learnt(NamedTuple):
    model: Kairos  # averaged weights
    raw: Kairos  # the last ones, where the bias has just been moved
    path: pd.DataFrame  # mass, bias and distance to the target over the steps


def bursts(seed: int, batch: int, config: KairosConfig, burst: str = "sine") -> Callable[[int], Float[Tensor, "B 1 T"]]:
    """Batches of series with planted bursts. All phases are random, so that x and -x are equally likely: the sign means nothing."""
    length, block = config.context + config.forecast_tokens * config.horizon, config.patch_lengths[0]
    draw = lambda step: planted.density(batch, length, 0.35, rng_for(seed, step), block=block, burst=burst).series
    return lambda step: torch.from_numpy(draw(step)[:, None])


def collapse(model: Kairos) -> None:
    """Bias such that nearly every patch stays whole."""
    bias = [COLLAPSED] + [-COLLAPSED] * (len(model.config.patch_lengths) - 1) + [COLLAPSED] * model.config.null_experts
    model.router.bias.copy_(torch.tensor(bias))


@cache
def learnt(*, seed: int, model: str, router: str, eta: float, target: str, burst: str, start: str, steps: int, batch: int) -> Learnt:
    """The model of one `cell`, trained once per process however many experiments look at it."""
    config = replace(MODELS[model], router=router, balance_rate=eta, target_shares=TARGETS[target])
    rows: list[tuple] = []

    def note(module, given, routing):
        if module.training:
            mass = gate_mass(routing, config.experts).mean((0, 1))
            modal = routing.finest.flatten().bincount().max() / routing.finest.numel()
            rows.append((modal.item(), *mass.tolist(), *module.bias.tolist()))

    def prepare(model):
        if start == "collapsed":
            collapse(model)
        model.router.register_forward_hook(note)

    run = trained(config, bursts(seed, batch, config, burst), seed, steps, batch=batch, prepare=prepare)
    columns = ["modal", *(f"{what}_{name}" for what in ("mass", "bias") for name in experts(config))]
    path = pd.DataFrame(rows, columns=columns)
    path.insert(0, "step", np.arange(1, len(path) + 1))
    mass = path.filter(like="mass_").to_numpy()
    path["share_distance"] = np.abs(mass - run.raw.router.target.numpy()).sum(1) / 2
    return Learnt(run.model, run.raw, path)


def experts(config: KairosConfig) -> list[str]:
    """Names of the experts: lengths coarse to fine, then the null experts."""
    return [str(p) for p in config.patch_lengths] + [f"null {i + 1}" for i in range(config.null_experts)]


def held_out(seed: int, config: KairosConfig, n: int = 512, **how: Any) -> planted.Density:
    """Fresh series of the same kind; `how` as in `planted.density`."""
    rng, block = rng_for(seed, 0, "held out"), config.patch_lengths[0]
    return planted.density(n, config.context, rng=rng, block=block, **{"share": 0.35} | how)


# ---- one cell of a grid each --------------------------------------------------------------------------------------------------------


def chosen_sizes(**cell: Any) -> list[dict[str, Any]]:
    """Does the size follow the burst? Bursts of a sine, bursts of white noise, and blocks that straddle two patches."""
    model = learnt(**cell).model
    tests = {"sine": {}, "noise": {"burst": "noise"}, "shifted": {"shift": model.config.patch_lengths[0] // 2}}
    return [{"test": name} | follow(model, held_out(cell["seed"], model.config, **how)) for name, how in tests.items()]


def densities(**cell: Any) -> list[dict[str, Any]]:
    """The same where every block is calm, some are bursts, all are."""
    model = learnt(**cell).model
    return [{"density": share} | follow(model, held_out(cell["seed"], model.config, share=share)) for share in (0.0, 0.35, 1.0)]


def seen_by(slides: int = 12, n: int = 64, **cell: Any) -> list[dict[str, Any]]:
    """One burst, louder and louder, sliding through a whole period: what the router makes of its strength and of its phase."""
    model, rows = learnt(**cell).model, []
    for amplitude in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0):
        x, place = probes(amplitude, slides + 1, n, model.config, cell["seed"])
        found = sizes(model, x.reshape(-1, x.shape[-1]))
        finest = found.finest[:, place].reshape(slides + 1, n)
        mean = found.mean[:, place].reshape(slides + 1, n)[:slides]  # whole periods: every phase once
        rows.append({"amplitude": amplitude, "mean_size": float(mean.mean()), "slide_rate": float((finest[1:] != finest[:-1]).mean())})
    return rows


def final_shares(**cell: Any) -> dict[str, Any]:
    """Total variation between the target and the gate mass on held-out series, under the last weights and the last bias."""
    raw = learnt(**cell).raw
    found = sizes(raw, held_out(cell["seed"], raw.config).series)
    mass = found.mass.mean((0, 1))
    distance = float(np.abs(mass - raw.router.target.numpy()).sum() / 2)
    modal = float(np.unique(found.finest, return_counts=True)[1].max() / found.finest.size)
    return {"share_distance": distance, "modal": modal} | {f"mass_{k}": float(v) for k, v in zip(experts(raw.config), mass)}


def shares_over_steps(points: int = 30, **cell: Any) -> pd.DataFrame:
    """Mass and bias of each expert while training, means over 1/`points` of the steps."""
    path = learnt(**cell).path
    every = max(1, len(path) // points)
    return path.groupby((path["step"] - 1) // every).mean()


def by_block(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per kind of block, from one row per model."""
    parts = [rows.assign(block=b, mean_size=rows[f"mean_size_{b}"], finest=rows[f"finest_{b}"]) for b in ("burst", "calm")]
    return pd.concat(parts, ignore_index=True)[["seed", "router", "burst", "test", "block", "mean_size", "finest"]]


# ---- one router by itself -----------------------------------------------------------------------------------------------------------


def contexts(series: Float[np.ndarray, "V T"], length: int, at_most: int = 300) -> Float[np.ndarray, "N T2"]:
    """Windows of every channel, one behind the other, evenly thinned to `at_most`; those that do not vary are left out."""
    count = series.shape[1] // length
    rows = series[:, : count * length].reshape(-1, length)
    rows = rows[np.nanstd(np.nan_to_num(rows), axis=1) > 0]
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(at_most, len(rows))).astype(int))].astype(np.float32)


def frozen(eta: float, updates: int, seed: int, batch: int = 32, router: str = "linear") -> pd.DataFrame:
    """A collapsed router whose weights stay as drawn: what the bias does alone, batch after batch."""
    config = replace(MODELS["small"], router=router, balance_rate=eta)
    model = checkpoints.build("kairos", config, seed)
    collapse(model)
    draw, rows = bursts(seed, batch, config), []
    for step in range(updates):
        model.router.train()  # the bias moves in training mode only
        found = sizes(model, draw(step)[:, 0, : config.context].numpy())
        mass = found.mass.mean((0, 1))
        distance = np.abs(mass - model.router.target.numpy()).sum() / 2
        rows.append({"seed": seed, "eta": eta, "step": step + 1, "share_distance": float(distance)})
    return pd.DataFrame(rows)
