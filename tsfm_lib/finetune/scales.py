"""One series at several resolutions, and which tokens of two neighbouring resolutions tell of the same time.

Context and horizon are cut into blocks apart, counted from the forecast origin: no block holds steps of both, so nothing of the future is
averaged into the past, and ragged ends lie where they do least harm (the beginning of the context, the end of the horizon).

Shapes: B anything in front, T steps, R rows of tokens, N fine and n coarse tokens, D width.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from tsfm_lib.nn.resampling import resample
from tsfm_lib.nn.scaling import observed
from tsfm_lib.nn.tokens import Tokens

POOLINGS = ("mean", "max", "first", "wavelet")


def coarser(x: Float[Tensor, "*B T"], front: bool, pooling: str = "mean", factor: int = 2) -> Float[Tensor, "*B t"]:
    """Blocks of `factor` steps as one step each. `front`: a ragged block stands in front (context), else behind (horizon).

    Missing steps are left out; a block without an observation is missing. "wavelet" is the low-pass filter (-1, 3, 3, -1) / 4 of the
    biorthogonal spline wavelet 3.1, centred on the block, which lets straight lines through; where one of its steps is missing or
    beyond the end, the mean of the block stands in.

    >>> x = torch.tensor([1.0, 2.0, 4.0, torch.nan, 6.0])
    >>> coarser(x, front=True), coarser(x, front=False), coarser(x, front=False, pooling="first")
    (tensor([1., 3., 6.]), tensor([1.5000, 4.0000, 6.0000]), tensor([1., 4., 6.]))
    >>> coarser(torch.arange(6.0).square(), front=True), coarser(torch.arange(6.0).square(), front=True, pooling="wavelet")
    (tensor([ 0.5000,  6.5000, 20.5000]), tensor([ 0.5000,  5.5000, 20.5000]))
    """
    if factor == 1:
        return x
    gap = -x.shape[-1] % factor
    blocks = F.pad(x, (gap, 0) if front else (0, gap), value=torch.nan).unflatten(-1, (-1, factor))
    blocks = torch.where(observed(blocks), blocks, torch.nan)
    if pooling == "first":
        seen = observed(blocks)
        return blocks.gather(-1, seen.int().argmax(-1, keepdim=True))[..., 0]
    if pooling == "max":
        highest = blocks.nan_to_num(-torch.inf).amax(-1)
        return torch.where(highest == -torch.inf, torch.nan, highest)
    mean = blocks.nanmean(-1)
    if pooling == "mean":
        return mean
    four = F.pad(blocks.flatten(-2), (1, 1), value=torch.nan).unfold(-1, 4, 2)
    smooth = four @ four.new_tensor([-0.25, 0.75, 0.75, -0.25])
    return torch.where(observed(smooth), smooth, mean)


def pyramid(x: Float[Tensor, "*B T"], scales: int, front: bool, pooling: str = "mean", factor: int = 2) -> list[Tensor]:
    """The series and `scales` coarser ones, each made of the one before."""
    found = [x]
    for _ in range(scales):
        found.append(coarser(found[-1], front, pooling, factor))
    return found


def lengths(steps: int, scales: int, factor: int = 2) -> list[int]:
    """
    >>> lengths(13, 3)
    [13, 7, 4, 2]
    """
    found = [steps]
    for _ in range(scales):
        found.append(-(-found[-1] // factor))
    return found


def finer(x: Tensor, times: int, horizon: int, axis: int = -1, how: str = "repeat") -> Tensor:
    """A coarse forecast on the steps of the finest scale, cut to the horizon: each value `times` over, or straight lines between them.

    >>> finer(torch.tensor([1.0, 3.0]), 2, 3), finer(torch.tensor([1.0, 3.0]), 2, 3, how="linear")
    (tensor([1., 1., 3.]), tensor([1.0000, 1.5000, 2.5000]))
    """
    if times == 1:
        return x.narrow(axis, 0, horizon)
    if how == "linear":
        x = x.movedim(axis, -1)
        return resample(x, x.shape[-1] * times)[..., :horizon].movedim(-1, axis)
    return x.repeat_interleave(times, axis).narrow(axis, 0, horizon)


# ---- tokens ---------------------------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """How many tokens a row has: prompts, context, horizon."""

    prefix: int
    context: int
    horizon: int

    @classmethod
    def of(cls, tokens: Tokens, prompts: int = 0) -> "Part":
        """`prompts`: learned tokens that the model takes for the beginning of the context."""
        return cls(tokens.prefix + prompts, tokens.context - prompts, tokens.horizon)

    def only(self, which: str) -> Bool[Tensor, " N"]:
        """
        >>> Part(1, 2, 1).only("context").tolist()
        [False, True, True, False]
        """
        kinds = torch.arange(3).repeat_interleave(torch.tensor(self))
        return kinds == ("prefix", "context", "horizon").index(which)


@lru_cache(maxsize=256)
def alignment(fine: Part, coarse: Part, factor: int = 2) -> Float[Tensor, "N n"]:
    """1 where a fine token lies within a coarse one, both counted from the forecast origin. Prompts belong to no time.

    >>> alignment(Part(0, 3, 2), Part(0, 2, 1)).int()
    tensor([[1, 0, 0],
            [0, 1, 0],
            [0, 1, 0],
            [0, 0, 1],
            [0, 0, 1]], dtype=torch.int32)
    """
    match = torch.zeros(sum(fine), sum(coarse))
    origin, origin_coarse = fine.prefix + fine.context, coarse.prefix + coarse.context
    for back in range(min(fine.context, factor * coarse.context)):
        match[origin - 1 - back, origin_coarse - 1 - back // factor] = 1
    for ahead in range(min(fine.horizon, factor * coarse.horizon)):
        match[origin + ahead, origin_coarse + ahead // factor] = 1
    return match


@lru_cache(maxsize=256)
def finished(fine: Part, coarse: Part, factor: int = 2) -> Float[Tensor, "N n"]:
    """1 where a coarse token is the last one that has ended when a fine one ends: all that the fine one may hear where every token has
    a forecast behind it. By `alignment` the first fine tokens of each coarse one would hear of steps that they are to forecast. What is
    told upwards needs no such care: the fine tokens within a coarse one have all ended when it ends.

    >>> finished(Part(0, 4, 0), Part(0, 2, 0)).int()
    tensor([[0, 0],
            [1, 0],
            [1, 0],
            [0, 1]], dtype=torch.int32)
    """
    match, origin, origin_coarse = torch.zeros(sum(fine), sum(coarse)), fine.prefix + fine.context, coarse.prefix + coarse.context
    for back in range(fine.context):
        if (of := -(-back // factor)) < coarse.context:
            match[origin - 1 - back, origin_coarse - 1 - of] = 1
    return match


def averaging(match: Float[Tensor, "N n"], alive: Bool[Tensor, "R N"]) -> Float[Tensor, "#R n N"]:
    """What takes the mean of the fine tokens of each coarse one; tokens that hold nothing but padding do not count.

    >>> averaging(torch.ones(2, 1), torch.tensor([[False, True], [True, True]])).tolist()
    [[[0.0, 1.0]], [[0.5, 0.5]]]
    """
    if alive.all():
        alive = alive[:1]
    weight = match.T * alive[:, None].to(match)
    return weight / weight.sum(-1, keepdim=True).clamp_min(1)
