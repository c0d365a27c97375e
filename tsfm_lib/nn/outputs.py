"""What a forecaster can say: quantiles, a mixture of distributions, tokens.

QuantileHead, pinball, interpolate_quantiles   Kairos, Chronos-Bolt, TimesFM, the small baselines
Quantiles                                      the same two, where they are fine-tuned
roll_out                                       Chronos-Bolt: quantiles beyond one pass that keep their spread
strata                                         Chronos, Toto: uniform numbers for sample paths
Mixture                                        Moirai (Student-t, normal, log-normal, negative binomial), Toto (Student-t only)
TokenBins                                      Chronos
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from scipy import special
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.nn.feedforward import ResidualMLP
from tsfm_lib.nn.scaling import Statistics

# ---- Quantiles ----------------------------------------------------------------------------------------------------------------------


def pinball(pred: Float[Tensor, "*B Q"], target: Float[Tensor, "*B"], levels: Sequence[float] | Tensor, mask: Tensor | None = None,
            weights: Tensor | None = None, reduce: bool = True) -> Tensor:  # fmt: skip
    """max(q e, (q - 1) e) with e = target - pred, averaged over the levels; twice this is the quantile loss of most papers.

    Missing targets (NaN, or False in `mask`) count nothing. With reduce, the (weighted) mean over the targets that are there, 0 if none
    is; without, one number per target.

    >>> pinball(torch.tensor([[1.0], [1.0]]), torch.tensor([3.0, torch.nan]), [0.9]).item()
    1.7999...
    """
    levels = torch.as_tensor(levels, dtype=pred.dtype, device=pred.device)
    seen = target.isfinite() if mask is None else target.isfinite() & mask
    error = torch.where(seen, target, 0)[..., None] - pred
    losses = torch.where(seen, torch.maximum(levels * error, (levels - 1) * error).mean(-1), 0)
    weight = seen.to(losses) if weights is None else seen * weights
    if not reduce:
        return losses if weights is None else losses * weights
    return (losses * weight).sum() / weight.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def interpolate_quantiles(pred: Float[Tensor, "*B Q"], have: Sequence[float], want: Sequence[float]) -> Float[Tensor, "*B W"]:
    """Quantiles at the levels `want` from those at the levels `have`: sorted, then linear in the level; beyond the outermost trained
    level that level is returned (a model trained on 0.1 to 0.9 knows nothing of its tails).

    >>> interpolate_quantiles(torch.tensor([[0.0, 10.0]]), [0.1, 0.9], [0.01, 0.3, 0.9])
    tensor([[ 0.0000,  2.5000, 10.0000]])
    """
    if any(not 0 < q < 1 for q in want):
        raise ValueError(f"quantile levels lie between 0 and 1, got {list(want)}")
    order = np.argsort(np.asarray(have, dtype=float))
    known, pred = np.asarray(have, dtype=float)[order], pred.sort(-1).values
    place = np.interp(np.round(np.asarray(want, dtype=float), 12), np.round(known, 12), np.arange(len(known)))
    low = torch.as_tensor(np.floor(place).astype(int), device=pred.device)
    share = torch.as_tensor(place - np.floor(place), dtype=pred.dtype, device=pred.device)
    return torch.lerp(pred[..., low], pred[..., (low + 1).clamp_max(len(known) - 1)], share)


@dataclass(frozen=True)
class Quantiles:
    """A forecast by its quantiles, at rising levels; in normalised units until `in_units`.

    >>> Quantiles(torch.tensor([[3.0, 1.0]]), (0.1, 0.9)).quantiles([0.5])
    tensor([[2.]])
    """

    values: Float[Tensor, "... Q"]
    levels: tuple[float, ...]

    def in_units(self, statistics: Statistics) -> "Quantiles":
        """Of the series. As in the models that say them, what passed through asinh stays within 8 there."""
        return replace(self, values=statistics.invert(self.values.clamp(-8, 8) if statistics.asinh else self.values))

    def quantiles(self, levels: Sequence[float]) -> Float[Tensor, "... W"]:
        return interpolate_quantiles(self.values, self.levels, levels)


class QuantileHead(nn.Module):
    """One state to a whole horizon of quantiles; linear, or a residual MLP where `hidden` is given.

    >>> QuantileHead(8, horizon=5, levels=(0.1, 0.5, 0.9))(torch.zeros(2, 8)).shape
    torch.Size([2, 5, 3])
    """

    def __init__(self, width: int, horizon: int, levels: Sequence[float], hidden: int | None = None, activation: str = "relu"):
        super().__init__()
        self.levels, self.horizon, outputs = tuple(levels), horizon, horizon * len(levels)
        self.map = nn.Linear(width, outputs) if hidden is None else ResidualMLP(width, hidden, outputs, activation)

    def forward(self, state: Float[Tensor, "... D"]) -> Float[Tensor, "... T Q"]:
        return rearrange(self.map(state), "... (Q T) -> ... T Q", T=self.horizon)


@torch.no_grad()
def roll_out(step: Callable[[Tensor], Tensor], context: Float[Tensor, "B T"], horizon: int, levels: Sequence[float],
             feed: str = "quantiles") -> Float[Tensor, "B h Q"]:  # fmt: skip
    """Quantiles of `horizon` steps from a `step` [B T] -> [B p Q] that says p of them at once, in the units of the context.

    feed="quantiles": each quantile goes on as a context of its own and the Q x Q values of a step are pooled (one batch of Q times the
    rows per pass). Doubt grows at the first seam and soon no more, as every pooling cuts the tails. feed="median": the median is taken as
    observed, and what follows is only as wide as one pass.

    >>> walk = lambda x: x[:, -1:, None] + torch.tensor([-1.0, 0.0, 1.0])          # one step at a time
    >>> tuple(roll_out(walk, torch.zeros(1, 4), 2, (0.1, 0.5, 0.9), feed)[0, -1] for feed in ("median", "quantiles"))
    (tensor([-1.,  0.,  1.]), tensor([-1.2000,  0.0000,  1.2000]))
    """
    if feed not in ("quantiles", "median"):
        raise ValueError(f"feed must be 'quantiles' or 'median', got {feed!r}")
    chunks = [step(context)]
    done = chunks[0].shape[1]
    middle = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))
    paths = 1 if feed == "median" else len(levels)
    context = context[:, None].expand(-1, paths, -1)  # B P T
    while done < horizon:
        last = chunks[-1][..., middle : middle + 1] if feed == "median" else chunks[-1]
        context = torch.cat([context, rearrange(last, "B p P -> B P p").to(context.dtype)], dim=-1)
        pooled = rearrange(step(rearrange(context, "B P T -> (B P) T")), "(B P) p Q -> B p (P Q)", P=paths)
        at = torch.as_tensor(levels, dtype=pooled.dtype, device=pooled.device)
        chunks.append(pooled if paths == 1 else rearrange(torch.quantile(pooled, at, dim=-1), "Q B p -> B p Q"))
        done += chunks[-1].shape[1]
    return torch.cat(chunks, dim=1)[:, :horizon]


def strata(shape: Sequence[int], generator: torch.Generator) -> Float[Tensor, "S *R"]:
    """Uniform numbers in float64 that fill the strata [i / S, (i + 1) / S) of the first axis once each, in random order.

    >>> u = strata((4, 2), torch.Generator("cpu").manual_seed(0))
    >>> (u.sort(0).values * 4).floor()[:, 0].tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    random = lambda: torch.rand(tuple(shape), generator=generator, device=generator.device, dtype=torch.float64)
    return (random().argsort(0) + random()) / shape[0]


