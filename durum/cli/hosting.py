"""One silo as one process: its first line, its signals, its end. Owns them; the silo does the work."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

import click

from durum.ids import Address, split_address
from durum.silo.silo import Silo
from durum.store.protocol import Level

PARENT_LOOK_S: Final = 1.0


async def host(
    silo: Silo,
    *,
    unsafe: Sequence[str] = (),
    hint: str = "",
    with_parent: bool = False,
    pages: AbstractAsyncContextManager[object] | None = None,
) -> None:
    """Run a silo until it is told to stop, or must.

    SIGTERM and SIGINT let it drain and hand over; a second one ends the process at once.

    Args:
        silo: not started yet.
        unsafe: settings that this command line knows to be unsafe, in words.
        hint: for the person at the terminal, what to do next.
        with_parent: stop, as if told to, when the process that started this one is gone.
        pages: the silo's, not opened yet.

    Raises:
        DeclaredDead, StoreError, ConfigError, IncompatibleSilo: it could not start, or had to stop.
    """
    loop = asyncio.get_running_loop()
    stop = _Stop(silo)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.signalled, number)
    async with pages or nullcontext(), silo:
        _settle_memory()
        click.echo(json.dumps(describe(silo, unsafe)))
        if hint:
            click.echo(hint, err=True)
        watch = loop.create_task(_watch_parent(silo), name="watch parent") if with_parent else None
        try:
            await silo.run()
        finally:
            if watch is not None:
                watch.cancel()


def _settle_memory() -> None:
    """Keep the collector from walking what stays for the life of the process, over and over.

    It is the process's setting, so it is the command that makes it and not the library. Under many small
    commits it saves an eighth of a silo's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 1_000)


class _Stop:
    """What a signal does: first a request, then an order."""

    def __init__(self, silo: Silo) -> None:
        self._silo = silo
        self._asked = False

    def signalled(self, number: signal.Signals) -> None:
        if self._asked:
            # As if nothing had caught it: whoever waits for us sees which signal it was.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._asked = True
        self._silo.stop()


def pages(
    silo: Silo, port: int | None, host: str, advertise: str | None
) -> AbstractAsyncContextManager[object] | None:
    """The silo's pages, where a port was given for them.

    Args:
        silo: not started yet.
        port: where to serve them; None: nowhere.
        host: where to serve them.
        advertise: the silo's advertised address, for pages that are served on all addresses.
    """
    if port is None:
        return None
    from durum.web.pages import Pages  # a twentieth of a second that most silos need not spend

    everywhere = host in ("0.0.0.0", "::", "[::]")  # noqa: S104 - compared, not bound
    shown = split_address(Address(advertise))[0] if everywhere and advertise else ""
    return Pages(silo, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", advertise=shown)


async def _watch_parent(silo: Silo) -> None:
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - nobody can set an event for us
        await asyncio.sleep(PARENT_LOOK_S)
    silo.stop()


def describe(silo: Silo, unsafe: Sequence[str]) -> dict[str, object]:
    """The first line: who this is, where, on what, and what is unsafe about it."""
    found = silo.durability
    volatile = [f"volatile store: {found.summary}"] if found.level is Level.D0 else []
    return {
        "pid": os.getpid(),
        "silo": silo.id,
        "address": silo.address,
        "cluster": silo.cluster,
        "store": silo.store_url,
        "durability": found.level.name,
        "unsafe": [*unsafe, *volatile, *found.warnings],
        "kinds": sorted(silo.kinds),
        "pages": silo.web,
    }
