"""Mixtures of experts: who is chosen, how the chosen are run, how the load is kept even, how even it is.

Kairos         bias inside the softmax, surplus "null" experts that take gate mass and do nothing, balance by gate mass
Time Tracker   one choice per channel, k routed experts of feed-forward size; bias only selects, as in DeepSeek-V3
Balancing by a bias instead of a loss: arXiv 2408.15664; the sigmoid score with a selecting bias: arXiv 2412.19437.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.errors import TsfmError

SCORES: dict[str, Callable[[Tensor], Tensor]] = {"softmax": lambda x: x.softmax(-1), "sigmoid": torch.sigmoid, "given": lambda x: x}


def top_k_gates(logits: Float[Tensor, "... E"], k: int, bias: Float[Tensor, " E"] | None = None, where: str = "softmax",
                score: str = "softmax", renormalise: bool = True) -> tuple[Int[Tensor, "... k"], Float[Tensor, "... k"]]:  # fmt: skip
    """The k best experts of each row and their gates, best first; among equals the lower number wins.

    where="softmax" adds the bias to the logits, so that it changes the gates; where="selection" adds it to the scores for the choice
    alone. `renormalise` makes the chosen gates sum to one. score="given": the logits are scores already.

    >>> logits = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    >>> top_k_gates(logits, 3)[0]
    tensor([[1, 2, 0]])
    >>> top_k_gates(torch.zeros(1, 2), 1, bias=torch.tensor([0.0, 1.0]), where="selection", renormalise=False)
    (tensor([[1]]), tensor([[0.5000]]))
    """
    if where not in ("softmax", "selection") or score not in SCORES:
        raise ValueError(f"where is 'softmax' or 'selection', score {', '.join(SCORES)}, got {where!r} and {score!r}")
    if not 1 <= k <= logits.shape[-1]:
        raise ValueError(f"cannot choose {k} of {logits.shape[-1]} experts")
    if bias is not None and where == "softmax":
        logits = logits + bias
    scores = SCORES[score](logits)
    ranked = scores + bias if bias is not None and where == "selection" else scores
    indices = torch.sort(ranked, dim=-1, descending=True, stable=True).indices[..., :k]  # topk breaks ties as it pleases
    gates = scores.gather(-1, indices)
    return indices, gates / gates.sum(-1, keepdim=True).clamp_min(torch.finfo(gates.dtype).tiny) if renormalise else gates


def run_experts(x: Float[Tensor, "n *S D"], experts: nn.ModuleList, indices: Int[Tensor, "n k"], gates: Float[Tensor, "n *G k"],
                grouped: bool = False) -> Float[Tensor, "n *S D"]:  # fmt: skip
    """sum over the chosen experts of gate * expert(x): a loop over experts, each run once on the rows that chose it.

    A row is a token [n D], or a whole sequence [n N D] that is sent to its experts as one; gates are per row [n k], or per token of the
    rows [n N k]. Indices beyond the list are null experts: they take their gate and return nothing. `grouped` replaces the loop by two
    or three grouped matrix products over rows sorted by expert, for `FeedForward` experts of one size (float32 on a CPU, bfloat16 on
    CUDA): worth it for many small experts on few tokens.

    >>> double, negate = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> double.weight.data.fill_(2), negate.weight.data.fill_(-1)
    (tensor([[2.]]), tensor([[-1.]]))
    >>> chosen, gates = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    >>> run_experts(torch.ones(2, 1), nn.ModuleList([double, negate]), chosen, gates).tolist()
    [[0.5], [-0.25]]
    """
    weights = gates.movedim(-1, 1).reshape(*indices.shape, *gates.shape[1:-1], *(1,) * (x.ndim - gates.ndim + 1))  # n k *S 1
    out = torch.zeros_like(x)
    if grouped:
        flat = indices.flatten()
        order = flat.argsort(stable=True)
        order = order[flat[order] < len(experts)]
        rows, slot = order // indices.shape[1], order % indices.shape[1]
        y = _grouped(x[rows], experts, flat[order])
        return out.index_add(0, rows, (weights[rows, slot] * y).to(out.dtype))
    for e, expert in enumerate(experts):
        rows, slot = (indices == e).nonzero(as_tuple=True)
        if len(rows):
            out = out.index_add(0, rows, (weights[rows, slot] * expert(x[rows])).to(out.dtype))
    return out


def _grouped(x: Float[Tensor, "n *S D"], experts: nn.ModuleList, chosen: Int[Tensor, "n"]) -> Float[Tensor, "n *S D"]:
    """Every row through its expert; the rows are sorted by expert."""
    first, each, at = experts[0], math.prod(x.shape[1:-1]), x.device.type
    dtype = torch.get_autocast_dtype(at) if torch.is_autocast_enabled(at) else x.dtype  # autocast does not know grouped_mm
    whole = 16 // dtype.itemsize
    if any(size % whole for size in first.up.weight.shape):
        raise TsfmError(f"grouped experts need widths that are multiples of {whole}, got {list(first.up.weight.shape)}: use the loop")
    ends = (torch.bincount(chosen, minlength=len(experts)).cumsum(0) * each).int()
    owner = chosen.repeat_interleave(each)

    def through(name: str, rows: Tensor) -> Tensor:
        linears = [getattr(expert, name) for expert in experts]
        y = F.grouped_mm(rows.to(dtype), torch.stack([linear.weight.mT for linear in linears]).to(dtype), offs=ends)
        return y if linears[0].bias is None else y + torch.stack([linear.bias for linear in linears])[owner]

    rows = x.flatten(0, -2)
    h = through("up", rows)
    h = first.activation(h) if first.gate is None else first.activation(through("gate", rows)) * h
    return through("down", F.dropout(h, first.dropout, first.training)).reshape(x.shape)


def balance(bias: Float[Tensor, " E"], load: Tensor, target: Tensor, rate: float, rule: str = "mass") -> Float[Tensor, " E"]:
    """The next bias: up for experts below their target share, down for those above; `load` is counts or gate mass per expert.

    rule="mass" moves by rate * (target - share), rule="sign" by the sign of that alone.

    >>> balance(torch.zeros(2), torch.tensor([3.0, 1.0]), torch.tensor([0.5, 0.5]), rate=1.0)
    tensor([-0.2500,  0.2500])
    >>> balance(torch.zeros(2), torch.tensor([3.0, 1.0]), torch.tensor([0.5, 0.5]), rate=0.1, rule="sign")
    tensor([-0.1000,  0.1000])
    """
    if rule not in ("mass", "sign"):
        raise ValueError(f"rule must be 'mass' or 'sign', got {rule!r}")
    total = load.sum()
    if total <= 0:
        return bias.clone()
    error = target.to(bias) - (load / total).to(bias)
    return bias + rate * (error.sign() if rule == "sign" else error)


def utilisation(indices: Int[Tensor, "*S"], n_experts: int) -> Float[Tensor, " E"]:
    """The share of all choices that fell on each expert.

    >>> utilisation(torch.tensor([[0, 1], [1, 2]]), 4)
    tensor([0.2500, 0.5000, 0.2500, 0.0000])
    """
    counts = torch.bincount(indices.flatten(), minlength=n_experts).float()
    return counts / counts.sum().clamp_min(1)


def entropy(share: Float[Tensor, " E"]) -> float:
    """Evenness of a load: its entropy over that of the even load, 1 = even, 0 = all on one expert.

    >>> entropy(torch.tensor([0.5, 0.5])), entropy(torch.tensor([1.0, 0.0]))
    (1.0, 0.0)
    """
    if len(share) < 2:
        return 1.0
    return float(torch.special.entr(share.double()).sum() / torch.log(torch.tensor(float(len(share)), dtype=torch.float64)))


def max_violation(share: Float[Tensor, " E"]) -> float:
    """How far the busiest expert is above the mean load, as a multiple of it (MaxVio of arXiv 2408.15664).

    >>> max_violation(torch.tensor([0.75, 0.25]))
    0.5
    """
    return float(share.max() / share.mean() - 1)
