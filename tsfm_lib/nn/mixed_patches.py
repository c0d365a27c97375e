"""Mixture-of-size dynamic patching (MoS-DP, arXiv 2509.25826): a router that chooses the sizes at which each stretch is read.

    Router          which sizes a longest patch is read at: top K of a biased softmax over sizes and null experts
    lay_out         every longest patch split into tokens of its finest chosen size
    MixedPatches    a token's embedding: its own span and the larger ones around it, weighted by the router

Shapes: B rows, T time, N longest patches, n tokens, S sizes, E experts (sizes and null experts), D width.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tsfm_lib.errors import one_of
from tsfm_lib.nn.feedforward import activation_named
from tsfm_lib.nn.moe import balance, top_k_gates

QUIRKS = {
    "bias_moves_in_eval": "the router's bias is updated by forecasts too",
    "empty_patches_count": "patches without an observation take part in the load of the experts",
}


@dataclass(frozen=True)
class MixedPatchesConfig:
    """Patch lengths run coarse to fine; one length alone means fixed patches, and `null_experts=0, active_experts=len(patch_lengths)`
    reads every patch at every size."""

    patch_lengths: tuple[int, ...] = (128, 64, 32)
    null_experts: int = 2  # Z
    active_experts: int = 3  # K
    target_shares: tuple[float, ...] | None = None  # tau over sizes and null experts; None: equal shares
    balance_rate: float = 1e-3  # eta_b
    router: str = "linear"  # linear: the paper's | energy: sees |differences| too | mlp: one hidden layer (both ours, as controls)
    fusion: str = "ancestors"  # ancestors: every chosen size contributes | finest: only the token's own
    width: int = 256
    hidden: int = 1024
    activation: str = "relu"
    dropout: float = 0.0
    quirks: tuple[str, ...] = ()

    def __post_init__(self):
        if any(a <= b or a % b for a, b in pairwise(self.patch_lengths)):
            raise ValueError(f"each patch length must divide the one before it, got {self.patch_lengths}")
        if any(self.patch_lengths[0] != p * 2**i for i, p in enumerate(self.patch_lengths)):
            raise ValueError(f"patch lengths must halve from one to the next, got {self.patch_lengths}")
        if not 1 <= self.active_experts <= self.experts:
            raise ValueError(f"{self.active_experts} active experts out of {self.experts}: choose between 1 and {self.experts}")
        if self.target_shares is not None and (len(self.target_shares) != self.experts or abs(sum(self.target_shares) - 1) > 1e-6):
            raise ValueError(f"target_shares needs {self.experts} shares that sum to 1, got {self.target_shares}")
        one_of(self, router=("linear", "energy", "mlp"), fusion=("ancestors", "finest"))

    @property
    def experts(self) -> int:
        return len(self.patch_lengths) + self.null_experts


class Routing(NamedTuple):
    """What the router decided for every longest patch."""

    indices: Int[Tensor, "B N k"]  # chosen experts, best first; sizes coarse to fine, then null experts
    gates: Float[Tensor, "B N k"]  # their shares, null experts included
    share: Float[Tensor, "B N S"]  # shares among the chosen sizes alone
    finest: Int[Tensor, "B N"]  # index of the smallest chosen size


class Router(nn.Module):
    """Which sizes a longest patch is read at: top K of softmax(W x + b) over sizes and null experts.

    W is linear in the raw normalised values, hence odd in them: it cannot measure energy, which the two other routers can.
    """

    def __init__(self, config: MixedPatchesConfig):
        super().__init__()
        self.config = config
        length, experts = config.patch_lengths[0], config.experts
        self.score = {
            "linear": lambda: nn.Linear(length, experts, bias=False),
            "energy": lambda: nn.Linear(2 * length - 1, experts, bias=False),
            "mlp": lambda: nn.Sequential(nn.Linear(length, length), nn.ReLU(), nn.Linear(length, experts, bias=False)),
        }[config.router]()
        self.register_buffer("bias", torch.zeros(experts))
        shares = config.target_shares or (1 / experts,) * experts
        self.register_buffer("target", torch.tensor(shares), persistent=False)

    def forward(self, patches: Float[Tensor, "B N P"], observed: Bool[Tensor, "B N"]) -> Routing:
        c, sizes = self.config, len(self.config.patch_lengths)
        seen = torch.cat([patches, patches.diff(dim=-1).abs()], dim=-1) if c.router == "energy" else patches
        indices, gates = top_k_gates(self.score(seen), c.active_experts, bias=self.bias, where="softmax")
        mass = gates.new_zeros(*gates.shape[:-1], c.experts).scatter(-1, indices, gates)  # B N E
        if self.training or "bias_moves_in_eval" in c.quirks:
            self.rebalance(mass, torch.ones_like(observed) if "empty_patches_count" in c.quirks else observed)
        real = mass[..., :sizes]
        share = real / real.sum(-1, keepdim=True).clamp_min(torch.finfo(real.dtype).tiny)  # null experts only remove mass
        level = torch.where(indices < sizes, indices, 0)  # nothing but null experts chosen: one token of the longest patch
        finest = level.amax(-1)
        if c.fusion == "finest":
            share = share * nn.functional.one_hot(finest, sizes)  # still its own share, so that the router learns
        return Routing(indices, gates, share, finest)

    @torch.no_grad()
    def rebalance(self, mass: Float[Tensor, "B N E"], counted: Bool[Tensor, "B N"]) -> None:
        """b <- b + eta (target - share of the mass): load balancing without an auxiliary loss."""
        if self.config.experts > 1 and counted.any():
            load = mass[counted].sum(0)
            self.bias.copy_(balance(self.bias, load, self.target, self.config.balance_rate, rule="mass"))


class Tokens(NamedTuple):
    """Where each token lies. Slots beyond a row's own tokens have size 0."""

    size: Int[Tensor, "B n"]
    start: Int[Tensor, "B n"]  # first step of the span
    patch: Int[Tensor, "B n"]  # the longest patch it belongs to
    observed: Bool[Tensor, "B n"]  # at least one step of the span is observed


