"""Time Tracker: attention along edges beside a mask over all pairs of tokens, experts run on their own rows beside all on all rows.

Peak memory is that of a process of its own, so this file is also the program that such a process runs.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from harness import Row, benchmark, cost, one_thread, race, raced

TOKENS, PATCH, NEIGHBOURS = 42, 16, 8


def one_step(attention: str, variates: int, turns: int) -> dict[str, float]:
    """Loss and gradient of one sample; its 8 neighbours are the next ones on a ring, itself included."""
    import resource

    import torch

    from tsfm_lib import checkpoints
    from tsfm_lib.models.time_tracker import TimeTrackerConfig

    torch.set_num_threads(1)
    config = TimeTrackerConfig(context=TOKENS * PATCH, patch=PATCH, horizon=PATCH, width=64, heads=4, independent_layers=1, mixed_layers=1,
                               attention=attention)  # fmt: skip
    model = checkpoints.build("time-tracker", config, 0).train()
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)  # MiB

    def step(n):
        x = torch.randn(1, n, (TOKENS + 1) * PATCH, generator=torch.Generator().manual_seed(0))
        edges = sum(torch.eye(n).roll(i, 1) for i in range(min(NEIGHBOURS, n))).bool()[None]
        began = time.process_time()
        loss = model.loss(x, adjacency=edges)
        loss.backward()
        return time.process_time() - began, loss.item()

    step(2)  # what the first step alone needs
    before, (first, loss) = peak(), step(variates)
    after = peak()
    seconds = [first] if turns == 1 else [step(variates)[0] for _ in range(turns)]
    return {"ms": 1e3 * median(seconds), "MiB": after - before, "loss": loss}


def measured(attention: str, variates: int, turns: int) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, attention, str(variates), str(turns)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def beyond(small: float, large: float, sizes: tuple[int, int, int]) -> float:
    """The value at the third size of the a C + b C^2 that goes through those at the first two."""
    first, second, third = sizes
    b = (large / second - small / first) / (second - first)
    return third * (small / first + b * (third - first))


@benchmark("time_tracker")
def attention(quick: bool) -> Iterator[Row]:
    """A training step of one sample. The dense mask has (C N)^2 places: at the largest size it is extrapolated and never run."""
    sizes, turns = ((6, 24, 48), 1) if quick else ((21, 96, 321), 3)
    ours = {c: measured("gathered", c, turns) for c in sizes}
    peer = {c: measured("dense", c, turns) for c in sizes[:2]}
    for c in sizes[:2]:
        if abs(ours[c]["loss"] - peer[c]["loss"]) > 1e-4 * abs(peer[c]["loss"]):
            raise AssertionError(f"gathered and dense attention disagree at {c} variates: {ours[c]['loss']} and {peer[c]['loss']}")
    for unit, name in (("MiB", "peak memory"), ("ms", "CPU time")):
        dense = {c: found[unit] for c, found in peer.items()}
        dense[sizes[2]] = beyond(dense[sizes[0]], dense[sizes[1]], sizes)
        for c in sizes:
            how = f"training step, {c} variates x {TOKENS} tokens, at most {NEIGHBOURS} neighbours, 2 blocks of width 64, float32, "
            far = f", extrapolated from {sizes[0]} and {sizes[1]} variates by a C + b C^2" if c == sizes[2] else ""
            how += "against a dense mask" + far
            yield cost(f"Time Tracker, {c} variates, {name}", ours[c][unit], dense[c], unit, how)


@benchmark("time_tracker")
def experts(quick: bool) -> Iterator[Row]:
    """Forward and backward of the experts of a block, whole series sent to two of eight: a loop over experts against an einsum over all."""
    import torch
    from torch.nn.functional import gelu

    from tsfm_lib.models.time_tracker import Experts, Routing, TimeTrackerConfig
    from tsfm_lib.nn.moe import top_k_gates

    torch.set_num_threads(1)
    rows = 64 if quick else 192
    generator = torch.Generator().manual_seed(0)
    layer = Experts(TimeTrackerConfig(shared_experts=0))
    h = torch.randn(rows, TOKENS, 64, generator=generator)
    indices, gates = top_k_gates(torch.randn(rows, 8, generator=generator), 2)
    chosen = Routing(indices, gates, torch.zeros(8))
    parameters = list(layer.parameters())

    def loop():
        out = layer(h, chosen)
        return out, torch.autograd.grad(out.square().sum(), parameters)

    def everything():
        weight = torch.zeros(rows, 8).scatter(1, indices, gates)
        stacked = lambda name, part: torch.stack([getattr(getattr(e, name), part) for e in layer.private])
        up = torch.einsum("rnd,ehd->ernh", h, stacked("up", "weight")) + stacked("up", "bias")[:, None, None]
        down = torch.einsum("ernh,edh->ernd", gelu(up), stacked("down", "weight")) + stacked("down", "bias")[:, None, None]
        out = torch.einsum("ernd,re->rnd", down, weight)
        return out, torch.autograd.grad(out.square().sum(), parameters)

    for ours, theirs in zip(loop(), everything()):
        for a, b in zip([ours] if torch.is_tensor(ours) else ours, [theirs] if torch.is_tensor(theirs) else theirs, strict=True):
            if not torch.allclose(a, b, rtol=1e-3, atol=1e-3 * b.abs().max().item()):
                raise AssertionError("the two ways to run the experts disagree")
    found = race(loop, everything, 1 if quick else 9)
    how = f"forward and backward, {rows} series x {TOKENS} tokens, 2 of 8 experts 64-128-64, float32, against all experts by einsum"
    yield raced("Time Tracker, experts", found, "ms", how)


if __name__ == "__main__":
    one_thread()
    print(json.dumps(one_step(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
