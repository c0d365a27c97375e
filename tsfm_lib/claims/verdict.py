"""From recorded rows to a verdict, and from verdicts to the table a notebook shows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tsfm_lib.claims.claim import Claim
from tsfm_lib.claims.rules import ALPHA, NEEDS, REPRODUCED, UNRESOLVED, WEAKEST_FIRST, Part, parts, profile_rank
from tsfm_lib.errors import TsfmError

UNMEASURED = "not yet measured"
COLUMNS = ("quantity", "said by", "said", "recorded", "interval", "verdict")


@dataclass(frozen=True)
class Verdict:
    """What became of a claim. `quantity`, `measured` and `interval` are those of the part that decided; `parts` has them all."""
    claim: Claim
    verdict: str
    quantity: str
    said_by: str
    said: str
    measured: str
    interval: str
    n: int
    profile: str
    why: str
    parts: tuple[Part, ...] = ()
    recorded: str = ""              # when and on what the rows were recorded, as far as the rows know

    @property
    def measured_at_all(self) -> bool:
        return any(part.interval is not None for part in self.parts)

    @property
    def standing(self) -> str:
        """The verdict, or that there is nothing to base one on yet."""
        return self.verdict if self.measured_at_all or self.verdict in NEEDS.values() else UNMEASURED

    @property
    def decided_by(self) -> Part | None:
        """The judged part that the verdict is about; None where nothing is recorded."""
        return next((part for part in self.parts if not part.beside and part.words == self.quantity), None)

    def frame(self) -> pd.DataFrame:
        """One line for the claim and, when it has several parts, one for each of them."""
        id = self.claim.id
        lines = [(f"{id} {part.words}", "beside" if part.beside else self.said_by, part.said or ("" if len(self.parts) > 1 else self.said),
                  part.measured(), part.range(), part.verdict) for part in self.parts]
        if len(self.parts) != 1:
            lines.append((f"{id} as a whole", self.said_by, self.said, self.measured, self.interval, self.verdict))
        return pd.DataFrame([[cell or "-" for cell in line] for line in lines], columns=list(COLUMNS))

    def _caption(self) -> str:
        where = " · ".join(x for x in (self.profile and f"profile {self.profile}", self.recorded, self.n and f"{self.n} units") if x)
        return f"{self.claim.id}: {self.verdict}. {self.why}" + (f" ({where})" if where else "")

    def __str__(self) -> str:
        return f"{self._caption()}\n{_text(self.frame())}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(self._caption())}</p>{self.frame().to_html(index=False, border=0)}"


def _text(frame: pd.DataFrame) -> str:
    with pd.option_context("display.max_colwidth", None, "display.width", None):
        return frame.to_string(index=False, justify="left")


def _sentence(part: Part) -> str:
    return f"{part.words}: {part.why}"


def judge_claim(claim: Claim, rows: pd.DataFrame, alpha: float = ALPHA, widen: bool = True) -> Verdict:
    """Apply the claim's rules to its rows; the weakest judged part decides, the first of them if several are as weak.

    A verdict is that of `alpha` as it is, with refuting intervals widened for the number of comparisons; other values ask what
    would have been said by another habit."""
    if not isinstance(rows, pd.DataFrame):
        got = type(rows).__name__
        raise TsfmError(f"{claim.id} is judged from a DataFrame of recorded rows, got {got}: pass claims.recorded({claim.id!r})")
    absent = not len(rows)
    found = [part for rule in claim.rules for part in parts(
        rule, rows, claim.unit, least=claim.units, seeds=claim.seeds, tests=claim.comparisons if widen else 1, alpha=alpha)]
    judged = [part for part in found if not part.beside]
    weakest = min(judged, key=lambda part: WEAKEST_FIRST.index(part.verdict))
    why = _sentence(weakest) if len(judged) == 1 else f"weakest of {len(judged)} parts: {_sentence(weakest)}"
    verdict = weakest.verdict
    if absent:
        verdict = UNRESOLVED
        why = "no recorded rows" + (f": {rows.attrs['reason']}" if rows.attrs.get("reason") else "")
        found = []
    elif verdict == REPRODUCED and claim.said:
        why += f" (said: {claim.said})"
    profile = "" if absent or "profile" not in rows else max(rows["profile"].unique(), key=profile_rank)
    return Verdict(
        claim, verdict, weakest.words if not absent else claim.words, claim.said_by, claim.said, weakest.measured(), weakest.range(),
        weakest.interval.n if weakest.interval else 0, profile, why, tuple(found), rows.attrs.get("recorded", ""))


class Table(pd.DataFrame):
    """Verdicts as a plain frame: prints and renders the same on every machine."""

    @property
    def _constructor(self) -> type:
        return pd.DataFrame

    def drop(self, *arguments: Any, **options: Any) -> "Table":
        return Table(super().drop(*arguments, **options))

    def __str__(self) -> str:
        return _text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html(index=False, border=0)


def table(verdicts: Iterable[Verdict]) -> Table:
    """The verdict table of a notebook: quantity | said by | said | recorded | interval | verdict."""
    frames = [verdict.frame() for verdict in verdicts]
    return Table(pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS)))
