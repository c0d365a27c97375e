"""Suites: which windows of which data sets a forecaster is judged on, fixed here in code.

* `embedded`: 8 sets that come with statsmodels and 5 planted ones, 313 windows. No download, seconds; run for every shipped
  weight. Enough to see that a model works, too little to rank models by.
* `local`: 17 benchmark sets, 1,843 windows. Architectures, mixtures and recipes of the shipped models WERE chosen on it:
  its numbers are development numbers.
* `fresh`: 12 sets, 1,283 windows. NO choice was made on it and none may be: run it once, after everything is decided.
* `ucr`: the names of 66 sets of the UCR archive (those of its 128 that the project has proven its readers on), for
  `tsfm_lib.evaluate.classification`. CauKer's table is on all 128: compare like with like.

A window is the 512 points before the forecast (padded with NaN on the left where the series is younger) and the `horizon`
points after. Kept are windows with a complete future and a context of more than 8 observed points that are not all equal; of
more than 120 a data set, 120 are drawn without replacement. One random stream runs through the sets of a suite in their order,
so every task knows what its predecessors drew from and can be loaded alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from tsfm_lib import data
from tsfm_lib.data.sets import SeriesSet
from tsfm_lib.errors import TsfmError, nearest

CONTEXT = 512
LIMIT = 120                # windows a data set


@dataclass(frozen=True)
class Windows:
    """What a task loads: N windows side by side, and where each comes from.

    >>> one = Windows("toy", np.zeros((1, 1, 4)), np.ones((1, 1, 2)), 1, ("a",), np.array([4]))
    >>> len(one), one.horizon, one.units
    (1, 2, ('a@4',))
    """

    name: str
    contexts: Float[np.ndarray, "N V C"]
    targets: Float[np.ndarray, "N V H"]
    season: int
    series: tuple[str, ...]                 # id of the series or channel of each window
    starts: Int[np.ndarray, " N"]           # index of the first target point in its series

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def horizon(self) -> int:
        return self.targets.shape[-1]

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(f"{name}@{start}" for name, start in zip(self.series, self.starts))


@dataclass(frozen=True)
class Task:
    """One data set with its forecasting windows.

    `count=None`: one window per series, its last `horizon` points. Otherwise `count` evenly spaced starts per series, from row
    `first` (a share of the length if below 1) to `last` (None: the end) minus the horizon.
    """

    dataset: str                            # name in the catalogue and in the tables
    horizon: int
    season: int
    count: int | None = None
    first: float | int = 0.0
    last: int | None = None
    channels: int | None = None             # only the first so many
    context: int = CONTEXT
    seed: int = 0
    population: int | None = None           # windows there are, where more than LIMIT: a check, and the size of the draw
    before: tuple[int, ...] = ()            # populations drawn from by earlier tasks of the suite (one random stream)

    def load(self) -> Windows:
        found = data.load(self.dataset)
        contexts, targets, names, starts = [], [], [], []
        for name, values in series_of(found, self.channels):
            at = self.starts(len(values))
            if at:
                cut = data.windows(values[None], self.context, self.horizon, np.array(at))
                contexts.append(cut[0])
                targets.append(cut[1])
                names += [name] * len(at)
                starts += at
        if not contexts:
            raise TsfmError(f"no series of {self.dataset} is longer than the horizon of {self.horizon} points: use a shorter horizon")
        every, future = np.concatenate(contexts), np.concatenate(targets)
        kept = self._kept(every[:, 0], future[:, 0])
        ids, at = tuple(names[i] for i in kept), np.array(starts)[kept]
        return Windows(self.dataset, every[kept], future[kept], self.season, ids, at)

    def starts(self, length: int) -> list[int]:
        """First target index of every window in a series of this length.

        >>> Task("x", horizon=10, season=1, count=3, first=0.5).starts(100), Task("x", 10, 1).starts(100), Task("x", 10, 1).starts(10)
        ([50, 70, 90], [90], [])
        """
        end = (self.last if self.last is not None else length) - self.horizon
        if self.count is None:
            return [end] if end > 0 else []
        begin = int(self.first * length) if self.first < 1 else int(self.first)
        return np.linspace(begin, end, self.count).astype(int).tolist() if 0 < begin <= end else []

    def _kept(self, contexts: np.ndarray, targets: np.ndarray) -> np.ndarray:
        observed = np.isfinite(contexts)
        enough = observed.sum(1) > 8
        count = np.maximum(observed.sum(1, keepdims=True), 1)
        mean = np.where(observed, contexts, 0.0).sum(1, keepdims=True) / count
        spread = np.sqrt((np.where(observed, contexts - mean, 0.0) ** 2).sum(1) / count[:, 0])
        usable = np.nonzero(np.isfinite(targets).all(1) & enough & (spread > 1e-9))[0]
        if self.population is not None and len(usable) != self.population:
            raise TsfmError(f"{self.dataset} gives {len(usable)} windows where the suite was drawn from {self.population}: the data differ")
        if len(usable) <= LIMIT:
            return usable
        rng = np.random.default_rng(self.seed)
        for earlier in self.before:
            rng.choice(earlier, LIMIT, replace=False)
        return usable[np.sort(rng.choice(len(usable), LIMIT, replace=False))]


def series_of(found: SeriesSet, channels: int | None = None) -> list[tuple[str, np.ndarray]]:
    """(id, values [T]) of every series and channel of a SeriesSet."""
    many, wide = len(found.series) > 1, len(found.channels) > 1
    label = lambda identity, channel: f"{identity}/{channel}" if many and wide else str(identity) if many else str(channel)
    return [
        (label(identity, channel), values[v])
        for identity, values in zip(found.ids, found.series)
        for v, channel in list(enumerate(found.channels))[:channels]
    ]


def _suite(seed: int, *tasks: Task) -> tuple[Task, ...]:
    """Hand the suite's random stream through its tasks."""
    drawn: list[int] = []
    out = []
    for task in tasks:
        out.append(replace(task, seed=seed, before=tuple(drawn)))
        if task.population is not None:
            drawn.append(task.population)
    return tuple(out)