# ---- Mixtures of distributions. Parameters have shape [..., C]: C components of one family, last axis --------------------------------


@dataclass(frozen=True)
class Normal:
    loc: Tensor
    scale: Tensor

    def log_prob(self, y: Tensor) -> Tensor:
        return -0.5 * ((y - self.loc) / self.scale).square() - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn((n, *self.loc.shape), generator=generator, device=self.loc.device, dtype=self.loc.dtype)
        return self.loc + self.scale * noise

    def cdf(self, y: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return special.ndtr((y - loc) / scale)

    def mean(self) -> Tensor:
        return self.loc

    def variance(self) -> Tensor:
        return self.scale.square()


@dataclass(frozen=True)
class StudentT:
    df: Tensor
    loc: Tensor
    scale: Tensor

    def log_prob(self, y: Tensor) -> Tensor:
        z, half = (y - self.loc) / self.scale, (self.df + 1) / 2
        norm = torch.lgamma(half) - torch.lgamma(self.df / 2) - 0.5 * (math.pi * self.df).log() - self.scale.log()
        return norm - half * (z.square() / self.df).log1p()

    def draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        shape = (n, *self.loc.shape)
        noise = torch.randn(shape, generator=generator, device=self.loc.device, dtype=self.loc.dtype)
        chi2 = 2 * torch._standard_gamma((self.df / 2).expand(shape).contiguous(), generator=generator)
        return self.loc + self.scale * noise * (self.df / chi2).sqrt()

    def made_of(self, u: Tensor, v: Tensor) -> Tensor:
        """The draw that two uniform numbers in (0, 1) make (Bailey, Math. Comp. 1994); parameters may differ, numbers be shared."""
        return self.loc + self.scale * (self.df * torch.expm1(-2 * u.log() / self.df)).sqrt() * torch.cos(2 * math.pi * v)

    def cdf(self, y: np.ndarray, df: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return special.stdtr(df, (y - loc) / scale)

    def mean(self) -> Tensor:
        """Where df > 1; below that there is none."""
        return torch.where(self.df > 1, self.loc, torch.nan)

    def variance(self) -> Tensor:
        """Where df > 2; below that it is infinite or undefined."""
        return torch.where(self.df > 2, self.scale.square() * self.df / (self.df - 2), torch.nan)


@dataclass(frozen=True)
class LogNormal:
    loc: Tensor
    scale: Tensor

    def log_prob(self, y: Tensor) -> Tensor:
        log = torch.where(y > 0, y, 1).log()  # a safe value: the gradient of the branch not taken must be finite too
        return torch.where(y > 0, Normal(self.loc, self.scale).log_prob(log) - log, -torch.inf)

    def draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        return Normal(self.loc, self.scale).draw(n, generator).exp()

    def cdf(self, y: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return special.ndtr((np.log(np.maximum(y, 0)) - loc) / scale)

    def mean(self) -> Tensor:
        return (self.loc + 0.5 * self.scale.square()).exp()

    def variance(self) -> Tensor:
        return self.scale.square().expm1() * (2 * self.loc + self.scale.square()).exp()


@dataclass(frozen=True)
class NegativeBinomial:
    """Counts y with r = total_count and log odds `logits`, mean r exp(logits). The density is taken at any real y >= 0, as Moirai does;
    draws and quantiles are whole numbers."""

    total_count: Tensor
    logits: Tensor

    def log_prob(self, y: Tensor) -> Tensor:
        r, safe = self.total_count, y.clamp_min(0)
        choose = torch.lgamma(r + safe) - torch.lgamma(1 + safe) - torch.lgamma(r)
        return torch.where(y >= 0, choose + r * F.logsigmoid(-self.logits) + safe * F.logsigmoid(self.logits), -torch.inf)

    def draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        shape = (n, *self.logits.shape)
        rate = torch._standard_gamma(self.total_count.expand(shape).contiguous(), generator=generator) * self.logits.exp()
        return torch.poisson(rate, generator=generator)

    def cdf(self, y: np.ndarray, total_count: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return np.where(y < 0, 0.0, special.betainc(total_count, np.floor(np.maximum(y, 0)) + 1, special.expit(-logits)))

    def mean(self) -> Tensor:
        return self.total_count * self.logits.exp()

    def variance(self) -> Tensor:
        return self.mean() / torch.sigmoid(-self.logits)


Family = Normal | StudentT | LogNormal | NegativeBinomial


@dataclass(frozen=True)
class Mixture:
    """Weighted families in normalised units, y = loc + scale * u. `logits [..., C]` counts the components of all families in order.

    >>> one = torch.zeros(1, 1)
    >>> m = Mixture((Normal(one, one + 1), Normal(one + 10, one + 1)), torch.zeros(1, 2))
    >>> m.mean(), m.quantiles([0.5, 0.75]).round()
    (tensor([5.]), tensor([[ 5., 10.]]))
    """

    families: tuple[Family, ...]
    logits: Float[Tensor, "... C"]
    loc: Tensor | float = 0.0
    scale: Tensor | float = 1.0

    def _scale(self) -> Tensor:
        return torch.as_tensor(self.scale, dtype=self.logits.dtype, device=self.logits.device)

    def log_prob(self, y: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Log density; a component whose support leaves y out contributes nothing, the weights are not renormalised for it."""
        u = ((y - self.loc) / self._scale())[..., None]
        found = torch.cat([family.log_prob(u) for family in self.families], dim=-1)
        return torch.logsumexp(self.logits.log_softmax(-1) + found, dim=-1) - self._scale().log()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws: [n, ...]."""
        draws = torch.cat([family.draw(n, generator) for family in self.families], dim=-1)  # n ... C
        weights = self.logits.softmax(-1)
        which = torch.multinomial(weights.reshape(-1, weights.shape[-1]), n, replacement=True, generator=generator)
        which = which.T.reshape(n, *weights.shape[:-1], 1)
        return self.loc + self._scale() * draws.gather(-1, which)[..., 0]

    def mean(self) -> Tensor:
        means = torch.cat([family.mean() for family in self.families], dim=-1)
        return self.loc + self._scale() * (self.logits.softmax(-1) * means).sum(-1)

    def variance(self) -> Tensor:
        """That of the components and that between their means."""
        weights, means, variances = self.logits.softmax(-1), *(
            torch.cat([getattr(family, moment)() for family in self.families], dim=-1) for moment in ("mean", "variance"))
        middle = (weights * means).sum(-1, keepdim=True)
        return self._scale().square() * (weights * (variances + (means - middle).square())).sum(-1)

    def cdf(self, u: np.ndarray) -> np.ndarray:
        """The exact distribution function in normalised units, float64; u ends in a length-1 axis for the components."""
        read = lambda t: t.detach().cpu().double().numpy()
        parts = [f.cdf(u, *(read(p)[..., None, :] for p in vars(f).values())) for f in self.families]
        return (read(self.logits.softmax(-1))[..., None, :] * np.concatenate(parts, axis=-1)).sum(-1)

    @torch.no_grad()
    def quantiles(self, levels: Sequence[float]) -> Float[Tensor, "... Q"]:
        """By bisection on the exact distribution function. The search runs over asinh(u), fine near zero and wide at both ends."""
        want = np.asarray(levels, dtype=float)
        low, high = (np.full((*self.logits.shape[:-1], len(want)), side) for side in (-80.0, 80.0))
        for _ in range(48):  # 160 / 2^48 < 1e-12
            middle = (low + high) / 2
            enough = self.cdf(np.sinh(middle)[..., None]) >= want
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        found = torch.as_tensor(np.sinh(high), dtype=self.logits.dtype, device=self.logits.device)
        each = lambda p: p[..., None] if isinstance(p, Tensor) and p.ndim else p
        return each(self.loc) + each(self._scale()) * found


# ---- Tokens -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenBins:
    """Scaled values to tokens and back (Chronos, arXiv 2403.07815): evenly spaced centres after a few special tokens.

    >>> bins = TokenBins(tokens=8, low=-2.0, high=2.0)           # specials 0 (missing), 1 (end), 2; centres -2 -1 0 1 2
    >>> bins.quantise(torch.tensor([-9.0, 0.4, torch.nan])), bins.dequantise(torch.tensor([3, 5, 7]))
    (tensor([3, 5, 0]), tensor([-2., 0., 2.]))
    """

    tokens: int = 4096
    low: float = -15.0
    high: float = 15.0
    specials: int = 3

    def centres(self, device: torch.device | str | None = None) -> Float[Tensor, " C"]:
        return torch.linspace(self.low, self.high, self.tokens - self.specials, device=device)

    def quantise(self, x: Float[Tensor, "*S"]) -> Int[Tensor, "*S"]:
        """The token of the nearest centre; 0 where missing."""
        centres = self.centres(x.device)
        token = torch.bucketize(x.nan_to_num(0.0), (centres[1:] + centres[:-1]) / 2, right=True) + self.specials
        return torch.where(x.isnan(), 0, token)

    def dequantise(self, token: Int[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return self.centres(token.device)[(token - self.specials).clamp(0, self.tokens - self.specials - 1)]
