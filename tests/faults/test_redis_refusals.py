"""A real Redis or Valkey that loses its data, refuses to write or is gone: an outage, never a fresh start."""

from __future__ import annotations

import pytest

import durum
from durum import errors
from durum.cli import exits
from durum.errors import DidRun
from tests.support.fleet import Fleet, until
from tests.support.grains import Counter
from tests.support.load import load
from tests.support.servers import Server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


async def test_store_emptied_while_running_is_an_outage(own: Fleet, server: Server) -> None:
    """FLUSHALL in the wrong window. Every silo stops and says so; nobody begins anew on nothing."""
    silos = await own.started(3)
    async with own.connect() as cluster:
        await cluster.actor(Counter, "one").add(1)
        server.ask("FLUSHALL")
        codes = [await own.ended(silo) for silo in silos]
        assert codes == [exits.STORE] * 3
        with pytest.raises(errors.CallError):
            await durum.options(cluster.actor(Counter, "one"), timeout=1).add(1)
    assert server.ask("DBSIZE") == b":0\r\n"
    assert "Traceback" not in own.log()
    assert own.log().count("DataLoss") >= 3
    ended = await own.refused()
    assert ended.code == exits.CONFIG
    assert "restore" in ended.err


async def test_other_data_under_a_running_service_is_an_outage(own: Fleet, server: Server) -> None:
    """Somebody emptied it and created the service anew: the name is the same, the data is not."""
    silos = await own.started(2)
    server.ask("FLUSHALL")
    await own.create()
    assert [await own.ended(silo) for silo in silos] == [exits.STORE] * 2
    assert (await own.view()).rows == ()


@pytest.mark.parametrize(
    ("spoil", "mend"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (
            ("CONFIG", "SET", "min-replicas-to-write", "1"),
            ("CONFIG", "SET", "min-replicas-to-write", "0"),
        ),
    ],
    ids=["full", "too few replicas"],
)
async def test_store_that_refuses_writes_for_a_while(
    own: Fleet, server: Server, spoil: tuple[str, ...], mend: tuple[str, ...]
) -> None:
    """The callers learn it, no turn happens by half, and all goes on by itself once it is mended."""
    await own.started(3)
    async with own.connect() as cluster, load(cluster) as calls:
        server.ask(*spoil)
        with pytest.raises(errors.CallError) as caught:
            await durum.options(cluster.actor(Counter, "refused"), timeout=3).add(1)
        assert caught.value.did_run is not DidRun.YES
        server.ask(*mend)
        await calls.all_answer()
        # Told "maybe", a commit may be on its way for as long as the call had time.
        possible = {0, 1} if caught.value.did_run is DidRun.MAYBE else {0}
        assert await cluster.actor(Counter, "refused").get() in possible
    calls.only_typed()
    await own.nobody_evicted()


async def test_store_that_becomes_a_replica_and_primary_again(own: Fleet, server: Server) -> None:
    """A failover that was taken back: it refuses to write meanwhile, and has lost nothing."""
    await own.started(2)
    async with own.connect() as cluster, load(cluster) as calls:
        server.ask("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(errors.CallError):
            await durum.options(cluster.actor(Counter, "refused"), timeout=3).add(1)
        server.ask("REPLICAOF", "NO", "ONE")
        await calls.all_answer()
    calls.only_typed()
    await own.nobody_evicted()


async def test_silo_leaves_although_the_store_is_away(own: Fleet, server: Server) -> None:
    """An operator who takes everything down, the store first, must not be left with hanging silos."""
    (silo,) = await own.started(1)
    server.kill()
    own.terminate(silo)
    assert await own.ended(silo) in (exits.CLEAN, exits.STORE)
    assert "Traceback" not in own.log()
    server.start()

    async def back() -> bool:
        return await own.status(silo) is not None

    await until(back, "the store")
