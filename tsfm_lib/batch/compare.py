"""Does an executed notebook still say what the committed one says? Judged by nbval's own code, cell by cell."""

import copy
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

from nbformat import NotebookNode
from nbval.plugin import IPyNbCell, coalesce_streams, find_comment_markers, find_metadata_tags

SKIPPED = (             # as nbval without --nbdime: ids and counts are not content, and pictures differ by library version
    "metadata", "traceback", "prompt_number", "output_type", "name", "execution_count",
    "application/vnd.jupyter.widget-view+json", "image/png", "image/jpeg",
)
SHOWN = 12              # lines of a difference that are worth a screen


@dataclass(frozen=True)
class Difference:
    cell: int           # the number in the reader's `[n]`
    lines: tuple[str, ...]


def is_compared(cell: NotebookNode) -> bool:
    """True for the code cells whose stored output is a promise (tag `nbval-check-output` or nbval's comment)."""
    if cell.cell_type != "code":
        return False
    options = dict(find_metadata_tags(cell.metadata)) | dict(find_comment_markers(cell.source))
    return bool(options.get("check")) and not options.get("skip")


def difference(committed: Sequence[NotebookNode], now: Sequence[NotebookNode]) -> tuple[str, ...]:
    """The lines to show when two lists of outputs differ by nbval's rules; empty when they agree."""
    def show(key, left, right):
        changed = difflib.unified_diff(str(left).splitlines(), str(right).splitlines(), "committed", "now", lineterm="", n=1)
        found.extend([f"{key}:"] + [line for line in changed if not line.startswith("@@")])

    found: list[str] = []
    plain = SimpleNamespace(HEADER="", OKBLUE="", OKGREEN="", WARNING="", FAIL="", ENDC="")
    judge = SimpleNamespace(parent=SimpleNamespace(skip_compare=SKIPPED, sanitize_patterns={}), colors=plain, format_output_compare=show)
    judge.sanitize = partial(IPyNbCell.sanitize, judge)
    now, committed = (coalesce_streams(copy.deepcopy(list(outputs))) for outputs in (now, committed))
    if IPyNbCell.compare_outputs(judge, now, committed):
        return ()
    lines = [line for text in [*judge.comparison_traceback, *found] for line in str(text).splitlines()]
    return tuple(lines[:SHOWN] + (["..."] if len(lines) > SHOWN else []))


def told(differences: Sequence[Difference]) -> tuple[str, list[str]]:
    """One line for the screen, and what differs, cell by cell."""
    lines = [line for d in differences for line in (f"cell [{d.cell}]:", *(f"  {text}" for text in d.lines))]
    return f"cell [{differences[0].cell}] differs from the committed output", lines


def compare(committed: NotebookNode, executed: NotebookNode) -> tuple[int, list[Difference]]:
    """How many cells were compared, and those that differ. Cells are matched by id, so that injected ones do not shift them."""
    done = {cell.get("id"): cell for cell in executed.cells}
    count, differences = 0, []
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        if not is_compared(cell):
            continue
        count += 1
        if cell.execution_count is None:
            lines: tuple[str, ...] = ("the committed cell was never run: write it back with --update",)
        elif cell.get("id") not in done:
            lines = ("the executed copy has no cell with this id",)
        else:
            lines = difference(cell.outputs, done[cell.get("id")].outputs)
        if lines:
            differences.append(Difference(number, lines))
    return count, differences
