"""A service whose silos run on machines of their own, and whose store all of them reach.

Owns how it is put there; what the machines' wires do, a town decides (see namespaces and switch).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import pytest

from tests.support.commands import Running
from tests.support.fleet import Fleet
from tests.support.namespaces import STORE
from tests.support.servers import Server, binary_of
from tests.support.stores import ALWAYS

SECRET: Final = "a-secret-for-machines-apart"
PASSWORD: Final = "a-password-for-the-store"


class Machines(Protocol):
    """Where silos run."""

    def address(self, name: str) -> str:
        """A machine's IP address."""
        ...

    def inside(self, name: str) -> tuple[str, ...]:
        """What to put before a command so that it runs there."""
        ...


@contextlib.contextmanager
def fleet_in(town: Machines, home: Path) -> Iterator[Fleet]:
    """A service without silos, on a store of its own."""
    if binary_of("valkey") is None:
        pytest.skip("valkey is not installed here")
    server = Server("valkey", ALWAYS, tcp=True, host=town.address(STORE), password=PASSWORD)
    try:
        server.start()
        fleet = Fleet(home, server.url)
        try:
            yield fleet
        finally:
            print(fleet.log()[-20_000:])
            fleet.close()
    finally:
        server.remove()


async def begin(fleet: Fleet, town: Machines, *names: str) -> dict[str, Running]:
    """Create the service, with one silo on each machine."""
    await fleet.create()
    silos = {}
    for name in names:
        (silos[name],) = await fleet.start(
            1,
            *("--listen", f"{town.address(name)}:7600"),
            env={"DURUM_SECRET": SECRET},
            inside=town.inside(name),
        )
    await fleet.shared(len(names))
    return silos
