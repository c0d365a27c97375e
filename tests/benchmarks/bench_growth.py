"""How time and memory of a training step grow with length, variates, series and layers, and an exponent for each curve.

No peers. Memory is the most that torch holds at once beyond what it held before, counted from its own allocations: the same number on
every machine. Exponents are slopes of logarithms over all sizes; the local one, between the last two, says what comes next.
"""

from collections.abc import Callable, Iterator
from math import log

from harness import Row, alone, benchmark

AXES = {"length": (512, 1024, 2048, 4096, 8192), "variates": (4, 8, 16, 32, 64), "series": (4, 8, 16, 32, 64), "layers": (1, 2, 4, 8, 16)}
START = {"length": 512, "variates": 4, "series": 4, "layers": 2}
DEEP = {"width": 64, "heads": 4, "hidden": 128, "dropout": 0.0}
MODELS = {  # model: its config at these sizes
    "dlinear": lambda at: {"context": at["length"], "horizon": 32},
    "patchtst": lambda at: DEEP | {"context": at["length"], "horizon": 32, "patch": 16, "stride": 16, "layers": at["layers"]},
    "itransformer": lambda at: DEEP | {"context": at["length"], "horizon": 32, "layers": at["layers"]},
    "timesfm": lambda at: {"context": at["length"], "patch": 16, "horizon": 32, "width": 64, "heads": 4, "hidden": 128,
                           "layers": at["layers"], "spread_horizon": None},
    "moirai": lambda at: {"context": at["length"], "patch": 16, "patch_sizes": (16,), "width": 64, "head_width": 16,
                          "layers": at["layers"]},
    "time-tracker": lambda at: {"context": at["length"], "patch": 16, "horizon": 16, "width": 64, "heads": 4, "hidden": 64,
                                "independent_layers": at["layers"] - at["layers"] // 2, "mixed_layers": at["layers"] // 2,
                                "alpha": 0.9, "neighbours": 4},
}  # fmt: skip


def peak(call: Callable[[], object]) -> float:
    """MiB that torch held at most during the call, beyond what it held before."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    held, most = 0, 0
    changes = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    for change in sorted(changes, key=lambda e: e.start_ns()):
        held += change.nbytes()
        most = max(most, held)
    return most / 2**20


def exponent(name: str, axis: str, unit: str, points: list[tuple[float, float]]) -> Row:
    """The slope of log value over log size, with the t interval of a straight line through the points."""
    import numpy as np
    from scipy.stats import t

    x, y = np.log(np.array(points)).T
    x = x - x.mean()
    slope = (x @ y) / (x @ x)
    half = 0.0
    if len(x) > 2:
        half = t.ppf(0.975, len(x) - 2) * np.sqrt(((y - y.mean() - slope * x) ** 2).sum() / (len(x) - 2) / (x @ x))
    (n, v), (m, w) = points[-2:]
    how = f"{len(points)} sizes from {points[0][0]} to {m}; between the last two {log(w / v) / log(m / n):.2f}"
    return Row(name, float(slope), None, None, f"exponent of {unit}", how, slope - half, slope + half, axis=axis)


def curve(name: str, axis: str, sizes: tuple[int, ...], measured: Callable[[int], dict[str, float]], how: str) -> Iterator[Row]:
    """A row per size and unit, then the exponents."""
    found = {size: measured(size) for size in sizes}
    for size, values in found.items():
        for unit, value in values.items():
            yield Row(name, value, None, None, unit, how, axis=axis, size=size)
    for unit in found[sizes[0]]:
        yield exponent(name, axis, unit, [(size, found[size][unit]) for size in sizes])


@benchmark("growth")
def models(quick: bool) -> Iterator[Row]:
    import torch

    from tsfm_lib.checkpoints import build
    torch.set_num_threads(1)
    for name, config in MODELS.items():
        for axis, sizes in AXES.items():
            if name == "dlinear" and axis == "layers":
                continue

            def measured(size, name=name, config=config, axis=axis):
                at = START | {axis: size}
                model = build(name, config(at), 0).train()
                x = torch.randn(at["series"], at["variates"], at["length"] + 32, generator=torch.Generator().manual_seed(0)).cumsum(-1)

                def step():
                    model.loss(x, generator=torch.Generator().manual_seed(0)).backward()
                    model.zero_grad()

                return {"ms": 1e3 * alone(step, 1 if quick else 5), "MiB": peak(step)}

            rest = ", ".join(f"{START[other]} {other}" for other in AXES if other != axis)
            yield from curve(f"{name}, step", axis, sizes[:3] if quick else sizes, measured, f"loss and gradient, width 64, {rest}")


@benchmark("growth")
def series(quick: bool) -> Iterator[Row]:
    """The two kernels below the models: a DTW matrix and the CauKer generator."""
    import numpy as np

    from tsfm_lib.evaluate import dtw
    from tsfm_lib.synth import cauker
    turns = 1 if quick else 5
    walks = lambda n, length: np.random.default_rng(0).standard_normal((n, length)).cumsum(1)
    for axis, sizes in (("length", (128, 256, 512, 1024)), ("series", (32, 64, 128, 256))):
        def matrix(size, axis=axis):
            at = {"series": 32, "length": 128} | {axis: size}
            x = walks(at["series"], at["length"])
            return {"ms": 1e3 * alone(lambda: dtw.matrix(x), turns)}

        yield from curve("DTW matrix", axis, sizes, matrix, "no band, float64, 32 series of 128 points otherwise")

        def made(size, axis=axis):
            at = {"series": 256, "length": 128} | {axis: size}
            return {"ms": 1e3 * alone(lambda: cauker.generate(at["series"], at["length"], 0), turns)}

        sizes = tuple(8 * size for size in sizes) if axis == "series" else sizes
        yield from curve("CauKer", axis, sizes, made, "256 series of 128 points otherwise")
