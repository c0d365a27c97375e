"""Packages whose names are imported when they are first asked for."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def attach(package: str, home: Mapping[str, str], rooms: Sequence[str] = ()) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` (PEP 562) of a package: `home` says in which of its modules a name lives, `rooms` are modules themselves.

    >>> get, names = attach("json", {"JSONDecoder": "decoder"}, ["scanner"])
    >>> get("JSONDecoder").__name__, get("scanner").__name__, names()
    ('JSONDecoder', 'json.scanner', ['JSONDecoder', 'scanner'])
    """

    def get(name: str) -> Any:
        if name in rooms:
            return import_module(f"{package}.{name}")
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted([*home, *rooms])
