"""Virtual time, faulty networks and stores, clusters in one process. Owns the names that users' tests import;
each is loaded when first asked for.

Inside Durum nothing imports from here: a module says where its names live.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from durum.testing.cluster import Statistics, TestCluster
    from durum.testing.crashes import CrashPoint
    from durum.testing.run import run as simulate
    from durum.testing.worlds import CALM

__all__ = ["CALM", "CrashPoint", "Statistics", "TestCluster", "simulate"]

_ELSEWHERE: Final = {
    "CALM": ("durum.testing.worlds", "CALM"),
    "CrashPoint": ("durum.testing.crashes", "CrashPoint"),
    "Statistics": ("durum.testing.cluster", "Statistics"),
    "TestCluster": ("durum.testing.cluster", "TestCluster"),
    "simulate": ("durum.testing.run", "run"),
}

# Hidden from type checkers, who would otherwise accept any name at all.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _ELSEWHERE:
            raise AttributeError(f"module 'durum.testing' has no attribute {name!r}")
        module, attribute = _ELSEWHERE[name]
        value = getattr(import_module(module), attribute)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted([*globals(), *__all__])
