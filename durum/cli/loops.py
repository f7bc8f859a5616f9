"""The event loop that commands run on. Owns the choice between uvloop and asyncio's own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import TypeVar

from durum import errors

T = TypeVar("T")


def run(main: Coroutine[object, object, T]) -> T:
    """Run a command's coroutine to its end on the fastest loop there is.

    DURUM_LOOP=asyncio chooses the standard library's loop, for debuggers and for platforms where
    uvloop is in doubt.

    Raises:
        ConfigError: DURUM_LOOP names another loop.
    """
    chosen = os.environ.get("DURUM_LOOP", "")
    if chosen not in ("", "asyncio", "uvloop"):
        main.close()
        raise errors.ConfigError(f"DURUM_LOOP is {chosen!r}; it may be uvloop or asyncio.")
    factory = None
    if chosen != "asyncio":
        try:
            import uvloop
        except ImportError:
            if chosen == "uvloop":
                main.close()
                raise errors.ConfigError(
                    "DURUM_LOOP is uvloop, which is not installed: pip install uvloop."
                ) from None
        else:
            factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
