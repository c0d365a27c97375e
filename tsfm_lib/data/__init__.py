"""Series that are fetched or bundled: the catalogue, the readers, and windows over them.

>>> from tsfm_lib import data
>>> nile = data.load("nile")
>>> nile.series[0].shape, nile.frequency
((1, 100), 'YS')
"""

from importlib import import_module

_HOME = {
    "Card": "sets", "SeriesSet": "sets", "LabelledSet": "sets", "season_of": "sets",
    "catalogue": "cards", "card": "cards",
    "load": "loading", "available": "loading", "fetch": "loading",
    "read": "reading",
    "as_series_set": "frames",
    "windows": "windowing", "starts": "windowing", "Scaler": "windowing",
}  # fmt: skip
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
