"""Toto 1.0 (arXiv 2505.14766): a causal decoder over patches, with layers that look along time and layers that look across variates.

Read beside the paper, in its order:
    causal patch-wise instance normalisation               -> Toto.statistics, Toto.normalise
    patches; factorised attention over time and variates   -> Layer, Toto.encode
    mixture of Student-t distributions for each step       -> Toto.read_out, Toto.mixture
    training on every next patch                           -> Toto.loss
    forecasting by sample paths                            -> Toto.roll_out, Toto.sample
The version followed is the released code of the 151-million model. Toto 2.0 is another network.

Where we differ from the released code (its ways that matter for numbers are quirks that `quirks=(...)` switches on):
| point | released code | here | why |
|---|---|---|---|
| decay of positions | two within a turned pair: `xpos_by_halves` | one per pair | scores should depend on distance only |
| missing steps | the value 0, seen as any other: `missing_is_zero` | the mean; empty patches are not seen | gaps must not count |
| variance | 0.1 is added: `variance_floor` | nothing is | units must not matter |
| scale | within 10^10 of that of the whole series | that, or free (`scale_range`) | the first reads the future, if only in extremes |
| decoding | keys keep the place they had, the middle moves | both stay | step by step is exactly the same as at once |
| random numbers | each row its own | one per stratum, the same for all rows | a row must not feel its neighbours |
| fused projection | rows of a head lie apart | split when loaded | one attention for all models |
| loss | likelihood and a robust error of the mean | likelihood, or both (`robust_share`) | no code of it is released |
Official checkpoints were trained with `xpos_by_halves` and switch it on.

Shapes: B samples, V variates, R rows (B x V), T time, N patches, n patches read now, p steps of a patch, D width, C components, S paths.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.errors import refuse_unknown
from tsfm_lib.nn.attention import Attention, Past, causal
from tsfm_lib.nn.feedforward import FeedForward
from tsfm_lib.nn.lora import Delta
from tsfm_lib.nn.outputs import Mixture, StudentT, interpolate_quantiles, strata
from tsfm_lib.nn.patching import left_pad, patch
from tsfm_lib.nn.positions import XPos
from tsfm_lib.nn.scaling import Statistics, observed, prefix_statistics
from tsfm_lib.nn.sites import HeadSite, MLPSite, attention_site

Groups = Int[Tensor, "B V *N"]  # of each variate, or of each patch of each: only equals look at each other
FLOOR, CONSTANT = 0.1, 1e-5  # what is added to the variance under the quirk; the scale of a constant without it
ROWS_AT_ONCE = 1024  # paths that are decoded together
QUIRKS = {
    "xpos_by_halves": "decays of the rotary positions are laid out in halves, the pairs they belong to are interleaved",
    "missing_is_zero": "missing steps enter as the value 0 of the series, and patches without an observation are looked at",
    "variance_floor": "0.1 is added to the variance, whatever the units of the series are",
}


@dataclass(frozen=True)
class TotoConfig:
    """Sizes of one Toto; the defaults are those of Toto-Open-Base-1.0."""

    context: int = 4096
    patch: int = 64
    width: int = 768
    heads: int = 12
    layers: int = 12
    hidden: int = 3072
    space_every: int | None = 12  # one layer in so many looks across variates; None: none does
    space_first: bool = False  # it is the first of them, not the last
    components: int = 24  # C
    rope_base: float = 10000.0
    scale_range: float | None = None  # e: scales stay within 10^e times and 10^-e times that of the whole context
    dropout: float = 0.1
    norm_eps: float = 1e-8
    samples: int = 256  # S
    robust_share: float = 0.0  # of the loss: a robust error of the mean
    robust_width: float = 0.1  # errors below it count squared, those above by their logarithm
    quirks: tuple[str, ...] = ()

    def __post_init__(self):
        if self.context % self.patch:
            raise ValueError(f"patches of {self.patch} do not divide a context of {self.context}")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"rotary positions turn pairs: a width of {self.width} does not give {self.heads} heads of an even width")
        if self.space_every is not None and (self.space_every < 1 or self.layers % self.space_every):
            raise ValueError(f"space_every must divide the {self.layers} layers, got {self.space_every}")
        if self.components < 1 or self.samples < 1 or not 0 <= self.robust_share <= 1 or self.robust_width <= 0:
            raise ValueError("components and samples start at 1, robust_share lies in 0..1, robust_width above 0, got "
                             f"{self.components}, {self.samples}, {self.robust_share}, {self.robust_width}")  # fmt: skip
        refuse_unknown(self.quirks, QUIRKS)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What each layer looks along: time or space."""
        if self.space_every is None:
            return ("time",) * self.layers
        time, space = ("time",) * (self.space_every - 1), ("space",)
        return (space + time if self.space_first else time + space) * (self.layers // self.space_every)

    @classmethod
    def base(cls) -> "TotoConfig":
        return cls(scale_range=10.0)

    @classmethod
    def tiny(cls) -> "TotoConfig":
        return cls(context=64, patch=8, width=16, heads=2, layers=2, hidden=32, space_every=2, components=3, dropout=0.0, samples=40)


class Looks(NamedTuple):
    """What every layer is handed: who may look at whom, along time and across variates, and what turns queries and keys."""

    time: Bool[Tensor, "R 1 n N"]
    space: Bool[Tensor, "M 1 V V"]  # M = B x n
    variates: int
    rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Layer(nn.Module):
    """Norms in front. Attention along time is causal and rotary; attention across variates happens at one time, without positions."""

    def __init__(self, config: TotoConfig, kind: str):
        super().__init__()
        c, self.kind = config, kind
        self.norm_attention, self.norm_mlp = (nn.RMSNorm(c.width, eps=c.norm_eps) for _ in range(2))
        self.attention = Attention(c.width, c.heads, qkv_bias=True, out_bias=True, dropout=c.dropout)
        self.mlp = FeedForward(c.width, c.hidden, "silu", gated=True, dropout=c.dropout)

    def forward(self, h: Float[Tensor, "R n D"], aux: Looks, past: Past | None = None, delta: Delta | None = None
                ) -> Float[Tensor, "R n D"]:  # fmt: skip
        """`delta`: low-rank pairs for q, k, v, out (attention) and up, gate, down (feed-forward)."""
        x = self.norm_attention(h)
        if self.kind == "time":
            x = self.attention(x, mask=aux.time, rotary=aux.rotary, past=past, delta=delta)
        else:
            x = self.attention(rearrange(x, "(B V) n D -> (B n) V D", V=aux.variates), mask=aux.space, delta=delta)
            x = rearrange(x, "(B n) V D -> (B V) n D", n=h.shape[1])
        h = h + x
        return h + self.mlp(self.norm_mlp(h), delta)


class Toto(nn.Module):
    """Patches in, at every patch a distribution for each step of the next one out."""

    probabilistic = True

    def __init__(self, config: TotoConfig):
        super().__init__()
        self.config = c = config
        self.patches = nn.Linear(c.patch, c.width)
        self.layers = nn.ModuleList(Layer(c, kind) for kind in c.kinds)
        self.rotary = XPos(c.width // c.heads, c.rope_base, halves="xpos_by_halves" in c.quirks)
        self.unembed = nn.Linear(c.width, c.patch * c.width)
        self.head = nn.Linear(c.width, 4 * c.components)  # degrees of freedom, locations, scales, logits

    @property
    def causal(self) -> bool:
        """A bound by the scale of the whole lets the future touch extremes of the past."""
        return self.config.scale_range is None

    @property
    def order_free(self) -> bool:
        """Where variates hear each other, each has random numbers of its own, by its place."""
        return "space" not in self.config.kinds

    # -- values in --

    def statistics(self, x: Float[Tensor, "B V T"], whole: int | None = None) -> Statistics:
        """At the end of each patch those of all steps up to there, [B V N]. `whole`: steps that bound the scale, if it is bounded."""
        c, floor = self.config, FLOOR if "variance_floor" in self.config.quirks else 0.0
        found = prefix_statistics(x, ddof=1, eps=floor, constant=floor**0.5 or CONSTANT)
        scale = torch.where(observed(x).cumsum(-1) > 0, found.scale, floor**0.5) if floor else found.scale
        loc, scale = (t[..., c.patch - 1 :: c.patch] for t in (found.loc, scale))
        if c.scale_range is not None:
            last = (x.shape[-1] if whole is None else whole) // c.patch
            middle = scale[..., last - 1 : last]
            scale = scale.clamp(middle / 10**c.scale_range, middle * 10**c.scale_range)
        return Statistics(loc, scale)

    def normalise(self, x: Float[Tensor, "B V T"], whole: int | None = None
                  ) -> tuple[Float[Tensor, "B V N p"], Bool[Tensor, "B V N p"], Statistics]:  # fmt: skip
        """Patches in units of their own past (themselves included), and which of their steps were observed."""
        statistics, seen = self.statistics(x, whole), observed(x)
        if "missing_is_zero" in self.config.quirks:
            z = statistics.apply(patch(torch.where(seen, x, 0), self.config.patch))
        else:
            z = statistics.apply(patch(x, self.config.patch))
        seen = patch(seen, self.config.patch)
        z = z if "missing_is_zero" in self.config.quirks else torch.where(seen, z, 0)
        return z.to(self.head.weight.dtype), seen, statistics

    def visible(self, seen: Bool[Tensor, "B V N p"]) -> Bool[Tensor, "B V N"]:
        """Patches that are looked at."""
        return torch.ones_like(seen[..., 0]) if "missing_is_zero" in self.config.quirks else seen.any(-1)

    # -- the network --

    def looks(self, visible: Bool[Tensor, "B V N"], n: int, groups: Groups | None = None, start: int | None = None) -> Looks:
        """Masks for the last `n` of N patches. Every patch sees itself; across variates only those of its group."""
        variates, length, device = *visible.shape[1:], visible.device
        own = torch.eye(length, dtype=torch.bool, device=device)[-n:]
        time = causal(n, length, device) & rearrange(visible, "B V N -> (B V) 1 1 N") | own
        across = rearrange(visible[..., -n:], "B V n -> (B n) 1 1 V")
        if groups is not None:
            groups = (groups if groups.ndim == 3 else groups[..., None]).expand(*visible.shape)[..., -n:]
            groups = rearrange(groups, "B V n -> (B n) 1 V")
            across = across & (groups[..., :, None] == groups[..., None, :])
        space = across | torch.eye(variates, dtype=torch.bool, device=device)
        return Looks(time, space, variates, partial(self.rotary, start=start))

    def encode(self, z: Float[Tensor, "B V n p"], visible: Bool[Tensor, "B V N"], groups: Groups | None = None,
               pasts: Sequence[Past] | None = None) -> Float[Tensor, "B V n D"]:  # fmt: skip
        """All layers. With `pasts` (one per layer) z are only the patches that are new, and `visible` counts those before, too."""
        n = z.shape[2]
        aux = self.looks(visible, n, groups, None if pasts is None else visible.shape[2] - n)
        h = self.patches(z).flatten(0, 1)
        for i, layer in enumerate(self.layers):
            h = layer(h, aux, None if pasts is None else pasts[i])
        return h.unflatten(0, z.shape[:2])

    def read_out(self, h: Float[Tensor, "*S D"]) -> Float[Tensor, "*S p C"]:
        """Of each step of the next patch: a vector for the step, and from it all that the mixture needs. No norm stands before.
        Both maps are linear, so their product is made first: no vector of every step of every patch."""
        p, width = self.config.patch, self.config.width
        each = F.linear(self.unembed.weight.unflatten(0, (p, width)).mT, self.head.weight)  # p D C
        bias = self.head(self.unembed.bias.unflatten(0, (p, width)))  # p C
        return F.linear(h, rearrange(each, "p D C -> (p C) D"), bias.flatten()).unflatten(-1, bias.shape)

    def mixture(self, raw: Float[Tensor, "*S p C"]) -> Mixture:
        """In normalised units."""
        df, loc, scale, logits = raw.chunk(4, dim=-1)
        return Mixture((StudentT(2 + F.softplus(df), loc, F.softplus(scale).clamp_min(torch.finfo(scale.dtype).eps)),), logits)

    def forward(self, z: Float[Tensor, "B V N p"], visible: Bool[Tensor, "B V N"], groups: Groups | None = None) -> Mixture:
        """At every patch the next one, in the units of the statistics at that patch: [B V N p]."""
        return self.mixture(self.read_out(self.encode(z, visible, groups)))

    # -- training --

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Negative log density of every patch but the first, each in units of the steps before it."""
        c, x = self.config, left_pad(batch, self.config.patch)
        z, seen, found = self.normalise(x)
        told = ((z != 0) & seen).any(-1).cumsum(-1) > 0  # a constant has no units: it teaches nothing
        wanted = seen[:, :, 1:] & told[:, :, :-1, None]
        before = Statistics(found.loc[..., :-1], found.scale[..., :-1])
        target = before.apply(patch(x, c.patch)[:, :, 1:]).clamp(-100, 100)
        target = torch.where(wanted, target, 0).to(z)
        mixture = self(z[:, :, :-1], self.visible(seen)[:, :, :-1])
        losses = -mixture.log_prob(target)
        if c.robust_share:
            error = (target - mixture.mean()) / c.robust_width
            losses = torch.lerp(losses, (error.square() / 2).log1p(), c.robust_share)
        return torch.where(wanted, losses, 0).sum() / wanted.sum().clamp_min(1)

    # -- forecasting --

    def window(self, context: Float[Tensor, "B V T"]) -> Float[Tensor, "B V t"]:
        """The last `context` steps, whole patches."""
        return left_pad(context[..., -self.config.context :], self.config.patch)

    def distribution(self, context: Float[Tensor, "B V T"], groups: Groups | None = None) -> Mixture:
        """Of the next patch, in the units of the series."""
        z, seen, found = self.normalise(self.window(context).double())
        raw = self.read_out(self.encode(z, self.visible(seen), groups)[:, :, -1])
        own = self.mixture(raw)
        return Mixture(own.families, own.logits, *(t[..., -1:].to(raw) for t in (found.loc, found.scale)))

    @torch.no_grad()
    def roll_out(self, context: Float[Tensor, "B V T"], horizon: int, say: Callable[[Mixture], Tensor], paths: int = 1,
                 groups: Groups | None = None) -> Float[Tensor, "B S V h"]:  # fmt: skip
        """Patch after patch, read on as if observed. `say` names the values of the next patch, in normalised units, from its distribution
        [(B S) V p]. The context is read once for all paths, and every new patch once: attention remembers keys and values."""
        batch, groups = context.shape[:2], groups if groups is None or groups.ndim == 2 else groups[..., -1]
        x, pasts = self.window(context).double(), [Past() for _ in self.layers]
        whole = x.shape[-1]
        z, seen, found = self.normalise(x)
        visible = self.visible(seen)
        raw = self.read_out(self.encode(z, visible, groups, pasts)[:, :, -1])
        again = lambda t: t.repeat_interleave(paths, dim=0)
        x, raw, visible, loc, scale = (again(t) for t in (x, raw, visible, found.loc[..., -1:], found.scale[..., -1:]))
        groups = groups if groups is None else again(groups)
        for past in pasts:
            if past.length:
                past.k, past.v = (again(t.unflatten(0, batch)).flatten(0, 1) for t in (past.k, past.v))
        while True:
            x = torch.cat([x, Statistics(loc, scale).invert(say(self.mixture(raw)).double())], dim=-1)
            if x.shape[-1] >= whole + horizon:
                return x[..., whole : whole + horizon].unflatten(0, (batch[0], paths))
            z, _, found = self.normalise(x, whole)
            visible = F.pad(visible, (0, 1), value=True)
            raw = self.read_out(self.encode(z[:, :, -1:], visible, groups, pasts)[:, :, -1])
            loc, scale = found.loc[..., -1:], found.scale[..., -1:]

    def mean(self, context: Float[Tensor, "B V T"], horizon: int, groups: Groups | None = None) -> Float[Tensor, "B V h"]:
        """The path of means: each patch as expected if those before it came as expected."""
        return self.roll_out(context, horizon, Mixture.mean, groups=groups)[:, 0]

    def median(self, context: Float[Tensor, "B V T"], horizon: int, groups: Groups | None = None) -> Float[Tensor, "B V h"]:
        return self.roll_out(context, horizon, lambda mixture: mixture.quantiles([0.5])[..., 0], groups=groups)[:, 0]

    def draw(self, mixture: Mixture, u: Float[Tensor, "S #V p 3"]) -> Float[Tensor, "R V p"]:
        """One value per path and step: uniform numbers choose the component and make its draw."""
        at = u.repeat(len(mixture.logits) // len(u), 1, 1, 1).expand(*mixture.logits.shape[:-1], 3)
        which = (mixture.logits.double().softmax(-1).cumsum(-1)[..., :-1] < at[..., :1]).sum(-1, keepdim=True)
        chosen = (p.gather(-1, which)[..., 0].double() for p in vars(mixture.families[0]).values())
        return StudentT(*chosen).made_of(at[..., 1], at[..., 2])

    @torch.no_grad()
    def sample(self, context: Float[Tensor, "B V T"], horizon: int, samples: int | None = None, generator: torch.Generator | None = None,
               groups: Groups | None = None) -> Float[Tensor, "B S V h"]:  # fmt: skip
        """Sample paths in the units of the series; without a generator always of the same random numbers."""
        samples, variates = samples or self.config.samples, context.shape[1]
        seed = 0 if generator is None else int(torch.randint(2**62, (), generator=generator, device=generator.device))
        shape = (samples, 1 if self.order_free else variates, self.config.patch, 3)
        at_once, found = max(1, ROWS_AT_ONCE // (samples * variates)), []
        for i in range(0, len(context), at_once):
            numbers = torch.Generator("cpu").manual_seed(seed)  # again for every part: a row must not feel its neighbours
            say = lambda mixture, g=numbers: self.draw(mixture, strata(shape, g).to(mixture.logits.device))
            part = None if groups is None else groups[i : i + at_once]
            found.append(self.roll_out(context[i : i + at_once], horizon, say, samples, part))
        return torch.cat(found)

    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float], *, samples: int | None = None,
                          generator: torch.Generator | None = None, groups: Groups | None = None
                          ) -> Float[Tensor, "B V h Q"]:  # fmt: skip
        """Quantiles of sample paths. Variates look at those of the same group, all if there are no `groups`."""
        paths = self.sample(context, horizon, samples, generator, groups)
        have = (torch.arange(paths.shape[1], device="cpu") + 0.5) / paths.shape[1]
        return interpolate_quantiles(rearrange(paths, "B S V h -> B V h S"), have.tolist(), levels).to(context.dtype)

    # -- looking in --

    def states(self, x: Float[Tensor, "B V T"]) -> Float[Tensor, "B N D"]:
        """The last layer's states, mean over variates."""
        z, seen, _ = self.normalise(self.window(x))
        return self.encode(z, self.visible(seen)).mean(1)

    @torch.no_grad()
    def embed(self, x: Float[Tensor, "B V T"]) -> Float[Tensor, "B D"]:
        """Mean state over observed patches and variates."""
        z, seen, _ = self.normalise(self.window(x))
        visible = self.visible(seen)
        weight = visible[..., None].float()
        mean = (self.encode(z, visible) * weight).sum(2) / weight.sum(2).clamp_min(1)
        return mean.mean(1)

    def sites(self) -> list[HeadSite | MLPSite]:
        found: list[HeadSite | MLPSite] = []
        for i, layer in enumerate(self.layers):
            found += [attention_site("decoder", i, layer.kind, layer.attention, layer.norm_attention), MLPSite("decoder", i, layer.mlp)]
        return found
