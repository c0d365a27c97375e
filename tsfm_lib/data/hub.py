"""GIFT-Eval and UTSD from the Hugging Face hub: two optional packages, a network, and Arrow files."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tsfm_lib import paths
from tsfm_lib.data.fetching import reach
from tsfm_lib.data.frames import make
from tsfm_lib.data.sets import Card, SeriesSet, season_of, unit_of
from tsfm_lib.data.tsf import regular_stamps
from tsfm_lib.errors import DataMissing, TsfmError


def fetch_hub(card: Card, part: str = "") -> Path:
    """The folder of one part of a hub data set, downloaded into the cache."""
    pattern = card.facts["pattern"].replace("{part}", part)
    if "{part}" in card.facts["pattern"] and not part:
        raise TsfmError(
            f"{card.name} is fetched by parts: write {card.name}/NAME with a folder of {card.url}, for instance gift_eval/electricity/H"
        )
    try:
        import pyarrow  # noqa: F401  the files are of no use without it
        from huggingface_hub import snapshot_download
    except ImportError:
        raise DataMissing(
            f"{card.name} comes from {card.url} and needs two more packages and a network: pip install huggingface_hub pyarrow"
        ) from None
    reach(card, card.url)
    folder = paths.cache() / "data" / card.name
    try:
        snapshot_download(card.facts["repository"], repo_type="dataset", allow_patterns=[pattern], local_dir=folder)
    except Exception as error:  # the hub's client raises many kinds; all mean that the data did not come
        raise DataMissing(
            f"{card.name} could not be fetched from {card.url} ({error}): check the name of the part and the network"
        ) from None
    return folder / pattern.rstrip("/*")


def _rows(folder: Path) -> list[dict]:
    try:
        from pyarrow import ipc
        from pyarrow import parquet as pq
    except ImportError:
        raise DataMissing(f"the files of {folder} are Arrow tables: pip install pyarrow to read them") from None
    rows = []
    for file in sorted(folder.rglob("*.arrow")):
        with ipc.open_stream(file) as stream:
            rows += stream.read_all().to_pylist()
    for file in sorted(folder.rglob("*.parquet")):
        rows += pq.read_table(file).to_pylist()
    return rows


def load_hub(card: Card, part: str = "") -> SeriesSet:
    """One part as a SeriesSet: rows of item_id, start, freq and target ([T] or [V, T])."""
    rows = _rows(fetch_hub(card, part))
    if not rows:
        raise DataMissing(f"{card.name} has no part {part!r} with Arrow files: see {card.url} for the names")
    series = [np.atleast_2d(np.asarray(row["target"], dtype=np.float64)) for row in rows]
    number, unit = unit_of(str(rows[0].get("freq", "")))
    frequency = f"{number}{unit}" if number > 1 else unit
    stamps = [
        regular_stamps(str(row["start"])[:19], frequency, values.shape[1]) if row.get("start") is not None and unit else None
        for row, values in zip(rows, series)
    ]
    channels = ["value"] if series[0].shape[0] == 1 else [str(v) for v in range(series[0].shape[0])]
    ids = [str(row.get("item_id", i)) for i, row in enumerate(rows)]
    made = make(f"{card.name}/{part}" if part else card.name, series, ids, channels, stamps, card.name)
    return replace(made, card=replace(card, name=made.name, frequency=frequency, season=season_of(frequency), splits="last-horizon"))
