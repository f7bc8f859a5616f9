"""The fixtures of tests with real processes."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.fleet import Fleet
from tests.support.stores import fleet, lasting_servers, sqlite_fleet, start_server

__all__ = ["fleet", "lasting_servers", "sqlite_fleet", "start_server", "three"]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three silos for all tests of a file that harm none of them."""
    home = tmp_path_factory.mktemp("three")
    fleet = Fleet(home, f"sqlite:///{home}/service.db")
    try:
        asyncio.run(_started(fleet))
        yield fleet
    finally:
        fleet.close()


async def _started(fleet: Fleet) -> None:
    await fleet.started(3)
