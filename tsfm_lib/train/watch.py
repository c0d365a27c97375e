"""The books of a run: one JSON line a step, and a watch that stops a run which has lost its way."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tsfm_lib.errors import TsfmError
from tsfm_lib.paths import replace_text


class Diverged(TsfmError):
    """Training stopped because the loss was no number or ran away; `report` holds what is known."""

    def __init__(self, report: dict[str, Any]):
        kept = f"the last good checkpoint is {report['checkpoint']}" if report["checkpoint"] else "no checkpoint had been written"
        super().__init__(
            f"training {report['recipe']} stopped at step {report['step']}: {report['reason']} (rate {report['lr']:.3g}, gradient norm "
            f"{report['grad_norm']}); {kept}; lower the learning rates, clip harder or warm up longer"
        )
        self.report = report


@dataclass
class Watch:
    """Judges every loss. The running loss must not stay, for `patience` steps after warm-up, above

        best + (factor - 1) * max(|best|, first - best),

    that is `factor` times its best, or, for losses that pass through zero, as far above it as it has come down.
    """

    factor: float
    patience: int
    warmup: int
    running: float | None = None
    first: float | None = None
    best: float | None = None
    bad: int = 0

    def see(self, step: int, loss: float, grad_norm: float) -> str | None:
        """The reason to stop, or None."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the gradient norm is {grad_norm} at a loss of {loss:.6g}"
        self.running = loss if self.running is None else 0.95 * self.running + 0.05 * loss
        self.first = self.running if self.first is None else self.first
        self.best = self.running if self.best is None else min(self.best, self.running)
        limit = self.best + (self.factor - 1) * max(abs(self.best), self.first - self.best)
        self.bad = self.bad + 1 if self.running > limit and step >= self.warmup else 0
        if self.bad >= self.patience:
            return f"the running loss {self.running:.6g} has been above {limit:.6g} for {self.bad} steps (its best was {self.best:.6g})"
        return None

    @property
    def calm(self) -> bool:
        return self.bad == 0


@dataclass
class Journal:
    """Lines of `metrics.jsonl`: step, loss, lr, grad_norm, samples_per_second, seconds, total."""

    path: Path | None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def start(self, step: int) -> None:
        """Keep what was written up to `step`: a killed run wrote more lines than its checkpoint knows, and maybe half of one."""
        self.rows = []
        if self.path is None:
            return
        for line in self.path.read_text().splitlines() if step and self.path.exists() else []:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if row["step"] <= step:
                self.rows.append(row)
        replace_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, rows: list[dict[str, Any]]) -> None:
        self.rows += rows
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))

    def curve(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=["step", "loss", "lr", "grad_norm", "samples_per_second", "seconds", "total"])

    def short_curve(self, points: int = 100) -> list[list[float | int]]:
        """Mean loss over at most `points` stretches, as [last step, loss], for the card."""
        width = max(1, math.ceil(len(self.rows) / points))
        parts = [self.rows[i : i + width] for i in range(0, len(self.rows), width)]
        return [[part[-1]["step"], round(sum(r["loss"] for r in part) / len(part), 6)] for part in parts]
