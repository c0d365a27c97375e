"""Training: one loop (`fit`), recipes as data, streams that are functions of the step, objectives shared by models."""

from importlib import import_module

_HOME = {"Diverged": "watch", "Recipe": "recipe", "Run": "loop", "fit": "loop"}           # the loop needs torch: seconds, when asked for
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
