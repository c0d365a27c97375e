"""Series that are fetched or bundled: the catalogue, the readers, and windows over them.

>>> from tsfm_lib import data
>>> nile = data.load("nile")
>>> nile.series[0].shape, nile.frequency
((1, 100), 'YS')
"""

from tsfm_lib.lazy import attach

_HOME = {
    "Card": "sets", "SeriesSet": "sets", "LabelledSet": "sets", "season_of": "sets",
    "catalogue": "cards", "card": "cards",
    "load": "loading", "available": "loading", "fetch": "loading",
    "read": "reading",
    "as_series_set": "frames",
    "windows": "windowing", "starts": "windowing", "Scaler": "windowing",
}  # fmt: skip
__all__ = list(_HOME)
__getattr__, __dir__ = attach(__name__, _HOME)
