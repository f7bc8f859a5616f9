"""What operators can ask of a cluster, from Python."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

import pytest

import durum
from durum import errors
from durum.client.client import Cluster
from durum.silo.silo import Silo


class Shelf(durum.Actor):
    """Counts, slowly if asked to."""

    books: int = 0
    title: str = "none"

    async def put(self, count: int) -> int:
        self.books += count
        return self.books

    async def put_slowly(self, started: str) -> int:
        _started[started].set()
        await _may_end[started].wait()
        self.books += 1
        return self.books

    @durum.read_only
    async def look(self) -> int:
        return self.books


class Shelfless(durum.Actor):
    """Begins like the other one."""

    books: int = 0

    async def put(self, count: int) -> int:
        self.books += count
        return self.books


_started: dict[str, asyncio.Event] = {}
_may_end: dict[str, asyncio.Event] = {}


@pytest.fixture
async def silo() -> AsyncIterator[Silo]:
    async with Silo([Shelf, Shelfless], "memory:") as one:
        yield one


@pytest.fixture
async def cluster(silo: Silo) -> AsyncIterator[Cluster]:
    async with silo.connect() as one:
        yield one


async def fill(cluster: Cluster, *keys: str) -> None:
    await asyncio.gather(*(cluster.actor(Shelf, key).put(1) for key in keys))


async def test_all_grains_of_a_kind_are_listed_once(cluster: Cluster) -> None:
    """They lie in a thousand partitions; whoever walks through must miss none."""
    keys = {f"{part}-{number}" for part in ("a", "b") for number in range(50)}
    await fill(cluster, *keys)
    await cluster.actor(Shelfless, "a-1").put(1)
    found: list[str] = []
    after = ""
    while True:
        page = await cluster.admin.grains(Shelf, after=after, limit=7)
        assert len(page.keys) <= 7
        found += page.keys
        after = page.after
        if not after:
            break
    assert sorted(found) == sorted(keys)
    assert {key async for key in cluster.admin.every("Shelf", prefix="b-")} == {
        key for key in keys if key.startswith("b-")
    }
    assert await cluster.admin.count(Shelf) == 100
    assert await cluster.admin.count("Shelf", prefix="a-") == 50
    assert await cluster.admin.count(Shelfless) == 1


async def test_a_made_up_page_is_an_argument_error(cluster: Cluster) -> None:
    """A person may have typed it."""
    with pytest.raises(errors.ArgumentError, match="is not what a page gave"):
        await cluster.admin.grains(Shelf, after="yesterday")


async def test_looking_shows_what_is_stored(cluster: Cluster) -> None:
    """Without the class at hand, as in the middle of the night."""
    one = durum.options(cluster.actor(Shelf, "x"), idempotency_key="once")
    await one.put(3)
    found = await cluster.admin.inspect("Shelf", "x")
    assert found.state == {"books": 3, "title": "none"}
    assert (found.version, found.class_version, found.replies) == (1, 1, 1)
    assert (found.active, found.running, found.waiting) == ("valid", 0, 0)
    assert found.partition == cluster_partition("Shelf/x")


def cluster_partition(grain: str) -> int:
    return zlib.crc32(grain.encode()) % 1024


async def test_looking_does_not_activate(cluster: Cluster, silo: Silo) -> None:
    """Nor does it make a record: every grain exists, and most have kept nothing."""
    found = await cluster.admin.inspect(Shelf, "nobody")
    assert (found.version, found.state, found.active) == (0, None, "")
    assert len(silo.life.catalog) == 0


async def test_deactivated_grain_comes_back_with_its_state(cluster: Cluster, silo: Silo) -> None:
    """What an operator does to a grain that holds too much."""
    await fill(cluster, "x")
    assert await cluster.admin.deactivate(Shelf, "x") is True
    assert len(silo.life.catalog) == 0
    assert await cluster.admin.deactivate(Shelf, "x") is False
    assert await cluster.actor(Shelf, "x").look() == 1


async def test_deleted_grain_begins_anew(cluster: Cluster) -> None:
    """Whether it was active or not."""
    await fill(cluster, "x", "y")
    await cluster.admin.deactivate(Shelf, "y")
    for key in ("x", "y"):
        assert await cluster.admin.delete(Shelf, key) is True
        assert await cluster.actor(Shelf, key).look() == 0
        assert (await cluster.admin.inspect(Shelf, key)).state is None
    assert await cluster.admin.count(Shelf) == 0
    assert await cluster.admin.delete(Shelf, "x") is False
    assert await cluster.admin.delete(Shelf, "never was") is False
    assert await cluster.actor(Shelf, "x").put(2) == 2
    assert await cluster.admin.count(Shelf) == 1


async def test_deleting_waits_for_the_turn_that_runs(cluster: Cluster) -> None:
    """It is a turn of its own: what runs commits before, what waits finds the defaults."""
    _started["w"], _may_end["w"] = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(cluster.actor(Shelf, "w").put_slowly("w"))
        await _started["w"].wait()
        deleting = tasks.create_task(cluster.admin.delete(Shelf, "w"))
        while (await cluster.admin.inspect(Shelf, "w")).active != "deactivating":
            await asyncio.sleep(0)
        behind = tasks.create_task(cluster.actor(Shelf, "w").put(10))
        while not (await cluster.admin.inspect(Shelf, "w")).waiting:
            await asyncio.sleep(0)
        _may_end["w"].set()
    assert (slow.result(), deleting.result(), behind.result()) == (1, True, 10)


async def test_calls_during_deletions_are_whole(cluster: Cluster) -> None:
    """Every call ends in a value that some order of calls and deletions explains."""

    async def delete() -> int:
        return sum([await cluster.admin.delete(Shelf, "z") for _ in range(20)])

    async def call() -> list[int]:
        return [await cluster.actor(Shelf, "z").put(1) for _ in range(50)]

    deleted, one, other = await asyncio.gather(delete(), call(), call())
    # Values run 1, 2, 3, ... and a deletion begins the next run.
    assert (one + other).count(1) <= deleted + 1
    assert len(set(one + other)) >= 100 / (deleted + 1)
    left = (await cluster.admin.inspect(Shelf, "z")).state
    assert left is None or left["books"] in {one[-1], other[-1]}


async def test_repeat_of_a_keyed_call_does_not_run_after_the_deletion(cluster: Cluster) -> None:
    """A client that repeats a call must not undo what an operator did."""
    one = durum.options(cluster.actor(Shelf, "k"), idempotency_key="once")
    assert await one.put(5) == 5
    await cluster.admin.delete(Shelf, "k")
    assert await one.put(5) == 5
    assert await cluster.actor(Shelf, "k").look() == 0


async def test_kind_that_nobody_hosts_can_still_be_looked_at_and_deleted(cluster: Cluster) -> None:
    """Its class went with the last release, its data did not."""
    assert await cluster.admin.count("Gone") == 0
    assert (await cluster.admin.inspect("Gone", "x")).version == 0
    assert await cluster.admin.delete("Gone", "x") is False


async def test_wrong_names_are_refused_before_anything_is_asked(cluster: Cluster) -> None:
    """An operator types them."""
    with pytest.raises(errors.ArgumentError, match="is not the name of a kind"):
        await cluster.admin.count("no/kind")
    with pytest.raises(errors.ArgumentError):
        await cluster.admin.inspect(Shelf, "")


async def test_silos_tell_of_themselves(cluster: Cluster, silo: Silo) -> None:
    """One question, and every silo's answer beside its row."""
    await fill(cluster, "x", "y")
    (found,) = await cluster.admin.silos()
    assert (found.silo, found.address, found.status) == (silo.id, silo.address, "active")
    assert found.wanted == 1024
    assert dict(found.kinds) == {"Shelf": 1, "Shelfless": 1}
    assert found.now is not None
    assert found.now.activations == {"Shelf": 2}
    assert (found.now.committed, found.now.ready, found.now.durability) == (2, True, "D0")
