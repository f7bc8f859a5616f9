"""Waits until the turns of one activation have ended, and then no longer than promised. Knows no states."""

from __future__ import annotations

import asyncio

from durum.ids import GrainId
from durum.silo.performer import Performer
from durum.telemetry import Log

_log = Log("durum.activation")


async def wait_quiet(performer: Performer, grain: GrainId, within_s: float) -> None:
    """Let turns end by themselves for a while, then cancel them, then leave them behind.

    Args:
        performer: runs them; one does.
        grain: whose.
        within_s: how long each of both may take.
    """
    quiet = performer.quiet = asyncio.Event()
    try:
        async with asyncio.timeout(within_s):
            await quiet.wait()
    except TimeoutError:
        _log.warning("turns cancelled, they took too long to drain", grain=grain)
        performer.cancel_all()
        # A commit on its way is not cancelled, and ends by itself; code that ignores its
        # cancellation may never end, and the token keeps what it does later from counting.
        try:
            async with asyncio.timeout(within_s):
                await quiet.wait()
        except TimeoutError:
            _log.error("turns ignore their cancellation and are left behind", grain=grain)
