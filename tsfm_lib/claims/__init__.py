"""What was said and by whom, the rule written down before the run, and the verdict computed from recorded rows.

    claims.CLAIMS["K3"]                          the claim with its rule
    claims.judge("K3", page.recorded("iarope"))  a Verdict
    claims.table([verdict, ...])                 the table a notebook shows; without arguments the whole scoreboard
    python -m tsfm_lib.claims K3 --data FILE     the claim on a series of one's own, where that makes sense

Verdicts: reproduced, direction holds, not resolved, refuted here, needs official weights, needs data. A verdict is never
typed in. How rules work and how several combine stands in `rules.py`; the claims stand in one file per paper.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

import pandas as pd

from tsfm_lib.claims import cauker, kairos, msft, redundancies, time_tracker
from tsfm_lib.claims import verdict as _verdict
from tsfm_lib.claims.claim import Claim
from tsfm_lib.claims.rules import ALPHA, Difference, Equivalence, Ordered, Part, Threshold
from tsfm_lib.claims.verdict import Table, Verdict
from tsfm_lib.errors import TsfmError, nearest
from tsfm_lib.page import recorded_rows

__all__ = ["CLAIMS", "OWN_DATA", "Chance", "Claim", "Difference", "Equivalence", "Ordered", "Part", "Threshold", "Verdict",
           "by_chance", "claim", "judge", "recorded", "standing", "table"]

CLAIMS: dict[str, Claim] = {c.id: c for module in (kairos, time_tracker, cauker, msft, redundancies) for c in module.CLAIMS}

OWN_DATA: dict[str, str] = {"K3": "tsfm_lib.experiments.kairos:iarope_on"}
"""claim id -> "module:function". The function takes a `tsfm_lib.data` set and returns rows for the claim's rule, or a Verdict."""


def claim(id: str) -> Claim:
    """The claim of this id.

    >>> claim("K3").unit
    'seed'
    """
    if not isinstance(id, str) or id.upper() not in CLAIMS:
        raise TsfmError(f"expected a claim id such as 'K3', got {id!r}{nearest(str(id), CLAIMS)}")
    return CLAIMS[id.upper()]


def judge(id: str, rows: pd.DataFrame, *, alpha: float = ALPHA, widen: bool = True) -> Verdict:
    """The verdict on a claim from its recorded rows; `alpha` and `widen` only to ask what another habit would have said.

    >>> judge("K3", pd.DataFrame()).verdict
    'not resolved'
    """
    return _verdict.judge_claim(claim(id), rows, alpha, widen)


def recorded(id: str) -> pd.DataFrame:
    """All rows recorded for a claim: of each name in its notebooks' folders under figures/ the highest profile."""
    frames = [recorded_rows(notebook) for notebook in claim(id).notebooks]
    rows = [frame for frame in frames if len(frame)]
    whole = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
    whole.attrs["recorded"] = "; ".join(dict.fromkeys(frame.attrs["recorded"] for frame in rows if frame.attrs.get("recorded")))
    return whole


def table(verdicts: Iterable[Verdict] | None = None, recorded_only: bool = False) -> Table:
    """Verdicts as a table; without arguments the scoreboard, one line per claim ("not yet measured" where nothing is recorded)."""
    if verdicts is not None:
        return _verdict.table(verdicts)
    board = standing()
    board = board[board["parts"] > 0] if recorded_only else board
    board.insert(0, "quantity", board["id"] + " " + board["words"])
    return Table(board[["quantity", "said_by", "said", "measured", "interval", "verdict"]].set_axis(list(_verdict.COLUMNS), axis=1))


def standing(verdicts: Mapping[str, Verdict] | None = None) -> pd.DataFrame:
    """How every claim stands, a line each: who said what, what was measured, the verdict and its reason, its kind of rule, its notebook.

    `measured`, `interval` and `clearance` (see `Part`) are those of the part that decided, "-" where nothing is recorded.
    `verdicts` by claim, where they are known already; otherwise all claims are judged from their recorded rows.
    """
    lines = []
    for id, v in ({id: judge(id, recorded(id)) for id in CLAIMS} if verdicts is None else verdicts).items():
        one, part = claim(id), v.decided_by
        judged = [rule for rule in one.rules if not rule.beside]
        lines.append({
            "id": id, "short": one.short, "words": one.words, "paper": one.paper, "said_by": one.said_by, "said": one.said or "-",
            "deciding": v.quantity if part else "-", "measured": v.measured, "interval": v.interval,
            "clearance": part.clearance if part else float("nan"), "n": v.n, "unit": one.unit, "recorded_at": v.profile or "-",
            "recorded": v.recorded or "-", "verdict": v.standing, "why": v.why, "notebook": one.notebooks[0],
            "kind": " and ".join(dict.fromkeys(type(rule).__name__.lower() for rule in judged)), "comparisons": one.comparisons,
            "parts": len(v.parts)})  # fmt: skip
    return pd.DataFrame(lines)


@dataclass(frozen=True)
class Chance:
    """How many of the claims would get a verdict other than "not resolved" if no effect existed anywhere."""
    claims: int
    expected: float
    at_most: int            # not exceeded with probability 0.95, were the claims independent

    def __str__(self) -> str:
        return (f"If there were no effect anywhere, {self.expected:.1f} of {self.claims} claims would still be expected to show an "
                f"interval that excludes zero (at most {self.at_most} in 95 of 100 collections).")


def by_chance(ids: Iterable[str] | None = None) -> Chance:
    """At most alpha per claim: intervals are two-sided at 5 %, a claim of several parts needs all to hold, and one to be
    refuted at 5 % divided by their number. Claims that only say "no effect" are left out.

    >>> by_chance(["K1", "K3"]).expected
    0.1
    """
    from scipy.stats import binom

    chosen = [claim(id) for id in (CLAIMS if ids is None else ids)]
    n = sum(any(not isinstance(rule, Equivalence) for rule in one.rules if not rule.beside) for one in chosen)
    return Chance(n, round(ALPHA * n, 6), ceil(binom.ppf(0.95, n, ALPHA)) if n else 0)
