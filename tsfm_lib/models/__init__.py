"""The register of models. Nothing heavy is imported until a model is asked for.

MODELS      architectures with weights: built by `checkpoints.build(name, config, seed)`, trained, saved, loaded from a folder
BASELINES   forecasters without weights: `tsfm_lib.load(name)`
Shipped weights are folders under `tsfm_lib/weights`; their names are what users type. Called, `tsfm_lib.models()` is the table of all.
"""

import sys
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One line of the register."""

    name: str
    module: str
    cls: str
    config_cls: str
    task: str
    paper: str
    licence: str
    options: dict[str, Any] = field(default_factory=dict)

    def load_module(self) -> ModuleType:
        return import_module(self.module)

    def model_class(self) -> type:
        return getattr(self.load_module(), self.cls)

    def config_class(self) -> type:
        return getattr(self.load_module(), self.config_cls)


_SCRATCH, _BASE, _OURS = "tsfm_lib.models.scratch", "tsfm_lib.models.baselines", "Apache-2.0"

MODELS: dict[str, Entry] = {
    "dlinear": Entry("dlinear", _SCRATCH, "DLinear", "DLinearConfig", "forecasting", "arXiv 2205.13504", _OURS),
    "patchtst": Entry("patchtst", _SCRATCH, "PatchTST", "PatchTSTConfig", "forecasting", "arXiv 2211.14730", _OURS),
    "itransformer": Entry("itransformer", _SCRATCH, "ITransformer", "ITransformerConfig", "forecasting", "arXiv 2310.06625", _OURS),
    "kairos": Entry("kairos", "tsfm_lib.models.kairos", "Kairos", "KairosConfig", "forecasting", "arXiv 2509.25826", _OURS),
    "time-tracker": Entry(
        "time-tracker", "tsfm_lib.models.time_tracker", "TimeTracker", "TimeTrackerConfig", "forecasting", "arXiv 2505.15151", _OURS
    ),
    "chronos-t5": Entry("chronos-t5", "tsfm_lib.models.chronos", "Chronos", "ChronosConfig", "forecasting", "arXiv 2403.07815", _OURS),
    "chronos-bolt": Entry(
        "chronos-bolt", "tsfm_lib.models.chronos_bolt", "ChronosBolt", "ChronosBoltConfig", "forecasting", "arXiv 2403.07815", _OURS
    ),
    "timesfm": Entry("timesfm", "tsfm_lib.models.timesfm", "TimesFM", "TimesFMConfig", "forecasting", "arXiv 2310.10688", _OURS),
    "toto": Entry("toto", "tsfm_lib.models.toto", "Toto", "TotoConfig", "forecasting", "arXiv 2505.14766", _OURS),
    "mantis": Entry("mantis", "tsfm_lib.models.mantis", "Mantis", "MantisConfig", "embedding", "arXiv 2502.15637", _OURS),
    "moirai": Entry("moirai", "tsfm_lib.models.moirai", "Moirai", "MoiraiConfig", "forecasting", "arXiv 2402.02592", _OURS),
    "moment": Entry("moment", "tsfm_lib.models.moment", "Moment", "MomentConfig", "embedding", "arXiv 2402.03885", _OURS),
    "units": Entry("units", "tsfm_lib.models.units", "UniTS", "UniTSConfig", "forecasting", "arXiv 2403.00131", _OURS),
}

BASELINES: dict[str, Entry] = {
    "naive": Entry("naive", _BASE, "Naive", "", "forecasting", "", _OURS),
    "seasonal-naive": Entry("seasonal-naive", _BASE, "SeasonalNaive", "", "forecasting", "", _OURS),
    "seasonal-naive-intervals": Entry(
        "seasonal-naive-intervals", _BASE, "SeasonalNaive", "", "forecasting", "", _OURS, options={"intervals": True}
    ),
    "ridge-lags": Entry("ridge-lags", _BASE, "RidgeLags", "", "forecasting", "", _OURS),
    "ets": Entry("ets", _BASE, "ETS", "", "forecasting", "doi 10.1016/S0169-2070(01)00110-8", _OURS),
    "theta": Entry("theta", _BASE, "Theta", "", "forecasting", "doi 10.1016/S0169-2070(00)00066-2", _OURS),
    "dlinear-fit": Entry("dlinear-fit", _BASE, "DLinearFit", "", "forecasting", "arXiv 2205.13504", _OURS),
}


class _Room(ModuleType):
    """This package is also a function, so that `tsfm_lib.models()` works whether or not something has imported it before."""

    def __call__(self):
        return import_module("tsfm_lib.models.listing").table()


sys.modules[__name__].__class__ = _Room
