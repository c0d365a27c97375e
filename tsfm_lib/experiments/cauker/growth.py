"""How accuracy grows with the size of a corpus or of a model: curves fitted to all sizes but the largest, judged by the largest.

    power                   1 - a = A n^-b                        the error falls by one factor at every doubling
    log-linear              a = A + b log n                       accuracy gains one amount at every doubling
    saturating              a = C - A n^-b                        a power law towards a ceiling below 1
    stretched exponential   a = C (1 - exp(-(n / t)^b))           a ceiling that is approached faster
    no more growth          the largest size that was seen has the last word: the yardstick

The first three may fall as well as rise. A curve with as many parameters as there are sizes to fit runs through every point and says
nothing about itself; what it says about the size it has not seen counts all the same. With fewer sizes than parameters there is no fit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import least_squares
from scipy.stats import spearmanr

from tsfm_lib.errors import TsfmError

Number = int | float

PAPER_SIZES = {
    ("mantis-8M", "cauker"): {1e4: 76.91, 5e4: 78.08, 1e5: 78.55, 1e6: 78.91, 1e7: 79.09},
    ("mantis-8M", "real"): {1.27e4: 75.67, 1.27e5: 76.21, 6.33e5: 75.83, 1.27e6: 75.39, 3.68e6: 76.33, 1.267e7: 71.93},
    ("moment-77M", "cauker"): {1e5: 74.24, 5e5: 74.35, 1e6: 75.21, 5e6: 77.01, 1e7: 77.49},
    ("moment-77M", "real"): {1.27e5: 72.42, 6.33e5: 71.09, 1.27e6: 70.49, 6.33e6: 72.09, 1.267e7: 72.10},
}
"""Accuracy in percent by number of series, mean over 128 UCR sets: Table 7 of arXiv 2508.02879. Its real corpus is UEA."""

PAPER_MODELS = {
    ("mantis", "cauker", 1e5): {0.75e6: 75.10, 2.59e6: 77.74, 8.10e6: 78.06, 28.56e6: 78.70, 114.14e6: 78.42},
    ("mantis", "cauker", 1e6): {0.75e6: 75.67, 2.59e6: 78.22, 8.10e6: 78.91, 28.56e6: 78.83, 114.14e6: 78.86},
    ("mantis", "cauker", 1e7): {0.75e6: 76.44, 2.59e6: 78.30, 8.10e6: 79.09, 28.56e6: 78.19, 114.14e6: 78.81},
    ("mantis", "real", 1.27e5): {0.75e6: 73.25, 2.59e6: 75.87, 8.10e6: 76.36, 28.56e6: 76.66, 114.14e6: 76.60},
    ("mantis", "real", 1.27e6): {0.75e6: 72.81, 2.59e6: 75.12, 8.10e6: 75.44, 28.56e6: 77.15, 114.14e6: 77.29},
    ("mantis", "real", 1.267e7): {0.75e6: 72.77, 2.59e6: 75.73, 8.10e6: 72.03, 28.56e6: 77.05, 114.14e6: 76.97},
    ("moment", "cauker", 1e5): {77e6: 74.24, 248e6: 75.16, 783e6: 77.28},
    ("moment", "cauker", 1e6): {77e6: 75.21, 248e6: 76.16, 783e6: 77.20},
    ("moment", "cauker", 1e7): {77e6: 77.49, 248e6: 77.51, 783e6: 77.85},
    ("moment", "real", 1.27e5): {77e6: 72.42, 248e6: 68.62, 783e6: 64.85},
    ("moment", "real", 1.27e6): {77e6: 70.49, 248e6: 66.91, 783e6: 64.18},
    ("moment", "real", 1.267e7): {77e6: 72.10, 248e6: 69.01, 783e6: 66.07},
}
"""The same by number of parameters, for three sizes of each corpus: Table 8."""

ONE_CONDITION = {"Table 8": 78.06, "Table 1": 78.31, "Table 7": 78.55}
"""Mantis-8M on 100,000 CauKer series, three times in one paper: differences below the spread of these three are not resolved there."""


@dataclass(frozen=True)
class Form:
    """A curve over x = log10 of the size over the smallest one, with bounds and starts for its parameters."""

    curve: Callable[..., np.ndarray]
    low: tuple[Number, ...]
    high: tuple[Number, ...]
    starts: tuple[tuple[Number, ...], ...]  # of each parameter


FORMS = {
    "power": Form(lambda x, a, b: 1 - a * 10 ** (-b * x), (0, -2), (1, 2), ((0.3,), (0.0,))),
    "log-linear": Form(lambda x, a, b: a + b * x, (-1, -1), (2, 1), ((0.5,), (0.0,))),
    "saturating": Form(lambda x, c, a, b: c - a * 10 ** (-b * x), (0, -1, 0.05), (1, 1, 5), ((0.8,), (0.1, -0.1), (0.2, 1, 3))),
    "stretched exponential": Form(
        lambda x, c, t, b: c * -np.expm1(-(10 ** (b * (x - t)))), (0, -30, 0.01), (1, 5, 5), ((0.8,), (-3, -1), (0.1, 0.5, 2))
    ),
}
YARDSTICK = "no more growth"
NAMES = (*FORMS, YARDSTICK)


def fitted(form: str, sizes: ArrayLike, accuracy: ArrayLike) -> Callable[[Any], Float[np.ndarray, "*k"]] | None:
    """The curve of least squares, as a function of the size; None with fewer sizes than parameters. Accuracies lie between 0 and 1.

    >>> grown = fitted("log-linear", [10, 100, 1000], [0.5, 0.6, 0.7])
    >>> float(grown(10_000).round(6))
    0.8
    """
    if form not in NAMES:
        raise TsfmError(f"no curve is called {form!r}, there are {', '.join(NAMES)}")
    n, y = np.asarray(sizes, float), np.asarray(accuracy, float)
    if n.shape != y.shape or (n <= 0).any() or not ((y >= 0) & (y <= 1)).all():
        raise TsfmError("expected a positive size and an accuracy between 0 and 1 for each point: divide percentages by 100")
    if form == YARDSTICK:
        return lambda at: np.full_like(np.asarray(at, float), y[n == n.max()].mean())
    given = FORMS[form]
    if len(np.unique(n)) < len(given.low):
        return None
    x = np.log10(n / n.min())
    tries = [least_squares(lambda p: given.curve(x, *p) - y, start, bounds=(given.low, given.high), xtol=1e-12, ftol=1e-12)
             for start in product(*given.starts)]  # fmt: skip
    best = min(tries, key=lambda found: found.cost).x
    return lambda at: given.curve(np.log10(np.asarray(at, float) / n.min()), *best)


def held_out(sizes: ArrayLike, accuracy: ArrayLike) -> list[dict[str, Any]]:
    """Each curve fitted without the largest size: how far off it is there (`miss`, in points, above zero: promised too much), and how
    far on average where it was fitted."""
    n, y = np.asarray(sizes, float), np.asarray(accuracy, float)
    last, rows = n == n.max(), []
    for form in NAMES:
        curve = fitted(form, n[~last], y[~last])
        if curve is not None:
            rows.append({"form": form, "sizes": int(len(np.unique(n[~last]))), "largest": float(n.max()),
                         "miss": float(100 * (curve(n.max()) - y[last].mean())),
                         "residual": float(100 * np.sqrt(np.mean((curve(n[~last]) - y[~last]) ** 2)))})  # fmt: skip
    return rows


def growth(sizes: ArrayLike, accuracy: ArrayLike) -> dict[str, float]:
    """Is the curve monotone? Share of its steps that go up, rank correlation of size and accuracy, points gained per tenfold size.

    >>> growth([10, 100, 1000], [0.5, 0.7, 0.6])
    {'steps_up': 0.5, 'rho': 0.5, 'per_tenfold': 5.0}
    """
    order = np.argsort(sizes)
    n, y = np.asarray(sizes, float)[order], np.asarray(accuracy, float)[order]
    rho = spearmanr(n, y).statistic if np.ptp(y) else 0.0                  # all the same: no order
    slope = np.polyfit(np.log10(n), 100 * y, 1)[0]
    return {"steps_up": float((np.diff(y) > 0).mean()), "rho": round(float(rho), 9), "per_tenfold": round(float(slope), 9)}


def published() -> pd.DataFrame:
    """The paper's two scaling tables, a row per number; `size` counts series or parameters."""
    rows = [{"table": "corpus", "model": model, "corpus": corpus, "series": n, "size": n, "accuracy": found / 100}
            for (model, corpus), curve in PAPER_SIZES.items() for n, found in curve.items()]  # fmt: skip
    rows += [{"table": "model", "model": model, "corpus": corpus, "series": series, "size": n, "accuracy": found / 100}
             for (model, corpus, series), curve in PAPER_MODELS.items() for n, found in curve.items()]  # fmt: skip
    return pd.DataFrame(rows)
