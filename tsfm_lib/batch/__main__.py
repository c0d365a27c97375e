"""`python -m tsfm_lib.batch run|book`: what `./run_all.sh` hands over to."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial

import pandas as pd

from .. import claims
from ..errors import TsfmError
from ..page import publish
from .book import build
from .run import TIMEOUTS, Batch, Settings, update


def arguments(given: Sequence[str]) -> tuple[str, Settings]:
    parser = argparse.ArgumentParser(prog="run_all.sh", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", allow_abbrev=False)
    run.add_argument("--profile", default="quick", help=" | ".join(TIMEOUTS))
    run.add_argument("--only", default="", help="numbers or beginnings of names, separated by commas")
    run.add_argument("--jobs", type=int, default=2)
    run.add_argument("--timeout", type=float)
    run.add_argument("--resume", action="store_true")
    run.add_argument("--update", action="store_true")
    commands.add_parser("book")
    options = parser.parse_args(given)
    if options.command == "book":
        return "book", Settings()
    only = tuple(word.strip() for word in options.only.split(",") if word.strip())
    return "run", Settings(options.profile, only, options.jobs, options.timeout, options.resume, options.update)


WIDTHS = {"quantity": 62, "said by": 8, "said": 24, "recorded": 12, "interval": 18, "verdict": 40}        # fits a wide terminal


def short(table: pd.DataFrame) -> str:
    """The claims, one screen line each; the whole words stand on the index page and in the notebooks.

    >>> print(short(pd.DataFrame({"quantity": ["K1 x"], "verdict": ["reproduced"]})).replace(" ", ""))
    quantityverdict
    K1xreproduced
    """
    def cut(word: object, width: int) -> str:
        text = str(word)
        return (text if len(text) <= width else text[:width - 3].rstrip() + "...").ljust(width)

    widths = {name: WIDTHS.get(name, 16) for name in table.columns}
    lines = [table.columns, *table.itertuples(index=False, name=None)]
    return "\n".join("  ".join(cut(word, width) for word, width in zip(line, widths.values())).rstrip() for line in lines)


def scoreboard(table: pd.DataFrame) -> str:
    """The claims as a part of the index page, the verdict beside the claim."""
    order = ["quantity", "verdict", *(name for name in table.columns if name not in ("quantity", "verdict"))]
    shown = pd.DataFrame(table)[order].rename(columns={"quantity": "claim"}).to_html(index=False, border=0)
    return f'<h2>Claims</h2><div class="scroll">{shown}</div>'


def main(given: Sequence[str]) -> int:
    began = time.monotonic()
    try:
        command, settings = arguments(given)
        if command == "book":
            print(f"book: {build(settings)}")
            return 0
        signal.signal(signal.SIGTERM, signal.default_int_handler)        # ended from outside: the kernels end, too
        batch = Batch(settings, partial(print, flush=True))
        results = batch.run()
        if settings.update:
            results = update(batch, results, publish)
    except TsfmError as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    table = claims.table()
    print(f"\n{short(table)}\n\npages: {batch.index(results, scoreboard(table))}")
    failed = [result.name for result in results if not result.ok]
    print(f"{len(results) - len(failed)} ok, {len(failed)} failed in {time.monotonic() - began:.0f} s", *failed, sep="\n  FAIL ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
