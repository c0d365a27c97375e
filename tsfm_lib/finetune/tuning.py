"""One function for every way to fine-tune a model, so that what is fair is written once.

Equal for all methods: the windows and their order, the number of learning rates tried, the most steps, the rule when to stop and what
it looks at, which is the squared error of the final forecast on the original steps of the validation windows (never a training loss: with
weights of scales that are trained, those fall without any progress). The state with the lowest such error is kept, also that before the
first step; the learning rate with the lowest is the one that is reported. With `Budget.seconds` runs are cut by their CPU time instead.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tsfm_lib import checkpoints
from tsfm_lib.errors import TsfmError, nearest
from tsfm_lib.finetune.choosing import choose_scales, scale_points
from tsfm_lib.finetune.design import Design, Method, method, trainable
from tsfm_lib.finetune.mixing import stacked
from tsfm_lib.finetune.multiscale import MultiScale
from tsfm_lib.finetune.targets import Target
from tsfm_lib.models import MODELS
from tsfm_lib.train.state import seed_for

WARMUP = 10  # steps until the learning rate is reached; from there on it stays, as published


@dataclass(frozen=True)
class Budget:
    """What one method may spend."""

    steps: int = 300  # at most, for each learning rate
    batch: int = 64
    rates: int = 2  # learning rates tried
    every: int = 25  # steps from one validation to the next
    patience: int = 4  # validations without a new best
    count: int = 128  # windows of a validation
    seconds: float | int | None = None  # of CPU time for the steps of one run; then `steps` does not count

    def __post_init__(self):
        if min(self.steps, self.batch, self.rates, self.every, self.patience, self.count) < 1:
            raise TsfmError(f"a budget counts from 1 up, got {self}")


BUDGETS = {
    "quick": Budget(steps=40, batch=32, rates=1, every=10, count=56),
    "laptop": Budget(),
    "full": Budget(steps=3000, batch=256, rates=3, every=100, patience=5, count=1024),
}


@dataclass(frozen=True)
class Tuned:
    """A forecaster and how it came about."""

    model: Any
    facts: dict[str, Any]  # method, trainable, rate, steps, seconds, ms_per_step, val_MSE, weights of the scales
    curve: pd.DataFrame  # step, loss, val_MSE, w0, w1, ... at every validation of the chosen rate


def fit(model: nn.Module, data: Target, how: str | Design | Method = "msft", budget: str | Budget = "quick", seed: int = 0, *,
        progress: bool = False) -> Tuned:  # fmt: skip
    """`model` fine-tuned on a target by a method's name or a design of your own; the model that is handed in stays as it is."""
    budget, (design, rates, start) = budget_of(budget), method(how)
    name = how if isinstance(how, str) else "design"
    if not rates:
        return Tuned(model, {"method": name, "trainable": 0, **_spent(0, 0.0), "val_MSE": data.val.scores(model)["MSE"]}, pd.DataFrame())
    if start == "random":
        model = checkpoints.build(architecture(model), model.config, seed).to(next(model.parameters()))
    if design.scales is None:
        design = replace(design, scales=choose_scales(model, data))
    make = lambda: MultiScale(model, design, data.context, data.horizon, seed, data.together)
    found = search(make, rates, data, budget, seed, progress=progress)
    return replace(found, facts={"method": name, "scales": design.scales} | found.facts)


def search(make: Callable[[], nn.Module], rates: tuple[float, ...], data: Target, budget: Budget, seed: int, *,
           loss: Callable[..., Tensor] | None = None, progress: bool = False) -> Tuned:  # fmt: skip
    """The best of the first `budget.rates` learning rates. What `make` makes has a `loss(batch, generator)`, or is given one."""
    runs = [run(make(), rate, data, budget, seed, loss, progress) for rate in rates[: budget.rates]]
    best = min(runs, key=lambda tuned: tuned.facts["val_MSE"])
    total = sum(tuned.facts["seconds"] for tuned in runs)
    return replace(best, facts=best.facts | {"rates": len(runs), "seconds_all_rates": total})


