"""A silo in a thread of its own, for tests of code without async: real sockets, in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from durum import Actor
from durum.config import Limits, SiloConfig
from durum.silo.silo import Silo


@contextmanager
def serving(kinds: Sequence[type[Actor]]) -> Iterator[Silo]:
    """Run a silo in another thread; its address is real."""
    started: list[Silo | BaseException] = []
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    config = SiloConfig(limits=Limits(drain_timeout_s=0.5))  # some calls are left to run

    async def live() -> None:
        loops.append(asyncio.get_running_loop())
        async with Silo(kinds, config=config) as silo:
            started.append(silo)
            ready.set()
            await silo.run()

    def main() -> None:
        try:
            asyncio.run(live())
        except BaseException as exc:
            started.append(exc)
            ready.set()

    thread = threading.Thread(target=main, name="silo")
    thread.start()
    ready.wait(20)
    silo = started[0]
    if isinstance(silo, BaseException):
        raise silo
    try:
        yield silo
    finally:
        loops[0].call_soon_threadsafe(silo.stop)
        thread.join(20)
