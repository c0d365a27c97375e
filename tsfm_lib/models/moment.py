"""MOMENT (arXiv 2402.03885): a T5 encoder over patches of one series that fills in what was hidden from it.

Read beside the paper, in its order (Sec. 3.2, App. B):
    instance normalisation, patches, mask token, positions  -> Moment.normalise, Moment.embed_tokens
    transformer encoder (T5: relative positions, no scaling of the scores, gated tanh-GELU)  -> Layer
    reconstruction head; heads for forecasting              -> Moment.project, Moment.add_head
    masked reconstruction; embeddings; forecasts            -> Moment.loss, Moment.embed, Moment.predict_quantiles
The version followed is the released code (momentfm 0.1.4). A model can be fine-tuned at several scales at once: see `nn.tokens`.

Where we differ from the released code (its ways that matter for numbers are quirks that `quirks=(...)` switches on):
| point                | released code | here | why |
|---|---|---|---|
| statistics           | kept on the module | returned by `normalise` | a second call (or scale) overwrote the first |
| their sums           | float32: `float32_statistics` | float64 | small changes on a high level drowned in rounding |
| patches with gaps    | not looked at: `whole_patches` | looked at, missing steps are the mean | scattered gaps would blind the model |
| empty patches        | read or mask token, by task: `padding_is_read` | mask token, not looked at | one rule for all tasks |
| shorter series       | padded by the caller | filled in front with missing values | one contract for all models |
| loss                 | in units of the series: `loss_in="original"` | normalised, targets within 12 | else loud series own the step |
| hidden patches       | ratio rounded down, one mask for all variates | rounded, at least one, a mask each | variates are rows |
| forecast by masks    | any length in one pass | in pieces as long as what pretraining hid | longer masks were never seen |
| forecasting head     | dropout behind it: `drops_forecast_steps` | dropout before it | steps of a forecast should not become zero |
| embedding            | mean over variates, then patches | mean over all observed patches | missing variates must not count |
The paper counts 8 heads for the small size; its configuration and checkpoint have 6, and so has this.

Shapes: B samples, V variates, T time, R rows (B x V), N patches, P steps of a patch, D width, H heads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError, one_of, refuse_unknown
from tsfm_lib.nn.attention import Attention
from tsfm_lib.nn.feedforward import FeedForward
from tsfm_lib.nn.initialise import like_t5
from tsfm_lib.nn.lora import Delta
from tsfm_lib.nn.objectives import mask_patches
from tsfm_lib.nn.patching import left_pad, patch, unpatch
from tsfm_lib.nn.positions import RelativeBias, sinusoidal
from tsfm_lib.nn.scaling import Statistics, observed, standardise
from tsfm_lib.nn.sites import HeadSite, MLPSite, attention_site
from tsfm_lib.nn.tokens import Tokens

QUIRKS = {
    "whole_patches": "a patch counts as observed only if all of its steps are",
    "padding_is_read": "patches without an observation become tokens of whatever stands there",
    "float32_statistics": "means and deviations are summed in float32",
    "drops_forecast_steps": "the dropout of a forecasting head acts on the forecast",
}


@dataclass(frozen=True)
class MomentConfig:
    """Sizes of one MOMENT; the defaults are those of MOMENT-1-small."""

    context: int = 512
    patch: int = 8  # P
    width: int = 512
    layers: int = 8
    heads: int = 6
    head_width: int = 64
    hidden: int = 1024
    activation: str = "gelu_tanh"
    gated: bool = True
    buckets: int = 32  # of the relative positions
    max_distance: int = 128
    dropout: float = 0.1
    norm_eps: float = 1e-6
    value_bias: bool = False
    positions: int = 512  # rows of the table: the most patches that can be read
    reconstruction: bool = True  # the head of the pretraining is there
    forecasts: tuple[tuple[int, int], ...] = ()  # forecasting heads: patches of the context, steps of the horizon
    mask_ratio: float = 0.3  # of the observed patches that pretraining hides
    loss_in: str = "normalised"  # units of the squared error: normalised | original
    quirks: tuple[str, ...] = ()

    def __post_init__(self):
        if self.context % self.patch:
            raise ValueError(f"patches of {self.patch} do not divide a context of {self.context}")
        if self.patches > self.positions:
            raise ValueError(f"a context of {self.patches} patches needs as many positions, got {self.positions}")
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must lie between 0 and 1, got {self.mask_ratio}")
        one_of(self, loss_in=("normalised", "original"))
        refuse_unknown(self.quirks, QUIRKS)

    @property
    def patches(self) -> int:
        return self.context // self.patch

    @classmethod
    def small(cls) -> "MomentConfig":
        return cls()

    @classmethod
    def base(cls) -> "MomentConfig":
        return cls(width=768, layers=12, heads=12, hidden=2048)

    @classmethod
    def large(cls) -> "MomentConfig":
        return cls(width=1024, layers=24, heads=16, hidden=2816)

    @classmethod
    def tiny(cls) -> "MomentConfig":
        return cls(context=64, width=16, layers=2, heads=2, head_width=8, hidden=32, buckets=8, max_distance=16, positions=16, dropout=0.0)


class Looks(NamedTuple):
    """What every layer of the stack is handed: who may be looked at, and the bias of the distances."""

    bias: Float[Tensor, "H N N"]
    mask: Bool[Tensor, "R 1 1 N"]


class Layer(nn.Module):
    """A layer of T5's encoder: RMS norms, no biases, scores without 1 / sqrt(K)."""

    def __init__(self, config: MomentConfig):
        super().__init__()
        c = config
        self.norm_attention, self.norm_mlp = (nn.RMSNorm(c.width, eps=c.norm_eps) for _ in range(2))
        self.attention = Attention(c.width, c.heads, c.head_width, scale=1.0, dropout=c.dropout)
        self.mlp = FeedForward(c.width, c.hidden, c.activation, gated=c.gated, bias=False, dropout=c.dropout)
        self.dropout = nn.Dropout(c.dropout)
        like_t5(self.attention, self.mlp)

    def forward(self, h: Float[Tensor, "R N D"], aux: Looks, delta: Delta | None = None) -> Float[Tensor, "R N D"]:
        """`delta`: low-rank pairs for q, k, v, out (attention) and up, gate, down (feed-forward)."""
        h = h + self.dropout(self.attention(self.norm_attention(h), mask=aux.mask, bias=aux.bias, delta=delta))
        return h + self.dropout(self.mlp(self.norm_mlp(h), delta))


