"""How fast training series are made. The mixture has no peer; CauKer's is its released algorithm, one eigendecomposition a root."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from harness import Row, benchmark, cpu_seconds, race, raced


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


@benchmark("synth")
def cauker(quick: bool) -> Iterator[Row]:
    """Bars: 60x at 512 points and 55x at 1024, per core. Both sides make whole graphs of 18 nodes and keep 4; a graph counts as 4 series.

    The peer gets fewer graphs, all its own: what a graph costs varies little beside the ratio, and both are averages.
    """
    from tests.synth import official_cauker
    from tsfm_lib.synth import cauker as ours
    for length, n, graphs in ((512, 2000, 12), (1024, 1000, 6)):
        n, graphs, turns = (n // 5, 2, 1) if quick else (n, graphs, 3)
        seeds = iter(range(100))                                    # other graphs in every turn
        found = race(lambda: ours.generate(n, length, next(seeds)),  # noqa: B023
                     lambda: official_cauker.generate(graphs, length, next(seeds)), turns)  # noqa: B023
        how = f"{n} series against {4 * graphs} by scikit-learn's kernels and numpy's eigh, float64, equal in distribution (tests/synth)"
        yield raced(f"CauKer, length {length}", found, "series per s", how, n, 4 * graphs)


@benchmark("synth")
def cauker_in_two_processes(quick: bool) -> Iterator[Row]:
    """A corpus on disk by two workers beside one: the bar is 1.8x. Wall time, so it means something on an idle machine only.

    What can be had at most is what two independent runs side by side get out of the machine, hence the second row.
    """
    from tsfm_lib.synth import corpus
    n = 4000 if quick else 48_000
    with tempfile.TemporaryDirectory() as folder:
        def seconds(workers, name, size):
            began = time.perf_counter()
            corpus.make(Path(folder) / name, size, workers=workers, shard=max(size // 16, 250), progress=False)
            return time.perf_counter() - began
        seconds(2, "start", 1000)                                   # starts the processes, loads the compiled code
        one, two = seconds(1, "one", n), seconds(2, "two", n)
        with ThreadPoolExecutor(2) as side_by_side:
            began = time.perf_counter()
            list(side_by_side.map(lambda seed: _alone(Path(folder) / f"alone{seed}", n // 2, seed), (1, 2)))
            apart = time.perf_counter() - began
    how = f"{n} series of 512 points to disk, wall time, the peer is one process; needs two idle cores"
    yield Row("CauKer, two processes", n / two, n / one, one / two, "series per s", how)
    how = "the same work, the peer is two runs that know nothing of each other (their start included): what these cores can give"
    yield Row("CauKer, two workers or two runs", n / two, n / apart, apart / two, "series per s", how)


def _alone(folder: Path, n: int, seed: int) -> None:
    """A run from the shell, as somebody would start it twice."""
    command = [sys.executable, "-m", "tsfm_lib.synth", "cauker", "--n", str(n), "--seed", str(seed), "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
