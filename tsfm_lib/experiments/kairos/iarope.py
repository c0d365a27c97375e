"""Whose spectrum should set the rotary frequencies? (claim K3, Kairos, arXiv 2509.25826)

The series are `planted.frequency`: sums of two sines whose periods belong to a family, so that it is known which spectra are alike.
A model is trained per variant and seed; what the spectrum does in it is then seen by lending it other ones when it forecasts.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook
from tqdm import tqdm

from tsfm_lib.data import SeriesSet
from tsfm_lib.errors import TsfmError
from tsfm_lib.experiments.kairos.trials import SMALL, fixed, scores, trained
from tsfm_lib.models.kairos import InstanceFrequencies, Kairos, KairosConfig
from tsfm_lib.synth import planted
from tsfm_lib.synth.mixture import Mixture
from tsfm_lib.train import Diverged
from tsfm_lib.train.streams import from_windows

ONE_SIZE = replace(SMALL, **fixed(16))
"""One fixed patch size: what is tried is the rotary positions alone."""

VARIANTS: dict[str, dict[str, Any]] = {
    "own": {},
    "fixed-rope": {"rotary": "interleaved"},
    "fixed-rope-wide": {"rotary": "interleaved"},  # as many parameters as own
    "spectrum-token": {"rotary": "interleaved", "spectrum_token": True},  # as many parameters and the same features
    "bins 0 to 15": {"spectral_bins": 16},
    "bins 16 to 47": {"first_bin": 16, "spectral_bins": 32},
    "bins 65 to 128": {"first_bin": 65},  # periods below 4: nothing but noise in these series
}
MATCHED = ("fixed-rope-wide", "spectrum-token")
BANDS = {"0 to 15": (0, 16), "16 to 47": (16, 48), "48 to 63": (48, 64)}
SPIKES = (0.0, 5.0, 10.0, 20.0)  # in standard deviations of the series
SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {"log_frequency_range": None},
    "clamped": {},
    "no norm": {"spectrum_norm": False, "log_frequency_range": None},
    "no norm, clamped": {"spectrum_norm": False},
    "no log": {"modulation": "direct", "log_frequency_range": None},
}


# -- models and series --


def parameters(config: KairosConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Kairos(config).parameters())


def variant(name: str, config: KairosConfig = ONE_SIZE) -> KairosConfig:
    """The model of a variant; those that are MATCHED have their hidden layers widened to the number of parameters of "own".

    >>> sizes = [parameters(variant(name)) for name in ("own", "spectrum-token")]
    >>> abs(sizes[0] / sizes[1] - 1) < 0.005
    True
    """
    made = replace(config, **VARIANTS[name])
    if name in MATCHED:
        size = parameters(made)
        slope = parameters(replace(made, hidden=made.hidden + 1)) - size  # every further hidden unit costs the same
        made = replace(made, hidden=made.hidden + round((parameters(config) - size) / slope))
    return made


def waves(families: int | None, seed: int, config: KairosConfig, batch: int = 48) -> Callable[[int], Tensor]:
    """Batches of the families of this seed; None: every series has periods of its own."""
    length = config.context + config.forecast_tokens * config.horizon
    draw = lambda step: planted.frequency(batch, length, families, np.random.default_rng([seed, step]), pairs_seed=seed).series
    return lambda step: torch.from_numpy(draw(step))[:, None]


def fresh(families: int | None, seed: int, config: KairosConfig, count: int) -> planted.Frequency:
    """New series of the same families."""
    length = config.context + config.forecast_tokens * config.horizon
    return planted.frequency(count, length, families, np.random.default_rng([seed, 2**31]), pairs_seed=seed)


# -- whose spectrum --


@torch.no_grad()
def features(model: Kairos, windows: Float[np.ndarray, "N T"]) -> Float[Tensor, "N F"]:
    """The spectral features of the contexts, as the model computes them."""
    context = torch.as_tensor(windows[:, : model.config.context], dtype=torch.float32)
    return model.spectrum_of(model.normalise(model.fill(context))[0])


def within(family: Int[np.ndarray, "N"], rng: np.random.Generator) -> Int[np.ndarray, "N"]:
    """For every series another one of its family: one cycle through each family, so that nobody keeps its own."""
    lender = np.arange(len(family))
    for members in (np.flatnonzero(family == f) for f in np.unique(family)):
        order = rng.permutation(members)
        lender[order] = np.roll(order, 1)
    return lender


def between(family: Int[np.ndarray, "N"], rng: np.random.Generator) -> Int[np.ndarray, "N"]:
    """For every series one of another family."""
    return np.array([rng.choice(np.flatnonzero(family != own)) for own in family])


def lent(spectra: Float[Tensor, "N F"], family: Int[np.ndarray, "N"], seed: int) -> dict[str, Float[Tensor, "N F"]]:
    """The spectra every series is given instead of its own; those that the families allow."""
    rng, sizes = np.random.default_rng(seed), np.unique(family, return_counts=True)[1]
    found = {"own": spectra}
    if sizes.min() > 1:
        found["intra-shuffled"] = spectra[within(family, rng)]
    if len(sizes) > 1:
        found["inter-shuffled"] = spectra[between(family, rng)]
    return found | {"constant": spectra.mean(0).expand_as(spectra)}


def iarope_trial(model: str, families: int | None, seed: int, steps: int, count: int, config: KairosConfig = ONE_SIZE) -> list[dict]:
    """One trained model and all that can be asked of it without further training; `experiment` says which question a row answers."""
    chosen = variant(model, config)
    network = trained(chosen, waves(families, seed, chosen), seed, steps).model
    given, size = fresh(families, seed, chosen, count), parameters(chosen)
    if model != "own":
        rows = [{"experiment": "iarope", "variant": model, **scores(network, given.series)}]
    else:
        spectra = lent(features(network, given.series), given.family, seed)
        rows = [{"experiment": "iarope", "variant": name, **scores(network, given.series, lender)} for name, lender in spectra.items()]
        rows += foreign_bands(network, given.series, spectra)
        rows += learnt_frequencies(network) if families is None else ()  # trained on all periods
    if model in ("own", "fixed-rope") and families == 8:
        rows += spiked(network, given.series, model, seed)
    return [row | {"parameters": size, "unit": seed} for row in rows]


def foreign_bands(model: Kairos, windows: Float[np.ndarray, "N T"], spectra: dict[str, Tensor]) -> Iterator[dict]:
    """Own features but for one band of bins, which is another family's: which bins does the trained model listen to?"""
    if "inter-shuffled" not in spectra:
        return
    for band, (first, end) in {"none": (0, 0), **BANDS, "all": (0, None)}.items():
        mixed = spectra["own"].clone()
        mixed[:, first:end] = spectra["inter-shuffled"][:, first:end]
        yield {"experiment": "iarope_bands", "variant": band, **scores(model, windows, mixed)}


