"""Experiments on Kairos (arXiv 2509.25826)."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from tsfm_lib import checkpoints
from tsfm_lib.data import SeriesSet
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate.metrics import weighted_parts
from tsfm_lib.models.kairos import Kairos, KairosConfig
from tsfm_lib.synth.mixture import Mixture
from tsfm_lib.train import Recipe, fit
from tsfm_lib.train.streams import from_windows

TRIAL = KairosConfig(
    context=256, horizon=16, patch_lengths=(16,), null_experts=0, active_experts=1, width=64, heads=4, head_width=16, hidden=128,
    encoder_layers=2, decoder_layers=2, spectral_bins=64, asinh=True,
)  # fmt: skip
"""One fixed patch size: what is tried is the rotary positions alone."""


def iarope_on(data: SeriesSet, seeds: int = 5, steps: int = 300, windows: int = 256, config: KairosConfig = TRIAL) -> pd.DataFrame:
    """Whose spectrum should set the rotary frequencies? (K3, on any set of series)

    Two models are trained per seed on the first 70 % of every series, from the same start on the same batches: one with
    instance-adaptive, one with fixed frequencies. On windows of the last 30 % the first one forecasts with the window's own spectrum,
    with that of another window of the set, and with that of a generated series. WQL over J x H steps, lower is better.
    """
    steps_ahead = config.forecast_tokens * config.horizon
    train, test = zip(*(cut(x, config.context + steps_ahead) for x in data.series))
    train, test = [x for x in train if x is not None], [x for x in test if x is not None]
    if not train or not test:
        needed, longest = int((config.context + steps_ahead) / 0.3) + 1, max(x.shape[1] for x in data.series)
        raise TsfmError(f"{data.name}: this test needs a series of at least {needed} points, the longest has {longest}: give more data")
    picked = held_out(test, config.context, steps_ahead, windows)
    rows = []
    for seed in tqdm(range(seeds), desc="training two models per seed"):
        models = {rotary: trained(replace(config, rotary=rotary), train, seed, steps) for rotary in ("instance", "half")}
        spectra = borrowed(models["instance"], picked, seed)
        for variant, spectrum in spectra.items():
            rows.append((seed, variant, wql(models["instance"], picked, spectrum)))
        rows.append((seed, "fixed-rope", wql(models["half"], picked, None)))
    frame = pd.DataFrame(rows, columns=["seed", "variant", "WQL"])
    keys = {"experiment": "iarope", "profile": "quick", "dataset": data.name, "horizon": steps_ahead, "windows": len(picked)}
    return frame.assign(**keys, unit=frame["seed"])


def cut(series: Float[np.ndarray, "V T"], length: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The first 70 % to learn from and the rest to be judged on, without a shared point; None where a part holds no whole window."""
    border = int(0.7 * series.shape[1])
    return tuple(part if part.shape[1] >= length else None for part in (series[:, :border], series[:, border:]))


def held_out(series: list[np.ndarray], context: int, steps_ahead: int, count: int) -> Float[np.ndarray, "N T"]:
    """At most `count` windows, evenly spaced over all series and channels, each with some variation to forecast."""
    length = context + steps_ahead
    views = [np.lib.stride_tricks.sliding_window_view(channel, length) for x in series for channel in x]
    share = max(1, count // len(views))
    found = np.concatenate([view[np.unique(np.linspace(0, len(view) - 1, share).astype(int))] for view in views])[:count]
    moving = (np.nanstd(np.nan_to_num(found[:, :context]), axis=1) > 0) & (np.isfinite(found).sum(1) > length // 2)
    if moving.sum() < 2:
        raise TsfmError("fewer than two windows of the last 30 % vary at all: give series that move")
    return found[moving]


def trained(config: KairosConfig, series: list[np.ndarray], seed: int, steps: int) -> Kairos:
    """Models that differ in their rotary positions only see the same batches."""
    recipe = Recipe(
        f"iarope-{config.rotary}", "kairos", asdict(config), seed=seed, steps=steps, batch=48, context=config.context,
        horizon=config.forecast_tokens * config.horizon, warmup=min(50, steps), rate=1e-3,
        matrices=r"^(encoder|decoder)\.\d+\.((attend|cross)\.attention|mlp)\.",
    )  # fmt: skip
    streams = [from_windows(x, config.context, recipe.horizon, recipe.batch, seed) for x in series]
    mixed = lambda step: streams[step % len(streams)](step // len(streams))
    return fit(checkpoints.build("kairos", config, seed), mixed, recipe, progress=False).model


@torch.no_grad()
def borrowed(model: Kairos, windows: Float[np.ndarray, "N T"], seed: int) -> dict[str, Float[Tensor, "N F"]]:
    """Every window's own spectral features, those of another window of the set, and those of generated series."""
    context = model.config.context
    rng = np.random.default_rng(seed)
    features = lambda x: model.spectrum_of(model.normalise(model.fill(torch.as_tensor(x[:, :context], dtype=torch.float32)))[0])
    own = features(windows)
    order = rng.permutation(len(own))
    another = np.empty_like(order)
    another[order] = np.roll(order, 1)  # one cycle through all windows: nobody keeps his own
    foreign = features(Mixture().draw(len(own), context, rng))
    return {"own": own, "intra-shuffled": own[another], "inter-shuffled": foreign}


@torch.no_grad()
def wql(model: Kairos, windows: Float[np.ndarray, "N T"], spectrum: Float[Tensor, "N F"] | None) -> float:
    context = model.config.context
    forecast = model(torch.as_tensor(windows[:, :context], dtype=torch.float32), spectrum).numpy()
    loss, size = weighted_parts(windows[:, None, context:], forecast[:, None].astype(np.float64), model.config.quantiles)
    return float(loss.sum() / size.sum())
