"""The arithmetic of GIFT-Eval (arXiv 2410.10393) redone from its published rows: nothing is run, everything is counted again.

The board gives each model a MASE and a CRPS (mean weighted quantile loss) on 97 configurations, `data set / frequency / term`. Each
number is divided by the seasonal naive's on the same configuration; a model's headline is the geometric mean of the 97 ratios. Its
logarithm is a plain mean, so two models are compared by the mean of 97 paired differences of logarithms.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tsfm_lib import data
from tsfm_lib.evaluate.comparison import Interval, interval

TERMS = ("short", "medium", "long")
METRICS = ("MASE", "CRPS")
CONTESTED = ("loop_seattle", "m_dense", "solar", "kdd_cup_2018", "m4_hourly")
"""Sets that a reviewer of the paper read in its list of pretraining data. The authors say that the board's test parts were left out."""


@dataclass(frozen=True)
class Entrant:
    """A model of the board. `printed`: MASE and CRPS in the main table of Kairos v1, where it has a row."""

    board: str
    millions: float | None = None           # parameters, as its authors state
    printed: tuple[float, float] | None = None


ENTRANTS: dict[str, Entrant] = {
    "seasonal-naive": Entrant("seasonal_naive", None, (1.000, 1.000)),
    "dlinear": Entrant("DLinear", None, (1.061, 0.846)),
    "patchtst": Entrant("PatchTST", None, (0.849, 0.587)),
    "ttm": Entrant("TTM-R2-Pretrained", 5.0, (1.020, 0.873)),
    "chronos-large": Entrant("chronos_large", 709.0, (0.870, 0.574)),
    "chronos-bolt-base": Entrant("chronos_bolt_base", 205.0, (0.808, 0.574)),
    "timesfm-2.0": Entrant("timesfm_2_0_500m", 500.0, (0.758, 0.550)),
    "moirai-large": Entrant("Moirai_large", 311.0, (0.875, 0.599)),
    "visionts": Entrant("visionts", 112.0, (0.863, 0.755)),
    "yinglong": Entrant("YingLong_300m", 300.0, (0.798, 0.548)),
    "toto": Entrant("Toto_Open_Base_1.0", 151.0, (0.750, 0.517)),
    "sundial": Entrant("sundial_base_128m", 128.0, (0.750, 0.559)),
    "kairos-10m": Entrant("Kairos_10m", 9.9),
    "kairos-23m": Entrant("Kairos_23m", 23.0, (0.748, 0.554)),
    "kairos-50m": Entrant("Kairos_50m", 50.1, (0.742, 0.548)),
    "flowstate": Entrant("FlowState-9.1M", 9.1),
    "tirex": Entrant("TiRex", 35.0),
    "timesfm-2.5": Entrant("TimesFM-2.5", 200.0),
    "chronos-2": Entrant("chronos-2", 120.0),
    "moirai-2": Entrant("Moirai2", 11.4),
    "toto-2.0-4m": Entrant("Toto-2.0-4m", 4.0),
    "toto-2.0-22m": Entrant("Toto-2.0-22m", 22.0),
    "yinglong-6m": Entrant("YingLong_6m", 6.0),
    "yinglong-50m": Entrant("YingLong_50m", 50.0),
    "chronos-bolt-small": Entrant("chronos_bolt_small", 48.0),
    "moirai-small": Entrant("moirai_small", 14.0),
    "auto-ets": Entrant("auto_ets"),
    "auto-theta": Entrant("auto_theta"),
    "auto-arima": Entrant("auto_arima"),
}


def ratios(board: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row per entrant and configuration with the logarithms of both ratios; `dataset` is the configuration, the unit of the claim."""
    board = data.load("leaderboard") if board is None else board
    base = board[board["model"] == ENTRANTS["seasonal-naive"].board].set_index("config")
    frames = []
    for variant, entrant in ENTRANTS.items():
        own = board[board["model"] == entrant.board].set_index("config").reindex(base.index)
        logs = {f"log_{metric}": np.log(own[metric] / base[metric]) for metric in METRICS}
        keys = {"variant": variant, "dataset": base.index, "source": base["dataset"].str.lower(), "term": base["term"]}
        frames.append(pd.DataFrame({**keys, **logs}))
    return pd.concat(frames, ignore_index=True)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Geometric means over all configurations and over each term, best MASE first."""
    logs = [f"log_{metric}" for metric in METRICS]
    groups = {"all": rows, **{term: rows[rows["term"] == term] for term in TERMS}}
    parts = {name: np.exp(part.groupby("variant")[logs].mean()) for name, part in groups.items()}
    out = pd.concat(parts, axis=1).swaplevel(axis=1)
    out.columns = [f"{metric.removeprefix('log_')} {name}" for metric, name in out.columns]
    return out[[f"{metric} {name}" for metric in METRICS for name in groups]].sort_values("MASE all")


def printed(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's table beside the recomputed one; `agrees` where both round to the same third digit, with half a unit of grace."""
    again = means(rows)
    out = pd.DataFrame({name: e.printed for name, e in ENTRANTS.items() if e.printed}, index=[f"{m} printed" for m in METRICS]).T
    for metric in METRICS:
        out[f"{metric} again"] = again[f"{metric} all"]
    out["agrees"] = [all(abs(row[f"{m} printed"] - row[f"{m} again"]) < 0.001 for m in METRICS) for _, row in out.iterrows()]
    return out[[f"{m} {kind}" for m in METRICS for kind in ("printed", "again")] + ["agrees"]]


def gains(
    rows: pd.DataFrame, over: Iterable[str], of: str = "kairos-50m", metric: str = "log_MASE", by: str = "dataset"
) -> dict[str, Interval]:
    """How much lower the logarithm of `of` is than that of each model in `over`: 0.01 is one per cent. `by` names what is resampled:
    the 97 configurations (`dataset`), or the sets they come from (`source`), which keeps hourly and daily copies of one set together."""
    wide = rows.pivot(index=["dataset", "source"], columns="variant", values=metric)
    units = wide.index.get_level_values(by).to_list()
    return {name: interval((wide[name] - wide[of]).to_numpy(), units) for name in over}


def frontier(rows: pd.DataFrame) -> pd.DataFrame:
    """Parameters and errors of every entrant with a known size; `ahead` where no smaller one has a lower MASE."""
    again = means(rows)
    out = pd.DataFrame(
        [
            {"variant": name, "millions": e.millions, "MASE": again.at[name, "MASE all"], "CRPS": again.at[name, "CRPS all"],
             "model": "Kairos" if name.startswith("kairos") else "in its table" if e.printed else "not in its table"}
            for name, e in ENTRANTS.items() if e.millions
        ]
    ).sort_values(["millions", "MASE"], ignore_index=True)  # fmt: skip
    return out.assign(ahead=out["MASE"] <= out["MASE"].cummin())


def ranks_among(rows: pd.DataFrame, names: Iterable[str], of: str = "kairos-50m") -> dict[str, int]:
    """The place of one model in each metric among `names` (1 = lowest geometric mean)."""
    again = means(rows).loc[list(names)]
    return {metric: int(again[f"{metric} all"].rank(method="min")[of]) for metric in METRICS}


def listed() -> list[str]:
    return [name for name, entrant in ENTRANTS.items() if entrant.printed]


def without_contested(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows["source"].isin(CONTESTED)]