@torch.no_grad()
def learnt_frequencies(model: Kairos, periods: int = 7) -> Iterator[dict]:
    """log theta' - log theta of every module and pair for pure sines of several periods, mean over 8 phases."""
    t, phases = np.arange(model.config.context), np.arange(8)[:, None] / 8
    for period in np.geomspace(6, 200, periods):
        spectra = features(model, np.sin(2 * np.pi * (t / period + phases)))
        for place, module in frequency_networks(model).items():
            shift = (module(spectra).log() - module.log_theta).mean(0)
            for pair, value in enumerate(shift.tolist()):
                yield {"experiment": "iarope_theta", "variant": place, "period": float(period), "pair": pair, "shift": value}


def frequency_networks(model: Kairos) -> dict[str, InstanceFrequencies]:
    """The networks from spectrum to frequencies, by the place of their attention."""
    named = {name.removesuffix(".frequencies"): module for name, module in model.named_modules() if isinstance(module, InstanceFrequencies)}
    return {name.replace(".attend", " self").replace(".cross", " cross").replace(".", " "): module for name, module in named.items()}


def spiked(model: Kairos, windows: Float[np.ndarray, "N T"], name: str, seed: int) -> Iterator[dict]:
    """One outlier in every context. It may reach the forecast by the tokens, by the spectrum, or by both."""
    rng, context = np.random.default_rng(seed), model.config.context
    at, sign = rng.integers(context, size=len(windows)), rng.choice([-1, 1], len(windows))
    clean = features(model, windows)
    for height in SPIKES:
        hit = windows.copy()
        hit[np.arange(len(hit)), at] += sign * height * windows[:, :context].std(1)
        spectra = features(model, hit)
        likeness = float(torch.cosine_similarity(clean, spectra).mean())
        for reaches, series, spectrum in (("tokens", hit, clean), ("spectrum", windows, spectra), ("both", hit, spectra)):
            yield {"experiment": "iarope_spike", "variant": name, "reaches": reaches, "height": height, "likeness": likeness,
                   **scores(model, series, spectrum)}  # fmt: skip


def gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """How much own beats fixed-rope, in percent of its WQL, for each number of families and seed; 0 families: each series its own."""
    kept = rows[rows["variant"].isin(["own", "fixed-rope"])].assign(families=lambda r: r["families"].fillna(0).astype(int))
    wide = kept.pivot_table(index=["profile", "families", "seed"], columns="variant", values="WQL").reset_index()
    wide = wide.assign(experiment="iarope_diversity", unit=wide["seed"], gap=100 * (1 - wide["own"] / wide["fixed-rope"]))
    return wide.rename(columns={"own": "WQL_own", "fixed-rope": "WQL_fixed"}).rename_axis(columns=None)


# -- when frequencies run away --


def instability(setting: str, rate: float, seed: int, steps: int, count: int, config: KairosConfig = ONE_SIZE) -> dict:
    """The largest frequency met in a training, and whether the training survived. Gradients are clipped to norm 1 throughout."""
    config, peaks = replace(config, **SETTINGS[setting]), []

    def watch(module, given, theta):
        if isinstance(module, InstanceFrequencies):
            peaks.append(theta.detach().abs().max())

    handle = register_module_forward_hook(watch)  # on all modules: the model is built inside `trained`
    try:
        run = trained(config, waves(8, seed, config), seed, steps, rate=rate)
        raw = scores(run.raw, fresh(8, seed, config, count).series)
        end = {"diverged": False, "stopped": steps, "WQL": raw["WQL"], "last_loss": float(run.curve["loss"].tail(10).mean())}
    except Diverged as stop:
        end = {"diverged": True, "stopped": stop.report["step"], "WQL": np.nan, "last_loss": np.nan}
    finally:
        handle.remove()
    peak = torch.stack(peaks).log()
    finite = peak[peak.isfinite()]
    return {"variant": setting, "max_log_theta": float(finite.max()), "overflow": bool(len(finite) < len(peak)), **end, "unit": seed}


# -- when a token is no longer a fixed number of steps --


@torch.no_grad()
def lags(model: Kairos, windows: Float[np.ndarray, "N T"]) -> Float[np.ndarray, "M"]:
    """For all pairs of places two longest patches apart: the distance of their tokens in the positions that are rotated."""
    z, seen, _ = model.normalise(model.fill(torch.as_tensor(windows[:, : model.config.context], dtype=torch.float32)))
    encoded, longest, found = model.encode(z, seen), model.config.patch_lengths[0], []
    for start, size, at in zip(encoded.tokens.start, encoded.tokens.size, encoded.at):
        heads = at[: len(start)][(start % longest == 0) & (size > 0)]  # the first token of every longest patch
        found.append(heads[2:] - heads[:-2])
    return torch.cat(found).numpy()


def patch_positions(positions: str, rotary: str, seed: int, steps: int, count: int, config: KairosConfig = SMALL) -> dict:
    """IARoPE or plain RoPE over patches of mixed size, positions counted in tokens or in steps."""
    config = replace(config, positions=positions, rotary=rotary)
    model = trained(config, waves(8, seed, config), seed, steps).model
    windows = fresh(8, seed, config, count).series
    apart = lags(model, windows)
    return {**scores(model, windows), "lag_mean": float(apart.mean()), "lag_spread": float(apart.std()), "unit": seed}


