"""Refusals a user can act on: one sentence with what was expected, what came, and how to mend it."""

from collections.abc import Iterable
from difflib import get_close_matches


class TsfmError(ValueError):
    """Input the library refuses."""


class DataMissing(TsfmError):
    """A data set that is not on this machine and could not be fetched."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name.

    >>> nearest("ETTh11", ["ETTh1", "weather"])
    "; did you mean 'ETTh1'?"
    >>> nearest("zzz", ["ETTh1"])
    ''
    """
    known = list(known)
    lower = {k.lower(): k for k in known}
    close = get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""
