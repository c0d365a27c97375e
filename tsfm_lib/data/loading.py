"""`load(name)`: from a name to checked data."""

import warnings
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from tsfm_lib.data import cards, fetching
from tsfm_lib.data.reading import ENDINGS, contents, parse
from tsfm_lib.data.sets import Card, LabelledSet, SeriesSet
from tsfm_lib.data.tsf import regular_stamps
from tsfm_lib.errors import DataMissing, TsfmError

EMBEDDED = ("statsmodels", "tslearn", "planted")  # sources that need no file


def _leaderboard(card: Card, files: list[Path]) -> pd.DataFrame:
    if len(files) == 1:
        table = pd.read_csv(files[0])
    elif card.name == "leaderboard_models":
        told = [pd.read_json(f, typ="series") for f in files]
        table = pd.DataFrame(
            {
                "model": card.facts["models"],
                "type": [t["model_type"] for t in told],
                "testdata_leakage": [t.get("testdata_leakage", "") for t in told],
            }
        )
    else:
        columns = {"dataset": "config", "eval_metrics/MASE[0.5]": "MASE", "eval_metrics/mean_weighted_sum_quantile_loss": "CRPS"}
        one = [pd.read_csv(f)[list(columns)].rename(columns=columns).assign(model=m) for f, m in zip(files, card.facts["models"])]
        table = pd.concat(one, ignore_index=True)
    if len(table) != card.facts["rows"]:
        raise TsfmError(f"{card.name}: expected {card.facts['rows']} rows, got {len(table)}: get the file again")
    if card.name == "leaderboard_models":
        return table
    table[["dataset", "frequency", "term"]] = table["config"].str.split("/", expand=True)
    return table[["model", "config", "dataset", "frequency", "term", "MASE", "CRPS"]]


def _check_facts(card: Card, found: SeriesSet | LabelledSet) -> None:
    if isinstance(found, SeriesSet):
        sizes = {
            "n_series": len(found),
            "rows": found.series[0].shape[1],
            "channels": len(found.channels),
            "points": sum(s.shape[1] for s in found.series),
            "last_channel": found.channels[-1],
        }
    else:
        sizes = {"train": len(found.x_train), "test": len(found.x_test), "channels": found.x_train.shape[1], "classes": len(found.classes)}
        if not card.facts.get("uneven"):
            sizes["length"] = found.x_train.shape[2]
    wrong = [f"{key} {sizes[key]} instead of {card.facts[key]}" for key in sizes if key in card.facts and sizes[key] != card.facts[key]]
    if wrong and card.facts.get("unproven"):
        warnings.warn(f"{card.name}: this copy has {', '.join(wrong)} as the literature states", stacklevel=4)
    elif wrong:
        raise TsfmError(f"{card.name}: the file has {', '.join(wrong)}: it is not the published one, get it again from {card.url}")


def _as_published(card: Card, found: SeriesSet | LabelledSet) -> SeriesSet | LabelledSet:
    """The set under its card: the columns the card names, stamps counted from its start where the file has none."""
    if isinstance(found, LabelledSet):
        return replace(found, name=card.name, card=card)
    wanted = card.facts.get("columns")
    if wanted and found.channels != tuple(wanted):
        if set(wanted) <= set(found.channels):
            rows = [found.channels.index(c) for c in wanted]
            found = replace(found, series=tuple(s[rows] for s in found.series), channels=tuple(wanted))
        elif len(wanted) == len(found.channels):
            found = replace(found, channels=tuple(wanted))
    stamps = found.stamps
    if "start" in card.facts and stamps[0] is None:
        stamps = tuple(regular_stamps(card.facts["start"], card.frequency, s.shape[1]) for s in found.series)
    ids = (card.name,) if len(found) == 1 and found.ids == (found.name,) else found.ids
    return replace(found, name=card.name, ids=ids, stamps=stamps, card=card)


