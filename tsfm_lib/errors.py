"""Refusals a user can act on: one sentence with what was expected, what came, and how to mend it."""

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Real
from typing import Any


class TsfmError(ValueError):
    """Input the library refuses."""


class DataMissing(TsfmError):
    """A data set that is not on this machine and could not be fetched."""


def whole(value: Any, name: str, least: int = 1) -> int:
    """A number that counts something, as int; 24.0 passes for 24.

    >>> whole(24.0, "the season")
    24
    >>> whole("24", "the season")
    Traceback (most recent call last):
    tsfm_lib.errors.TsfmError: the season should be a whole number, 1 or more, got '24'
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value).is_integer() or value < least:
        raise TsfmError(f"{name} should be a whole number, {least} or more, got {value!r}")
    return int(value)


def one_of(settings: Any, **choices: Iterable[str]) -> None:
    """Fields of `settings` that name one of several ways must name one that is known.

    >>> from types import SimpleNamespace
    >>> one_of(SimpleNamespace(router="liner"), router=("linear", "mlp"))
    Traceback (most recent call last):
    tsfm_lib.errors.TsfmError: router must be one of linear, mlp, got 'liner'; did you mean 'linear'?
    """
    for field, known in choices.items():
        if (value := getattr(settings, field)) not in known:
            raise TsfmError(f"{field} must be one of {', '.join(known)}, got {value!r}{nearest(str(value), known)}")


def refuse_unknown(quirks: Iterable[str], known: Iterable[str]) -> None:
    """
    >>> refuse_unknown(["slow"], {"fast": "what it does"})
    Traceback (most recent call last):
    tsfm_lib.errors.TsfmError: unknown quirks ['slow']; known are fast
    """
    if unknown := set(quirks) - set(known):
        raise TsfmError(f"unknown quirks {sorted(unknown)}; known are {', '.join(known)}")


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