LOCAL = _suite(
    0,
    Task("ETTh1", 96, 24, count=17, first=11520, last=14400),
    Task("ETTh2", 96, 24, count=17, first=11520, last=14400),
    Task("ETTm1", 96, 96, count=17, first=46080, last=57600),
    Task("ETTm2", 96, 96, count=17, first=46080, last=57600),
    Task("weather", 96, 144, count=15, first=0.8, channels=8),
    Task("nyc_taxi_30min", 96, 48, count=60, first=0.7),
    Task("exchange_rate", 30, 7, count=15, first=0.8),
    Task("m4_hourly", 48, 24, population=414),
    Task("tourism_monthly", 24, 12, population=366),
    Task("m3_monthly", 18, 12, population=1428),
    Task("electricity_weekly", 8, 1, population=321),
    Task("traffic_weekly", 8, 1, population=862),
    Task("solar_weekly", 8, 1, population=137),
    Task("nn5_daily", 56, 7),
    Task("us_births", 30, 7, count=80, first=0.8),
    Task("saugeenday", 30, 7, count=80, first=0.8),
    Task("sunspot", 30, 7, count=80, first=0.8),
)

FRESH = _suite(
    1,
    Task("aus_electricity_demand_1", 96, 48, count=100, first=0.8),
    Task("vic_elec", 96, 48, count=50, first=0.8, channels=2),
    Task("pjm_load_2023", 96, 24, count=20, first=0.8),
    Task("ecl_203ch_1000h", 96, 24, count=2, first=0.85, population=406),
    Task("solar_al_test20", 96, 144, count=3, first=0.8, population=411),
    Task("beijing_pm25", 96, 24, count=25, first=0.8, channels=4),
    Task("m1_monthly", 18, 12, population=617),
    Task("m3_quarterly", 8, 4, population=756),
    Task("m1_quarterly", 8, 4, population=203),
    Task("fred_md", 12, 12),
    Task("tourism_yearly", 4, 1, population=503),
    Task("bitcoin_usd_daily", 30, 7, count=60, first=0.6),
)

EMBEDDED = _suite(
    2,
    Task("co2", 26, 52, count=12, first=0.6),
    Task("sunspots_yearly", 8, 11, count=8, first=0.6),
    Task("elnino", 24, 12, count=8, first=0.6),
    Task("nile", 8, 1, count=6, first=0.5),
    Task("macrodata", 8, 4, count=2, first=0.7),
    Task("elec_equip", 12, 12, count=6, first=0.5),
    Task("danish_data", 8, 4, count=2, first=0.6),
    Task("copper", 4, 1, count=3, first=0.6),
    Task("planted-regimes", 96, 1),
    Task("planted-density", 96, 1),
    Task("planted-frequency", 96, 1),
    Task("planted-drivers", 24, 1),
    Task("planted-shortcut", 96, 24),
)

_UCR = """
ACSF1 Adiac AllGestureWiimoteX AllGestureWiimoteY AllGestureWiimoteZ ArrowHead BME Beef BirdChicken CBF Car Coffee Computers
CricketX CricketY CricketZ DistalPhalanxOutlineAgeGroup DistalPhalanxOutlineCorrect DistalPhalanxTW DodgerLoopDay DodgerLoopGame
DodgerLoopWeekend ECG200 EOGHorizontalSignal EOGVerticalSignal FaceAll FaceFour FacesUCR Fungi GestureMidAirD1 GestureMidAirD2
GestureMidAirD3 GunPoint GunPointAgeSpan GunPointMaleVersusFemale GunPointOldVersusYoung Ham Haptics HouseTwenty ItalyPowerDemand
Lightning2 Lightning7 MedicalImages MiddlePhalanxOutlineAgeGroup MiddlePhalanxOutlineCorrect MiddlePhalanxTW OSULeaf OliveOil
PLAID PhalangesOutlinesCorrect PickupGestureWiimoteZ ProximalPhalanxOutlineAgeGroup ProximalPhalanxOutlineCorrect
ProximalPhalanxTW RefrigerationDevices ScreenType ShakeGestureWiimoteZ ShapesAll SmallKitchenAppliances SmoothSubspace
SonyAIBORobotSurface1 SonyAIBORobotSurface2 Strawberry SyntheticControl Trace TwoLeadECG
"""
UCR: tuple[str, ...] = tuple(_UCR.split())

SUITES: dict[str, tuple[Task, ...] | tuple[str, ...]] = {"embedded": EMBEDDED, "local": LOCAL, "fresh": FRESH, "ucr": UCR}

OUTLIERS = ("m4_hourly",)       # means of suite `local` are given with and without these


def suite(name: str) -> tuple[Task, ...] | tuple[str, ...]:
    """The tasks of a suite by name (for `ucr`: the names of its sets).

    >>> len(suite("local")), len(suite("fresh"))
    (17, 12)
    """
    if name not in SUITES:
        raise TsfmError(f"no suite called {name!r}{nearest(name, SUITES)} (there are {', '.join(SUITES)})")
    return SUITES[name]


def names(tasks: Sequence[Task]) -> list[str]:
    """The data sets a suite needs, for a check before a long run.

    >>> names(suite("fresh"))[:2]
    ['aus_electricity_demand_1', 'vic_elec']
    """
    return [task.dataset for task in tasks]
