"""Stores for tests with real processes, as fixtures: a service for each test. Owns servers' lives."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.servers import Server, binary_of

DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec")
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
_numbers = itertools.count(1)

StartServer = Callable[..., Server]


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start servers of this test's own, which it may kill."""
    started: list[Server] = []

    def start(product: str, *settings: str, tcp: bool = False) -> Server:
        if binary_of(product) is None:
            pytest.skip(f"{product} is not installed here")
        started.append(Server(product, settings or ALWAYS, tcp=tcp).start())
        return started[-1]

    yield start
    for server in started:
        server.remove()


@pytest.fixture(scope="session")
def lasting_servers() -> Iterator[Callable[[str], Server]]:
    """Servers that no test harms, started when first asked for."""
    running: dict[str, Server] = {}

    def get(product: str) -> Server:
        if binary_of(product) is None:
            pytest.skip(f"{product} is not installed here")
        if product not in running:
            running[product] = Server(product, DURABLE).start()
        return running[product]

    yield get
    for server in running.values():
        server.remove()


@pytest.fixture
async def sqlite_fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Silos on one database file."""
    async with Fleet(tmp_path, f"sqlite:///{tmp_path}/service.db") as fleet:
        yield fleet


@pytest.fixture(params=["sqlite", "valkey", "redis"])
async def fleet(
    request: pytest.FixtureRequest, tmp_path: Path, lasting_servers: Callable[[str], Server]
) -> AsyncIterator[Fleet]:
    """Silos on each kind of store."""
    url = f"sqlite:///{tmp_path}/service.db"
    if request.param != "sqlite":
        url = lasting_servers(request.param).url
    async with Fleet(tmp_path, url, f"service-{next(_numbers)}") as fleet:
        yield fleet
