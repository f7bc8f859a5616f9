"""Says which code holds the event loop for too long. Owns one thread; changes nothing.

While the loop is held, no turn of any grain runs, no probe is answered, and the lease runs out.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from types import FrameType
from typing import Final

from durum.clock import Clock
from durum.telemetry import Log

_log = Log("durum.watchdog")
_LOOKS: Final = 5  # looks within the allowed time; what is reported is at most a fifth late


class Watchdog:
    """Watches the running loop's thread from another one.

    Args:
        clock: the host's; a virtual one cannot be watched from outside.
        allowed_s: how long code may hold the loop.
    """

    def __init__(self, clock: Clock, allowed_s: float) -> None:
        self._clock = clock
        self._allowed_s = allowed_s
        self._loop_thread = threading.get_ident()
        self._alive_at = clock.boottime()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="durum watchdog", daemon=True)
        self.reports = 0

    async def run(self) -> None:
        """Show, again and again, that the loop is alive. Runs until cancelled."""
        self._thread.start()
        try:
            while True:
                self._alive_at = self._clock.boottime()
                await asyncio.sleep(self._allowed_s / _LOOKS)
        finally:
            self._over.set()

    def _watch(self) -> None:
        reported_at = -1.0
        while not self._over.wait(self._allowed_s / _LOOKS):
            alive_at = self._alive_at
            held_s = self._clock.boottime() - alive_at
            if held_s >= self._allowed_s and alive_at != reported_at:
                reported_at = alive_at
                self.reports += 1
                frame: FrameType | None = sys._current_frames().get(self._loop_thread)  # noqa: SLF001
                stack = "".join(traceback.format_stack(frame)) if frame else ""
                _log.warning(
                    "the event loop is held: no turn runs and no probe is answered; use await, or"
                    " asyncio.to_thread for work that blocks",
                    held_s=round(held_s, 2),
                    stack=stack,
                )
