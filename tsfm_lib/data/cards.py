"""The catalogue: one row a data set, read from catalogue.csv."""

import csv
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

import pandas as pd

from tsfm_lib.data.sets import Card
from tsfm_lib.errors import TsfmError, nearest

_ENDINGS = ("_with_missing_values", "_without_missing_values", "_dataset")


@lru_cache(maxsize=1)
def _cards() -> tuple[Mapping[str, Card], Mapping[str, str]]:
    cards, aliases = {}, {}
    with (files("tsfm_lib.data") / "catalogue.csv").open(encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text):
            extra = row.pop("aliases").split()
            row.update(season=int(row["season"]), horizon=int(row["horizon"]), facts=json.loads(row["facts"] or "{}"))
            cards[row["name"]] = Card(**row)
            aliases.update({alias.lower(): row["name"] for alias in extra})
    for name in cards:  # a short form stands for the first set that has it
        short = name
        for ending in _ENDINGS:
            short = short.removesuffix(ending)
            aliases.setdefault(short.lower(), name)
    aliases.update({name.lower(): name for name in cards})
    return MappingProxyType(cards), MappingProxyType(aliases)


def card(name: str) -> Card:
    """The card of a data set; case and the ending `_dataset` do not matter.

    >>> card("exchange").name, card("M4_hourly").horizon
    ('exchange_rate', 48)
    >>> card("ETTh3")
    Traceback (most recent call last):
    tsfm_lib.errors.TsfmError: no data set is called 'ETTh3'; did you mean 'ETTh2'?
    """
    cards, aliases = _cards()
    found = aliases.get(name.lower())
    if found is None:
        raise TsfmError(f"no data set is called {name!r}{nearest(name, cards) or ': data.catalogue() lists them'}")
    return cards[found]


def known(name: str) -> bool:
    """Whether the catalogue has this name or alias."""
    return name.lower() in _cards()[1]


def catalogue() -> pd.DataFrame:
    """All cards as a table, one row a data set."""
    return pd.DataFrame([vars(c) for c in _cards()[0].values()]).set_index("name", drop=False).rename_axis(None)