class Moment(nn.Module):
    """Patches of a series in, what was hidden out. Variates are rows of their own."""

    probabilistic = False  # point forecasts
    causal = False
    order_free = True

    def __init__(self, config: MomentConfig):
        super().__init__()
        self.config = c = config
        self.values = nn.Linear(c.patch, c.width, bias=c.value_bias)
        self.mask_token = nn.Parameter(torch.zeros(c.width))
        self.register_buffer("positions", sinusoidal(c.positions, c.width))
        self.bias = RelativeBias(c.heads, c.buckets, c.max_distance)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm = nn.RMSNorm(c.width, eps=c.norm_eps)
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(c.width, c.patch) if c.reconstruction else None
        self.forecasts = nn.ModuleDict({f"{n}x{h}": nn.Linear(n * c.width, h) for n, h in c.forecasts})
        nn.init.normal_(self.bias.table.weight, std=c.width**-0.5)
        for linear in filter(None, (self.values, self.head)):
            nn.init.orthogonal_(linear.weight, gain=1.41)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    # -- values in, values out --

    def normalise(self, x: Float[Tensor, "*R T"], mask: Bool[Tensor, "*R T"] | None = None
                  ) -> tuple[Float[Tensor, "*R T"], Bool[Tensor, "*R T"], Statistics]:  # fmt: skip
        """z-scores by what is finite and in `mask`, 0 elsewhere; which steps count as observed (`mask`, else the finite ones)."""
        sums = torch.float32 if "float32_statistics" in self.config.quirks else torch.float64
        z, statistics = standardise(x, mask, soften=1e-5, dtype=sums)
        if "padding_is_read" in self.config.quirks:
            z = statistics.apply(x).nan_to_num(0.0, 0.0, 0.0)
        return z.to(self.mask_token.dtype), observed(x) if mask is None else mask, statistics

    def forecast(self, raw: Float[Tensor, "*R h"], statistics: Statistics) -> Float[Tensor, "*R h"]:
        return statistics.invert(raw)

    def fill(self, x: Float[Tensor, "R T"]) -> Float[Tensor, "R C"]:
        """The last `context` steps, filled up with missing ones in front."""
        return left_pad(x[:, -self.config.context :], self.config.context)

    # -- the network --

    def seen_patches(self, seen: Bool[Tensor, "*R T"]) -> Bool[Tensor, "*R N"]:
        steps = patch(seen, self.config.patch)
        return steps.all(-1) if "whole_patches" in self.config.quirks else steps.any(-1)

    def embed_tokens(self, z: Float[Tensor, "R T"], seen: Bool[Tensor, "R T"], horizon: int = 0, *,
                     hidden: Bool[Tensor, "R N"] | None = None, adapt: Callable[[Tensor], Tensor] | None = None) -> Tokens:  # fmt: skip
        """Tokens of the patches, mask tokens where `hidden`. A `horizon` takes as many patches in front away as it adds hidden ones behind.

        Observed patches that are hidden are looked at (they know where they are), patches without an observation are not.
        """
        c, behind = self.config, -(-horizon // self.config.patch)
        patches, visible = patch(z, c.patch)[:, behind:], self.seen_patches(seen)[:, behind:]
        if patches.shape[1] < 1 or patches.shape[1] + behind > c.positions:
            raise TsfmError(f"{z.shape[1]} steps and a horizon of {horizon} do not fit: the context must be longer than the horizon and "
                            f"not longer than {c.positions * c.patch} steps")  # fmt: skip
        values = self.values(patches)  # R N D
        values = values if adapt is None else adapt(values)
        attended = nn.functional.pad(visible, (0, behind), value=True)  # R N
        if "padding_is_read" in c.quirks:
            visible = torch.ones_like(visible)
        if hidden is not None:
            visible = visible & ~hidden[:, behind:]
        h = torch.where(visible[..., None], values, self.mask_token)
        h = torch.cat([h, self.mask_token.expand(len(h), behind, -1)], dim=1)
        n = h.shape[1]
        return Tokens(self.dropout(h + self.positions[:n]), Looks(self.bias(n), attended[:, None, None]), n - behind, behind)

    def finish(self, h: Float[Tensor, "R N D"]) -> Float[Tensor, "R N D"]:
        return self.dropout(self.norm(h))

    def encode(self, tokens: Tokens) -> Float[Tensor, "R N D"]:
        """All layers, before the final norm."""
        h = tokens.h
        for layer in self.layers:
            h = layer(h, tokens.aux)
        return h

    def project(self, h: Float[Tensor, "R N D"], tokens: Tokens, horizon: int = 0, head: nn.Linear | None = None) -> Float[Tensor, "R h"]:
        """In normalised units: `horizon` steps by a forecasting head or from the horizon tokens; all steps of all patches if 0."""
        h = self.finish(h)
        if head is not None:
            late = "drops_forecast_steps" in self.config.quirks
            raw = self.dropout(head(h.flatten(1))) if late else head(self.dropout(h.flatten(1)))
        elif self.head is None:
            raise TsfmError("this MOMENT has no reconstruction head: pass a forecasting head, or load a checkpoint of the pretraining")
        else:
            raw = unpatch(self.head(self.dropout(h[:, tokens.context :] if tokens.horizon else h)))
        return (raw[:, :horizon] if horizon else raw).to(self.mask_token.dtype)

    def forward(self, x: Float[Tensor, "B V T"], hidden: Bool[Tensor, "B V N"] | None = None, mask: Bool[Tensor, "B V T"] | None = None
                ) -> Float[Tensor, "B V T"]:  # fmt: skip
        """Reconstruction of all steps from the patches that are not `hidden`. T is a multiple of the patch."""
        rows, given = rearrange(x, "B V T -> (B V) T"), [None if m is None else rearrange(m, "B V n -> (B V) n") for m in (hidden, mask)]
        raw, statistics = self.reconstruct(rows, *given)
        return rearrange(self.forecast(raw, statistics), "(B V) T -> B V T", B=len(x))

    def reconstruct(self, rows: Float[Tensor, "R T"], hidden: Bool[Tensor, "R N"] | None = None, mask: Bool[Tensor, "R T"] | None = None
                    ) -> tuple[Float[Tensor, "R T"], Statistics]:  # fmt: skip
        """In normalised units, with statistics of what is visible."""
        seen = observed(rows) if mask is None else mask
        visible = seen if hidden is None else seen & ~hidden.repeat_interleave(self.config.patch, dim=-1)
        z, _, statistics = self.normalise(rows, visible)
        tokens = self.embed_tokens(z, seen, hidden=hidden)
        return self.project(self.encode(tokens), tokens), statistics

    # -- training --

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Squared error of the hidden patches in the last `context` steps."""
        rows = self.fill(rearrange(batch, "B V T -> (B V) T"))
        hidden = mask_patches(self.seen_patches(observed(rows)), self.config.mask_ratio, generator)
        raw, statistics = self.reconstruct(rows, hidden)
        return self.masked_error(rows, raw, statistics, hidden)

    def masked_error(self, rows: Float[Tensor, "R T"], raw: Float[Tensor, "R T"], statistics: Statistics, hidden: Bool[Tensor, "R N"]
                     ) -> Float[Tensor, ""]:  # fmt: skip
        """Mean over the observed steps of hidden patches; a row with nothing visible has no units and teaches nothing."""
        steps, seen = hidden.repeat_interleave(self.config.patch, dim=-1), observed(rows)
        wanted = steps & seen & (seen & ~steps).any(1, keepdim=True)
        if self.config.loss_in == "original":
            error = self.forecast(raw, statistics) - rows
        else:
            error = raw - statistics.apply(rows).clamp(-12, 12)
        return torch.where(wanted, error, 0).square().sum() / wanted.sum().clamp_min(1)

    # -- forecasting --

    def add_head(self, horizon: int, context: int | None = None, generator: torch.Generator | None = None) -> nn.Linear:
        """A fresh forecasting head for contexts of this length, kept in the model and in its config."""
        n = (context or self.config.context) // self.config.patch
        if horizon < 1 or n < 1 or (n, horizon) in self.config.forecasts:
            raise TsfmError(f"expected a new pair of patches and horizon, both 1 or more, got {n} and {horizon}, "
                            f"there are {self.config.forecasts}")  # fmt: skip
        head = nn.Linear(n * self.config.width, horizon).to(self.mask_token)
        for parameter in head.parameters():
            nn.init.uniform_(parameter, -(head.in_features**-0.5), head.in_features**-0.5, generator=generator)
        self.forecasts[f"{n}x{horizon}"] = head
        self.config = replace(self.config, forecasts=(*self.config.forecasts, (n, horizon)))
        return head

    def head_for(self, patches: int, horizon: int) -> nn.Linear | None:
        """The forecasting head for a context: the shortest that reaches the horizon, else the longest."""
        reach = sorted(h for n, h in self.config.forecasts if n == patches)
        best = next((h for h in reach if h >= horizon), reach[-1] if reach else None)
        return self.forecasts[f"{patches}x{best}"] if best else None

    def go_on(self, rows: Float[Tensor, "R T"], horizon: int) -> Float[Tensor, "R h"]:
        """At most `horizon` next steps in one pass, by a forecasting head or by the reconstruction of patches that lie ahead."""
        c, n = self.config, rows.shape[1] // self.config.patch
        head = self.head_for(n, horizon)
        steps = min(horizon, head.out_features if head is not None else max(1, int(c.mask_ratio * n)) * c.patch)
        z, seen, statistics = self.normalise(rows)
        tokens = self.embed_tokens(z, seen, 0 if head is not None else steps)
        return self.forecast(self.project(self.encode(tokens), tokens, steps, head), statistics)

    @torch.no_grad()
    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float]) -> Float[Tensor, "B V h Q"]:
        """The point forecast at every level; beyond one pass it is taken as observed and the whole read again."""
        rows, chunks = self.fill(rearrange(context, "B V T -> (B V) T")), []
        while (missing := horizon - sum(c.shape[1] for c in chunks)) > 0:
            chunks.append(self.go_on(rows, missing).to(rows.dtype))
            rows = self.fill(torch.cat([rows, chunks[-1]], dim=1))
        point = rearrange(torch.cat(chunks, dim=1), "(B V) h -> B V h 1", B=len(context))
        return point.expand(*point.shape[:-1], len(levels))

    # -- embedding --

    def states(self, x: Float[Tensor, "B V T"], mask: Bool[Tensor, "B V T"] | None = None
               ) -> tuple[Float[Tensor, "B V N D"], Bool[Tensor, "B V N"]]:  # fmt: skip
        """Encoder states of the patches and which of them hold an observation."""
        z, seen, _ = self.normalise(*(None if m is None else rearrange(m, "B V T -> (B V) T") for m in (x, mask)))
        whole = self.seen_patches(seen)
        tokens = self.embed_tokens(z, seen, hidden=~whole)  # for embeddings the authors, too, put the mask token there
        h = self.finish(self.encode(tokens))
        return rearrange(h, "(B V) N D -> B V N D", B=len(x)), rearrange(whole, "(B V) N -> B V N", B=len(x))

    @torch.no_grad()
    def embed(self, x: Float[Tensor, "B V T"]) -> Float[Tensor, "B D"]:
        """Mean state of the observed patches of all variates."""
        h, whole = self.states(rearrange(self.fill(rearrange(x, "B V T -> (B V) T")), "(B V) T -> B V T", B=len(x)))
        return self.pool(h, whole)

    def pool(self, h: Float[Tensor, "B V N D"], whole: Bool[Tensor, "B V N"]) -> Float[Tensor, "B D"]:
        return (h * whole[..., None]).sum((1, 2)) / whole.sum((1, 2)).clamp_min(1)[:, None]

    def sites(self) -> list[HeadSite | MLPSite]:
        found: list[HeadSite | MLPSite] = []
        for i, layer in enumerate(self.layers):
            found += [attention_site("encoder", i, "self", layer.attention, layer.norm_attention), MLPSite("encoder", i, layer.mlp)]
        return found
