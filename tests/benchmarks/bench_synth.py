"""How fast training series are made. No peer: nothing else makes this mixture."""

from collections.abc import Iterator
from statistics import median

from harness import Row, benchmark, cpu_seconds


@benchmark("synth")
def mixture(quick: bool) -> Iterator[Row]:
    """A pool made from scratch, then batches cut and mixed from it: the bar for the pool is 3,000 series a second and core."""
    import numpy as np

    from tsfm_lib.synth.mixture import Mixture, make_pool
    n, turns = (2560, 1) if quick else (12_800, 3)
    make_pool(Mixture(), 64, 1024, progress=False)                  # compiles
    seconds = [cpu_seconds(lambda s=s: make_pool(Mixture(), n, 1024, seed=s, progress=False)) for s in range(1, turns + 1)]
    yield Row("synthetic pool", n / median(seconds), None, None, "series per s", f"the recipe's mixture, {n} series of 1024 points")
    pool, rng = make_pool(Mixture(), 2560, 1024, progress=False), np.random.default_rng(0)
    pool.batch(256, 512, rng)
    seconds = [cpu_seconds(lambda: pool.batch(256, 512, rng)) for _ in range(5 * turns)]
    how = "batches of 256 crops of 512 points, resampled, mixed, z-scored"
    yield Row("batches from the pool", 256 / median(seconds), None, None, "series per s", how)
