"""What scales say, what that costs, and how it becomes one forecast.

The weights of the scales can be found in four ways (`Design.mixing`):
    weighted loss   minimised together with the losses they weigh, as published: they run to whatever is easiest
    mixed loss      by the error of the mixed forecast, which nothing else feels
    stacked         after every validation, by least squares over the validation windows
    uniform         not at all

Shapes: B samples, V variates, h steps of the horizon, S scales, n sample paths.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import nnls
from torch import Tensor

from tsfm_lib.finetune.scales import finer
from tsfm_lib.nn.outputs import Mixture, Quantiles, pinball
from tsfm_lib.nn.scaling import Statistics, observed


class Said(NamedTuple):
    """The forecast of one scale for its own horizon, in units of its own context; behind each of N tokens where every one is asked."""

    raw: Float[Tensor, "B V h"] | Mixture | Quantiles
    statistics: Statistics
    moves: Bool[Tensor, "B V 1"]  # series that were more than a constant


def log_density(one: Said, target: Float[Tensor, "B V h"]) -> Float[Tensor, "B V h"]:
    """In the units of the series; what lies 100 deviations away counts as that far. 0 where nothing is observed."""
    seen = observed(target)
    u = one.statistics.apply(torch.where(seen, target, one.statistics.loc.to(target))).clamp(-100, 100)
    return torch.where(seen, one.raw.log_prob(u) - one.statistics.scale.log().to(u), 0)


def error(one: Said, target: Float[Tensor, "B V *N h"]) -> Float[Tensor, ""]:
    """Mean over observed steps: minus the log density, twice the quantile loss, or the squared error. A constant context has no units for
    a density."""
    seen = observed(target)
    if isinstance(one.raw, Quantiles):
        losses = quantile_loss(one.raw.in_units(one.statistics).values, target, one.raw.levels)
    elif isinstance(one.raw, Mixture):
        seen, losses = seen & one.moves, -log_density(one, target)
    else:
        losses = (one.statistics.invert(one.raw) - torch.where(seen, target, 0)).square()
    return torch.where(seen, losses, 0).sum() / seen.sum().clamp_min(1)


def quantile_loss(values: Float[Tensor, "*B Q"], target: Float[Tensor, "*B"], levels: tuple[float, ...]) -> Float[Tensor, "*B"]:
    return 2 * pinball(values, target, levels, reduce=False)


def on_all_steps(one: Said, times: int, horizon: int) -> Said:
    """The forecast of a coarse scale for each of the steps it stands for."""
    if isinstance(one.raw, Quantiles):
        return one._replace(raw=replace(one.raw, values=finer(one.raw.values, times, horizon, axis=-2)))
    if not isinstance(one.raw, Mixture):
        return one._replace(raw=finer(one.raw, times, horizon))
    repeat = lambda parameter: finer(parameter, times, horizon, axis=-2)
    families = tuple(type(family)(*map(repeat, vars(family).values())) for family in one.raw.families)
    return one._replace(raw=Mixture(families, repeat(one.raw.logits)))


def mixed_error(whole: list[Said], theta: Float[Tensor, " S"], target: Float[Tensor, "B V h"]) -> Float[Tensor, ""]:
    """The error of the mixed forecast as a function of the weights alone: minus the log density of the linear pool, the quantile loss
    of the weighted quantiles, or the squared error of the weighted mean. `whole`: what is said of all steps."""
    seen = observed(target)
    if isinstance(whole[0].raw, Mixture):
        densities = torch.stack([log_density(one, target) for one in whole]).detach()  # S B V h
        losses = -torch.logsumexp(theta.log_softmax(0)[:, None, None, None] + densities, dim=0)
        seen = seen & torch.stack([one.moves for one in whole]).all(0)
    elif isinstance(whole[0].raw, Quantiles):
        values = torch.stack([one.raw.in_units(one.statistics).values for one in whole]).detach()
        losses = quantile_loss(torch.einsum("s,sbvhq->bvhq", theta.softmax(0), values), target, whole[0].raw.levels)
    else:
        points = torch.stack([one.statistics.invert(one.raw) for one in whole]).detach()
        losses = (torch.einsum("s,sbvh->bvh", theta.softmax(0), points) - torch.where(seen, target, 0)).square()
    return torch.where(seen, losses, 0).sum() / seen.sum().clamp_min(1)


def combine(draws: Float[Tensor, "S n *B"], weights: Float[Tensor, " S"], how: str) -> Float[Tensor, "m *B"]:
    """Sample paths of several scales as those of one forecast.

    "sample mean" adds independent paths, so its spread is about that of one scale times sqrt(sum w^2); "quantile average" adds sorted ones;
    "linear pool" takes each path from one of the scales.

    >>> two = torch.tensor([2.0, 0.0, 3.0, 1.0]).repeat(2, 1)
    >>> [combine(two, torch.tensor([0.5, 0.5]), how).sort().values.tolist() for how in ("quantile average", "linear pool")]
    [[0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 2.0, 2.0]]
    """
    if how == "linear pool":
        ends = (weights.cumsum(0) * draws.shape[1]).round().long().tolist()
        return torch.cat([scale[: end - start] for scale, start, end in zip(draws, [0, *ends], ends)])
    if how == "quantile average":
        draws = draws.sort(1).values
    return torch.einsum("s,sn...->n...", weights.to(draws), draws)


def stacked(forecasts: Float[np.ndarray, "S *N"], target: Float[np.ndarray, "*N"]) -> Float[np.ndarray, " S"]:
    """Weights from 0 up that sum to 1 and make the mean squared error of the weighted forecast least.

    >>> stacked(np.array([[0.0, 0.0, 4.0], [4.0, 0.0, 0.0]]), np.array([1.0, 0.0, 3.0])).round(3)
    array([0.75, 0.25])
    """
    seen = np.isfinite(target)
    columns, wanted = forecasts[:, seen].T.astype(np.float64), target[seen].astype(np.float64)
    gram, along = columns.T @ columns, columns.T @ wanted
    one = 1e4 * max(np.abs(gram).max(), 1e-12) ** 0.5  # as a last row: the weights sum to one
    root = np.linalg.cholesky(gram + 1e-9 * np.trace(gram) * np.eye(len(gram)) + 1e-12 * np.eye(len(gram)))
    found, _ = nnls(np.vstack([root.T, one * np.ones(len(gram))]), np.append(np.linalg.solve(root, along), one))
    return found / found.sum()
