"""Our models beside the authors' own packages: the same random weights, the same series, in turns; theirs run in build/peers.

The authors' model is written in its own layout and read by our loader, and both must say the same before they are raced. Importing is
raced, too: what a script pays before its first line. A package that is not there is a row with its reason.
"""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import peers
from harness import Row, benchmark, clocks, race, raced

HORIZON, SERIES = 64, 16
PACKAGE = {"chronos-bolt": ("chronos-forecasting", "from chronos import ChronosBoltPipeline"),
           "chronos-t5": ("chronos-forecasting", "from chronos import ChronosPipeline"),
           "mantis": ("mantis-tsfm", "from mantis.architecture import MantisV1"),
           "moment": ("momentfm", "from momentfm import MOMENTPipeline"),
           "timesfm": ("timesfm", "from timesfm import TimesFM_2p5_200M_torch")}  # fmt: skip

WHY = {
    "chronos-forecasting": "Mask and bias of the distances are joined in every layer; theirs joins them once for the stack.",
    "timesfm, timesfm": "Queries, keys and values are three products, so that heads can be adapted and pruned one by one; theirs is one.",
    "import ": "What both import is torch; the rest is small on both sides.",
}


class Seconds(NamedTuple):
    cpu: float
    wall: float


def clock(call) -> tuple[float, float]:
    """What a call took, or what it says that it took elsewhere."""
    said: list = []
    here = clocks(lambda: said.append(call()))
    return said[0] if isinstance(said[0], Seconds) else here


class Peer:
    """The authors' process."""

    def __init__(self, name: str, folder: Path):
        self.process = subprocess.Popen([peers.python(), Path(__file__).with_name("peer.py"), name, folder], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        self.jobs = self.answer()["jobs"]

    def answer(self) -> dict:
        while line := self.process.stdout.readline():
            if line.startswith("{"):                                # packages print, too
                return json.loads(line)
        raise RuntimeError((self.process.stderr.read().strip().splitlines() or ["it ended without a word"])[-1])

    def run(self, job: str) -> Seconds:
        self.process.stdin.write(f"{job}\n")
        self.process.stdin.flush()
        return Seconds(**self.answer())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def jobs_of(name: str, model, x):
    """What we do where the authors' process does the same: its output, and the jobs."""
    import torch

    x = x[:4] if name == "chronos-t5" else x
    rows, context = x[:, 0, -512:], x[:, 0, :-HORIZON]

    def step(loss):
        def call():
            model.train()
            loss().backward()
            model.zero_grad()
            model.eval()
        return call

    if name == "chronos-bolt":
        forward, loss = lambda: model(context).transpose(1, 2), lambda: model.loss(x)
    elif name == "chronos-t5":
        sentence = model.tokenise(context)
        labels = model.words(x[:, 0, -HORIZON:], sentence.statistics)
        forward, loss = lambda: model(sentence, labels), lambda: model.loss(x)
    elif name == "mantis":
        forward = lambda: model(rows)
        loss = lambda: forward().square().mean()
    elif name == "moment":
        hidden = (torch.arange(64) % 3 == 0).expand(len(x), 1, -1)
        forward = lambda: model(x[..., -512:], hidden)
        loss = lambda: (forward() - x[..., -512:]).square().mean()
    else:
        z, seen = rows.unflatten(1, (-1, 32)), torch.ones(len(x), 16, 32, dtype=torch.bool)
        forward = lambda: model(rows, 128).point

        def loss():
            h = model.encode(model.tokens(z, seen), seen)
            return model.read_out(h).square().mean() + model.read_spread(h).square().mean()

    return forward, {"forward": torch.no_grad()(forward), "step": step(loss), "forecast": lambda: model.sample(context, 16, 20)}


@benchmark("peers", WHY)
def models(quick: bool) -> Iterator[Row]:
    import numpy as np
    import torch

    from tsfm_lib import checkpoints
    torch.set_num_threads(1)
    noise = torch.randn(SERIES, 1, 512 + HORIZON, generator=torch.Generator().manual_seed(0))
    x = 0.1 * noise.cumsum(-1) + noise
    for name, (package, _) in PACKAGE.items():
        what = f"{package} {peers.PACKAGES[package]}"
        if why := peers.lacking(package):
            yield Row(f"{package}, {name}", None, None, None, "ms", f"not measured, {what}: {why}")
            continue
        with tempfile.TemporaryDirectory() as place:
            folder, peer = Path(place), None
            np.save(folder / "x.npy", x[:, 0].numpy())
            try:
                peer = Peer(name, folder)
            except (RuntimeError, OSError, KeyError) as problem:
                yield Row(f"{package}, {name}", None, None, None, "ms", f"not measured, {what}: {problem}")
                continue
            try:
                model = checkpoints.load(folder)
                output, jobs = jobs_of(name, model, x)
                with torch.no_grad():
                    ours, theirs = output(), torch.from_numpy(np.load(folder / "out.npy"))
                worst = ((ours - theirs.reshape(ours.shape)).abs().max() / theirs.abs().max()).item()
                if not worst < 1e-3:
                    raise AssertionError(f"{name} and {what} differ by {worst}: a ratio of speeds means nothing")
                size = sum(p.numel() for p in model.parameters())
                for job in peer.jobs:
                    found = race(jobs[job], lambda job=job: peer.run(job), 2 if quick else 11, clock)  # noqa: B023
                    series = f"{4 if name == 'chronos-t5' else SERIES} series of 512 steps" + ", 20 paths of 16" * (job == "forecast")
                    how = f"{size:,} parameters, {series}, dropout 0, against {what} with the same weights, equal to {worst:.0e}"
                    yield raced(f"{package}, {name}, {job}", found, "ms", how)
            finally:
                peer.end()


@benchmark("peers")
def imports(quick: bool) -> Iterator[Row]:
    """A fresh interpreter that imports one model. What both need is read from the disk's cache: an uncounted turn comes first."""
    from tsfm_lib.models import MODELS

    def seconds(python, code):
        def call():
            spent = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
            before = spent()
            _, wall = clocks(lambda: subprocess.run([python, "-c", code], check=True, capture_output=True))
            return Seconds(spent() - before, wall)
        return call

    for name, (package, theirs) in PACKAGE.items():
        if name == "chronos-t5" or peers.lacking(package):
            continue
        entry = MODELS[name]
        ours = f"import sys; sys.path.insert(0, {str(peers.ROOT)!r}); from {entry.module} import {entry.cls}"
        found = race(seconds(sys.executable, ours), seconds(peers.python(), theirs), 1 if quick else 7, clock)
        yield raced(f"import {name} or {package}", found, "ms", f"CPU time of a fresh interpreter, against `{theirs}`")
