"""From one row per window to one number per model, the way GIFT-Eval does it.

windows -> data sets (`summary`), data sets -> ratios to the seasonal naive (`relative`), ratios -> geometric mean
(`geometric_mean`). The geometric mean makes the order of the models independent of the model one divides by.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from tsfm_lib.errors import TsfmError, nearest

KEYS = ("experiment", "profile", "seed", "variant", "probabilistic", "dataset", "horizon")


def summary(rows: pd.DataFrame, by: Sequence[str] = KEYS) -> pd.DataFrame:
    """One row per variant and data set: metrics are means over windows, WQL is the ratio of sums, seconds are added up.

    >>> two = pd.DataFrame({"dataset": "a", "unit": [0, 1], "MASE": [1.0, 2.0], "quantile_loss": [1.0, 3.0], "abs_target": [2.0, 2.0]})
    >>> summary(two)[["dataset", "windows", "MASE", "WQL"]].values.tolist()
    [['a', 2, 1.5, 1.0]]
    """
    keys = [key for key in by if key in rows]
    groups = rows.groupby(keys, sort=False, dropna=False)
    out = groups.mean(numeric_only=True).drop(columns=["start"], errors="ignore")
    out.insert(0, "windows", groups.size())
    if "seconds" in rows:
        out["seconds"] = groups["seconds"].sum()
    if {"quantile_loss", "abs_target"} <= set(rows):
        total = groups[["quantile_loss", "abs_target"]].sum()
        out["WQL"] = total["quantile_loss"] / total["abs_target"].where(total["abs_target"] > 0)
        out = out.drop(columns=["quantile_loss", "abs_target"])
    return out.reset_index()


def relative(rows: pd.DataFrame, to: str = "seasonal-naive", metrics: Sequence[str] = ("MASE", "WQL")) -> pd.DataFrame:
    """Every metric divided by that of the variant `to` on the same data set and horizon. Rows per window are summarised first.

    A data set on which `to` makes no error at all has no ratio: NaN.

    >>> table = pd.DataFrame({"variant": ["seasonal-naive", "ours"], "dataset": "a", "MASE": [2.0, 1.0]})
    >>> relative(table, metrics=["MASE"])["MASE"].tolist()
    [1.0, 0.5]
    """
    if "unit" in rows:
        rows = summary(rows)
    known = list(dict.fromkeys(rows["variant"]))
    if to not in known:
        raise TsfmError(f"no rows of {to!r} to divide by (there are {', '.join(known)}){nearest(to, known)}: evaluate it on the same tasks")
    keys = [key for key in ("dataset", "horizon") if key in rows]
    base = rows[rows["variant"] == to].groupby(keys, as_index=False)[list(metrics)].mean()
    matched = rows[keys].merge(base, how="left", on=keys, indicator="found")
    if (matched["found"] != "both").any():
        absent = sorted(set(matched.loc[matched["found"] != "both", keys[0]]))
        raise TsfmError(f"{to!r} has no row on {', '.join(absent)}: evaluate it there too, or leave these data sets out")
    divisor = matched[list(metrics)].to_numpy(float)
    ratios = np.divide(rows[list(metrics)].to_numpy(float), divisor, out=np.full(divisor.shape, np.nan), where=divisor > 0)
    return rows.assign(**{metric: ratios[:, i] for i, metric in enumerate(metrics)})


def geometric_mean(ratios: pd.DataFrame, metrics: Sequence[str] = ("MASE", "WQL"), leave_out: Iterable[str] = ()) -> pd.DataFrame:
    """Geometric mean over data sets, one row per variant; `datasets` says over how many. NaN ratios are left out.

    `leave_out` names data sets to skip: of suite `local` the means are always given without m4_hourly as well, because a few
    of its series repeat themselves almost exactly, which makes their MASE scales tiny and the mean theirs.

    >>> ratios = pd.DataFrame({"variant": "ours", "dataset": ["a", "b", "c"], "MASE": [0.5, 2.0, 8.0]})
    >>> geometric_mean(ratios, metrics=["MASE"], leave_out=["c"])
      variant  datasets  MASE
    0    ours         2   1.0
    """
    kept = ratios[~ratios["dataset"].isin(list(leave_out))]
    with np.errstate(divide="ignore"):
        logs = np.log(kept[list(metrics)])
    groups = logs.groupby(kept["variant"], sort=False)
    out = np.exp(groups.mean())
    out.insert(0, "datasets", groups.count().max(axis=1))
    return out.rename_axis("variant").reset_index()