# -- on any set of series --


def iarope_on(data: SeriesSet, seeds: int = 5, steps: int = 300, windows: int = 256, config: KairosConfig = ONE_SIZE) -> pd.DataFrame:
    """Whose spectrum should set the rotary frequencies? (K3, on any set of series)

    Two models are trained per seed on the first 70 % of every series, on the same batches: one with instance-adaptive, one with
    fixed frequencies. On windows of the last 30 % the first one forecasts with the window's own spectrum, with that of another
    window of the set, and with that of a generated series. WQL over J x H steps, lower is better.
    """
    ahead = config.forecast_tokens * config.horizon
    train, test = zip(*(cut(x, config.context + ahead) for x in data.series))
    train, test = [x for x in train if x is not None], [x for x in test if x is not None]
    if not train or not test:
        needed, longest = int((config.context + ahead) / 0.3) + 1, max(x.shape[1] for x in data.series)
        raise TsfmError(f"{data.name}: this test needs a series of at least {needed} points, the longest has {longest}: give more data")
    picked = held_out(test, config.context, ahead, windows)
    rows = []
    for seed in tqdm(range(seeds), desc="training two models per seed"):
        stream = in_turn(train, config.context, ahead, seed)
        adaptive, plain = (trained(replace(config, rotary=rotary), stream, seed, steps).model for rotary in ("instance", "half"))
        for name, spectrum in borrowed(adaptive, picked, seed).items():
            rows.append((seed, name, scores(adaptive, picked, spectrum)["WQL"]))
        rows.append((seed, "fixed-rope", scores(plain, picked)["WQL"]))
    frame = pd.DataFrame(rows, columns=["seed", "variant", "WQL"])
    keys = {"experiment": "iarope", "profile": "quick", "dataset": data.name, "horizon": ahead, "windows": len(picked)}
    return frame.assign(**keys, unit=frame["seed"])


def in_turn(series: list[np.ndarray], context: int, ahead: int, seed: int, batch: int = 48) -> Callable[[int], Tensor]:
    """A batch of windows of each series in turn."""
    streams = [from_windows(x, context, ahead, batch, seed) for x in series]
    return lambda step: streams[step % len(streams)](step // len(streams))


def cut(series: Float[np.ndarray, "V T"], length: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The first 70 % to learn from and the rest to be judged on, without a shared point; None where a part holds no whole window."""
    border = int(0.7 * series.shape[1])
    return tuple(part if part.shape[1] >= length else None for part in (series[:, :border], series[:, border:]))


def held_out(series: list[np.ndarray], context: int, ahead: int, count: int) -> Float[np.ndarray, "N T"]:
    """At most `count` windows, evenly spaced over all series and channels, each with some variation to forecast."""
    length = context + ahead
    views = [np.lib.stride_tricks.sliding_window_view(channel, length) for x in series for channel in x]
    share = max(1, count // len(views))
    found = np.concatenate([view[np.unique(np.linspace(0, len(view) - 1, share).astype(int))] for view in views])[:count]
    moving = (np.nanstd(np.nan_to_num(found[:, :context]), axis=1) > 0) & (np.isfinite(found).sum(1) > length // 2)
    if moving.sum() < 2:
        raise TsfmError("fewer than two windows of the last 30 % vary at all: give series that move")
    return found[moving]


def borrowed(model: Kairos, windows: Float[np.ndarray, "N T"], seed: int) -> dict[str, Float[Tensor, "N F"]]:
    """Every window's own spectral features, those of another window of the set, and those of generated series."""
    rng, own = np.random.default_rng(seed), features(model, windows)
    another = own[within(np.zeros(len(own), np.int64), rng)]
    return {"own": own, "intra-shuffled": another, "inter-shuffled": features(model, Mixture().draw(len(own), model.config.context, rng))}
