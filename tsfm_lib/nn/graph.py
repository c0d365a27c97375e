"""Which variates of a sample read which others, and attention along these edges (Time Tracker, arXiv 2505.15151).

similarity        how alike the amplitude spectra of the variates are, 1 = the same
FrequencyGraph    edges by that similarity: sampled in training, fixed at evaluation
connect           edges as lists of neighbours, `Links`; None means: every variate alone
VariateAttention  causal attention over time and along the edges, gathered (C N m N scores) or dense ((C N)^2)

An adjacency is [B V V], per sample, row = the variate that reads: adjacency[b, i, j] lets tokens of i look at tokens of j. Every
variate reads itself. Rows of a batch are variates, R = B V, variate-major.
"""

from functools import partial
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tsfm_lib.nn.attention import Attention, causal
from tsfm_lib.nn.positions import RoPE

UNRELATED = 2**-0.5  # similarity expected of two independent Gaussian series with one spectrum: see `similarity`


def similarity(amplitudes: Float[Tensor, "B V F"]) -> Float[Tensor, "B V V"]:
    """1 - sum |a_i - a_j| / sum (a_i + a_j) (Bray-Curtis): in [0, 1], whatever the length, the scale and the number of variates.

    Amplitudes of white noise, and of any Gaussian series bin by bin, are Rayleigh variables, and for two of them E|a - b| / E(a + b)
    = 1 - 1 / sqrt(2): unrelated series of one and the same spectrum have a similarity near 0.71, not near 0. A series without
    amplitudes is like no other.

    >>> similarity(torch.tensor([[[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]]))[0, 0].tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    total = amplitudes.sum(-1)
    both = total[..., :, None] + total[..., None, :]
    distance = torch.cdist(amplitudes, amplitudes, p=1.0)
    return torch.where(both > 0, 1 - distance / torch.where(both > 0, both, 1), 0)


class Links(NamedTuple):
    """The neighbours of every variate, itself first, then the strongest; slots that a variate does not need are not real."""

    index: Int[Tensor, "B V m"]
    real: Bool[Tensor, "B V m"]
    pull: Float[Tensor, "B V m"] | None = None  # what is added to the scores of a slot: zeros that carry a gradient to the graph

    def adjacency(self) -> Bool[Tensor, "B V V"]:
        batch, variates, _ = self.index.shape
        empty = torch.zeros(batch, variates, variates, dtype=torch.bool, device=self.index.device)
        return empty.scatter(-1, self.index, self.real)  # the slots of a row name different variates


def connect(edges: Bool[Tensor, "B V V"], strength: Float[Tensor, "B V V"] | None = None, limit: int | None = None,
            pull: Float[Tensor, "B V V"] | None = None) -> Links | None:  # fmt: skip
    """Lists of neighbours, at most `limit` of them, itself included: those of the greatest strength.

    >>> links = connect(torch.tensor([[[0, 1, 1], [0, 0, 0], [0, 1, 0]]]).bool(), torch.tensor([[[0.0, 0.2, 0.9]] * 3]))
    >>> links.index.tolist(), links.real.int().tolist()
    ([[[0, 2, 1], [1, 0, 2], [2, 1, 0]]], [[[1, 1, 1], [1, 0, 0], [1, 1, 0]]])
    >>> connect(torch.zeros(1, 3, 3).bool()) is None
    True
    """
    own = torch.eye(edges.shape[-1], dtype=torch.bool, device=edges.device)
    edges = edges | own
    strength = edges.float() if strength is None else strength
    most = min(int(edges.sum(-1).max()), limit or edges.shape[-1])
    if most == 1:
        return None
    rank = torch.where(edges, strength, -torch.inf).masked_fill(own, torch.inf)
    index = rank.sort(dim=-1, descending=True, stable=True).indices[..., :most]
    return Links(index, edges.gather(-1, index), None if pull is None else pull.masked_fill(own, 0).gather(-1, index))


class FrequencyGraph(nn.Module):
    """Edges between variates with similar amplitude spectra: P = alpha S', S' = (S - 0.71) / (1 - 0.71) clipped to 0..1.

    Training samples each edge with probability P: a Gumbel-softmax over the two logits log P and log(1 - P), hard, which is a logistic
    draw. Both directions of a pair share their draw unless `directed`. Evaluation is fixed: an edge where S' > 1 - alpha (or `cut`).
    So alpha = 0 has no edges and alpha = 1 all that noise does not explain.

    There is nothing to learn in this graph, and a mask would let no gradient through. `learnable` is our extension: a weight per
    frequency, reached through `Links.pull`, which is log(A) of the straight-through A, 0 in value.
    """

    def __init__(self, length: int, alpha: float | int, *, cut: float | int | None = None, temperature: float | int = 1.0,
                 neighbours: int | None = None, directed: bool = False, learnable: bool = False):  # fmt: skip
        super().__init__()
        self.length, self.alpha, self.cut = length, alpha, 1 - alpha if cut is None else cut
        self.temperature, self.neighbours, self.directed = temperature, neighbours, directed
        self.log_weight = nn.Parameter(torch.zeros(length // 2)) if learnable else None

    def similarity(self, z: Float[Tensor, "B V T"]) -> Float[Tensor, "B V V"]:
        """S' of normalised series, zero where missing. They are filled up to `length`, so that short ones share the bins."""
        amplitudes = torch.fft.rfft(z, n=self.length).abs()[..., 1:]  # without the mean
        if self.log_weight is not None:
            amplitudes = amplitudes * self.log_weight.exp()
        return ((similarity(amplitudes) - UNRELATED) / (1 - UNRELATED)).clamp(0, 1)

    def forward(self, z: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Links | None:
        if self.alpha == 0 or z.shape[1] == 1:
            return None
        found = self.similarity(z)
        if not self.training:
            return connect(found > self.cut, found, self.neighbours)
        p = self.alpha * found
        u = torch.rand(p.shape, generator=generator, device=p.device, dtype=p.dtype)
        if not self.directed:
            u = u.triu() + u.triu(1).mT
        logit = torch.logit(p, eps=1e-6) + torch.logit(u, eps=1e-6)
        edges, pull = (logit > 0) & (p > 0), None
        if self.log_weight is not None:
            soft = torch.sigmoid(logit / self.temperature)
            pull = torch.log(1 + soft - soft.detach())
        return connect(edges, found.detach(), self.neighbours, pull)


class VariateAttention(nn.Module):
    """Attention of the tokens of every variate to earlier tokens, and those of the same time, of itself and of its neighbours.

    Rotary positions are time indices, the same for all variates. Per head a bias is added to the scores: `same` within a variate,
    `other` between two. Without links `same` would be added to all scores of a query alike and `other` to none, so both are left out:
    their gradient is zero, and a graph that finds nothing gives the same bytes as no graph.
    """

    def __init__(self, width: int, n_heads: int, *, dense: bool = False, rope_base: float | int = 10000.0, rope_fraction: float | int = 0.5,
                 other: float | int = -2.0, bias: bool = True, dropout: float | int = 0.0):  # fmt: skip
        super().__init__()
        self.dense = dense
        self.attention = Attention(width, n_heads, qkv_bias=bias, out_bias=bias, dropout=float(dropout))
        self.rope = RoPE(self.attention.head_dim, float(rope_base), "interleaved", float(rope_fraction))
        self.same = nn.Parameter(torch.zeros(n_heads))
        self.other = nn.Parameter(torch.full((n_heads,), float(other)))

    def forward(self, h: Float[Tensor, "R N D"], seen: Bool[Tensor, "R N"], links: Links | None = None,
                at: Float[Tensor, "R N"] | None = None) -> Float[Tensor, "R N D"]:  # fmt: skip
        """`seen`: tokens that others may look at (each always sees itself); `at`: positions, 0, 1, 2, ... in every variate."""
        past = causal(h.shape[1], device=h.device)
        if links is None:
            visible = past & seen[:, None, None] | torch.eye(len(past), dtype=torch.bool, device=h.device)
            return self.attention(h, mask=visible, rotary=partial(self.rope, q_pos=at)) + 0 * (self.same.sum() + self.other.sum())
        return (self.over_all if self.dense else self.over_neighbours)(h, seen, past, links, at)

    def over_neighbours(self, h: Float[Tensor, "R N D"], seen: Bool[Tensor, "R N"], past: Bool[Tensor, "N N"], links: Links,
                        at: Float[Tensor, "R N"] | None) -> Float[Tensor, "R N D"]:  # fmt: skip
        """Every row looks at the keys of its m neighbours side by side: N x mN scores a row."""
        batch, variates, m = links.index.shape
        offset = variates * torch.arange(batch, device=h.device)[:, None, None]
        rows = (links.index + offset).flatten()
        fetch = lambda x: rearrange(x.index_select(0, rows), "(R m) H N K -> R H (m N) K", m=m)
        open_slots = links.real.flatten()[:, None] & seen[rows]  # (R m) N
        own = torch.zeros(len(past), m, len(past), dtype=torch.bool, device=h.device)
        own[:, 0] = torch.eye(len(past), dtype=torch.bool, device=h.device)
        mask = past[:, None] & rearrange(open_slots, "(R m) N -> R 1 1 m N", m=m) | own  # R 1 N m N
        bias = torch.cat([self.same[:, None], self.other[:, None].expand(-1, m - 1)], dim=1)[None]  # 1 H m
        if links.pull is not None:
            bias = bias + links.pull.flatten(0, 1)[:, None]  # R H m
        bias = bias[:, :, None].repeat_interleave(len(past), dim=-1)
        return self.attention(h, mask=mask.flatten(-2), bias=bias, rotary=partial(self.rope, q_pos=at), fetch=fetch)

    def over_all(self, h: Float[Tensor, "R N D"], seen: Bool[Tensor, "R N"], past: Bool[Tensor, "N N"], links: Links,
                 at: Float[Tensor, "R N"] | None) -> Float[Tensor, "R N D"]:  # fmt: skip
        """The same written out: all tokens of a sample in one sequence, adjacency (x) causal mask."""
        (batch, variates, _), n = links.index.shape, len(past)
        long = lambda x: x.reshape(batch, variates * n, *x.shape[2:])
        mask = links.adjacency()[:, :, None, :, None] & past[:, None] & long(seen).reshape(batch, 1, 1, variates, n)  # B V N V N
        mask = mask.reshape(batch, 1, variates * n, variates * n) | torch.eye(variates * n, dtype=torch.bool, device=h.device)
        grow = lambda x: x.repeat_interleave(n, -1).repeat_interleave(n, -2)
        own = torch.eye(variates, dtype=torch.bool, device=h.device)
        bias = torch.where(own, self.same[:, None, None], self.other[:, None, None])[None]  # 1 H V V
        if links.pull is not None:
            bias = bias + links.pull.new_zeros(batch, variates, variates).scatter(-1, links.index, links.pull)[:, None]
        at = torch.arange(n, device=h.device).repeat(variates) if at is None else long(at)
        y = self.attention(long(h), mask=mask, bias=grow(bias), rotary=partial(self.rope, q_pos=at))
        return y.reshape(h.shape)
