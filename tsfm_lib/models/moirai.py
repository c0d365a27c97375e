"""Moirai (arXiv 2402.02592): a masked encoder over patches of any number of variates that says a whole mixture of distributions.

Read beside the paper, in its order (Sec. 3):
    multi patch size projections, in and out      -> ReadPatches, WriteParameters
    any-variate attention: two biases a head for own and other variates, rotary positions in time  -> Layer
    mixture of Student-t, negative binomial, log-normal and low-variance normal                     -> Moirai.mixture
    packed rows of several samples                -> Packed, pack, join, Moirai.forward
    training: masked ends of windows              -> Moirai.loss
    forecasts                                     -> Moirai.predict_quantiles
The version followed is the released code of Moirai 1.0 and 1.1 (uni2ts). A model can be fine-tuned at several scales at once: see
`nn.tokens`.

Where we differ from the released code (its ways that matter for numbers are quirks that `quirks=(...)` switches on):
| point                | released code | here | why |
|---|---|---|---|
| mixture weights      | in shorter patches most read no state: `masked_weights` | all do | rows are masked before they are put in order |
| missing steps        | the value zero, as a patch too: `missing_is_zero` | the mean; empty patches not looked at | zero may lie far away |
| smallest deviation   | 1e-5 added to the variance: `variance_floor` | only of constants, 1e-5 | small units are units |
| loss                 | in units of the series: `loss_in="original"` | normalised, targets within 100 | sizes of series are not skill |
| series in a loss     | all that have a horizon | those with more than a constant to see and something to hit | others teach nothing |
| forecast             | 100 samples | exact quantiles of the mixture; `sample` is there | no noise |
| several patch sizes  | one packed row | one pass for each size | the same numbers, no padding |
| heads                | 64 wide | `head_width` | smaller models |
| patch size           | by the frequency, or by validation | `config.patch`, or asked for | frequencies are not passed around |
| short horizons       | as many tokens as asked for | cut from `least_horizon` steps, where it is set | training hid no fewer |

Shapes: B samples, V variates, T time, R rows (B x V), N tokens of a row, L tokens that attend to each other (V x N), P steps of the
longest patch, D width, H heads, S patch sizes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.errors import TsfmError, one_of, refuse_unknown
from tsfm_lib.nn.attention import Attention
from tsfm_lib.nn.feedforward import FeedForward
from tsfm_lib.nn.lora import Delta
from tsfm_lib.nn.outputs import LogNormal, Mixture, NegativeBinomial, Normal, StudentT
from tsfm_lib.nn.patching import left_pad, patch
from tsfm_lib.nn.positions import RoPE, rotate
from tsfm_lib.nn.scaling import Statistics, observed, packed_statistics, standardise
from tsfm_lib.nn.sites import HeadSite, MLPSite, attention_site
from tsfm_lib.nn.tokens import Tokens

QUIRKS = {
    "masked_weights": "in patches shorter than the longest, logits of later mixture components are their bias alone",
    "missing_is_zero": "missing steps are read as the value zero, so patches without an observation are, too",
    "variance_floor": "1e-5 is added to the variance, in the units of the series",
}
COMPONENTS = 4  # Student-t, normal, negative binomial, log-normal
PARAMETERS = COMPONENTS + 8  # logits, and df, loc, scale; loc; total count, logits; loc, scale


@dataclass(frozen=True)
class MoiraiConfig:
    """Sizes of one Moirai; the defaults are those of Moirai-1.0-R-small and 1.1-R-small."""

    context: int = 4000  # most steps of the past that a forecast reads
    patch: int = 32  # where none is asked for
    patch_sizes: tuple[int, ...] = (8, 16, 32, 64, 128)
    width: int = 384
    layers: int = 6
    head_width: int = 64
    norm_eps: float = 1e-5
    dropout: float = 0.0
    mask_ratio: tuple[float, float] = (0.15, 0.5)  # of the patches at the end of a window that training hides
    least_horizon: int = 0  # shorter forecasts are cut from one of so many steps (ours): the least that training hid
    loss_in: str = "normalised"  # units of the density: normalised | original
    quirks: tuple[str, ...] = ()

    def __post_init__(self):
        if self.width % self.head_width:
            raise ValueError(f"heads of {self.head_width} do not divide a width of {self.width}")
        if self.head_width % 4:
            raise ValueError(f"half of a head turns in pairs of channels: head_width must be a multiple of 4, got {self.head_width}")
        if list(self.patch_sizes) != sorted(set(self.patch_sizes)) or min(self.patch_sizes, default=0) < 1:
            raise ValueError(f"patch_sizes must rise and be 1 or more, got {self.patch_sizes}")
        if self.patch not in self.patch_sizes:
            raise ValueError(f"patch must be one of {self.patch_sizes}, got {self.patch}")
        if not 0 < self.mask_ratio[0] <= self.mask_ratio[1] < 1:
            raise ValueError(f"mask_ratio must be two rising numbers between 0 and 1, got {self.mask_ratio}")
        one_of(self, loss_in=("normalised", "original"))
        refuse_unknown(self.quirks, QUIRKS)

    @property
    def heads(self) -> int:
        return self.width // self.head_width

    @property
    def hidden(self) -> int:
        """Two thirds of four widths, because a gate comes on top; a multiple of 8."""
        return -(-int(4 * self.width * 2 / 3) // 8) * 8

    @classmethod
    def small(cls) -> "MoiraiConfig":
        return cls()

    @classmethod
    def base(cls) -> "MoiraiConfig":
        return cls(width=768, layers=12)

    @classmethod
    def large(cls) -> "MoiraiConfig":
        return cls(width=1024, layers=24)

    @classmethod
    def tiny(cls) -> "MoiraiConfig":
        return cls(context=64, patch=8, patch_sizes=(4, 8, 16), width=32, layers=2, head_width=16)


# ---- Packed rows (Sec. 3.2.2): tokens of several samples side by side, told apart by ids --------------------------------------------


class Packed(NamedTuple):
    """Rows of tokens. Only tokens of one sample look at each other; sample 0 is padding. Values of a patch stand on the left."""

    target: Float[Tensor, "B L P"]
    observed: Bool[Tensor, "B L P"]
    sample: Int[Tensor, "B L"]
    time: Int[Tensor, "B L"]
    variate: Int[Tensor, "B L"]
    horizon: Bool[Tensor, "B L"]  # to be forecast: what stands in `target` there is not read
    size: Int[Tensor, "B L"]  # steps of the patch


def pack(context: Float[Tensor, "B V T"], future: Float[Tensor, "B V h"], size: int, longest: int) -> Packed:
    """One sample a row: the context of all variates, then their horizons. Missing steps are NaN.

    The context is filled up in front, the horizon behind; patches before the first observation are padding, and time starts after them.

    >>> one = pack(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[4.0]]]), size=2, longest=4)
    >>> one.target[0], one.observed.sum(-1), one.time
    (tensor([[0., 1., 0., 0.],
            [2., 3., 0., 0.],
            [4., 0., 0., 0.]]), tensor([[1, 2, 1]]), tensor([[0, 1, 2]]))
    """
    past = patch(left_pad(context, size), size)  # B V n p
    ahead = patch(F.pad(future, (0, -future.shape[-1] % size), value=torch.nan), size)  # B V m p
    empty = ~observed(past).any(-1)  # B V n
    inside = torch.cat([(~empty).cumsum(-1) > 0, torch.ones_like(ahead[..., 0], dtype=torch.bool)], dim=-1)  # B V n+m
    time, n = (inside.cumsum(-1) - 1).clamp_min(0), past.shape[2]
    variate = torch.arange(context.shape[1], device=context.device)[:, None].expand_as(time)
    horizon = (torch.arange(time.shape[-1], device=context.device) >= n).expand_as(time)
    in_order = lambda x: torch.cat([x[:, :, :n].flatten(1, 2), x[:, :, n:].flatten(1, 2)], dim=1)
    values = in_order(F.pad(torch.cat([past, ahead], dim=2), (0, longest - size), value=torch.nan))
    seen = observed(values)
    ids = [in_order(x) for x in (inside.long(), time, variate, horizon, torch.full_like(time, size))]
    return Packed(torch.where(seen, values, 0), seen, *ids)


def join(*rows: Packed) -> Packed:
    """Samples of several packings side by side in one row."""
    samples, last = [], 0
    for row in rows:
        samples.append(torch.where(row.sample > 0, row.sample + last, 0))
        last += int(row.sample.max())
    sides = {name: torch.cat([getattr(row, name) for row in rows], dim=1) for name in Packed._fields if name != "sample"}
    return Packed(sample=torch.cat(samples, dim=1), **sides)


# ---- Multi patch size projections (Sec. 3.1.1) ---------------------------------------------------------------------------------------


class MultiSize(nn.Module):
    """One linear map a patch size, stacked. A patch shorter than the longest uses a part of its weights."""

    def __init__(self, sizes: Sequence[int], inputs: int, outputs: int):
        super().__init__()
        self.sizes = tuple(sizes)
        self.weight = nn.Parameter(torch.empty(len(sizes), outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(len(sizes), outputs))

    def each(self, by_size: Callable[[int, int], Tensor], size: int | Int[Tensor, "B L"]) -> Tensor:
        """`by_size(number, steps)` for the one size, or for every token that of its own."""
        if isinstance(size, int):
            return by_size(self.sizes.index(size), size)
        found = [torch.where(size[..., None] == steps, by_size(i, steps), 0) for i, steps in enumerate(self.sizes)]
        return torch.stack(found).sum(0)


class ReadPatches(MultiSize):
    """Steps of a patch to its token."""

    def __init__(self, sizes: Sequence[int], width: int):
        super().__init__(sizes, max(sizes), width)
        for own, steps in zip(self.weight.data, self.sizes):
            nn.init.uniform_(own, -(steps**-0.5), steps**-0.5)

    def forward(self, patches: Float[Tensor, "*S p"], size: int | Int[Tensor, "B L"]) -> Float[Tensor, "*S D"]:
        return self.each(lambda i, p: F.linear(patches[..., :p], self.weight[i, :, :p], self.bias[i]), size)


class WriteParameters(MultiSize):
    """A token to all parameters of the mixture at each step of its patch; steps beyond it get the bias alone."""

    def __init__(self, sizes: Sequence[int], width: int, masked_weights: bool = False):
        super().__init__(sizes, width, PARAMETERS * max(sizes))
        self.longest, self.masked_weights = max(sizes), masked_weights
        nn.init.uniform_(self.weight, -(width**-0.5), width**-0.5)

    def used(self, steps: int) -> Bool[Tensor, "O"]:
        """The rows that read the state: of the first `steps` of each parameter. Masked in one piece, the logits lose other rows."""
        row = torch.arange(PARAMETERS * self.longest, device=self.weight.device)
        used = row % self.longest < steps
        logits = row < COMPONENTS * self.longest
        return torch.where(logits, row < COMPONENTS * steps, used) if self.masked_weights else used

    def forward(self, h: Float[Tensor, "*S D"], size: int | Int[Tensor, "B L"]) -> Float[Tensor, "*S P C"]:
        flat = self.each(lambda i, p: F.linear(h, self.weight[i] * self.used(p)[:, None], self.bias[i]), size)
        return flat.unflatten(-1, (PARAMETERS, self.longest)).transpose(-1, -2)


# ---- Any-variate attention (Sec. 3.1.2) ----------------------------------------------------------------------------------------------


class Looks(NamedTuple):
    """What every layer is handed: who may look at whom, who is of the own variate, when; and how rows make up samples."""

    mask: Bool[Tensor, "B 1 #L L"]
    same: Bool[Tensor, "#B L L"]
    angles: Float[Tensor, "..."]  # of the rotary positions
    variates: int
    leading: tuple[int, ...]  # axes of the series that went in
    size: int | Int[Tensor, "B L"]


class Layer(nn.Module):
    """Norms in front, no biases, queries and keys normalised and half turned; tokens of all variates of a sample attend together."""

    def __init__(self, config: MoiraiConfig):
        super().__init__()
        c = config
        norm = partial(nn.RMSNorm, eps=c.norm_eps)
        self.norm_attention, self.norm_mlp = norm(c.width), norm(c.width)
        self.attention = Attention(c.width, c.heads, c.head_width, qk_norm=norm, dropout=c.dropout)
        self.bias = nn.Parameter(torch.zeros(2, c.heads, 1, 1))  # Eq. 2: u for another variate, u for the own one
        self.mlp = FeedForward(c.width, c.hidden, "silu", gated=True, bias=False, dropout=c.dropout)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, h: Float[Tensor, "R N D"], aux: Looks, delta: Delta | None = None) -> Float[Tensor, "R N D"]:
        """`delta`: low-rank pairs for q, k, v, out (attention) and up, gate, down (feed-forward)."""
        x = rearrange(self.norm_attention(h), "(B V) N D -> B (V N) D", V=aux.variates)
        bias = torch.where(aux.same[:, None], self.bias[1], self.bias[0])  # B H L L
        turn = lambda q, k: tuple(rotate(x, aux.angles, "interleaved") for x in (q, k))
        x = self.attention(x, mask=aux.mask, bias=bias, rotary=turn, delta=delta)
        h = h + self.dropout(rearrange(x, "B (V N) D -> (B V) N D", V=aux.variates))
        return h + self.dropout(self.mlp(self.norm_mlp(h), delta))


class Moirai(nn.Module):
    """Patches of all variates and mask tokens for the horizon in, a distribution for each step out."""

    probabilistic = True
    causal = False
    order_free = True

    def __init__(self, config: MoiraiConfig):
        super().__init__()
        self.config = c = config
        self.values = ReadPatches(c.patch_sizes, c.width)
        self.mask_token = nn.Parameter(torch.randn(c.width) * c.width**-0.5)
        self.rope = RoPE(c.head_width, layout="interleaved", fraction=0.5)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm = nn.RMSNorm(c.width, eps=c.norm_eps)
        self.head = WriteParameters(c.patch_sizes, c.width, "masked_weights" in c.quirks)

    # -- values in, distributions out --

    @property
    def _scaling(self) -> dict[str, float | int]:
        return {"ddof": 1, "eps": 1e-5 if "variance_floor" in self.config.quirks else 0.0, "constant": 1e-5}

    def normalise(self, x: Float[Tensor, "*R T"], mask: Bool[Tensor, "*R T"] | None = None
                  ) -> tuple[Float[Tensor, "*R T"], Bool[Tensor, "*R T"], Statistics]:  # fmt: skip
        """z-scores by what is finite and in `mask`, 0 elsewhere; which steps count as observed (`mask`, else the finite ones)."""
        z, statistics = standardise(x, mask, **self._scaling)
        if "missing_is_zero" in self.config.quirks:
            z = statistics.apply(torch.where(observed(x) if mask is None else observed(x) & mask, x, 0))
        return z.to(self.mask_token.dtype), observed(x) if mask is None else mask, statistics

    def normalise_packed(self, packed: Packed) -> tuple[Float[Tensor, "B L P"], Statistics]:
        """The same for packed rows, by the context of each sample and variate."""
        seen = packed.observed & ~packed.horizon[..., None]
        found = packed_statistics(packed.target, seen, (packed.sample, packed.variate), **self._scaling)
        padding = packed.sample[..., None] == 0
        statistics = Statistics(torch.where(padding, 0, found.loc), torch.where(padding, 1, found.scale))
        z = statistics.apply(torch.where(packed.observed, packed.target, 0))
        z = z if "missing_is_zero" in self.config.quirks else torch.where(packed.observed, z, 0)
        return z.to(self.mask_token.dtype), statistics

    def mixture(self, raw: Float[Tensor, "*S C"]) -> Mixture:
        """Sec. 3.1.3, in normalised units: logits of the components, then what each of them needs."""
        logits, (df, loc, scale, centre, count, odds, log_loc, log_scale) = raw[..., :COMPONENTS], raw[..., COMPONENTS:, None].unbind(-2)
        positive = lambda x: F.softplus(x).clamp_min(torch.finfo(x.dtype).eps)
        families = (StudentT(2 + F.softplus(df), loc, positive(scale)), Normal(centre, torch.full_like(centre, 1e-3)),
                    NegativeBinomial(positive(count), odds), LogNormal(log_loc, positive(log_scale)))  # fmt: skip
        return Mixture(families, logits)

    def forecast(self, raw: Mixture, statistics: Statistics) -> Mixture:
        """The mixture in the units of the series."""
        return replace(raw, loc=statistics.loc, scale=statistics.scale)

    # -- the network --

    def size(self, asked: int | None) -> int:
        if asked is not None and asked not in self.config.patch_sizes:
            raise TsfmError(f"this Moirai has patches of {', '.join(map(str, self.config.patch_sizes))} steps, got {asked}")
        return asked or self.config.patch

    def visible(self, seen: Bool[Tensor, "*R N"]) -> Bool[Tensor, "*R N"]:
        """Patches that are looked at, given those with an observation."""
        return seen.cumsum(-1) > 0 if "missing_is_zero" in self.config.quirks else seen

    def embed_tokens(self, z: Float[Tensor, "*R T"], seen: Bool[Tensor, "*R T"], horizon: int = 0, *, size: int | None = None,
                     hidden: Bool[Tensor, "*R N"] | None = None, adapt: Callable[[Tensor], Tensor] | None = None) -> Tokens:  # fmt: skip
        """Tokens of the patches and mask tokens for the horizon; mask tokens also where `hidden`. One row of tokens a variate."""
        size, behind = self.size(size), -(-horizon // self.size(size))
        rows, looked_at = (patch(left_pad(x.reshape(-1, x.shape[-1]), size, value=0.0), size) for x in (z, seen))
        visible = self.visible(looked_at.any(-1))  # R N
        h = self.values(rows, size)
        h = h if adapt is None else adapt(h)
        if hidden is not None:
            hidden = hidden.reshape(visible.shape)
            h, visible = torch.where(hidden[..., None], self.mask_token, h), visible | hidden
        n = h.shape[1]
        h = torch.cat([h, self.mask_token.expand(len(h), behind, -1)], dim=1)
        variates = z.shape[-2] if z.ndim > 2 else 1
        mask = rearrange(F.pad(visible, (0, behind), value=True), "(B V) N -> B 1 1 (V N)", V=variates)
        variate = torch.arange(variates, device=z.device).repeat_interleave(n + behind)
        angles = self.rope.angles(torch.arange(n + behind, device=z.device)).repeat(variates, 1)  # L K/4
        return Tokens(h, Looks(mask, (variate == variate[:, None])[None], angles, variates, tuple(z.shape[:-1]), size), n, behind)

    def embed_packed(self, z: Float[Tensor, "B L P"], packed: Packed) -> Tokens:
        """Tokens of packed rows; attention stays within a sample."""
        h = torch.where(packed.horizon[..., None], self.mask_token, self.values(z, packed.size))
        pairs = lambda ids: ids[:, :, None] == ids[:, None]
        mask = pairs(packed.sample)[:, None]  # B 1 L L
        if "missing_is_zero" not in self.config.quirks:
            mask = mask & (packed.horizon | packed.observed.any(-1))[:, None, None]
        looks = Looks(mask, pairs(packed.variate), self.rope.angles(packed.time), 1, tuple(h.shape[:1]), packed.size)
        return Tokens(h, looks, h.shape[1])

    def encode(self, tokens: Tokens) -> Float[Tensor, "R N D"]:
        """All layers, before the final norm."""
        h = tokens.h
        for layer in self.layers:
            h = layer(h, tokens.aux)
        return h

    def parameters_at(self, h: Float[Tensor, "R N D"], size: int | Int[Tensor, "B L"]) -> Float[Tensor, "R N P C"]:
        return self.head(self.norm(h), size).to(self.mask_token.dtype)

    def project(self, h: Float[Tensor, "R N D"], tokens: Tokens, horizon: int = 0) -> Mixture:
        """In normalised units: `horizon` steps from the horizon tokens; all steps of all patches if 0."""
        raw = self.parameters_at(h[:, tokens.context :] if tokens.horizon else h, tokens.aux.size)[:, :, : tokens.aux.size]
        raw = rearrange(raw, "R N p C -> R (N p) C")
        return self.mixture((raw[:, :horizon] if horizon else raw).unflatten(0, tokens.aux.leading))

    def forward(self, packed: Packed) -> Mixture:
        """The distribution of every step of packed rows, in the units of the series."""
        z, statistics = self.normalise_packed(packed)
        h = self.encode(self.embed_packed(z, packed))
        return self.forecast(self.mixture(self.parameters_at(h, packed.size)), statistics)

    # -- training --

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Negative log density of the patches hidden at the end of each window; every sample draws its patch size and its share."""
        draw = lambda: torch.rand(len(batch), generator=generator, device=batch.device)
        sizes = [p for p in self.config.patch_sizes if p * 2 <= batch.shape[-1]] or [self.config.patch_sizes[0]]
        low, high = self.config.mask_ratio
        chosen, share = (draw() * len(sizes)).long(), low + (high - low) * draw()
        found = [self.row_losses(batch[chosen == i], share[chosen == i], sizes[i]) for i in chosen.unique().tolist()]
        losses, taught = (torch.cat(parts) for parts in zip(*found))
        return losses.sum() / taught.sum().clamp_min(1)

    def row_losses(self, x: Float[Tensor, "b V T"], share: Float[Tensor, "b"], size: int
                   ) -> tuple[Float[Tensor, "b V"], Bool[Tensor, "b V"]]:  # fmt: skip
        """Mean over the observed hidden steps of each variate, and the variates with something to see and to hit."""
        x = left_pad(x, size)
        n = x.shape[-1] // size
        count = (share * n).round().long().clamp(1, max(1, n - 1))
        hidden = torch.arange(n, device=x.device) >= n - count[:, None, None]  # b 1 N
        hidden, seen = hidden.expand(*x.shape[:2], n), observed(x)
        steps = hidden.repeat_interleave(size, dim=-1)
        z, visible, statistics = self.normalise(x, seen & ~steps)
        tokens = self.embed_tokens(z, visible, size=size, hidden=hidden)
        raw = self.project(self.encode(tokens), tokens)
        wanted = steps & seen & (z != 0).any(-1, keepdim=True)  # a constant has no units
        if self.config.loss_in == "original":
            density = self.forecast(raw, statistics).log_prob(torch.where(wanted, x, statistics.loc.to(x.dtype)))
        else:
            density = raw.log_prob(torch.where(wanted, statistics.apply(x).clamp(-100, 100), 0))
        return -torch.where(wanted, density, 0).sum(-1) / wanted.sum(-1).clamp_min(1), wanted.any(-1)

    def packed_loss(self, packed: Packed) -> Float[Tensor, ""]:
        """The same for packed rows, in the units of the series: mean over steps, then over all series with a horizon."""
        wanted, series = packed.observed & packed.horizon[..., None], torch.stack([packed.sample, packed.variate], dim=-1)
        own = (series[:, :, None] == series[:, None]).all(-1).to(packed.target)  # B L L
        steps = own @ wanted.sum(-1, keepdim=True).to(own)  # B L 1: of the series a token belongs to
        tokens = own @ packed.horizon[..., None].to(own)
        count = torch.where(packed.horizon, 1 / tokens[..., 0].clamp_min(1), 0).sum()
        density = torch.where(wanted, self(packed).log_prob(packed.target), 0)
        return -(density / steps.clamp_min(1)).sum() / count.clamp_min(1)

    # -- forecasting --

    def distribution(self, context: Float[Tensor, "*R T"], horizon: int, size: int | None = None) -> Mixture:
        """Of the next `horizon` steps, in one pass."""
        z, seen, statistics = self.normalise(left_pad(context[..., -self.config.context :], self.size(size)))
        tokens = self.embed_tokens(z, seen, max(horizon, self.config.least_horizon), size=size)
        return self.forecast(self.project(self.encode(tokens), tokens, horizon), statistics)

    @torch.no_grad()
    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float], *, size: int | None = None
                          ) -> Float[Tensor, "B V h Q"]:  # fmt: skip
        """Exact quantiles of the mixture; `size`: steps of a patch."""
        return self.distribution(context, horizon, size).quantiles(levels).to(context.dtype)

    def sites(self) -> list[HeadSite | MLPSite]:
        found: list[HeadSite | MLPSite] = []
        for i, layer in enumerate(self.layers):
            found += [attention_site("encoder", i, "self", layer.attention, layer.norm_attention), MLPSite("encoder", i, layer.mlp)]
        return found
