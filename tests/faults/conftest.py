"""The fixtures of tests with real processes and long faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.servers import Server
from tests.support.stores import StartServer, fleet, lasting_servers, sqlite_fleet, start_server

__all__ = ["fleet", "lasting_servers", "sqlite_fleet", "start_server"]


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """A server of this test's own, which syncs each write."""
    return start_server("valkey")


@pytest.fixture
async def own(tmp_path: Path, server: Server) -> AsyncIterator[Fleet]:
    """Silos on that server."""
    async with Fleet(tmp_path, server.url) as fleet:
        yield fleet
