"""The one training loop. Every model brings `loss(batch, generator)`, every stream is a function of the step, the recipe decides the rest.

What a step draws (data, masks, dropout) is seeded by the recipe's seed and the step's number, so a run that was killed and
taken up again from its checkpoint ends in the same bytes as one that was left alone (same machine, same number of threads).
"""

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from tsfm_lib.errors import TsfmError
from tsfm_lib.paths import replace_text
from tsfm_lib.train import state
from tsfm_lib.train.optimise import Average, Muon, optimisers, rate_factor, set_rates
from tsfm_lib.train.ranks import Ranks, join
from tsfm_lib.train.recipe import Recipe, differences
from tsfm_lib.train.watch import Diverged, Journal, Watch

TIMED_STEPS = 50                                # after these a budget in minutes becomes a number of steps
CHECKPOINT, METRICS, WEIGHTS, CARD, REPORT = "checkpoint.safetensors", "metrics.jsonl", "model.safetensors", "card.json", "diverged.json"
Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Run:
    """What a finished run leaves: `model` carries the averaged weights (evaluation mode), `raw` the last ones."""

    model: nn.Module
    raw: nn.Module
    curve: pd.DataFrame
    card: dict


def fit(
    model: nn.Module,
    stream: Callable[[int], Tensor],
    recipe: Recipe,
    *,
    folder: str | Path | None = None,
    steps: int | None = None,
    minutes: float | int | None = None,
    resume: bool = True,
    evaluate: Callable[[nn.Module], Mapping[str, Any]] | None = None,
    progress: bool = True,
    device: str | torch.device | None = None,
    loss: Loss | None = None,
) -> Run:
    """Train `model` in place on `stream(0), stream(1), ...` and return it with its average, curve and card.

    `steps` or `minutes` replace the recipe's budget. With a `folder` the run writes checkpoint.safetensors, metrics.jsonl and, at the
    end, model.safetensors (the average) and card.json; calling again with the same recipe goes on from the checkpoint unless `resume`
    is False. `evaluate(average)` is called once at the end and its numbers go into the card. `loss(model, batch, generator)`
    replaces `model.loss`. Draw with `torch.rand(..., device=batch.device, generator=generator)`: the generator lives where the batch is.
    """
    recipe = recipe.with_budget(steps, minutes)
    if loss is None and not callable(getattr(model, "loss", None)):
        raise TsfmError(f"{type(model).__name__} has no method loss(batch, generator): give it one, or call fit(..., loss=function)")
    ranks = join(device)
    # dropout draws from the global generators; the caller's are left as they were
    with torch.random.fork_rng([ranks.device.index] if ranks.device.type == "cuda" else []):
        run = _Trainer(model, stream, recipe, Path(folder) if folder is not None else None, ranks, loss)
        run.begin(resume)
        run.train(progress)
        return run.finish(evaluate)


