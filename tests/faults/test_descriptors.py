"""A silo whose file descriptors are all taken."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket

import pytest

from durum.ids import Address, split_address
from tests.support.fleet import Fleet, keys_at
from tests.support.grains import Counter
from tests.support.load import load

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not on PATH")
async def test_silo_without_descriptors_serves_whom_it_knows(own: Fleet) -> None:
    """Strangers take all that are left. It goes on for those that are connected, keeps its lease, and takes
    newcomers again once the strangers have had their time.
    """
    await own.create()
    await own.start()
    (poor,) = await own.start(1, inside=("prlimit", "--nofile=48"))
    await own.shared(2)
    address = Address(poor.first_line["address"])
    async with own.connect() as cluster, load(cluster) as calls:
        key = next(keys_at(cluster, Counter, poor))
        assert await cluster.actor(Counter, key).get() == 0
        with contextlib.ExitStack() as strangers:
            for _ in range(100):
                line = await asyncio.to_thread(socket.create_connection, split_address(address))
                strangers.enter_context(line)
            assert await cluster.actor(Counter, key).add(1) == 1
            await calls.passes(50)
        async with own.connect(address) as newcomer:
            assert await newcomer.actor(Counter, key).get() == 1
    assert calls.failures == []
    await own.nobody_evicted()
