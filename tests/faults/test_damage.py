"""What is stored was damaged by somebody: one record, or the end of the store's log."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from typing import Final

import msgspec
import pytest

import durum
from durum import errors
from durum.cli import exits
from durum.client.client import Cluster
from durum.errors import DidRun
from durum.grains.kind import kind_of
from durum.grains.reference import Target
from durum.ids import grain_id
from durum.store.redis_keys import Keys
from tests.support.fleet import Fleet
from tests.support.grains import Counter
from tests.support.load import load
from tests.support.servers import Server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

GARBAGE: Final = b"\xc1 nonsense"
OTHER_TYPES: Final = msgspec.msgpack.encode({"": 1, "value": "many"})


DAMAGED: Final[dict[str, tuple[str | bytes, ...]]] = {
    "state": ("HSET", "d", GARBAGE),
    "types": ("HSET", "d", OTHER_TYPES),
    "version": ("HSET", "v", "seven"),
    "versions": ("HSET", "v", "-3"),
    "unversioned": ("HDEL", "v"),
}
"""What is done to the record of the actor of that key, in Redis."""

UPDATED: Final[dict[str, tuple[str, object]]] = {
    "state": ("state", GARBAGE),
    "types": ("state", OTHER_TYPES),
    "text": ("state", "text"),
    "version": ("version", "seven"),
    "versions": ("version", -3),
}
"""The same in SQLite: the column, and what is put there."""


async def made_and_put_away(cluster: Cluster, keys: Iterable[str]) -> None:
    """Let actors have records, and no activation that would need none."""
    for key in keys:
        assert await cluster.actor(Counter, key).add(1) == 1
        assert await cluster.admin.deactivate(Counter, key)


async def all_quarantined(cluster: Cluster, keys: Iterable[str]) -> None:
    """Every call of those actors is refused, and did not run."""
    for key in keys:
        for _ in range(3):
            with pytest.raises(errors.Quarantined) as caught:
                await durum.options(cluster.actor(Counter, key), timeout=5).add(1)
            assert caught.value.did_run is DidRun.NO, key


async def test_damaged_record_in_redis_costs_its_actor_only(own: Fleet, server: Server) -> None:
    """Whatever became of one record, no silo ends by it and no other actor feels it. Its bytes are left as
    they are, for a person to look at.
    """
    await own.started(2)
    async with own.connect() as cluster, load(cluster) as calls:
        partitions = len(cluster._routes.by_partition)
        targets = {key: Target(kind_of(Counter), key) for key in (*DAMAGED, "theirs")}
        keys = {
            key: Keys(own.cluster).grain(target.hash % partitions, target.grain)
            for key, target in targets.items()
        }
        await made_and_put_away(cluster, keys)
        for key, (command, *fields) in DAMAGED.items():
            server.ask(command, keys[key], *fields)
        server.ask("SET", keys["theirs"], "a text of another program's")
        before = [server.ask("DUMP", key) for key in keys.values()]
        await all_quarantined(cluster, keys)
        assert [server.ask("DUMP", key) for key in keys.values()] == before
        await calls.all_answer()
    assert calls.failures == []
    await own.nobody_evicted()


async def test_damaged_record_in_sqlite_costs_its_actor_only(sqlite_fleet: Fleet) -> None:
    """The same for a file that somebody has edited."""
    fleet = sqlite_fleet
    await fleet.started(2)
    async with fleet.connect() as cluster, load(cluster) as calls:
        await made_and_put_away(cluster, UPDATED)
        with contextlib.closing(sqlite3.connect(fleet.home / "service.db", timeout=10)) as file:

            def stored() -> list[object]:
                sql = "SELECT grain, version, state FROM grains WHERE grain IN (?, ?, ?, ?, ?)"
                names = [grain_id("Counter", key).encode() for key in UPDATED]
                return sorted(file.execute(sql, names).fetchall())

            for key, (column, value) in UPDATED.items():
                sql = f"UPDATE grains SET {column} = ? WHERE grain = ?"
                done = file.execute(sql, (value, grain_id("Counter", key).encode()))
                assert done.rowcount == 1
            file.commit()
            before = stored()
            await all_quarantined(cluster, UPDATED)
            assert stored() == before
        await calls.all_answer()
    assert calls.failures == []
    await fleet.nobody_evicted()


async def test_damaged_replies_stop_keyed_calls_only(own: Fleet, server: Server) -> None:
    """Nobody can tell any more whether a call with a key ran before, so none of them runs. Others need no
    replies, and the actor serves them as ever; operators see what there is.
    """
    await own.started(2)
    async with own.connect() as cluster, load(cluster) as calls:
        keys = Keys(own.cluster)
        for key, damage in (("garbage", ("HSET", b"k" * 16, GARBAGE)), ("theirs", ("SET", "x"))):
            assert await durum.options(cluster.actor(Counter, key), idempotency_key="7").add(1) == 1
            assert await cluster.admin.deactivate(Counter, key)
            target = Target(kind_of(Counter), key)
            name = keys.replies(target.hash % len(cluster._routes.by_partition), target.grain)
            if damage[0] == "SET":
                server.ask("DEL", name)
            server.ask(damage[0], name, *damage[1:])
            keyed = durum.options(cluster.actor(Counter, key), idempotency_key="8", timeout=5)
            for _ in range(2):
                with pytest.raises(errors.Quarantined, match="without a key") as caught:
                    await keyed.add(1)
                assert caught.value.did_run is DidRun.NO
            assert await cluster.actor(Counter, key).add(1) == 2
        await calls.all_answer()
    assert calls.failures == []
    await own.nobody_evicted()


async def test_operators_are_told_of_damage_at_once(own: Fleet, server: Server) -> None:
    """Asking again would not help, so they must not wait for it; and asking ends no silo."""
    await own.started(1)
    async with own.connect() as cluster:
        await made_and_put_away(cluster, ["bad"])
        target = Target(kind_of(Counter), "bad")
        partition = target.hash % len(cluster._routes.by_partition)
        server.ask("HSET", Keys(own.cluster).grain(partition, target.grain), "v", "seven")
        for ask in (cluster.admin.inspect, cluster.admin.delete):
            with pytest.raises(errors.Quarantined, match="no version"):
                await ask(Counter, "bad")
        assert await cluster.actor(Counter, "good").add(1) == 1


# What all silos read --------------------------------------------------------------------------------


async def test_damaged_membership_table_is_an_outage(own: Fleet, server: Server) -> None:
    """Nobody can tell who lives any more. Every silo says so and ends, and a new one does not begin."""
    silos = await own.started(2)
    server.ask("HSET", Keys(own.cluster).members, "v", "seven")
    assert [await own.ended(silo) for silo in silos] == [exits.STORE] * 2
    assert own.log().count("DataLoss: the membership table is damaged") == 2
    assert "Traceback" not in own.log()
    ended = await own.refused()
    assert ended.code == exits.STORE, ended.err
    assert "Traceback" not in ended.err


# The end of a log -----------------------------------------------------------------------------------


async def test_append_only_file_that_lost_its_end_stops_all_silos(
    own: Fleet, server: Server
) -> None:
    """The server loads what is left and says so in its log only. All silos have seen more, and say so; none
    builds upon it, and what they hold in memory is merged with nothing.
    """
    silos = await own.started(2)
    async with own.connect() as cluster:
        counters = [cluster.actor(Counter, f"k{n}") for n in range(50)]
        for counter in counters:
            await counter.add(1)
        server.kill()
        (file,) = (server.folder / "appendonlydir").glob("*.incr.aof")
        with file.open("r+b") as log:
            log.truncate(file.stat().st_size * 9 // 10)
        server.start()
        assert [await own.ended(silo) for silo in silos] == [exits.STORE] * 2
        with pytest.raises(errors.CallError):
            await durum.options(counters[0], timeout=1).add(1)
    assert own.log().count("DataLoss") >= 2
    assert "Traceback" not in own.log()
