"""Whoever holds the loop is named."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

from durum.clock import SystemClock
from durum.silo.watchdog import Watchdog


def hold_the_loop(reported: threading.Event) -> None:
    assert reported.wait(10)


async def test_watchdog_logs_the_stack_of_code_that_holds_the_loop() -> None:
    """Without it, a blocking call in one method shows only as other grains' timeouts."""
    watchdog = Watchdog(SystemClock(), allowed_s=0.05)
    reported = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "hold_the_loop" in record.getMessage():  # a slow machine may hold the loop elsewhere
                reported.set()

    listener = Listener()
    logging.getLogger("durum.watchdog").addHandler(listener)
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(watchdog.run())
            await asyncio.sleep(0)
            hold_the_loop(reported)
            running.cancel()
    finally:
        logging.getLogger("durum.watchdog").removeHandler(listener)
    assert watchdog.reports >= 1


async def test_watchdog_is_silent_while_the_loop_is_free() -> None:
    """A warning that comes for nothing is soon not read any more."""
    watchdog = Watchdog(SystemClock(), allowed_s=30.0)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(watchdog.run())
        await asyncio.sleep(0)
        time.sleep(0.01)
        await asyncio.sleep(0)
        running.cancel()
    assert watchdog.reports == 0
