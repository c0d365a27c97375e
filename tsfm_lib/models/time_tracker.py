"""Time Tracker (arXiv 2505.15151, first version): experts per series, and a graph between series that fine-tuning switches on.

There is no public code, and of the paper we know the abstract, the opening and summaries by others: no equation, no table. So this file
says of every point whether it is given, put together from the summaries and from relatives with public code, or unknown and our choice.

| point | given | put together (source) or our choice |
|---|---|---|
| input | instance norm, patches of P, one linear map | deviation of the window; mask beside the values, padding in front (ours) |
| patches | next-patch prediction, F = P | stride P; with a smaller stride the target starts where the patch ends |
| stack | decoder only, J_CI blocks, then J_CM blocks | one kind of block: the second kind is handed the graph; pre-LayerNorm (ours) |
| attention | any-variate causal, adjacency (x) causal mask | rotary half a head, pairs, base 10000 (Timer-XL, arXiv 2410.04803) |
| | rotary by time, u and v per head | bias outside the scale (Moirai, arXiv 2402.02592); v = -2 at the start: mixing begins gently (ours) |
| experts | shared and private, a cluster each, top K per series | mean sigmoid affinity of the tokens; GELU, width 2D (ours) |
| balance | a bias instead of a loss | sign rule, never in the gates (arXiv 2408.15664, 2412.19437), centred; rate 1e-3 |
| graph | RFFT, distance of amplitudes, Gumbel softmax, binary | Bray-Curtis similarity against the level of noise: `nn.graph` (ours) |
| | stronger for alpha -> 1 | P = alpha S'; at evaluation S' > 1 - alpha, nothing drawn (ours) |
| stages | channels apart in pretraining, mixed in fine-tuning | alpha = 0, then `mixed(alpha=...)`; the balance stands still there (ours) |
| loss | | squared error of every next patch in normalised units; targets within 12 deviations (ours) |
| forecast | generative | a patch at a time, normalised anew, graph from the true context only (ours) |
| sizes, optimiser, dropout, temperature | unknown | see the config |

What follows from the design and is no mistake here:
* `routing="channel"` (the paper's) lets a token's experts depend on later tokens, instance norm and graph read the whole window: only the
  last token is free of that. `supervision="last"` trains it alone; `channel_prefix` and `token` route causally, and with one of them
  `supervision="prefix"` trains many tokens without a leak (but for the graph, where there is one).
* Apart, u and v cancel in the softmax or are unused: pretraining cannot learn them.
* The graph has no parameter, so nothing in it is learnt. `learnable=True` (weights per frequency) is our extension.
* Adding a patch changes routing and normalisation of all tokens, so nothing can be cached while a forecast is rolled out.
The model gives points: `predict_quantiles` repeats them.

Shapes: B samples, V variates, R = B V rows, T steps, N tokens, D width, E private experts, k chosen, h steps forecast by a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError, one_of
from tsfm_lib.nn.feedforward import FeedForward, ResidualMLP
from tsfm_lib.nn.graph import FrequencyGraph, Links, VariateAttention, connect
from tsfm_lib.nn.modes import evaluating
from tsfm_lib.nn.moe import SCORES, balance, run_experts, top_k_gates
from tsfm_lib.nn.objectives import random_cuts
from tsfm_lib.nn.patching import left_pad, patch
from tsfm_lib.nn.scaling import Statistics, observed, standardise
from tsfm_lib.nn.sites import HeadSite, MLPSite, attention_site

LIMIT = 12.0  # deviations: one outlier must not own the step


@dataclass(frozen=True)
class TimeTrackerConfig:
    """Sizes of one Time Tracker. `alpha=0` is the channel-independent model of pretraining, `alpha>0` mixes channels."""

    context: int = 384
    patch: int = 24  # P
    stride: int | None = None  # S; None: P, no overlap
    horizon: int = 24  # steps that a token forecasts; F = P in the paper, more is the control with a direct head
    width: int = 64
    heads: int = 4
    independent_layers: int = 2  # J_CI
    mixed_layers: int = 1  # J_CM
    dropout: float | int = 0.0
    # experts
    shared_experts: int = 1
    private_experts: int = 8  # without any, the model is dense
    active_experts: int = 2  # K
    hidden: int = 128  # of one expert
    activation: str = "gelu"
    gated: bool = False
    routing: str = "channel"  # channel: one choice per series | channel_prefix: per token, from its past | token: from itself
    score: str = "sigmoid"  # or softmax, over the private experts
    gate: str = "channel"  # channel: one gate per series | token: the choice is shared, the gates are not
    balance_rate: float | int = 1e-3  # per step, in training only
    grouped_experts: bool = False  # grouped matrix products instead of the loop
    # attention
    rope_base: float | int = 10000.0
    rope_fraction: float | int = 0.5  # share of a head that turns
    other_bias: float | int = -2.0  # v at the start
    attention: str = "gathered"  # dense: the same with a mask over all pairs of tokens
    # graph
    alpha: float | int = 0.0
    cut: float | int | None = None  # similarity above which there is an edge at evaluation; None: 1 - alpha
    temperature: float | int = 1.0  # of the straight-through gradient
    neighbours: int | None = None  # the most variates that one may read, itself included
    directed: bool = False  # True: the two directions of a pair are drawn apart
    learnable: bool = False  # our extension: weights of the frequencies
    # ours, for small models: none is the paper's
    supervision: str = "all"  # all: every token | prefix: scaled by a random prefix, tokens behind it | last: the last token alone
    error: str = "squared"  # or absolute
    ends: str = "linear"  # linear: first and last map | mlp: residual MLPs of twice the width
    asinh: bool = False

    def __post_init__(self):
        stride = self.stride or self.patch
        if not 1 <= stride <= self.patch <= self.context or (self.context - self.patch) % stride:
            raise TsfmError(f"patches of {self.patch} every {stride} do not fill a context of {self.context}: choose sizes that do")
        if self.horizon < 1 or self.width % self.heads or min(self.independent_layers, self.mixed_layers) < 0:
            raise TsfmError(f"expected a horizon of 1 or more, a width that the heads divide and no negative number of layers, got "
                            f"{self.horizon}, {self.width} / {self.heads}, {self.independent_layers} and {self.mixed_layers}")  # fmt: skip
        if not 0 <= self.active_experts <= self.private_experts or (self.active_experts == 0) != (self.private_experts == 0):
            raise TsfmError(f"expected between 1 and {self.private_experts} active of the private experts, got {self.active_experts}")
        if self.shared_experts + self.active_experts < 1:
            raise TsfmError("a block without shared and without active private experts does nothing: expected at least one of them")
        if not 0 <= self.alpha <= 1 or self.temperature <= 0 or (self.neighbours is not None and self.neighbours < 1):
            raise TsfmError(f"expected alpha within 0..1, a temperature above 0 and at least 1 neighbour, got {self.alpha}, "
                            f"{self.temperature} and {self.neighbours}")  # fmt: skip
        one_of(self, routing=("channel", "channel_prefix", "token"), score=("sigmoid", "softmax"), gate=("channel", "token"),
               attention=("gathered", "dense"), supervision=("all", "prefix", "last"), error=("squared", "absolute"),
               ends=("linear", "mlp"))  # fmt: skip
        if self.gate == "token" and self.routing != "channel":
            raise TsfmError(f"gate='token' is an option of routing='channel', routing={self.routing!r} has gates per token anyway")

    @property
    def step(self) -> int:
        return self.stride or self.patch

    @property
    def layers(self) -> int:
        return self.independent_layers + self.mixed_layers

    @classmethod
    def tiny(cls) -> "TimeTrackerConfig":
        return cls(context=64, patch=8, horizon=8, width=16, heads=2, independent_layers=1, hidden=32, private_experts=4,
                   active_experts=3, alpha=0.9)  # fmt: skip


# ---- Experts -----------------------------------------------------------------------------------------------------------------------


class Routing(NamedTuple):
    """Who was chosen: one row per series (routing by channel) or per token."""

    indices: Int[Tensor, "n k"]
    gates: Float[Tensor, "n *N k"]
    load: Float[Tensor, " E"]  # how many series (tokens) with an observation went to each expert


class Router(nn.Module):
    """Affinity of tokens to clusters, its mean over the series, the K experts with the highest mean plus bias.

    The gates are the means alone, made to sum to one. No gradient reaches the bias: it is moved by `rebalance`, once per step.
    """

    def __init__(self, config: TimeTrackerConfig):
        super().__init__()
        self.config = c = config
        self.clusters = nn.Parameter(torch.randn(c.private_experts, c.width) * c.width**-0.5)  # G
        self.register_buffer("bias", torch.zeros(c.private_experts))

    def affinity(self, h: Float[Tensor, "R N D"], seen: Bool[Tensor, "R N"]) -> Float[Tensor, "R N E"]:
        """What the choice of each token is made from. Empty patches have no say where there are others."""
        own = SCORES[self.config.score]((h @ self.clusters.mT).float())
        if self.config.routing == "token":
            return own
        weight = (seen | ~seen.any(1, keepdim=True))[..., None].to(own.dtype)  # R N 1
        if self.config.routing == "channel":
            return ((own * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)).expand_as(own)
        count = weight.cumsum(1)
        return torch.where(count > 0, (own * weight).cumsum(1) / count.clamp_min(1), own)

    def forward(self, h: Float[Tensor, "R N D"], seen: Bool[Tensor, "R N"]) -> Routing:
        c, scores = self.config, self.affinity(h, seen)
        scores, counted = (scores[:, 0], seen.any(1)) if c.routing == "channel" else (scores.flatten(0, 1), seen.flatten())
        indices, gates = top_k_gates(scores, c.active_experts, self.bias, where="selection", score="given")
        if c.gate == "token":
            own = SCORES[c.score]((h @ self.clusters.mT).float())
            chosen = own.gather(-1, indices[:, None].expand(-1, own.shape[1], -1))  # R N k
            gates = chosen / chosen.sum(-1, keepdim=True).clamp_min(torch.finfo(chosen.dtype).tiny)
        load = torch.zeros_like(self.bias).scatter_add(0, indices.flatten(), counted.repeat_interleave(c.active_experts).to(self.bias))
        return Routing(indices, gates, load)

    @torch.no_grad()
    def rebalance(self, load: Float[Tensor, " E"]) -> None:
        """Up by the rate for experts below the mean load, down for those above, then centred."""
        moved = balance(self.bias, load, torch.full_like(self.bias, 1 / len(self.bias)), float(self.config.balance_rate), rule="sign")
        self.bias.copy_(moved - moved.mean())


class Experts(nn.Module):
    """Shared experts for all, the chosen private ones by their gates."""

    def __init__(self, config: TimeTrackerConfig):
        super().__init__()
        self.config = c = config
        make = lambda n: nn.ModuleList(FeedForward(c.width, c.hidden, c.activation, c.gated, dropout=float(c.dropout)) for _ in range(n))
        self.shared, self.private = make(c.shared_experts), make(c.private_experts)

    def forward(self, h: Float[Tensor, "R N D"], routing: Routing | None) -> Float[Tensor, "R N D"]:
        out = sum((expert(h) for expert in self.shared), torch.zeros_like(h))
        if routing is None:
            return out
        rows = h if self.config.routing == "channel" else h.flatten(0, 1)
        return out + run_experts(rows, self.private, routing.indices, routing.gates, self.config.grouped_experts).view_as(h)


# ---- Blocks and model --------------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Attention over time and, where there are links, along them; then the experts."""

    def __init__(self, config: TimeTrackerConfig):
        super().__init__()
        c = config
        self.norm_attention, self.norm_experts = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.attend = VariateAttention(c.width, c.heads, dense=c.attention == "dense", rope_base=c.rope_base,
                                       rope_fraction=c.rope_fraction, other=c.other_bias, dropout=c.dropout)  # fmt: skip
        self.router = Router(c) if c.private_experts else None
        self.experts = Experts(c)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, h: Float[Tensor, "R N D"], seen: Bool[Tensor, "R N"], links: Links | None
                ) -> tuple[Float[Tensor, "R N D"], Routing | None]:  # fmt: skip
        h = h + self.dropout(self.attend(self.norm_attention(h), seen, links))
        x = self.norm_experts(h)
        routing = None if self.router is None else self.router(x, seen)
        return h + self.dropout(self.experts(x, routing)), routing


