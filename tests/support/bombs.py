"""An object whose pickle runs code when it is opened, and whether that has happened."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable

import msgspec

from durum.wire import values

_COUNT = "durum_bombs_opened"


class Bomb:
    """Counts in the `sys` module: that one is the same for whoever unpickles, in this process."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return exec, (f"import sys; sys.{_COUNT} = getattr(sys, '{_COUNT}', 0) + 1",)


def opened() -> int:
    """How often one was opened since the last disarm()."""
    return int(getattr(sys, _COUNT, 0))


def disarm() -> None:
    """Forget those that were opened."""
    setattr(sys, _COUNT, 0)


def encoded() -> bytes:
    """One as an encoded value that says it is a pickle."""
    return values.encode_fast(msgspec.msgpack.Ext(values.PICKLED, pickle.dumps(Bomb())))
