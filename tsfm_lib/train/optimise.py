"""How a step moves the weights: the schedule, the two optimisers, and the running average of the weights."""

import copy
import math
import re
from itertools import groupby

import torch
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError
from tsfm_lib.train.recipe import Recipe
from tsfm_lib.train.state import model_tensors


def rate_factor(step: int, total: int | None, warmup: int, final_fraction: float, cycles: int = 1) -> float:
    """Linear warm-up times a cosine that reaches `final_fraction` at the last step of the budget, `cycles` times in a row.

    While a budget in minutes is not yet a number of steps (`total` None) the cosine counts as 1.

    >>> [round(rate_factor(step, 4, 2, 0.0), 3) for step in range(4)]
    [0.427, 0.5, 0.146, 0.0]
    >>> [round(rate_factor(step, 4, 0, 0.0, cycles=2), 3) for step in range(4)]
    [0.5, 0.0, 0.5, 0.0]
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if total is None:
        return rise
    done = (step + 1) * cycles / total
    within = done - max(0, math.ceil(done) - 1)
    return rise * (final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * within)) / 2)


def average_decay(step: int, cap: float) -> float:
    """Young averages forget fast, so that the random start is gone early.

    >>> average_decay(0, 0.998), average_decay(100_000, 0.998)
    (0.5, 0.998)
    """
    return min(cap, 1 - 1 / (step / 4 + 2))


def split_parameters(model: nn.Module, matrices: str) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The 2-D weights whose names match, and the rest."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise TsfmError("the model has no parameter that asks for a gradient: set requires_grad on what should be trained")
    for_muon = [p for name, p in trained if p.ndim == 2 and min(p.shape) > 1 and re.search(matrices, name)]
    chosen = {id(p) for p in for_muon}
    return for_muon, [p for _, p in trained if id(p) not in chosen]


QUINTIC = (3.4445, -4.7750, 2.0315)      # of the Newton-Schulz step: singular values below one grow fast and settle near it


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest orthogonal matrices, roughly: all singular values of [n, rows, columns] end up near one (0.6 to 1.2).

    >>> x = orthogonal(torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0)))
    >>> bool(((torch.linalg.svdvals(x) - 0.9).abs() < 0.3).all())
    True
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    a, b, c = QUINTIC
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum made orthogonal (rates matched to AdamW's update size, arXiv 2502.16982).

    As torch.optim.Muon, but all matrices of one shape at once, and in float32 on a CPU: bfloat16, which that one always uses, is
    emulated by most of them, and a step then takes ten times as long.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float, weight_decay: float):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            moved = sorted((p for p in group["params"] if p.grad is not None), key=lambda p: p.shape)
            for shape, same in groupby(moved, key=lambda p: p.shape):
                alike, updates = list(same), []
                for p in alike:
                    buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - momentum)
                    updates.append(p.grad.lerp(buffer, momentum))
                stacked = torch.stack(updates).to(torch.bfloat16 if alike[0].is_cuda else torch.float32)
                torch._foreach_mul_(alike, 1 - rate * group["weight_decay"])
                steps = orthogonal(stacked).to(alike[0].dtype).unbind()
                torch._foreach_add_(alike, steps, alpha=-0.2 * rate * max(shape) ** 0.5)


def optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon and AdamW; either is left out when it has nothing to do."""
    matrices, rest = split_parameters(model, recipe.matrices)
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(Muon(matrices, recipe.matrix_rate, recipe.momentum, recipe.weight_decay))
    if rest:
        made.append(torch.optim.AdamW(rest, lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True))
    for optimiser in made:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return made


def set_rates(made: list[torch.optim.Optimizer], factor: float) -> float:
    """Scale every peak rate; returns the rate of the last optimiser (AdamW's), the one that is logged."""
    for optimiser in made:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * factor
    return made[-1].param_groups[0]["lr"]


class Average:
    """A copy of the model whose floating-point tensors trail the trained ones (Polyak); the others are copied."""

    def __init__(self, model: nn.Module, cap: float):
        self.cap = cap
        self.model = copy.deepcopy(model).requires_grad_(False)
        mine, theirs = model_tensors(self.model), model_tensors(model)
        names = [n for n in mine if mine[n].is_floating_point()]
        self._trailing: tuple[list[Tensor], list[Tensor]] = ([mine[n] for n in names], [theirs[n].detach() for n in names])
        self._copied = [(mine[n], theirs[n].detach()) for n in mine if n not in set(names)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the weights of `step` (0, 1, ...) were updated."""
        decay = average_decay(step, self.cap)
        torch._foreach_lerp_(self._trailing[0], self._trailing[1], 1 - decay)
        for mine, theirs in self._copied:
            mine.copy_(theirs)
