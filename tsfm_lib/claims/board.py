"""The scoreboard as one picture: a line per claim, its verdict by colour, sign and word."""

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tsfm_lib.claims.rules import DIRECTION, NEEDS, REFUTED, REPRODUCED, UNRESOLVED
from tsfm_lib.claims.verdict import UNMEASURED
from tsfm_lib.plotting import GREY, INK, VERDICTS

SIGNS = {REPRODUCED: "✔", DIRECTION: "↑", UNRESOLVED: "?", REFUTED: "✘", **dict.fromkeys(NEEDS.values(), "…"), UNMEASURED: ""}
MEANING = {
    REPRODUCED: "said side, and as large as said", DIRECTION: "said side, size not comparable", UNRESOLVED: "the interval says neither",
    REFUTED: "the other side, at this scale", **dict.fromkeys(NEEDS.values(), "cannot be run here"), UNMEASURED: "rows to be recorded",
}  # fmt: skip
WIDTH, LINE, HEAD = 10.0, 0.235, 1.7           # inches, inches a line, lines a heading takes
RIGHT = ("C", "R")                             # papers of the right-hand column, below the legend


def badge(axes: Axes, x: float, y: float, verdict: str) -> None:
    """A square in the verdict's colour with its sign."""
    shade = VERDICTS.get(verdict, "white")
    dark = sum(weight * part for weight, part in zip((0.3, 0.6, 0.1), mpl.colors.to_rgb(shade))) < 0.7
    empty = verdict == UNMEASURED
    axes.scatter([x], [y], s=165, marker="s", color=shade, edgecolor=GREY if empty else "none", lw=0.9, ls=":" if empty else "-")
    axes.text(x, y, SIGNS[verdict], ha="center", va="center_baseline", fontsize=11, weight="bold", color="white" if dark else INK)


def picture(standing: pd.DataFrame) -> Figure:
    """Two columns of claims, paper by paper; what is in italics was not said by the paper. How many there are of each verdict stands
    in the legend. `standing` is the frame of `claims.standing`."""
    papers = dict(list(standing.groupby(standing["id"].str[0], sort=False)))
    left, right = ([papers[letter] for letter in papers if (letter in RIGHT) == side] for side in (False, True))
    counts = standing["verdict"].value_counts().reindex([verdict for verdict in SIGNS if verdict in set(standing["verdict"])])
    legend = len(counts) + 1 + HEAD
    lines = max(sum(len(part) + HEAD for part in left), legend + sum(len(part) + HEAD for part in right))
    figure = Figure(figsize=(WIDTH, LINE * (lines + 0.6)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(lines + 0.6, 0))
    axes.axis("off")
    _legend(axes, WIDTH / 2 + 0.15, counts, int((standing["n"] > 0).sum()))
    for x, y, column in ((0.15, 0.0, left), (WIDTH / 2 + 0.15, legend, right)):
        for part in column:
            _paper(axes, x, y, part)
            y += len(part) + HEAD
    return figure


def _heading(axes: Axes, x: float, y: float, words: str) -> float:
    axes.text(x, y + 0.9, words, va="center", fontsize=11, weight="bold", color=INK)
    axes.plot([x, x + WIDTH / 2 - 0.3], [y + 1.45] * 2, color=GREY, lw=0.8)
    return y + HEAD - 0.55


def _legend(axes: Axes, x: float, counts: pd.Series, measured: int) -> None:
    y = _heading(axes, x, 0.0, f"{counts.sum()} claims, {measured} of them measured")
    for verdict, count in counts.items():
        y += 1
        badge(axes, x + 0.11, y, verdict)
        axes.text(x + 0.58, y, str(count), va="center", ha="right", fontsize=11, weight="bold", color=INK)
        axes.text(x + 0.68, y, verdict, va="center", fontsize=10, weight="bold", color=INK)
        axes.text(x + WIDTH / 2 - 0.3, y, MEANING[verdict], va="center", ha="right", fontsize=9, color=INK)
    axes.text(x + 0.68, y + 1, "in italics: not said by the paper itself", va="center", fontsize=10, style="italic", color=INK)


def _paper(axes: Axes, x: float, y: float, part: pd.DataFrame) -> None:
    y = _heading(axes, x, y, part["paper"].iloc[0])
    for one in part.itertuples():
        y += 1
        badge(axes, x + 0.11, y, one.verdict)
        axes.text(x + 0.3, y, one.id, va="center", fontsize=10, weight="bold", color=INK)
        axes.text(x + 0.68, y, one.short, va="center", fontsize=10, color=INK, style="normal" if one.said_by == "paper" else "italic")
        axes.text(x + WIDTH / 2 - 0.3, y, one.verdict, va="center", ha="right", fontsize=9, color=INK)
