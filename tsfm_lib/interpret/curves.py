"""How much can go: losses along an order of removal, heads@Xpp with an interval, and how far a forecast has moved.

    order = interpret.order(interpret.stable_rank(model, names=["decoder.3"]))
    losses = interpret.removal(model, run, x, target, loss, order)                # levels x series: 0, 1, 2, ... heads removed
    interpret.heads_at(losses, 1.0)                                               # HeadsAt(kept=5, removable=3, low=1, high=4, ...)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.capturing import Run
from tsfm_lib.interpret.masks import HeadMask, Loss
from tsfm_lib.interpret.plans import Plan
from tsfm_lib.interpret.ranking import together


def removal(model: nn.Module, run: Run, x: Tensor, target: Tensor, loss: Loss, order: Sequence[tuple[str, int]], *,
            levels: Sequence[int] | None = None, base: Plan | None = None, **options: object) -> Float[Tensor, "L B"]:  # fmt: skip
    """The loss of every series without the first n heads of `order`, n = 0, 1, ... or `levels`; `base` is gone at all levels.
    `options`: those of `HeadMask.losses`."""
    levels = range(len(order) + 1) if levels is None else levels
    return HeadMask(model, [together(order[:n]) | (base or Plan()) for n in levels]).losses(run, x, target, loss, **options)


class HeadsAt(NamedTuple):
    """How many of a layer's heads must be kept for a loss at most X % above the intact one."""

    kept: int
    removable: int
    low: int  # interval of `removable`
    high: int
    increase: float  # at that number, in percent
    rule: str


def heads_at(losses: Float[np.ndarray | Tensor, "L B"], pp: float | int = 1.0, units: Sequence | np.ndarray | None = None, *,
             rule: str = "first", draws: int = 1000, level: float = 0.95, seed: int = 0) -> HeadsAt:  # fmt: skip
    """heads@Xpp from the losses of each series with 0, 1, 2, ... H heads removed; X is a percentage of the intact loss.

    rule="first": removal ends where the limit is first crossed; "last": the largest number within it, even behind a crossing (what the
    paper's public code does). The interval resamples `units` (series that share one move together), with all levels at once.

    >>> heads_at(np.array([[1.0, 1.0], [1.0, 1.0], [1.2, 1.1], [1.0, 1.0]]))[:4], heads_at(np.ones((4, 2)), rule="last").kept
    ((2, 1, 1, 1), 0)
    """
    if rule not in ("first", "last"):
        raise TsfmError(f"rule of heads@Xpp must be first or last, got {rule!r}")
    losses = np.asarray(losses, float)
    if losses.ndim != 2 or losses.shape[0] < 2 or not np.isfinite(losses).all():
        raise TsfmError(f"expected finite losses of 0 to H heads removed for each series, got {losses.shape}: drop series without a loss")
    codes, names = pd.factorize(np.arange(losses.shape[1]) if units is None else np.asarray(units))
    sums = np.stack([np.bincount(codes, row, len(names)) for row in losses])  # L units
    counts = np.bincount(codes, minlength=len(names)).astype(float)
    weights = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    mean = losses.mean(1)
    found = int(_removable(mean[None], pp, rule)[0])
    drawn = _removable((weights @ sums.T) / (weights @ counts)[:, None], pp, rule)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="closest_observation")
    return HeadsAt(len(losses) - 1 - found, found, int(low), int(high), float(100 * (mean[found] / mean[0] - 1)), rule)


def _removable(means: Float[np.ndarray, "D L"], pp: float | int, rule: str) -> np.ndarray:
    within = means <= means[:, :1] * (1 + pp / 100)
    if rule == "first":
        return np.where(within.all(1), means.shape[1] - 1, np.argmin(within, 1) - 1)
    return means.shape[1] - 1 - np.argmax(within[:, ::-1], 1)


class SpearmanDistance(NamedTuple):
    distance: Float[np.ndarray, "*S"]
    constant: Bool[np.ndarray, "*S"]  # where a forecast does not move: no order, distance 1

    @property
    def constants(self) -> int:
        return int(self.constant.sum())


def spearman_distance(forecast: Float[np.ndarray | Tensor, "*S T"], reference: Float[np.ndarray | Tensor, "..."]) -> SpearmanDistance:
    """1 - Spearman's correlation along time, 0 the same order and 2 the opposite one. Constants are at distance 1, and counted.

    >>> found = spearman_distance(np.array([[1.0, 2, 3], [5, 5, 5], [3, 2, 1]]), np.array([[2.0, 4, 9]] * 3))
    >>> found.distance.round(6).tolist(), found.constants
    ([0.0, 1.0, 2.0], 1)
    """
    from scipy.stats import rankdata

    a, b = np.asarray(forecast, float), np.asarray(reference, float)
    if a.shape != b.shape or a.shape[-1] < 2:
        raise TsfmError(f"expected two forecasts of one shape with two steps or more, got {a.shape} and {b.shape}")
    ranks = [rankdata(x, axis=-1) for x in (a, b)]
    one, other = (r - r.mean(-1, keepdims=True) for r in ranks)
    size = np.sqrt((one**2).sum(-1) * (other**2).sum(-1))
    constant = size == 0
    return SpearmanDistance(1 - np.where(constant, 0, (one * other).sum(-1) / np.where(constant, 1, size)), constant)
