"""Instance normalisation: every series in its own units, whatever is missing (the idea: RevIN, ICLR 2022; here without affine part).

std         mean and standard deviation: Kairos, Chronos-Bolt, MOMENT, UniTS, PatchTST, iTransformer
mean_abs    zero and mean absolute value: Chronos
robust      median and interquartile range / 1.349 (that of a normal with unit deviation)
asinh       as std, then asinh, which tames spikes and keeps signs: the nano models shipped here
`prefix_statistics` gives for every step the statistics of all steps up to it, for models that learn at every position (TimesFM, Toto),
`packed_statistics` for every token those of its own series, where several series share a row (Moirai).

Sums run in float64: the mean of 2,048 float32 values near 1e6 is otherwise wrong in the digits that carry the series. Where a series is
constant its scale is `constant`: a number, or "level" for |loc| + 1e-5 (Kairos). A row without any observation has loc 0 and scale 1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

KINDS = ("std", "mean_abs", "robust", "asinh")
FLAT = 1e-10  # a spread below this share of the largest value is rounding, not signal


@dataclass(frozen=True)
class Statistics:
    """Location and scale per series, in float64, with a length-1 (or, for prefixes, full) time axis."""

    loc: Float[Tensor, "*B L"]
    scale: Float[Tensor, "*B L"]
    asinh: bool = False

    def _fitting(self, x: Tensor) -> tuple[Tensor, Tensor]:
        more = (1,) * (x.ndim - self.loc.ndim)  # quantiles and the like behind the time axis
        return self.loc.reshape(self.loc.shape + more), self.scale.reshape(self.scale.shape + more)

    def apply(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Original units to normalised ones; NaN stays NaN. Axes may follow the time axis."""
        loc, scale = self._fitting(x)
        z = (x.double() - loc) / scale
        return (z.asinh() if self.asinh else z).to(x.dtype)

    def invert(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Normalised units back to original ones. Axes may follow the time axis."""
        loc, scale = self._fitting(z)
        y = z.double()
        return ((y.sinh() if self.asinh else y) * scale + loc).to(z.dtype)


def observed(x: Float[Tensor, "*S"]) -> Bool[Tensor, "*S"]:
    """
    >>> observed(torch.tensor([1.0, torch.nan, torch.inf])).tolist()
    [True, False, False]
    """
    return x.isfinite()


def _scale(spread: Tensor, loc: Tensor, largest: Tensor, count: Tensor, constant: float | str) -> Tensor:
    fallback = loc.abs() + 1e-5 if constant == "level" else torch.full_like(spread, float(constant))
    scale = torch.where(spread > FLAT * largest, spread, fallback)
    return torch.where(count > 0, scale, 1.0)


def standardise(x: Float[Tensor, "*B T"], mask: Bool[Tensor, "*B T"] | None = None, kind: str = "std", *, ddof: int = 0, eps: float = 0.0,
                constant: float | str = 1.0, soften: float = 0.0,
                dtype: torch.dtype = torch.float64) -> tuple[Float[Tensor, "*B T"], Statistics]:
    """Normalised series, zero where missing, and the statistics that undo it: `statistics.invert(z)`.

    `mask` (True = observed) is taken together with finiteness. `eps` is added to the variance, `ddof` taken from its count. `soften` is
    added to the spread itself and then covers constants too (Mantis, MOMENT). `dtype` of the sums is for comparisons with other code.

    >>> z, stats = standardise(torch.tensor([[1.0, 3.0, torch.nan], [5.0, 5.0, 5.0]]))
    >>> z, stats.scale.flatten().tolist()
    (tensor([[-1.,  1.,  0.],
            [ 0.,  0.,  0.]]), [1.0, 1.0])
    """
    if kind not in KINDS:
        raise ValueError(f"kind of normalisation must be one of {KINDS}, got {kind!r}")
    seen = observed(x) if mask is None else observed(x) & mask
    count = seen.sum(-1, keepdim=True)
    values = torch.where(seen, x, 0).to(dtype)
    largest, n = values.abs().amax(-1, keepdim=True), count.clamp_min(1)
    if kind == "mean_abs":
        loc, spread = torch.zeros_like(largest), values.abs().sum(-1, keepdim=True) / n
    elif kind == "robust":
        gaps = torch.where(seen, values, torch.nan)
        low, loc, high = torch.nanquantile(gaps, gaps.new_tensor([0.25, 0.5, 0.75]), dim=-1, keepdim=True).nan_to_num(0.0)
        spread = (high - low) / 1.349
    else:
        loc = values.sum(-1, keepdim=True) / n
        squares = torch.where(seen, (values - loc).square(), 0).sum(-1, keepdim=True)
        spread = (squares / (n - ddof).clamp_min(1) + eps).sqrt()
    scale = torch.where(count > 0, spread + soften, 1.0) if soften else _scale(spread, loc, largest, count, constant)
    stats = Statistics(loc, scale, kind == "asinh")
    return torch.where(seen, stats.apply(torch.where(seen, x, 0)), 0), stats


def prefix_statistics(x: Float[Tensor, "*B T"], mask: Bool[Tensor, "*B T"] | None = None, *, asinh: bool = False, ddof: int = 0,
                      eps: float = 0.0, constant: float | str = 1.0) -> Statistics:
    """For every step the mean and standard deviation of the observed steps up to and including it: nothing leaks from the future.

    >>> prefix_statistics(torch.tensor([0.0, 2.0, torch.nan, 4.0])).loc.tolist()
    [0.0, 1.0, 1.0, 2.0]
    """
    seen = observed(x) if mask is None else observed(x) & mask
    values = torch.where(seen, x, 0).double()
    first = values.gather(-1, seen.int().argmax(-1, keepdim=True))  # sums of squares of what is left do not cancel
    moved, count = torch.where(seen, values - first, 0), seen.cumsum(-1)
    n = count.clamp_min(1)
    mean = moved.cumsum(-1) / n
    squares = (moved.square().cumsum(-1) - n * mean.square()).clamp_min(0)
    spread, largest = (squares / (n - ddof).clamp_min(1) + eps).sqrt(), values.abs().cummax(-1).values
    loc = torch.where(count > 0, mean + first, 0)
    return Statistics(loc, _scale(spread, loc, largest, count, constant), asinh)


def packed_statistics(x: Float[Tensor, "B L P"], mask: Bool[Tensor, "B L P"], series: tuple[Int[Tensor, "B L"], ...], *, ddof: int = 0,
                      eps: float = 0.0, constant: float | str = 1.0) -> Statistics:  # fmt: skip
    """For every token the mean and standard deviation of its series: the tokens of the same row with the same ids in all of `series`.

    >>> x, ids = torch.tensor([[[1.0, 3.0], [9.0, 9.0], [5.0, 7.0]]]), torch.tensor([[1, 2, 1]])
    >>> packed_statistics(x, torch.ones_like(x) > 0, (ids,)).loc.flatten().tolist()
    [4.0, 9.0, 4.0]
    """
    row = torch.arange(len(x), device=x.device)[:, None].expand(x.shape[:2])
    groups, own = torch.stack([row, *series], dim=-1).flatten(0, 1).unique(dim=0, return_inverse=True)
    seen = observed(x) & mask
    values = torch.where(seen, x, 0).double()
    zero = values.new_zeros(len(groups))
    total = lambda v: zero.index_add(0, own, v.sum(-1).flatten())[own].reshape(*x.shape[:2], 1)
    count = total(seen.double())
    n = count.clamp_min(1)
    loc = total(values) / n
    squares = total(torch.where(seen, (values - loc).square(), 0))
    spread = (squares / (n - ddof).clamp_min(1) + eps).sqrt()
    largest = zero.scatter_reduce(0, own, values.abs().amax(-1).flatten(), "amax")[own].reshape_as(count)
    return Statistics(loc, _scale(spread, loc, largest, count, constant))
