"""Connections that are reset at the worst moment, or over and over: between callers and silos, and between a
silo and its store.
"""

from __future__ import annotations

import asyncio

import pytest

import durum
from durum import errors
from durum.cli import exits
from durum.errors import DidRun
from durum.ids import GrainId
from durum.wire.connection import Connection, LinkBroken
from durum.wire.messages import AnyMessage, Call, Reply
from tests.support.fleet import Fleet, keys_at, raw_link
from tests.support.grains import Counter
from tests.support.load import load, read
from tests.support.proxy import Proxy
from tests.support.servers import Server, free_port
from tests.support.stores import StartServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """A server that can be reached through somebody else."""
    return start_server("valkey", "--appendonly", "yes", tcp=True)


async def test_answer_lost_in_a_reset_leaves_the_outcome_open_and_a_key_settles_it(
    sqlite_fleet: Fleet,
) -> None:
    """The method has run and committed, and the connection breaks before its answer is through. Only the
    caller with a key may send it again; it takes effect once, and both hear the truth.
    """
    fleet = sqlite_fleet
    await fleet.create()
    port = free_port()
    async with Proxy("127.0.0.1", port) as proxy:
        advertised = f"127.0.0.1:{proxy.port}"
        await fleet.start(1, "--listen", f"127.0.0.1:{port}", "--advertise", advertised)
        async with fleet.connect() as victim:
            plain, keyed = victim.actor(Counter, "plain"), victim.actor(Counter, "keyed")
            assert [await plain.get(), await keyed.get()] == [0, 0]
            proxy.swallow_answers()
            unknown = asyncio.create_task(plain.add(1))
            once = asyncio.create_task(durum.options(keyed, idempotency_key="7").add(1))
            async with fleet.connect() as witness:
                while [await witness.actor(Counter, k).get() for k in ("plain", "keyed")] != [1, 1]:
                    await asyncio.sleep(0.01)
                assert not unknown.done()
                proxy.reset(swallowed_only=True)
                with pytest.raises(errors.SiloLost) as caught:
                    await unknown
                assert caught.value.did_run is DidRun.MAYBE
                assert await once == 1
                assert await victim.actor(Counter, "plain").get() == 1
                assert await victim.actor(Counter, "keyed").get() == 1


async def test_silo_whose_store_resets_it_over_and_over(own: Fleet, server: Server) -> None:
    """Every connection of one silo to the store is reset, and so is each new one. It must not hammer the
    store, nor answer from memory once its lease is over and others have taken its place.
    """
    loop = asyncio.get_running_loop()
    await own.create()
    async with Proxy("127.0.0.1", server.port) as proxy:
        (cut,) = await own.start(1, "--store", f"redis://127.0.0.1:{proxy.port}/0")
        await own.start(2)
        await own.shared(3)
        async with own.connect() as cluster, load(cluster, keyed=True) as calls:
            key = next(keys_at(cluster, Counter, cut))
            assert await cluster.actor(Counter, key).add(1) == 1
            async with raw_link(cut) as (link, _):
                proxy.arrivals.clear()
                proxy.refusing = True
                proxy.reset()
                began = loop.time()
                moved = durum.options(cluster.actor(Counter, key), timeout=30, idempotency_key="m")
                assert await moved.add(1) == 2
                await calls.all_answer()
                paces = len(proxy.arrivals) / (loop.time() - began)
                answer = await asked(link, key)
            assert not isinstance(answer, Reply), "by now another silo answers"
            proxy.refusing = False
            assert await own.ended(cut) == exits.DECLARED_DEAD
            assert await read(cluster.actor(Counter, key)) == 2
        assert len(proxy.arrivals) > 5
        print(f"{paces:.1f} connections a second")
        assert paces <= 10
    assert "Traceback" not in own.log()


async def asked(link: Connection, key: str) -> AnyMessage | LinkBroken:
    """What a silo answers to a reading, if it answers."""
    try:
        call = Call(link.next_id(), GrainId(f"Counter/{key}"), "get", b"\x90", timeout_ms=1_000)
        return await link.request(call)
    except LinkBroken as exc:
        return exc
