"""Does a model say again what it has just heard, and does it hear seasons that are not there?

parrot_gap      error against what came minus error against a copy of the context, on motifs that break at the horizon
                (`synth.planted.motifs`): nobody can foresee the break, so a large gap is a forecast that trusts the copy
Parrot          the forecaster that does nothing else: finds the nearest earlier stretch and repeats what followed it (arXiv 2505.11349
                calls it context parroting)
seasonal_power  how much of a forecast is a sine of a given period; against the truth's, a bias towards seasons
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tsfm_lib.errors import TsfmError, whole
from tsfm_lib.nn.resampling import bridge
from tsfm_lib.synth.planted import Motifs


class ParrotGap(NamedTuple):
    """One number per series, in units of the standard deviation of its motif."""

    to_truth: Float[np.ndarray, " n"]  # mean absolute error
    to_copy: Float[np.ndarray, " n"]  # mean absolute distance to the copy
    gap: Float[np.ndarray, " n"]  # their difference: above 0 the forecast is nearer to the copy
    agreement: Float[np.ndarray, " n"]  # correlation with the copy minus correlation with the truth


def parrot_gap(forecast: Float[np.ndarray | Tensor, "n h"], motifs: Motifs) -> ParrotGap:
    """Of point forecasts (medians) of the last `h` steps of the series."""
    y = np.asarray(forecast, float)
    truth, copy = motifs.series[:, motifs.context :].astype(float), motifs.copy.astype(float)
    if y.shape != truth.shape:
        raise TsfmError(f"expected forecasts of {truth.shape}, one row per series and its whole horizon, got {y.shape}")
    to_truth, to_copy = np.abs(y - truth).mean(1), np.abs(y - copy).mean(1)
    return ParrotGap(to_truth, to_copy, to_truth - to_copy, _correlation(y, copy) - _correlation(y, truth))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.where(size > 0, (a * b).sum(1) / np.where(size > 0, size, 1), 0.0)  # a constant agrees with nothing


class Parrot:
    """The k = 1 nearest neighbour: what followed the stretch most like the last `window` steps, and again from there if it runs out.

    `normalise`: stretches are compared, and repeated, in units of their own mean and deviation.

    >>> context = torch.tensor([[[0.0, 1, 5, 0, 1, 5, 0, 1]]])
    >>> Parrot(2).predict_quantiles(context, 4, [0.5])[0, 0, :, 0]
    tensor([5., 0., 1., 5.])
    """

    probabilistic = False
    order_free = True

    def __init__(self, window: int, normalise: bool = False):
        self.window, self.normalise = whole(window, "the window of a parrot"), normalise

    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float]) -> Float[Tensor, "B V h Q"]:
        """The copy at every level. Gaps are bridged; a series without any observation is forecast as 0."""
        m, rows = self.window, bridge(context).nan_to_num(0.0).flatten(0, 1)
        if rows.shape[1] <= m:
            raise TsfmError(f"a context of {rows.shape[1]} steps has no earlier stretch of {m}: pass a longer one, or a shorter window")
        stretches = rows.unfold(1, m, 1)  # R T-m+1 m
        level, spread = torch.zeros_like(stretches[..., :1]), torch.ones_like(stretches[..., :1])
        if self.normalise:
            level, spread = stretches.mean(-1, keepdim=True), stretches.std(-1, correction=0, keepdim=True).clamp_min(1e-8)
        z = (stretches - level) / spread
        distance = (z[:, :-1] - z[:, -1:]).square().sum(-1)
        # among equals the latest, for whole rows at once
        found = distance.shape[1] - 1 - distance.flip(1).argmin(1)
        start = found + m
        steps = torch.arange(horizon, device=rows.device) % (rows.shape[1] - start)[:, None] + start[:, None]
        copy, own = rows.gather(1, steps), torch.arange(len(rows), device=rows.device)
        if self.normalise:
            copy = (copy - level[own, found]) / spread[own, found] * spread[:, -1] + level[:, -1]
        return copy.unflatten(0, context.shape[:2])[..., None].expand(*context.shape[:2], horizon, len(levels))


def seasonal_power(y: Float[np.ndarray | Tensor, "*S h"], periods: Sequence[float | int]) -> Float[np.ndarray, "*S P"]:
    """Power (half the squared amplitude) of the sine of each period that fits a series best, each alone, beside a straight line.

    >>> t = np.arange(60)
    >>> seasonal_power(3 * np.sin(2 * np.pi * t / 12 + 1) + 0.1 * t, [12, 7.5]).round(2).tolist()
    [4.5, 0.0]
    """
    y = np.asarray(y, float)
    h, found = y.shape[-1], []
    if h < 5:
        raise TsfmError(f"a sine beside a straight line needs 5 steps or more, got {h}")
    t = np.arange(h)
    for period in periods:
        turn = 2 * np.pi * t / period
        design = np.stack([np.ones(h), t / h, np.cos(turn), np.sin(turn)], 1)
        found.append((np.tensordot(y, np.linalg.pinv(design)[2:].T, 1) ** 2).sum(-1) / 2)
    return np.stack(found, -1)


def seasonal_bias(forecast: Float[np.ndarray | Tensor, "*S h"], truth: Float[np.ndarray | Tensor, "*S h"], periods: Sequence[float | int],
                  scale: Float[np.ndarray | Tensor, "*S"] | float | int = 1.0) -> Float[np.ndarray, "*S P"]:  # fmt: skip
    """Seasonal power of the forecast minus that of the truth, in units of `scale` squared (a deviation of each series)."""
    return (seasonal_power(forecast, periods) - seasonal_power(truth, periods)) / np.asarray(scale, float)[..., None] ** 2
