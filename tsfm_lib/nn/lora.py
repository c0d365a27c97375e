"""Low-rank adaptation (LoRA, arXiv 2106.09685) as an argument.

Used by `nn.attention` and `nn.feedforward` (every projection can take a pair) and by multi-scale fine-tuning, where one model runs
with several sets of pairs in one backward pass. No module remembers an "active adapter": the pair of a projection is handed over as
`delta`, so checkpointing, compilation and two adapters in one graph just work.
"""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[Tensor, Tensor]  # A [r, inputs], B [outputs, r]; or a pair for every token: [N, r, inputs], [N, outputs, r]
Delta = Mapping[str, Pair]


def adapted(linear: nn.Linear, x: Float[Tensor, "... I"], pair: Pair | None = None) -> Float[Tensor, "... O"]:
    """`linear(x) + x A^T B^T`; without a pair just `linear(x)`.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 1.0]]))
    >>> adapted(layer, torch.tensor([[1.0, 2.0]]), (torch.tensor([[1.0, 0.0]]), torch.tensor([[10.0]])))
    tensor([[13.]], grad_fn=<AddBackward0>)
    """
    y = linear(x)
    if pair is None:
        return y
    a, b = pair
    if a.ndim == 2:
        return y + F.linear(F.linear(x, a), b)
    return y + torch.einsum("...nr,nor->...no", torch.einsum("...ni,nri->...nr", x, a), b)


class LoRA(nn.Module):
    """Pairs (A, B) for named Linears. B starts at zero, so the adapted model starts as the model it adapts.

    `linears` maps names (as in `model.named_modules()`) to the Linears; `delta(prefix)` hands out the pairs of one module, keyed by
    what follows the prefix: `model.layer(h, delta=lora.delta("encoder.0.attention"))`. B comes out multiplied by alpha / rank.

    >>> model = nn.ModuleDict({"q": nn.Linear(4, 3), "v": nn.Linear(4, 3), "out": nn.Linear(3, 4)})
    >>> lora = LoRA.of(nn.ModuleDict({"block": model}), ("q", "v"), rank=2)
    >>> {name: (tuple(a.shape), tuple(b.shape)) for name, (a, b) in lora.delta("block").items()}
    {'q': ((2, 4), (3, 2)), 'v': ((2, 4), (3, 2))}
    """

    def __init__(self, linears: Mapping[str, nn.Linear], rank: int, alpha: float | int | None = None, *,
                 generator: torch.Generator | None = None):  # fmt: skip
        super().__init__()
        if not linears or rank < 1:
            raise ValueError(f"LoRA needs at least one Linear and a rank of 1 or more, got {len(linears)} Linears and rank {rank}")
        self.names, self.rank, self.gain = tuple(linears), rank, (alpha if alpha is not None else rank) / rank
        self.a, self.b = nn.ParameterList(), nn.ParameterList()
        for linear in linears.values():
            bound = linear.in_features**-0.5
            a = torch.empty(rank, linear.in_features, device=linear.weight.device, dtype=linear.weight.dtype)
            self.a.append(nn.Parameter(a.uniform_(-bound, bound, generator=generator)))
            self.b.append(nn.Parameter(linear.weight.new_zeros(linear.out_features, rank)))

    @classmethod
    def of(cls, model: nn.Module, endings: Iterable[str], rank: int, alpha: float | int | None = None,
           generator: torch.Generator | None = None) -> "LoRA":  # fmt: skip
        """Pairs for every Linear of `model` whose name ends in one of `endings`, for example ("q", "k", "v")."""
        endings = set(endings)
        chosen = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.rpartition(".")[2] in endings}
        return cls(chosen, rank, alpha, generator=generator)

    def delta(self, prefix: str = "") -> dict[str, Pair]:
        """The pairs of the Linears directly below `prefix`."""
        start = f"{prefix}." if prefix else ""
        pairs = {n: (a, b * self.gain) for n, a, b in zip(self.names, self.a, self.b)}
        return {n[len(start):]: pair for n, pair in pairs.items() if n.startswith(start) and "." not in n[len(start):]}
