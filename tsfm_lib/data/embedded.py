"""Data that need no download: what statsmodels and tslearn bundle, and generated series with known structure."""

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from tsfm_lib.data.frames import from_frame
from tsfm_lib.data.sets import Card, LabelledSet, SeriesSet
from tsfm_lib.data.tsf import regular_stamps
from tsfm_lib.errors import DataMissing

_MODULES = {"sunspots_yearly": "sunspots"}
_MONTHS_FIRST = {"elnino": "1950-01-01"}  # a table of years by months
_STARTS = {
    "sunspots_yearly": "1700-01-01",
    "nile": "1871-01-01",
    "macrodata": "1959-01-01",
    "interest_inflation": "1972-04-01",
    "copper": "1951-01-01",
}
_CLOCKS = ["YEAR", "year", "quarter", "TIME"]  # columns that only count time


def from_statsmodels(card: Card) -> SeriesSet:
    """One of the series that the statsmodels package contains."""
    table = import_module(f"statsmodels.datasets.{_MODULES.get(card.name, card.name)}").load_pandas().data
    if card.name in _MONTHS_FIRST:
        values = table.drop(columns="YEAR").to_numpy().reshape(-1)
        table = pd.DataFrame({card.name: values}, index=regular_stamps(_MONTHS_FIRST[card.name], "MS", values.size))
    else:
        if card.name in _STARTS:
            table.index = regular_stamps(_STARTS[card.name], card.frequency, len(table))
        table = table.drop(columns=[c for c in _CLOCKS if c in table])
    if table.shape[1] == 1:
        table.columns = [card.name]
    return replace(from_frame(table, card.name, f"statsmodels' {card.name}"), card=card)


def from_tslearn(card: Card) -> LabelledSet:
    """Trace, the one data set inside the tslearn package; its file is read without importing the package, which takes seconds."""
    package = find_spec("tslearn")
    if package is None or not package.submodule_search_locations:
        raise DataMissing(f"{card.name} comes with the package tslearn, which is not installed: pip install tslearn")
    with np.load(Path(package.submodule_search_locations[0]) / ".cached_datasets" / "Trace.npz", allow_pickle=False) as z:
        x = [np.ascontiguousarray(z[key].transpose(0, 2, 1), dtype=np.float32) for key in ("X_train", "X_test")]
        labels, codes = np.unique(np.concatenate([z["y_train"], z["y_test"]]), return_inverse=True)
    y = np.split(codes.astype(np.int64), [len(x[0])])
    return LabelledSet(card.name, x[0], y[0], x[1], y[1], tuple(str(v) for v in labels), card)


def from_planted(card: Card) -> SeriesSet:
    """Series made with a fixed seed; `synth.planted` returns the truth beside them for the arguments on the card."""
    from tsfm_lib.synth import planted

    series = getattr(planted, card.name.removeprefix("planted-"))(**card.facts["call"]).series.astype(np.float64)
    elements = tuple(series if series.ndim == 3 else series[:, None])
    channels = tuple(str(v) for v in range(elements[0].shape[0])) if series.ndim == 3 else ("value",)
    return SeriesSet(card.name, elements, tuple(str(i) for i in range(len(elements))), channels, (None,) * len(elements), card)


LOADERS = {"statsmodels": from_statsmodels, "tslearn": from_tslearn, "planted": from_planted}
