"""The one attention of the library (arXiv 1706.03762). Every model calls `attend`, nearly all through `Attention`.

Chronos, Chronos-Bolt, MOMENT   scale=1, a relative-position bias that the stack computes once and hands to each layer
Kairos                          scale=1, a rotary callable that closes over the series' own frequencies, in self- and cross-attention
Moirai                          qk_norm, rotary by time id, a bias per head for same / other variate, a mask for packed rows
Time Tracker                    the same bias, and `fetch`: keys and values of the neighbours in a graph (nn.graph)
TimesFM, Toto                   a rotary callable that also normalises or scales q and k (it receives both and returns both)
MSFT                            `delta`: low-rank pairs of the projections

Official checkpoints with fused projections are split when they are loaded, so q, k and v are separate Linears everywhere.
The softmax is torch's fused one, unless somebody has put a hook on the tap `pattern`: then it is computed openly, in float32, and the
tap sees (and may replace) the pattern. A query that may look nowhere gets the plain mean of all values: defined, finite, harmless.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.nn.lora import Delta, adapted

Rotary = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Tap(nn.Identity):
    """A named access point: plain torch forward hooks on it read or replace what passes through."""

    @property
    def active(self) -> bool:
        return bool(self._forward_hooks or self._forward_pre_hooks)


def causal(n: int, m: int | None = None, device: torch.device | str | None = None) -> Bool[Tensor, "N M"]:
    """True where query i may look at key j: the queries are the last `n` of `m` positions.

    >>> causal(2, 3).int()
    tensor([[1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    m = n if m is None else m
    return torch.ones(n, m, dtype=torch.bool, device=device).tril(m - n)


def attend(q: Float[Tensor, "B H N K"], k: Float[Tensor, "B H M K"], v: Float[Tensor, "B H M L"], *,
           mask: Bool[Tensor, "..."] | None = None, bias: Float[Tensor, "..."] | None = None, scale: float | None = None,
           dropout: float = 0.0, tap: Tap | None = None) -> Float[Tensor, "B H N L"]:  # fmt: skip
    """softmax(scale q k^T + bias) v over the keys that the mask allows (True = may look).

    Mask and bias are anything that broadcasts to B H N M. scale=None is 1 / sqrt(K).

    >>> q, k, v = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 3, 2), torch.tensor([[[[0.0], [3.0], [9.0]]]])
    >>> attend(q, k, v).item(), attend(q, k, v, mask=torch.tensor([True, True, False])).item()
    (4.0, 1.5)
    >>> attend(q, k, v, mask=torch.zeros(3, dtype=torch.bool)).item()          # nowhere to look: the mean of all values
    4.0
    """
    blind = None
    if mask is not None:
        blind = ~mask.any(-1, keepdim=True)  # ... N 1
        mask = mask | blind  # softmax over an empty set is NaN, in the gradient too
    if tap is not None and tap.active:
        scores = (q.float() @ k.float().transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)  # B H N M
        if bias is not None:
            scores = scores + bias.float()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        pattern = torch.softmax(scores, dim=-1)
        if blind is not None:
            pattern = torch.where(blind, 1 / k.shape[-2], pattern)
        return F.dropout(tap(pattern).to(v.dtype), dropout, training=dropout > 0) @ v
    allowed = mask
    if bias is not None:
        bias = bias.to(q.dtype)
        allowed = bias if mask is None else torch.where(mask, bias, -torch.inf)
    if allowed is not None:
        allowed = allowed[(None,) * (4 - allowed.ndim)]  # with three axes torch leaves its fused path: 2.5 times as slow
    if bias is not None and bias.requires_grad and blind is None and not dropout:  # torch has no fused path for a bias that learns
        scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2) + allowed
        return torch.softmax(scores, dim=-1) @ v
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout, scale=scale)
    return out if blind is None else torch.where(blind, v.mean(-2, keepdim=True), out)


class Past:
    """What an attention has read in earlier calls, for decoding step by step: self-attention adds its keys and values (turned, where there
    is a rotary), cross-attention keeps those of its memory (and then has no rotary)."""

    def __init__(self):
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    @property
    def length(self) -> int:
        return 0 if self.k is None else self.k.shape[-2]

    def add(self, k: Float[Tensor, "B H M K"], v: Float[Tensor, "B H M L"]) -> tuple[Tensor, Tensor]:
        self.k, self.v = (k, v) if self.k is None else (torch.cat([self.k, k], dim=-2), torch.cat([self.v, v], dim=-2))
        return self.k, self.v


class Attention(nn.Module):
    """Projections around `attend`. Keys and values come from `memory` where there is one (cross-attention).

    The order is: project, normalise q and k per head (`qk_norm`, a factory that gets the head width), rotate, attend, project out.
    A model that rotates first and normalises then does both in its `rotary` callable. `fetch` brings rotated keys, and values, of other
    rows to those that look at them, B H M K -> B H L K (graph attention: every token is projected once). To take out a head, zero its
    slice of the *input* of `out` (a forward pre-hook there): behind `out` the heads are mixed.

    >>> layer = Attention(width=8, n_heads=2)
    >>> layer(torch.zeros(1, 5, 8)).shape, layer(torch.zeros(1, 5, 8), torch.zeros(1, 3, 8)).shape
    (torch.Size([1, 5, 8]), torch.Size([1, 5, 8]))
    """

    def __init__(self, width: int, n_heads: int, head_dim: int | None = None, *, memory_width: int | None = None, qkv_bias: bool = False,
                 out_bias: bool = False, scale: float | None = None, qk_norm: Callable[[int], nn.Module] | None = None,
                 dropout: float = 0.0):  # fmt: skip
        super().__init__()
        if head_dim is None and width % n_heads:
            raise ValueError(f"a width of {width} does not divide into {n_heads} heads: pass head_dim or a width that does")
        self.n_heads, self.head_dim, self.scale, self.dropout = n_heads, head_dim or width // n_heads, scale, dropout
        inner, memory_width = self.n_heads * self.head_dim, memory_width or width
        self.q = nn.Linear(width, inner, bias=qkv_bias)
        self.k = nn.Linear(memory_width, inner, bias=qkv_bias)
        self.v = nn.Linear(memory_width, inner, bias=qkv_bias)
        self.out = nn.Linear(inner, width, bias=out_bias)
        self.q_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.pattern = Tap()
        self.kept: list[int] | None = None  # numbers that the heads had before others were pruned: rows of a bias that layers share

    def split(self, x: Float[Tensor, "B N I"]) -> Float[Tensor, "B H N K"]:
        return x.unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)

    def forward(self, x: Float[Tensor, "B N D"], memory: Float[Tensor, "B M W"] | None = None, *,
                mask: Bool[Tensor, "..."] | None = None, bias: Float[Tensor, "..."] | None = None, rotary: Rotary | None = None,
                fetch: Callable[[Tensor], Tensor] | None = None, delta: Delta | None = None,
                past: Past | None = None) -> Float[Tensor, "B N D"]:  # fmt: skip
        source, delta = x if memory is None else memory, delta or {}
        q = self.q_norm(self.split(adapted(self.q, x, delta.get("q"))))  # B H N K
        known = past is not None and memory is not None and past.length > 0  # this memory was read before
        if known:
            k, v = past.k, past.v
        else:
            k = self.k_norm(self.split(adapted(self.k, source, delta.get("k"))))  # B H M K
            v = self.split(adapted(self.v, source, delta.get("v")))  # B H M K
        if rotary is not None:
            q, k = rotary(q, k)
        if fetch is not None:
            k, v = fetch(k), fetch(v)
        if past is not None and not known:
            k, v = past.add(k, v)
        if bias is not None and self.kept is not None:
            bias = bias[..., self.kept, :, :]
        dropout = self.dropout if self.training else 0.0
        heads = attend(q, k, v, mask=mask, bias=bias, scale=self.scale, dropout=dropout, tap=self.pattern)
        return adapted(self.out, heads.transpose(1, 2).flatten(2), delta.get("out"))  # B N (H K) -> B N D
