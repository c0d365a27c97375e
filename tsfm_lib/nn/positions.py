"""Where a token stands: rotary (arXiv 2104.09864), sinusoidal (arXiv 1706.03762) and relative positions (T5, arXiv 1910.10683).

RoPE            Moirai (half of the channels, by time id), Time Tracker, TimesFM ("half" layout), Toto and Kairos ("interleaved")
rotate          the bare rotation, for models that make their own angles (Kairos: one set of frequencies per series)
RelativeBias    Chronos, Chronos-Bolt, MOMENT: owned by the stack, computed once and handed to every layer as `bias`
XPos            rotary positions whose scores also fade with distance (arXiv 2212.10554): Mantis V2, Toto
sinusoidal      Mantis, MOMENT, PatchTST
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def rotate(x: Float[Tensor, "*X"], angles: Float[Tensor, "*A"], layout: str = "half") -> Float[Tensor, "*X"]:
    """Turn pairs of channels of `x [B H N K]` by `angles [... N P]` (broadcast over what is missing in front).

    "half" pairs channel j with j + P, "interleaved" pairs 2j with 2j + 1. With fewer angles than K / 2 only the first 2 P channels
    turn. One layout cannot stand in for the other: their weights differ by a permutation.

    >>> quarter = torch.tensor([[math.pi / 2]])
    >>> rotate(torch.tensor([[1.0, 0.0]]), quarter).round()
    tensor([[-0., 1.]])
    """
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    turned, rest = x[..., : 2 * angles.shape[-1]], x[..., 2 * angles.shape[-1] :]
    if layout == "half":
        a, b = turned.chunk(2, dim=-1)
        out = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    elif layout == "interleaved":
        a, b = turned[..., ::2], turned[..., 1::2]
        out = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        raise ValueError(f"layout must be 'half' or 'interleaved', got {layout!r}")
    return torch.cat((out, rest), dim=-1) if rest.shape[-1] else out


class RoPE(nn.Module):
    """Rotary positions: pair j turns by position * base^(-j / pairs), so q . k depends on the distance only.

    Use it as the `rotary` of an attention, or `functools.partial(rope, q_pos=..., k_pos=...)` when positions are not 0, 1, 2, ...
    Positions may be fractions and may differ by row (shape N or B N); `k_pos` follows `q_pos` where only that is given.
    `fraction` is the share of the channels that turn.
    """

    def __init__(self, head_dim: int, base: float = 10000.0, layout: str = "half", fraction: float = 1.0):
        super().__init__()
        pairs = int(head_dim * fraction) // 2
        if pairs < 1:
            raise ValueError(f"rotary positions turn pairs of channels: a head of {head_dim} with fraction {fraction} has none")
        self.layout = layout
        self.register_buffer("theta", (base ** (-torch.arange(pairs, dtype=torch.float64) / pairs)).float(), persistent=False)

    def angles(self, positions: Tensor) -> Float[Tensor, "... N P"]:
        found = positions[..., None].to(self.theta.dtype) * self.theta
        return found[:, None] if positions.ndim == 2 else found  # B 1 N P: the same for all heads

    def forward(self, q: Float[Tensor, "B H N K"], k: Float[Tensor, "B H M K"], q_pos: Tensor | None = None,
                k_pos: Tensor | None = None) -> tuple[Float[Tensor, "B H N K"], Float[Tensor, "B H M K"]]:  # fmt: skip
        k_pos = k_pos if k_pos is not None else q_pos if q_pos is not None else torch.arange(k.shape[-2], device=k.device)
        q_pos = q_pos if q_pos is not None else torch.arange(q.shape[-2], device=q.device)
        return rotate(q, self.angles(q_pos), self.layout), rotate(k, self.angles(k_pos), self.layout)


class XPos(nn.Module):
    """Rotary positions with a decay: q is multiplied and k divided by s^((t - middle) / 512) per channel (arXiv 2212.10554).

    `dim` channels turn, in interleaved pairs. Both channels of a pair have the same s, so that q . k depends on the distance only;
    `halves=True` gives channel c the s of number c mod dim / 2 instead, which is how some released models were trained.
    """

    def __init__(self, dim: int, base: float = 10000.0, scale_base: float = 512.0, halves: bool = False):
        super().__init__()
        if dim % 2 or dim < 2:
            raise ValueError(f"rotary positions turn pairs of channels: dim must be even, got {dim}")
        even = torch.arange(0, dim, 2, dtype=torch.float64)
        decay = (even + 0.4 * dim) / (1.4 * dim)
        self.scale_base = scale_base
        self.register_buffer("theta", (base ** (-even / dim)).float(), persistent=False)
        self.register_buffer("decay", (decay.repeat(2) if halves else decay.repeat_interleave(2)).float(), persistent=False)

    def forward(self, q: Float[Tensor, "B H N K"], k: Float[Tensor, "B H N K"], start: int | None = None
                ) -> tuple[Float[Tensor, "B H N K"], Float[Tensor, "B H N K"]]:  # fmt: skip
        """`start`: place of the first token, for decoding step by step. The middle is then 0, so that earlier keys stay what they were;
        it cancels in q . k, channel by channel."""
        at = torch.arange(q.shape[-2], device=q.device, dtype=self.theta.dtype) + (start or 0)
        middle = (len(at) - 1) // 2 if start is None else 0
        scale = self.decay ** ((at - middle) / self.scale_base)[:, None]  # N dim
        scale = torch.nn.functional.pad(scale, (0, q.shape[-1] - scale.shape[-1]), value=1.0).to(q.dtype)
        angles = at[:, None] * self.theta
        return rotate(q, angles, "interleaved") * scale, rotate(k, angles, "interleaved") / scale


def sinusoidal(n: int, width: int) -> Float[Tensor, "n width"]:
    """The fixed table of sines (even channels) and cosines (odd channels) with wavelengths from 2 pi to 10000 * 2 pi.

    >>> sinusoidal(2, 4).round(decimals=2)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8400, 0.5400, 0.0100, 1.0000]])
    """
    steps = torch.arange(0, width, 2, dtype=torch.float64)
    angles = torch.arange(n, dtype=torch.float64)[:, None] * torch.exp(-math.log(10000.0) / width * steps)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[:, :width].float()


def bucket(distance: Int[Tensor, "*S"], buckets: int = 32, max_distance: int = 128, bidirectional: bool = True) -> Int[Tensor, "*S"]:
    """T5's bucket of a distance (key minus query): exact when near, logarithmic when far, one for all beyond `max_distance`.

    >>> bucket(torch.tensor([-200, -1, 0, 1, 200])).tolist(), bucket(torch.tensor([-20, -3, 0, 3]), bidirectional=False).tolist()
    ([15, 1, 0, 17, 31], [17, 3, 0, 0])
    """
    if bidirectional:
        buckets //= 2
        start, far = (distance > 0).long() * buckets, distance.abs()
    else:
        start, far = torch.zeros_like(distance), (-distance).clamp_min(0)
    exact = buckets // 2
    log = torch.log(far.clamp_min(1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    return start + torch.where(far < exact, far, (exact + log.long()).clamp_max(buckets - 1))


class RelativeBias(nn.Module):
    """A learned bias per head and bucketed distance: `bias(n, m) -> [H, N, M]`, to be added to the scores of every layer.

    The n queries stand at `start` and behind it, the m keys at 0 and behind it."""

    def __init__(self, n_heads: int, buckets: int = 32, max_distance: int = 128, bidirectional: bool = True):
        super().__init__()
        self.buckets, self.max_distance, self.bidirectional = buckets, max_distance, bidirectional
        self.table = nn.Embedding(buckets, n_heads)

    def forward(self, n: int, m: int | None = None, start: int = 0) -> Float[Tensor, "H N M"]:
        at = self.table.weight.device
        distance = torch.arange(n if m is None else m, device=at) - torch.arange(start, start + n, device=at)[:, None]  # N M
        return self.table(bucket(distance, self.buckets, self.max_distance, self.bidirectional)).permute(2, 0, 1)
