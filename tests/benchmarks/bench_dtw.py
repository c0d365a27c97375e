"""DTW matrices against tslearn's, which runs one pair at a time."""

from collections.abc import Iterator

import numpy as np
from harness import Row, alone, benchmark, cost, race, raced

LENGTH = 512


@benchmark("dtw")
def matrices(quick: bool) -> Iterator[Row]:
    """Both sides get their own number of series (tslearn fewer: it costs the same for every pair) and are compared per pair."""
    from tslearn.metrics import cdist_dtw

    from tsfm_lib.evaluate import dtw
    n, few, turns = (40, 8, 1) if quick else (100, 20, 5)
    pairs = lambda count: count * (count - 1) / 2
    x = np.random.default_rng(0).standard_normal((n, LENGTH)).cumsum(1)
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    for label, band in (("no band", None), ("10 % band", round(0.1 * LENGTH))):
        constraint = {} if band is None else {"global_constraint": "sakoe_chiba", "sakoe_chiba_radius": band}
        theirs = cdist_dtw(x[:few], **constraint)
        worst = np.abs(dtw.matrix(x[:few], band=band) - theirs).max()
        if worst > 1e-10:
            raise AssertionError(f"DTW with {label} differs from tslearn by {worst}: a ratio of speeds means nothing")
        found = race(lambda: dtw.matrix(x, band=band), lambda: cdist_dtw(x[:few], **constraint), turns)  # noqa: B023
        how = f"length {LENGTH}, float64, {n} series against tslearn.metrics.cdist_dtw on {few} of them, equal to {worst:.0e}"
        yield raced(f"DTW matrix, {label}", found, "us per pair", how, 1e6 / pairs(n), 1e6 / pairs(few))
        single = alone(lambda: dtw.matrix(x, band=band, dtype=np.float32), turns)  # noqa: B023
        yield cost(f"DTW matrix, {label}, float32", 1e6 * single / pairs(n), 1e6 * found.peer / pairs(few), "us per pair",
                   "the same in single precision; tslearn has float64 only")
