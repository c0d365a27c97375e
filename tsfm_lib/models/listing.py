"""What there is: the weights that come with the library, and the table of all models."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tsfm_lib.models import BASELINES, MODELS
from tsfm_lib.paths import WEIGHTS, read_json


def shipped() -> dict[str, Path]:
    """The weights that come with the library: name and folder."""
    return {p.parent.name: p.parent for p in sorted(WEIGHTS.glob("*/config.json"))}


def forecasters() -> list[str]:
    """Those of them that forecast."""
    return [name for name, folder in shipped().items() if _card(folder).get("task") == "forecasting"]


def _card(folder: Path) -> dict[str, Any]:
    return read_json(folder / "card.json") if (folder / "card.json").exists() else {}


def _in_words(result: Any) -> str:
    """A recorded result in one line, without what it says of each data set.

    >>> _in_words({"suite": "embedded", "MASE": 0.67, "by_dataset": {"co2": {"MASE": 0.68}}})
    'suite embedded, MASE 0.67'
    """
    if not isinstance(result, dict):
        return result if isinstance(result, str) else json.dumps(result)
    flat = {key: " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value for key, value in result.items()}
    return ", ".join(f"{key} {value}" for key, value in flat.items() if key != "by_dataset")


def table() -> pd.DataFrame:
    """One row per model: what it does, how many parameters, the context it reads, its recorded result, the licence.

    >>> table().set_index("name").loc["seasonal-naive", ["task", "context"]].tolist()
    ['forecasting', 'any']
    """
    rows = [(name, e.task, 0, "any", "", e.licence) for name, e in BASELINES.items()]
    rows += [(name, e.task, pd.NA, "as configured", f"untrained: checkpoints.build({name!r})", e.licence) for name, e in MODELS.items()]
    for name, folder in shipped().items():
        card = _card(folder)
        config = read_json(folder / "config.json").get("config", {})
        size, context = card.get("parameters", pd.NA), str(config.get("context", ""))
        rows.append((name, card.get("task", ""), size, context, _in_words(card.get("result", "")), card.get("licence", "")))
    frame = pd.DataFrame(rows, columns=["name", "task", "size", "context", "result", "licence"])
    return frame.astype({"size": "Int64"})
