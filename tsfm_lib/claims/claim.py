"""A claim: who said what, where, and the rule that judges it, fixed before the run."""

from dataclasses import dataclass

from tsfm_lib.claims.rules import Rule
from tsfm_lib.errors import TsfmError

SPEAKERS = ("paper", "seed", "paper's question", "ours")      # seed: a published third-party summary of the paper


@dataclass(frozen=True)
class Claim:
    """One row of the scoreboard.

    `rule` is one rule or several. Several are combined by the weakest: all are reported, and the claim's verdict is the worst
    verdict among those that are not marked `beside`. `expects` is what one would see if the claim were true. `unit` is the
    column whose values are independent; `units` and `seeds` are the fewest of them that may carry a verdict.
    """
    id: str
    paper: str
    said_by: str
    words: str
    said: str                   # value and unit as said; "" when the claim has no number
    source: str                 # table, figure or section as far as known
    notebook: str               # where its rows are recorded; several by commas
    unit: str
    rule: Rule | tuple[Rule, ...]
    expects: str
    limits: str = ""            # what this rule cannot test
    short: str = ""             # the words for a picture, at most 40 letters
    own: str = ""               # why one cannot test it on a series of one's own (unless a check is registered)
    units: int = 5
    seeds: int = 5              # 0: nothing is trained for this claim

    def __post_init__(self) -> None:
        if self.said_by not in SPEAKERS:
            raise TsfmError(f"{self.id}: said_by must be one of {SPEAKERS}, got {self.said_by!r}")
        if all(rule.beside for rule in self.rules):
            raise TsfmError(f"{self.id}: at least one rule must be judged, all are marked beside")

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self.rule if isinstance(self.rule, tuple) else (self.rule,)

    @property
    def notebooks(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.notebook.split(","))

    @property
    def comparisons(self) -> int:
        return sum(rule.comparisons for rule in self.rules if not rule.beside)

    def __str__(self) -> str:
        lines = [f"{self.id}  {self.words}", f"said by   {self.said_by}" + (f": {self.said}" if self.said else ""),
                 f"source    {self.paper}, {self.source}", f"notebook  {self.notebook}",
                 f"unit      {self.unit}, at least {self.units}" + (f", at least {self.seeds} training seeds" if self.seeds else "")]
        for rule in self.rules:
            tail = (f"  [rows: {rule.experiment}]" if rule.experiment else "") + ("  (reported, not judged)" if rule.beside else "")
            lines.append(f"rule      {rule}{tail}")
        lines.append(f"expects   {self.expects}")
        return "\n".join([*lines, f"limits    {self.limits}"] if self.limits else lines)
