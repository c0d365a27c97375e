"""python -m tsfm_lib.claims: list the claims; K3: one with its rule; K3 --data FILE: test it on a series of one's own."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from tsfm_lib import claims
from tsfm_lib.errors import TsfmError


def on_own_series(id: str, file: str) -> str:
    """Run the check registered for a claim on a file, or refuse with the reason why there is none."""
    from tsfm_lib import data

    one, series = claims.claim(id), data.read(file)
    if one.id not in claims.OWN_DATA:
        raise TsfmError(f"{one.id} cannot be tested on a series of one's own: {one.own or 'its rule compares recorded runs, not series'}.")
    module, function = claims.OWN_DATA[one.id].split(":")
    found = getattr(import_module(module), function)(series)
    if isinstance(found, claims.Verdict):
        return str(found)
    means = found.groupby("variant", sort=False).mean(numeric_only=True).drop(columns=["seed", "unit", "horizon"], errors="ignore")
    return f"{means.round(4)}\n\n{claims.judge(one.id, found)}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tsfm_lib.claims", description="The claims, their rules and their verdicts.")
    parser.add_argument("id", nargs="?", help="a claim, such as K3; without it all are listed")
    parser.add_argument("--data", metavar="FILE", help="test the claim on this file (csv, csv.gz, tsf, ts, tsv, npz)")
    parser.add_argument("--verdicts", action="store_true", help="list the verdicts from the recorded rows")
    asked = parser.parse_args(arguments)
    try:
        if asked.id is None and asked.data:
            raise TsfmError("--data needs a claim: python -m tsfm_lib.claims K3 --data FILE")
        if asked.data:
            print(on_own_series(asked.id, asked.data))
        elif asked.id:
            rows = claims.recorded(asked.id)
            print(claims.claim(asked.id), claims.judge(asked.id, rows) if len(rows) else "verdict   not yet measured", sep="\n")
        elif asked.verdicts:
            print(claims.table(), claims.by_chance(), sep="\n\n")
        else:
            for one in claims.CLAIMS.values():
                print(f"{one.id:<4}{one.said_by:<17}{one.words}")
        sys.stdout.flush()
    except TsfmError as refused:
        print(refused, file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