class _Trainer:
    """The parts of one run and where it stands."""

    def __init__(self, model: nn.Module, stream: Callable, recipe: Recipe, folder: Path | None, ranks: Ranks, loss: Loss | None):
        self.model, self.stream, self.recipe, self.ranks = model.to(ranks.device), stream, recipe, ranks
        self.folder = folder
        self.average = Average(self.model, recipe.ema)
        self.optimisers = optimisers(self.model, recipe)
        self.loss = loss
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.watch = Watch(recipe.diverged_factor, recipe.diverged_steps, recipe.warmup)
        self.journal = Journal(folder / METRICS if folder is not None and ranks.first else None)
        self.step, self.total, self.seconds = 0, recipe.steps, 0.0
        self.sessions: list[dict[str, Any]] = []
        self.pending: list[tuple[Tensor, Tensor, float]] = []           # loss, gradient norm, rate: still on the device

    # -- checkpoints --

    def begin(self, resume: bool) -> None:
        path = self.folder / CHECKPOINT if self.folder is not None else None
        if path is not None:
            found = self.ranks.agree(int(path.exists()))                 # what the first rank sees holds for all
            if found and resume:
                self.restore(path)
            elif self.ranks.first:
                self.folder.mkdir(parents=True, exist_ok=True)
                for name in (CHECKPOINT, WEIGHTS, CARD, REPORT):
                    (self.folder / name).unlink(missing_ok=True)
        self.ranks.share(self.model)
        self.journal.start(self.step)
        self.sessions.append({"from_step": self.step, "device": device_name(self.ranks.device), "threads": torch.get_num_threads(),
                              "ranks": self.ranks.size})  # fmt: skip

    def restore(self, path: Path) -> None:
        if not path.exists():
            raise TsfmError(f"rank {self.ranks.rank} does not see {path}, which the first rank does: put the folder on a file system that "
                            "all nodes share")  # fmt: skip
        tensors, facts = state.load_state(path)
        theirs = Recipe.from_dict(facts["recipe"])
        if differing := differences(theirs, self.recipe):
            raise TsfmError(
                f"{path} belongs to another recipe (there / here: {differing}): resume with that recipe, train into another folder, or "
                "start afresh with resume=False"
            )
        model, average, moments = state.split_parts(tensors, ("model", "average", "optimiser"))
        state.copy_into(self.model, model)
        state.copy_into(self.average.model, average)
        state.restore_optimisers(self.optimisers, moments)
        self.step, self.total, self.seconds, self.sessions = facts["step"], facts["total"], facts["seconds"], facts["sessions"]
        self.watch = Watch(**facts["watch"])

    def save(self) -> None:
        if self.folder is not None and self.ranks.first:
            parts = {"model": state.model_tensors(self.model), "average": state.model_tensors(self.average.model),
                     "optimiser": state.optimiser_tensors(self.optimisers)}  # fmt: skip
            state.save_state(self.folder / CHECKPOINT, state.join_parts(parts), {
                "recipe": asdict(self.recipe), "step": self.step, "total": self.total, "seconds": self.seconds, "sessions": self.sessions,
                "watch": asdict(self.watch)})  # fmt: skip

    # -- the loop --

    def train(self, progress: bool) -> None:
        self.model.train()
        shown = progress and self.ranks.first
        bar = tqdm(total=self.total, initial=self.step, desc=self.recipe.name, unit="step", **({} if shown else {"disable": True}))
        start = self.mark = time.perf_counter()
        before, times = self.seconds, []
        with bar:
            while self.total is None or self.step < self.total:
                self.one_step()
                self.seconds = before + time.perf_counter() - start
                fixed = False
                if self.total is None:
                    self.ranks.wait()
                    times.append(time.perf_counter())
                    fixed = self.fix_total(times)
                    bar.total = self.total
                last = self.step == self.total
                keep = fixed or last or self.step % self.recipe.checkpoint_every == 0
                if keep or len(self.pending) == self.recipe.log_every:
                    self.flush(bar)
                if keep and self.watch.calm:                             # a run in doubt does not replace its last good checkpoint
                    self.save()
                elif last:
                    self.stop(f"the run ended with its running loss {self.watch.running:.6g} far above its best {self.watch.best:.6g}")

    def one_step(self) -> None:
        seed, step, rank, device = self.recipe.seed, self.step, self.ranks.rank, self.ranks.device
        batch = self.ranks.part(self.stream(step)).to(device, non_blocking=True)
        generator = torch.Generator(device).manual_seed(state.seed_for(seed, step, "loss", rank))
        seed_all = torch.manual_seed if device.type == "cuda" else torch.default_generator.manual_seed      # cheaper
        seed_all(state.seed_for(seed, step, "dropout", rank))
        factor = rate_factor(step, self.total, self.recipe.warmup, self.recipe.final_fraction, self.recipe.cycles)
        rate = set_rates(self.optimisers, factor)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            loss = self.loss(self.model, batch, generator) if self.loss else self.model.loss(batch, generator)
        loss.backward()
        self.ranks.mean_gradients(self.parameters)
        self.ranks.mean_buffers(self.model)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.average.update(step)
        self.pending.append((loss.detach().float(), norm.detach().float(), rate))
        self.step += 1

    def fix_total(self, times: list[float]) -> bool:
        """Steps that fit into the minutes at the pace seen; sooner than after 50 steps when a quarter of the minutes is gone."""
        budget, total = self.recipe.minutes * 60, 0
        if len(times) == TIMED_STEPS or (len(times) > 1 and self.seconds > budget / 4):
            pace = (times[-1] - times[0]) / (len(times) - 1)                # the first step pays for warming up
            total = self.step + max(0, int((budget - self.seconds) / pace))
        total = self.ranks.agree(total)
        self.total = total or None
        return self.total is not None

    def flush(self, bar: tqdm) -> None:
        """Read losses and norms off the device at once, judge them in order, write them down."""
        losses = self.ranks.mean(torch.stack([loss for loss, _, _ in self.pending])).tolist()
        norms = torch.stack([norm for _, norm, _ in self.pending]).tolist()
        rates = [rate for *_, rate in self.pending]
        now, first = time.perf_counter(), self.step - len(losses)
        speed = len(losses) * self.recipe.batch / max(now - self.mark, 1e-9)
        self.mark, self.pending = now, []
        rows = []
        for step, (loss, norm, rate) in enumerate(zip(losses, norms, rates), start=first + 1):
            row = {"step": step, "loss": loss, "lr": rate, "grad_norm": norm, "samples_per_second": round(speed, 2),
                   "seconds": round(self.seconds, 3), "total": self.total}  # fmt: skip
            if reason := self.watch.see(step - 1, loss, norm):
                self.journal.add(rows)
                self.stop(reason, row)
            rows.append(row)
        self.journal.add(rows)
        bar.update(len(losses))
        bar.set_postfix_str(f"loss {self.watch.running:.4f}, {speed:.0f} samples/s")

    def stop(self, reason: str, row: dict[str, Any] | None = None) -> None:
        """Report the step of `row` (default: the last one written) and raise."""
        row = row or self.journal.rows[-1]
        checkpoint = self.folder / CHECKPOINT if self.folder is not None else None
        report = {
            "recipe": self.recipe.name, "step": row["step"], "reason": reason, "lr": row["lr"],
            "loss": repr(row["loss"]), "grad_norm": repr(row["grad_norm"]),                     # JSON has no word for nan
            "last_losses": [[before["step"], before["loss"]] for before in self.journal.rows[-20:]],
            "checkpoint": str(checkpoint) if checkpoint is not None and checkpoint.exists() else None,
        }  # fmt: skip
        if self.folder is not None and self.ranks.first:
            replace_text(self.folder / REPORT, json.dumps(report, indent=1))
        raise Diverged(report)

    # -- the end --

    def finish(self, evaluate: Callable[[nn.Module], Mapping[str, Any]] | None) -> Run:
        average = self.average.model.eval()
        self.model.eval()
        card = self.card()
        if evaluate is not None and self.ranks.first:
            card["result"] = dict(evaluate(average))
        elif self.sessions[-1]["from_step"] == self.step and (result := self.earlier_card().get("result")):
            card["result"] = result                                      # nothing was trained: what was measured still holds
        if self.folder is not None and self.ranks.first:
            (self.folder / REPORT).unlink(missing_ok=True)
            partial = self.folder / (WEIGHTS + ".partial")
            save_file({name: t.cpu().contiguous() for name, t in state.model_tensors(average).items()}, partial)
            partial.replace(self.folder / WEIGHTS)
            replace_text(self.folder / CARD, json.dumps(card, indent=1))
        return Run(average, self.model, self.journal.curve(), card)

    def earlier_card(self) -> dict:
        path = self.folder / CARD if self.folder is not None else None
        return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.exists() else {}

    def card(self) -> dict:
        muon = sum(p.numel() for o in self.optimisers if isinstance(o, Muon) for g in o.param_groups for p in g["params"])
        return {
            "name": self.recipe.name, "model": self.recipe.model, "recipe": json.loads(self.recipe.to_json()), "seed": self.recipe.seed,
            "data": getattr(self.stream, "description", None), "steps": self.total, "samples": self.total * self.recipe.batch,
            "seconds": round(self.seconds, 1), "samples_per_second": round(self.step * self.recipe.batch / max(self.seconds, 1e-9), 1),
            "parameters": sum(p.numel() for p in self.model.parameters()), "parameters_under_muon": muon, "sessions": self.sessions,
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
            "machine": f"{platform.system()} {platform.machine()}", "curve": self.journal.short_curve(),
        }  # fmt: skip


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
