"""One notebook in a process of its own: papermill, then the comparison, then the page. Called by `run`, never by hand.

The process writes one JSON file: `ok`, `note` (one line for the screen), `details` (further lines), `seconds`.
"""

import json
import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
import psutil
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from . import compare, pages


@dataclass(frozen=True)
class Order:
    """What is to be done with one notebook."""
    source: str                 # the committed notebook
    output: str                 # the executed copy
    parameters: dict[str, str]  # only what differs from the notebook's own
    judged: bool                # compare with the committed outputs
    report: str                 # where the JSON goes


def first_line(ename: str, evalue: str, traceback: Sequence[str] = ()) -> str:
    """One line short enough for a screen; an error without words, as a bare assert, is told by its line of code.

    >>> first_line("ValueError", "context of 40 points\\nis too short")
    'ValueError: context of 40 points'
    >>> first_line("AssertionError", "", ["----> 3 assert a == b\\n"])
    'AssertionError: assert a == b'
    """
    def plain(text: str) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()

    where = re.findall(r"^-+> \d+ (.*)$", plain("\n".join(traceback)), re.M)
    words = plain(evalue) or (where[0].strip() if where else "")
    return f"{ename}: {words}".splitlines()[0][:200]


def where_it_stopped(output: Path) -> int:
    """The number of the code cell that was running when the kernel went away."""
    if not output.exists():
        return 0
    code = [cell for cell in nbformat.read(output, as_version=4).cells if cell.cell_type == "code"]
    return next((number for number, cell in enumerate(code, 1) if cell.execution_count is None), len(code))


def execute(order: Order) -> str:
    """Run the notebook; the empty string, or one line that says where and why it stopped."""
    source, output = Path(order.source), Path(order.output)
    try:
        papermill.execute_notebook(source, output, parameters=order.parameters, kernel_name="python3", cwd=str(source.parent),
                                   progress_bar=False)
    except PapermillExecutionError as error:
        return f"cell [{error.exec_count}] {first_line(error.ename, error.evalue, error.traceback)}"
    except DeadKernelError:
        return f"cell [{where_it_stopped(output)}] the kernel died (out of memory?)"
    except CellTimeoutError as error:
        return f"cell [{where_it_stopped(output)}] {first_line('too slow', str(error))}"
    return ""


def carry_out(order: Order) -> dict:
    """The whole life of one notebook; its result as it goes into the report."""
    began = time.monotonic()
    Path(order.output).unlink(missing_ok=True)
    note = execute(order)
    ok, details = not note, []
    if Path(order.output).exists():
        committed, executed = (nbformat.read(path, as_version=4) for path in (order.source, order.output))
        if ok and order.judged:
            count, differences = compare.compare(committed, executed)
            note = f"{count} compared"
            if differences:
                ok, (note, details) = False, compare.told(differences)
        source = Path(order.source)
        text = pages.page(executed, pages.first_heading(committed) or source.stem, source.parent, pages.solution_of(source))
        Path(order.output).with_suffix(".html").write_text(text, encoding="utf-8")
    return {"ok": ok, "note": note, "details": details, "seconds": round(time.monotonic() - began, 1)}


def end_with(parent: int) -> None:
    """End this process and its kernel when the one that started it is gone: after a kill -9 the next run writes the same files."""
    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def main(argument: str) -> None:
    end_with(os.getppid())
    logging.getLogger("papermill").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    order = Order(**json.loads(argument))
    Path(order.report).write_text(json.dumps(carry_out(order), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