class Encoded(NamedTuple):
    """What the stack makes of a batch; notebooks draw from it."""

    hidden: Float[Tensor, "B V N D"]
    seen: Bool[Tensor, "B V N"]  # tokens with an observation
    routing: list[Routing]  # one per block, rows (B V) or (B V N); empty for a dense model
    links: Links | None


class TimeTracker(nn.Module):
    """Decoder over patches with experts per series; its last blocks also read neighbours in the graph."""

    probabilistic = False
    causal = False  # instance norm, channel routing and graph read the whole window
    order_free = True

    def __init__(self, config: TimeTrackerConfig):
        super().__init__()
        self.config = c = config
        self.inputs = nn.Linear(2 * c.patch, c.width) if c.ends == "linear" else ResidualMLP(2 * c.patch, 2 * c.width, c.width)
        self.graph = FrequencyGraph(c.context, c.alpha, cut=c.cut, temperature=c.temperature, neighbours=c.neighbours, directed=c.directed,
                                    learnable=c.learnable)  # fmt: skip
        self.layers = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, c.horizon) if c.ends == "linear" else ResidualMLP(c.width, 2 * c.width, c.horizon)

    def mixed(self, **changes: Any) -> "TimeTracker":
        """A copy for fine-tuning: the same weights, the graph switched on, the balance standing still (unless `changes` say otherwise).

        From a model that has never mixed, u and v are not taken over: it had nothing to learn them from.
        """
        with torch.random.fork_rng(devices=[]):
            other = TimeTracker(replace(self.config, **{"alpha": 0.5, "balance_rate": 0.0, **changes}))
        untaught = (".same", ".other") if self.config.alpha == 0 else ()
        other.load_state_dict(other.state_dict() | {n: t for n, t in self.state_dict().items() if not n.endswith(untaught)})
        return other.to(self.norm.weight).train(self.training)

    # -- values in --

    def window(self, x: Float[Tensor, "B V T"]) -> Float[Tensor, "B V T2"]:
        """The last `context` steps, filled in front until patches fit: the last one ends at the forecast origin."""
        c, x = self.config, x[..., -self.config.context :]
        x = left_pad(x, c.patch) if x.shape[-1] < c.patch else x
        return nn.functional.pad(x, ((c.patch - x.shape[-1]) % c.step, 0), value=torch.nan)

    def normalise(self, x: Float[Tensor, "B V T"]) -> tuple[Float[Tensor, "B V T"], Bool[Tensor, "B V T"], Statistics]:
        """Deviations from the mean, 0 where nothing was seen. A constant row is scaled by its level."""
        z, statistics = standardise(x, kind="asinh" if self.config.asinh else "std", constant="level")
        return z.to(self.norm.weight.dtype), observed(x), statistics

    # -- the network --

    def links(self, z: Float[Tensor, "B V T"], adjacency: Bool[Tensor, "B V V"] | None = None,
              generator: torch.Generator | None = None) -> Links | None:  # fmt: skip
        """The model's own graph (drawn in training), or a given one, [b, i, j]: i reads j."""
        return self.graph(z, generator) if adjacency is None else connect(adjacency)

    def encode(self, z: Float[Tensor, "B V T"], seen: Bool[Tensor, "B V T"], links: Links | None = None) -> Encoded:
        """Normalised windows to hidden states of the tokens."""
        c, batch = self.config, len(z)
        cut = lambda x: patch(rearrange(x, "B V T -> (B V) T"), c.patch, c.step)  # R N P
        tokens, shown = cut(z), cut(seen)
        h, some, routings = self.inputs(torch.cat([tokens, shown.to(z.dtype)], dim=-1)), shown.any(-1), []
        for i, layer in enumerate(self.layers):
            h, routing = layer(h, some, links if i >= c.independent_layers else None)
            routings += [] if routing is None else [routing]
        unfold = lambda x: x.unflatten(0, (batch, -1))
        return Encoded(unfold(self.norm(h)), unfold(some), routings, links)

    def forward(self, context: Float[Tensor, "B V T"], adjacency: Bool[Tensor, "B V V"] | None = None) -> Float[Tensor, "B V h"]:
        """The next `horizon` steps, in the units of the series."""
        z, seen, statistics = self.normalise(self.window(context))
        return self.read_out(self.encode(z, seen, self.links(z, adjacency)), statistics)

    def read_out(self, encoded: Encoded, statistics: Statistics) -> Float[Tensor, "B V h"]:
        y = self.head(encoded.hidden[:, :, -1]).double()
        return statistics.invert(y.clamp(-8, 8) if self.config.asinh else y)

    # -- training --

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None,
             adjacency: Bool[Tensor, "B V V"] | None = None) -> Float[Tensor, ""]:  # fmt: skip
        """Error of the steps behind every token, in normalised units; the last `horizon` steps of the batch are only a target.

        In training mode this also moves the biases of the routers, so call it once per optimiser step.
        """
        c = self.config
        if batch.shape[-1] <= c.horizon:
            raise TsfmError(f"a batch needs a context before its {c.horizon} future steps, got {batch.shape[-1]} steps in all")
        context, future = self.window(batch[..., : -c.horizon]), batch[..., -c.horizon :]
        z, seen, statistics = self.normalise(context)
        links = self.links(z, adjacency, generator)  # spectra of whole windows, all in units of their own deviation
        wanted = patch(seen, c.patch, c.step).any(-1).cummax(-1).values  # B V N: from the first observation on
        if c.supervision == "prefix":
            z, statistics, wanted = self.scale_by_prefix(context, wanted, generator)
        elif c.supervision == "last":
            wanted = wanted & (torch.arange(wanted.shape[-1], device=z.device) == wanted.shape[-1] - 1)
        encoded = self.encode(z, seen, links)
        target = statistics.apply(torch.cat([context, future], dim=-1)).clamp(-LIMIT, LIMIT)
        target = patch(target[..., c.patch :], c.horizon, c.step)  # B V N h
        wanted = wanted[..., None] & target.isfinite()
        error = self.head(encoded.hidden) - target.nan_to_num(0.0).to(z.dtype)
        error = torch.where(wanted, error.square() if c.error == "squared" else error.abs(), 0)
        if self.training and c.balance_rate:
            for layer, routing in zip(self.layers, encoded.routing):
                layer.router.rebalance(routing.load)
        return error.sum() / wanted.sum().clamp_min(1)

    def scale_by_prefix(self, context: Float[Tensor, "B V T"], some: Bool[Tensor, "B V N"], generator: torch.Generator | None
                        ) -> tuple[Float[Tensor, "B V T"], Statistics, Bool[Tensor, "B V N"]]:  # fmt: skip
        """Every row in units of a random prefix of its own, and the tokens from its last on: no statistic has seen their targets."""
        tokens = some.shape[-1]
        first = (tokens - some.sum(-1)).clamp_max(tokens - 1)  # the first token with an observation
        ends, _ = random_cuts(first.flatten(), tokens, 1, generator)
        ends = ends.view(*first.shape, 1)  # B V 1, in tokens
        steps = torch.arange(context.shape[-1], device=context.device)
        before = steps < (ends - 1) * self.config.step + self.config.patch
        _, _, statistics = self.normalise(context.masked_fill(~before, torch.nan))
        z = statistics.apply(context).clamp(-LIMIT, LIMIT).nan_to_num(0.0).to(self.norm.weight.dtype)
        return z, statistics, some & (torch.arange(tokens, device=context.device) >= ends - 1)

    # -- forecasting --

    @torch.no_grad()
    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float], *,
                          adjacency: Bool[Tensor, "B V V"] | None = None) -> Float[Tensor, "B V h Q"]:  # fmt: skip
        """The point forecast at every level; beyond one pass it is appended and the window read again, the graph is that of the context."""
        past, links = context, None
        with evaluating(self):
            for begun in range(0, horizon, self.config.horizon):
                z, seen, statistics = self.normalise(self.window(past))
                links = links if begun else self.links(z, adjacency)
                past = torch.cat([past, self.read_out(self.encode(z, seen, links), statistics).to(past.dtype)], dim=-1)
        point = past[..., context.shape[-1] :][..., :horizon, None]
        return point.expand(*point.shape[:-1], len(levels))

    def sites(self) -> list[HeadSite | MLPSite]:
        found: list[HeadSite | MLPSite] = []
        for i, layer in enumerate(self.layers):
            kind = "time" if i < self.config.independent_layers else "self"
            found.append(attention_site("decoder", i, kind, layer.attend.attention, layer.norm_attention))
            found.append(MLPSite("decoder", i, layer.experts))
        return found
