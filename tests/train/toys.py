"""Tiny models and streams for the training tests; also run as a script, by processes that kill themselves, alone and under torchrun."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from tsfm_lib.train import Recipe, fit
from tsfm_lib.train.state import seed_for


class Toy(nn.Module):
    """Two mixing layers (Muon gets them), dropout, a weighting drawn from the generator, buffers: all that a resume must restore."""

    def __init__(self, width: int = 8, dropout: float = 0.1, noisy: bool = True, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])
            self.head = nn.Linear(width, 4)
        self.drop, self.noisy = nn.Dropout(dropout), noisy
        self.register_buffer("level", torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1, dtype=torch.long))

    def loss(self, batch, generator=None):
        x, y = batch[:, 0, :-4], batch[:, 0, -4:]
        h = x
        for layer in self.layers:
            h = h + self.drop(layer(h).tanh())
        if self.training:
            with torch.no_grad():
                self.level.lerp_(x.mean().reshape(1), 0.1)
                self.seen += 1
        error = (self.head(h) - y) ** 2
        weight = torch.rand(error.shape, generator=generator, device=batch.device) + 0.5 if self.noisy else 1.0
        return (error * weight).mean()


class Waves:
    """Sine waves of random phase, batch by batch a function of (seed, step)."""

    description = {"kind": "waves"}

    def __init__(self, batch: int = 8, seed: int = 0, length: int = 12):
        self.batch, self.seed, self.length = batch, seed, length

    def __call__(self, step):
        phase = torch.rand(self.batch, 1, 1, generator=torch.Generator().manual_seed(seed_for(self.seed, step, "data"))) * 6.283
        return torch.sin(torch.arange(self.length) * 0.7 + phase)


class Killed(Waves):
    """Ends its process without a word when one of some steps is asked for."""

    def __init__(self, *at: int, **options):
        super().__init__(**options)
        self.at = at

    def __call__(self, step):
        if step in self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(step)


def recipe(**changes) -> Recipe:
    given = {"name": "toy", "model": "toy", "steps": 60, "batch": 8, "context": 8, "horizon": 4, "warmup": 5, "checkpoint_every": 10}
    return Recipe(**(given | changes))


def main(what: str, folder: str) -> None:
    if what == "killed":
        fit(Toy(), Killed(25), recipe(), folder=folder, progress=False)
    elif what == "ranks":
        for steps in (1, 5):
            model, own = Toy(dropout=0.0, noisy=False), Path(folder) / str(steps)
            run = fit(model, Waves(), recipe(steps=steps), folder=own, progress=False, device="cpu")
            if os.environ["RANK"] == "0":
                (Path(folder) / f"curve{steps}.json").write_text(json.dumps([*run.curve["loss"], *run.curve["grad_norm"]]))
        fit(Toy(), Waves(), recipe(), folder=Path(folder) / "straight", progress=False, device="cpu")
    elif what == "dying ranks":                              # both at step 25; in every life that finds a checkpoint one of them at 35
        again, rank = (Path(folder) / "checkpoint.safetensors").exists(), os.environ["RANK"]
        stream = Killed(35) if again and rank == "1" else Waves() if again else Killed(25)
        fit(Toy(), stream, recipe(), folder=folder, progress=False, device="cpu")
    elif what == "rank":
        fit(Toy(), Waves(), recipe(), folder=folder, progress=False, device="cpu")


if __name__ == "__main__":
    main(*sys.argv[1:])