def lay_out(finest: Int[Tensor, "B N"], seen: Bool[Tensor, "B T"], longest: int) -> Tokens:
    """Splits every longest patch into spans of its finest chosen size, rows filled up to the longest one.

    >>> t = lay_out(torch.tensor([[1, 0]]), torch.ones(1, 8, dtype=torch.bool), 4)
    >>> t.size.tolist(), t.start.tolist()
    ([[2, 2, 4]], [[0, 2, 4]])
    """
    count = 2**finest  # B N: tokens of each patch
    end = count.cumsum(1)
    slot = torch.arange(int(end[:, -1].max()), device=end.device).expand(len(finest), -1)  # B n
    patch = torch.searchsorted(end, slot.contiguous(), right=True)
    real = patch < finest.shape[1]
    patch = patch.clamp_max(finest.shape[1] - 1)
    size = longest // count.gather(1, patch)
    start = patch * longest + (slot - (end - count).gather(1, patch)) * size
    start, size = torch.where(real, start, 0), torch.where(real, size, 0)
    before = nn.functional.pad(seen.long().cumsum(1), (1, 0))  # B T+1: observed steps before each step
    return Tokens(size, start, patch, before.gather(1, start + size) > before.gather(1, start))


class MixedPatches(nn.Module):
    """A token is the gated sum of its own span and the larger spans around it (its ancestors), each through its size's linear map,
    before one shared non-linearity: e = W_o act(sum g_i h_i) + c_o + sum g_i r_i."""

    def __init__(self, config: MixedPatchesConfig):
        super().__init__()
        self.config = config
        self.into = nn.ModuleList(nn.Linear(2 * p, config.hidden + config.width) for p in config.patch_lengths)  # h and r side by side
        self.act = activation_named(config.activation)
        self.out = nn.Linear(config.hidden, config.width)
        self.dropout = nn.Dropout(config.dropout)
        with torch.no_grad():
            for p, linear in zip(config.patch_lengths, self.into):
                linear.weight[:, p:] = 0  # the mask starts without a say

    def forward(self, z: Float[Tensor, "B T"], seen: Bool[Tensor, "B T"], tokens: Tokens, routing: Routing) -> Float[Tensor, "B n D"]:
        longest, rows = self.config.patch_lengths[0], torch.arange(len(z), device=z.device)[:, None]
        total = 0
        for level, (size, linear) in enumerate(zip(self.config.patch_lengths, self.into)):
            spans = torch.cat([rearrange(x, "B (m p) -> B m p", p=size) for x in (z, seen.to(z.dtype))], dim=-1)
            gate = routing.share[..., level].repeat_interleave(longest // size, dim=1)  # B m
            total = total + (linear(spans) * gate[..., None])[rows, tokens.start // size]  # B n hidden+D
        hidden, skip = total.split([self.config.hidden, self.config.width], dim=-1)
        return self.out_of(hidden) + skip

    def out_of(self, hidden: Float[Tensor, "B n h"]) -> Float[Tensor, "B n D"]:
        return self.dropout(self.out(self.act(hidden)))
