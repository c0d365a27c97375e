"""AdaLoRA (arXiv 2303.10512): low-rank pairs P diag(lambda) Q that end with more rank where it matters and less elsewhere.

Training begins with half as much rank again as asked for. Each triplet (an entry of lambda, a column of P, a row of Q) has an importance,
the running mean of |weight x gradient|; between a tenth and seven tenths of the steps the number of triplets falls along a cubic curve to
what was asked for, and the least important ones of the whole model are set to zero. A penalty keeps P and Q near orthogonal. The paper's
product of importance and uncertainty is left at importance.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tsfm_lib.nn.lora import LoRA

KEPT, PENALTY = 0.85, 0.1  # of the running mean at every step; weight of the penalty


class AdaLoRA(LoRA):
    """Pairs (Q, P diag(lambda)) in the place of (A, B)."""

    def __init__(self, plain: LoRA, generator: torch.Generator | None = None):
        """As many pairs as `plain` has, for the same Linears."""
        nn.Module.__init__(self)
        self.names, self.rank, self.gain = plain.names, plain.rank, plain.gain
        self.start, self.budget = -(-3 * plain.rank // 2), plain.rank * len(plain.names)
        normal = lambda *shape: nn.Parameter(0.02 * torch.randn(shape, generator=generator))
        self.a = nn.ParameterList(normal(self.start, a.shape[1]) for a in plain.a)  # Q
        self.p = nn.ParameterList(normal(b.shape[0], self.start) for b in plain.b)
        self.size = nn.ParameterList(nn.Parameter(torch.zeros(self.start)) for _ in plain.a)  # lambda
        self.register_buffer("importance", torch.zeros(len(plain.names), self.start), persistent=False)

    @property
    def b(self) -> list[Float[Tensor, "O r"]]:
        return [p * size for p, size in zip(self.p, self.size)]

    def penalty(self) -> Float[Tensor, ""]:
        away = lambda gram: (gram - torch.eye(len(gram), device=gram.device)).square().sum()
        return PENALTY * sum(away(q @ q.T) + away(p.T @ p) for q, p in zip(self.a, self.p)) / len(self.names)

    def kept(self, share: float) -> int:
        """How many triplets are left when this share of the steps is done."""
        left = min(1.0, max(0.0, (0.7 - share) / 0.6))
        return self.budget + round((len(self.names) * self.start - self.budget) * left**3)

    @torch.no_grad()
    def adjust(self, share: float) -> None:
        """After a step of the optimiser, while the gradients are still there."""
        felt = lambda w: torch.zeros_like(w) if w.grad is None else (w * w.grad).abs()
        now = torch.stack([felt(s) + felt(p).mean(0) + felt(q).mean(1) for q, p, s in zip(self.a, self.p, self.size)])
        self.importance.lerp_(now, 1 - KEPT)
        keep = self.kept(share)
        if keep < self.importance.numel():
            chosen = self.importance.flatten().topk(keep).indices
            mask = torch.zeros_like(self.importance).flatten().index_fill(0, chosen, 1).view_as(self.importance)
            for size, row in zip(self.size, mask):
                size.mul_(row)