def _extract(card: Card) -> SeriesSet:
    """A part of a larger set: some columns, the first or the last rows."""
    whole = load(card.facts["of"])
    first, last = card.facts.get("first_rows"), card.facts.get("last_rows")
    rows = slice(0, first) if first else slice(-last, None) if last else slice(None)
    stamps = None if "start" in card.facts or whole.stamps[0] is None else whole.stamps[0][rows]
    cut = SeriesSet(card.name, (whole.series[0][:, rows],), (card.name,), whole.channels, (stamps,), card)
    return _as_published(card, cut)


def _from_files(card: Card, raw: bool) -> SeriesSet | LabelledSet | pd.DataFrame:
    if card.source == "extract" and not fetching.locate(card):
        found = _extract(card)
        _check_facts(card, found)
        return found
    files = fetching.locate(card) or fetching.fetch(card)
    for file in files:
        fetching.check(card, file)
    try:
        if card.task == "results":
            found = _leaderboard(card, files)
        else:
            members = [(f.name, contents(f)) for f in files]
            found = _as_published(card, parse(members, files[0].name, card.name, ordered=not card.facts.get("unordered"), raw=raw))
            _check_facts(card, found)
    except (TsfmError, KeyError, pd.errors.ParserError):
        fetching.discard(card, files)
        raise
    fetching.pin(card, files)
    return found


def _find(name: Any) -> tuple[Card, str]:
    """The card, and the part after its name ('classics_long/nile'), if any."""
    if not isinstance(name, (str, PathLike)):
        raise TsfmError(f"expected the name of a data set, got {type(name).__name__}: data.catalogue() lists them")
    if not isinstance(name, str) or not cards.known(name.partition("/")[0]) and (
        name.startswith((".", "/", "~")) or "\\" in name or Path(name).suffix in ENDINGS
    ):
        raise TsfmError(f"{str(name)!r} is a path, expected a name of data.catalogue(): use data.read for files of your own")
    if cards.known(name) or "/" not in name:
        return cards.card(name), ""
    whole, _, part = name.partition("/")
    return cards.card(whole), part


def load(name: Any, raw: bool = False) -> SeriesSet | LabelledSet | pd.DataFrame:
    """A data set by name: embedded, from $TSFM_DATA, from the cache, or downloaded.

    `NAME/ID` gives one series of a collection. `raw` gives the UCR sets of unequal lengths as recorded, padded with NaN.

    >>> load("nile").frame().iloc[0, 0]
    np.float64(1120.0)
    """
    card, part = _find(name)
    if card.source == "hub":
        from tsfm_lib.data.hub import load_hub

        return load_hub(card, part)
    if card.source in EMBEDDED:
        from tsfm_lib.data import embedded

        found = embedded.LOADERS[card.source](card)
    else:
        found = _from_files(card, raw)
    if not part:
        return found
    if not isinstance(found, SeriesSet):
        raise TsfmError(f"{card.name} has no single series to pick: load({card.name!r})")
    return found.channel(part) if len(found) == 1 else found.pick(part)


def available(name: Any) -> bool:
    """Whether `load(name)` needs no network: embedded, in $TSFM_DATA or in the cache."""
    card = _find(name)[0]
    if card.source in EMBEDDED:
        return True
    return bool(fetching.locate(card)) or (card.source == "extract" and available(card.facts["of"]))


def fetch(name: Any) -> list[Path]:
    """The files of a data set on this machine, downloaded into the cache if they are nowhere else."""
    card, part = _find(name)
    if card.source in EMBEDDED:
        raise DataMissing(f"{card.name} comes with the installed packages and has no file: use load({card.name!r})")
    if card.source == "hub":
        from tsfm_lib.data.hub import fetch_hub

        return [fetch_hub(card, part)]
    if files := fetching.locate(card):
        return files
    return fetch(card.facts["of"]) if card.source == "extract" else fetching.fetch(card)  # an extract is cut from a larger set