def run(module: nn.Module, rate: float, data: Target, budget: Budget, seed: int, loss: Callable[..., Tensor] | None = None,
        progress: bool = False) -> Tuned:  # fmt: skip
    """One learning rate, to the end or until the validation has not improved for a while."""
    stream, device = data.stream(budget.batch, seed), next(module.parameters()).device
    optimiser = torch.optim.AdamW(_groups(module, rate), betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    best, stale, step, spent, losses, rows = (np.inf, 0, {}), 0, 0, 0.0, [], []
    total = budget.steps if budget.seconds is None else None
    bar = tqdm(total=total, unit="step", **({} if progress else {"disable": True}))
    with torch.random.fork_rng([device.index] if device.type == "cuda" else []), bar:
        while True:
            done = step >= total if total is not None else spent >= budget.seconds
            if step % budget.every == 0 or done:
                row = {"step": step, "loss": float(np.mean(losses)) if losses else np.nan, "seconds": spent} | validated(module, data)
                rows.append(row)
                losses, stale = [], 0 if row["val_MSE"] < best[0] else stale + 1
                if row["val_MSE"] < best[0]:
                    best = (row["val_MSE"], step, state(module))
                if done or stale >= budget.patience:
                    break
            began = time.process_time()
            torch.manual_seed(seed_for(seed, step, "dropout"))
            share = (step + 1) / total if total is not None else min(1.0, spent / budget.seconds)
            losses.append(one_step(module.train(), optimiser, parameters, stream(step).to(device), seed, step, share, loss))
            spent, step = spent + time.process_time() - began, step + 1
            bar.update()
            if not np.isfinite(losses[-1]):
                rows.append({"step": step, "loss": losses[-1], "seconds": spent, "val_MSE": np.inf})
                break
    module.load_state_dict(best[2], strict=False)
    kept = {name: value for name, value in rows[[row["step"] for row in rows].index(best[1])].items() if name.startswith("w")}
    facts = {"trainable": trainable(module), "rate": rate, "best_step": best[1], **_spent(step, spent), "val_MSE": best[0], **kept}
    return Tuned(module.eval(), facts, pd.DataFrame(rows))


def one_step(module: nn.Module, optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter], batch: Tensor, seed: int, step: int,
             share: float, loss: Callable[..., Tensor] | None) -> float:  # fmt: skip
    generator = torch.Generator(batch.device).manual_seed(seed_for(seed, step, "loss"))
    found = loss(module, batch, generator) if loss else module.loss(batch, generator)
    found.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * min(1.0, (step + 1) / WARMUP)
    optimiser.step()
    if hasattr(module, "adjust"):
        module.adjust(share)
    optimiser.zero_grad()
    return found.item()


@torch.no_grad()
def validated(module: nn.Module, data: Target) -> dict[str, float]:
    """The error that all methods are stopped by, and the weights of the scales; stacked weights are found here."""
    module.eval()
    weights: dict[str, float] = {}
    if isinstance(module, MultiScale):
        if module.design.mixing == "stacked" and module.design.scales:
            found = stacked(scale_points(module, data.val.contexts), data.val.futures)
            module.theta.copy_(torch.as_tensor(found).clamp_min(1e-6).log())
        weights = {f"w{i}": w for i, w in enumerate(module.weights.tolist())}
    return {"val_MSE": data.val.scores(module)["MSE"]} | weights


def state(module: nn.Module) -> dict[str, Tensor]:
    """What training may have changed."""
    kept = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    return kept | ({"theta": module.theta.detach().clone()} if isinstance(module, MultiScale) else {})


def budget_of(budget: str | Budget) -> Budget:
    if isinstance(budget, Budget):
        return budget
    if budget not in BUDGETS:
        raise TsfmError(f"a budget is one of {', '.join(BUDGETS)}, or a Budget, got {budget!r}{nearest(budget, BUDGETS)}")
    return BUDGETS[budget]


def _groups(module: nn.Module, rate: float) -> list[dict[str, Any]]:
    """The weights of the scales have a learning rate of their own."""
    theta = getattr(module, "theta", None)
    rest = [p for p in module.parameters() if p.requires_grad and p is not theta]
    groups = [{"params": rest, "lr": rate, "peak": rate}]
    if theta is not None and theta.requires_grad:
        groups.append({"params": [theta], "lr": module.design.weight_rate, "peak": module.design.weight_rate})
    return groups


def _spent(steps: int, seconds: float) -> dict[str, Any]:
    return {"steps": steps, "seconds": round(seconds, 4), "ms_per_step": round(1e3 * seconds / steps, 3) if steps else 0.0}


def architecture(model: nn.Module) -> str:
    """The name of the register."""
    found = next((name for name, entry in MODELS.items() if entry.cls == type(model).__name__), None)
    if found is None:
        raise TsfmError(f"{type(model).__name__} is no architecture of the register: expected one of {', '.join(MODELS)}")
    return found
