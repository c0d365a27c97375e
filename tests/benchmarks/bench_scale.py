"""What the paper-size runs are made of, measured at the sizes one CPU core can afford: `scale.py` extrapolates from these rows.

The committed rows, scale.csv, come from `./run_all.sh bench --only scale --out tests/benchmarks/scale.csv`.
"""

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from statistics import median

from harness import Row, benchmark, cpu_seconds
from scale import BATCHES, CORPORA, ENCODERS, HORIZONS, KAIROS, LENGTHS, ROWS


def typical(call: Callable[[], object], turns: int) -> float:
    """Median CPU seconds of a call, after one that is not counted."""
    call()
    return median(cpu_seconds(call) for _ in range(turns))


def alone(name: str, value: float, unit: str, how: str) -> Row:
    return Row(name, value, None, None, unit, how)


@benchmark("scale")
def machine(quick: bool) -> Iterator[Row]:
    how = f"{platform.machine()} CPU without a GPU, one thread, CPU time, {datetime.now(UTC).date()}"
    yield alone("cores of the machine", os.cpu_count(), "cores", how)


@benchmark("scale")
def corpora(quick: bool) -> Iterator[Row]:
    """CauKer to disk, shards and sums included: how the cost grows with the number of series and with their length."""
    from tsfm_lib.synth import cauker, corpus

    def made(n, length, seed):
        with tempfile.TemporaryDirectory() as folder:
            corpus.make(folder, n, length, seed, workers=1, progress=False)

    cauker.generate(8, 64)                                          # compiles
    turns = 1 if quick else 3
    cases = dict.fromkeys([*((n, 512) for n in CORPORA), *((CORPORA[0], length) for length in LENGTHS)])
    for n, length in list(cases)[:1] if quick else cases:
        seeds = iter(range(100))                                    # another corpus in every turn
        seconds = typical(lambda: made(n, length, next(seeds)), turns)  # noqa: B023
        yield alone(f"CauKer, {n} series of {length}", seconds, "CPU s", "to disk")


@benchmark("scale")
def encoders(quick: bool) -> Iterator[Row]:
    """Loss and gradient of the two encoders at every size of the paper (quick: at the smallest), counted and timed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tsfm_lib.checkpoints import build
    from tsfm_lib.models.mantis import MantisConfig
    from tsfm_lib.models.moment import MomentConfig

    torch.set_num_threads(1)
    for kind, sizes in ENCODERS.items():
        for size in sizes[:1] if quick else sizes:
            model = build(kind.lower(), MantisConfig.size(size) if kind == "Mantis" else getattr(MomentConfig, size)(), 0).train()

            def step(rows):
                x = torch.randn(rows, 1, 512, generator=torch.Generator().manual_seed(0)).cumsum(-1)
                model.loss(x, torch.Generator().manual_seed(0)).backward()  # noqa: B023
                model.zero_grad()  # noqa: B023

            parameters = sum(p.numel() for p in model.parameters())
            yield alone(f"{kind} {size}, parameters", parameters / 1e6, "million", "as built here")
            with FlopCounterMode(display=False) as counted:
                step(ROWS)
            yield alone(f"{kind} {size}, work", counted.get_total_flops() / ROWS / 1e9, "GFLOP", "a series, loss and gradient, counted")
            turns = 1 if quick or parameters > 1e8 else 3
            for rows in BATCHES if size == sizes[0] and not quick else (ROWS,):
                seconds = typical(lambda: step(rows), turns)  # noqa: B023
                yield alone(f"{kind} {size}, batch of {rows}", seconds, "CPU s", "loss and gradient of series of 512, float32")


@benchmark("scale")
def forecasts(quick: bool) -> Iterator[Row]:
    """Kairos at the paper's sizes, random weights: what a forecast costs by its horizon, roll-outs included."""
    import torch

    from tsfm_lib.checkpoints import build
    from tsfm_lib.models.kairos import KairosConfig

    torch.set_num_threads(1)
    context = torch.randn(ROWS, 1, 2048, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    for size in KAIROS[:1] if quick else KAIROS:
        model = build("kairos", getattr(KairosConfig, size)(), 0).eval()
        yield alone(f"Kairos {size}, parameters", sum(p.numel() for p in model.parameters()) / 1e6, "million", "as built here")
        for horizon in HORIZONS[:1] if quick else HORIZONS:
            seconds = typical(lambda: model.predict_quantiles(context, horizon, (0.1, 0.5, 0.9)), 1 if quick else 3)  # noqa: B023
            yield alone(f"Kairos {size}, horizon {horizon}", seconds / ROWS, "CPU s", "a forecast from 2048 steps, in batches")
