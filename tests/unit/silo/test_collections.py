"""Maps and lists of live actors: what a turn sees, keeps and loses, and what it asks of the store."""

from __future__ import annotations

import asyncio

import durum
from durum import Actor, read_only
from durum.config import Limits, SiloConfig
from durum.errors import CommitFailed, DidRun
from durum.grains import entries
from durum.ids import Token
from durum.store.protocol import Take
from tests.support.shelves import Broken, Shelves
from tests.support.turns import SMALL, Fate, House, outcome, settled, simulated

Steps = list[list[object]]


class Open(Actor, reentrant=True):
    """Turns of it interleave, and commit by save() only."""

    items: durum.Map[str, int] = durum.Map()

    async def put(self, key: str, value: int, *, save: bool) -> int | None:
        self.items[key] = value
        if save:
            await self.save()
        return await self.items.get(key)

    async def get(self, key: str) -> int | None:
        return await self.items.get(key)

    async def size(self) -> int:
        return await self.items.count()


class Nest(Actor):
    """Calls itself through its own reference."""

    items: durum.Map[str, int] = durum.Map()

    async def outer(self, *, saved: bool) -> int | None:
        self.items["outer"] = 1
        if saved:
            await self.save()
        await self.actor(Nest, self.key).inner()
        return await self.items.get("inner")

    async def inner(self) -> None:
        self.items["inner"] = 2

    async def all(self) -> dict[str, int]:
        return {key: value async for key, value in self.items.items()}


class Woken(Actor):
    """Its hook changes a collection."""

    log: durum.List[str] = durum.List()

    async def on_activate(self) -> None:
        self.log.append("woken")

    @read_only
    async def all(self) -> list[str]:
        return [each async for each in self.log]

    async def sleep(self) -> None:
        self.deactivate()


def asked(house: House) -> list[str]:
    """The operations that turns have sent, in order; forgets them."""
    names = [each.name for each in house.operations]
    house.operations.clear()
    return [n for n in names if n.startswith(("load", "scan", "commit"))]


@simulated
async def test_failed_turn_leaves_no_entry_behind(house: House) -> None:
    """A turn is a transaction, whatever it is made of."""
    actor = (await house.open([Shelves])).actor(Shelves, "x")
    await actor.run([["set", 1, "a"], ["append", "l"]])
    bad: Steps = [["set", 1, "b"], ["set", 2, "c"], ["append", "m"], ["cut", 1], ["fail"]]
    assert isinstance(await outcome(actor.run(bad)), Broken)
    assert isinstance(await outcome(actor.blind([["clear"], ["set", 9, "x"], ["fail"]])), Broken)
    assert await actor.dump() == ({1: "a"}, ["l"], 1)


@simulated
async def test_failure_after_save_rolls_back_to_it(house: House) -> None:
    """What was saved is kept, and nothing else."""
    actor = (await house.open([Shelves])).actor(Shelves, "x")
    bad: Steps = [["set", 1, "a"], ["append", "l"], ["save"], ["clear"], ["cut", 1], ["fail"]]
    assert isinstance(await outcome(actor.run(bad)), Broken)
    assert await actor.dump() == ({1: "a"}, ["l"], 1)


@simulated
async def test_read_only_turn_may_look_and_not_touch(house: House) -> None:
    """It never commits, so a change would be lost without a word."""
    actor = (await house.open([Shelves])).actor(Shelves, "x")
    await actor.run([["set", 1, "a"], ["append", "l"]])
    assert await actor.look([["get", 1], ["slice", 0, 5], ["len"]]) == ["a", ["l"], 1]
    for step in (["set", 1, "b"], ["discard", 1], ["clear"], ["append", "x"], ["cut", 1]):
        error = await outcome(actor.look([step]))
        assert isinstance(error, AttributeError), step
        assert "@read_only" in str(error)
    assert isinstance(await outcome(actor.look([["pop", 1]])), AttributeError)
    assert isinstance(await outcome(actor.look([["lset", 0, "x"]])), AttributeError)
    assert await actor.dump() == ({1: "a"}, ["l"], 1)


@simulated
async def test_activation_loads_no_entries_and_turns_load_what_they_ask_for(house: House) -> None:
    """An actor of a million entries must start like one of none."""
    cluster = await house.open([Shelves])
    actor = cluster.actor(Shelves, "x")
    await actor.run([["set", key, "v"] for key in range(50)])
    await house.start("b", [Shelves])
    house.silo("a").stop()
    await asyncio.sleep(5)
    asked(house)
    assert await actor.look([["len"], ["llen"]]) == [50, 0]
    assert asked(house) == ["load"]
    assert await actor.look([["get", 7], ["get", 7], ["contains", 8], ["get", 99]])
    assert asked(house) == ["load_parts"] * 3
    assert await actor.look([["get", 7], ["contains", 8], ["contains", 99], ["many", 7, 8]])
    assert asked(house) == []


@simulated
async def test_writing_what_is_known_asks_nothing_first(house: House) -> None:
    """One step to the store for a turn, as for any other field; two where an entry is unknown."""
    actor = (await house.open([Shelves])).actor(Shelves, "x")
    await actor.blind([["set", 1, "a"], ["append", "l"]])
    assert asked(house) == ["load", "commit"]  # an empty map is known by its length
    await actor.blind([["set", 1, "b"], ["append", "m"], ["lset", 0, "n"]])
    assert asked(house) == ["commit"]
    await actor.blind([["set", 2, "c"], ["set", 3, "c"], ["discard", 4]])
    assert asked(house) == ["load_parts", "commit"]
    await actor.blind([["append", "o"], ["cut", 1]])
    assert asked(house) == ["commit"]
    assert await actor.dump() == ({1: "b", 2: "c", 3: "c"}, ["m", "o"], 4)


@simulated
async def test_length_is_told_or_refused_but_never_guessed(house: House) -> None:
    """A length that is wrong by one corrupts whatever is built on it."""
    actor = (await house.open([Shelves])).actor(Shelves, "x")
    await actor.run([["set", 1, "a"], ["set", 2, "b"]])
    found = await actor.run(
        [["set", 1, "c"], ["len"], ["set", 7, "d"], ["len"], ["count"], ["len"]]
    )
    assert found == [None, 2, None, "?", 3, 3]
    found = await actor.run([["get", 8], ["set", 8, "e"], ["len"], ["discard", 8], ["len"]])
    assert found == [None, None, 4, None, 3]


@simulated
async def test_commit_with_a_lost_answer_keeps_each_entry_once(house: House) -> None:
    """Sent again, it finds itself done."""
    actor = (await house.open([Shelves])).actor(Shelves, "x")
    await actor.run([["set", 1, "a"], ["append", "l"]])
    house.next_commits(Fate(replies=False))
    assert await actor.run([["set", 2, "b"], ["append", "m"]]) == [None, None]
    assert await actor.dump() == ({1: "a", 2: "b"}, ["l", "m"], 2)


@simulated
async def test_commit_that_the_store_refused_for_good_leaves_nothing_in_memory(
    house: House,
) -> None:
    """What was on its way must not be read as if it had arrived."""
    cluster = await house.open([Shelves])
    actor = cluster.actor(Shelves, "x")
    await actor.run([["set", 1, "a"], ["append", "l"]])
    house.next_commits(*[Fate(refused="no")] * 40)
    hasty = durum.options(actor, timeout=4)
    steps: Steps = [["set", 1, "b"], ["set", 2, "c"], ["append", "m"]]
    assert isinstance(await outcome(hasty.run(steps)), Exception)
    await asyncio.sleep(2)
    house.store.heal_all()
    assert await actor.dump() == ({1: "a"}, ["l"], 1)
    assert await actor.run([["get", 1], ["set", 2, "z"], ["count"]]) == ["a", None, 2]


@simulated
async def test_ghost_of_a_turn_does_not_bring_its_entries(house: House) -> None:
    """A commit that lands after it was given up must find another version, entries and all."""
    cluster = await house.open([Shelves])
    actor = cluster.actor(Shelves, "x")
    await actor.run([["set", 1, "a"]])
    house.next_commits(*[Fate(late_s=60.0)] * 40)
    hasty = durum.options(actor, timeout=3)
    assert isinstance(
        await outcome(hasty.run([["set", 1, "ghost"], ["append", "ghost"]])), Exception
    )
    await asyncio.sleep(2)
    house.store.heal_all()
    assert await actor.dump() == ({1: "a"}, [], 1)
    await asyncio.sleep(70)
    assert await actor.run([["get", 1], ["llen"], ["count"]]) == ["a", 0, 1]


@simulated
async def test_read_waits_for_a_store_that_is_away_for_a_moment(house: House) -> None:
    """A blip of the store is no reason to fail a turn that has time."""
    actor = (await house.open([Shelves])).actor(Shelves, "x")
    await actor.run([["set", key, "v"] for key in range(400)])
    house.store.next("a", "load_parts", Fate(replies=False), Fate(refused="no"))
    assert await actor.look([["get", 3]]) == ["v"]


@simulated
async def test_read_that_stays_unanswered_rolls_the_turn_back(house: House) -> None:
    """Whoever called learns that nothing was kept; a keyed repeat runs anew, and is not told the failure."""
    actor = (await house.open([Shelves])).actor(Shelves, "x")
    await actor.run([["set", key, "v"] for key in range(400)])
    house.store.next("a", "load_parts", *[Fate(refused="no")] * 40)
    keyed = durum.options(actor, timeout=3, idempotency_key="k")
    steps: Steps = [["append", "l"], ["set", 500, "w"]]
    looking = await outcome(durum.options(actor, timeout=3).run([["get", 3]]))
    writing = await outcome(keyed.blind(steps))
    for error in (looking, writing):
        assert isinstance(error, durum.CallError)
        assert error.did_run in (DidRun.ROLLED_BACK, DidRun.MAYBE)
    await asyncio.sleep(3)
    house.store.heal_all()
    assert await actor.look([["llen"], ["len"]]) == [0, 400]
    await keyed.blind(steps)
    await keyed.blind(steps)
    assert await actor.look([["llen"], ["len"]]) == [1, 401]


@simulated
async def test_turns_of_a_reentrant_kind_share_what_is_not_saved(house: House) -> None:
    """Their fields are shared, so their collections are too; and an older answer must not win."""
    actor = (await house.open([Open])).actor(Open, "x")
    assert await actor.put("a", 1, save=True) == 1
    house.store.next("a", "load_parts", Fate(late_s=0.5))
    slow = asyncio.ensure_future(actor.get("b"))
    await asyncio.sleep(0.1)
    assert await actor.put("b", 2, save=True) == 2
    assert await slow == 2
    assert await actor.get("b") == 2
    await settled(
        *(asyncio.ensure_future(actor.put(f"k{n}", n, save=n % 2 == 0)) for n in range(9))
    )
    await actor.put("end", 0, save=True)
    assert await actor.size() == 12


@simulated
async def test_nested_turn_commits_entries_of_its_own(house: House) -> None:
    """And enters only where its outer turn has nothing uncommitted, in a collection too."""
    actor = (await house.open([Nest])).actor(Nest, "x")
    assert isinstance(await outcome(actor.outer(saved=False)), durum.Deadlock)
    assert await actor.all() == {}
    assert await actor.outer(saved=True) == 2
    assert await actor.all() == {"inner": 2, "outer": 1}


@simulated
async def test_hook_may_change_a_collection(house: House) -> None:
    """It is committed as if it were a turn."""
    actor = (await house.open([Woken])).actor(Woken, "x")
    assert await actor.all() == ["woken"]
    await actor.sleep()
    await asyncio.sleep(1)
    assert await actor.all() == ["woken", "woken"]


@simulated
async def test_cache_of_an_activation_is_bounded(house: House) -> None:
    """Reading a million entries must not keep them."""
    cluster = await house.open([Shelves])
    actor = cluster.actor(Shelves, "x")
    await actor.run([["set", key, "v" * 100] for key in range(2000)])
    for start in range(0, 2000, 100):
        await actor.look([["many", *range(start, start + 100)]])
    (activation,) = house.silo().life.catalog.activations.values()
    kept = activation._durable.entries
    assert kept is not None
    assert len(kept._cache) == entries.CACHED_ENTRIES
    assert kept._cached_bytes <= entries.CACHED_BYTES


@simulated
async def test_turn_that_changes_too_much_is_refused_with_the_limit(house: House) -> None:
    """A commit has to fit into one step of the store."""
    limits = Limits(turn_entries=10, entry_bytes=100, turn_entry_bytes=400)
    config = SiloConfig(partitions=SMALL.partitions, limits=limits)
    actor = (await house.open([Shelves], config)).actor(Shelves, "x")
    too_many = await outcome(actor.blind([["set", key, "v"] for key in range(11)]))
    too_large = await outcome(actor.blind([["append", "x" * 101]]))
    too_much = await outcome(actor.blind([["append", "x" * 90] for _ in range(5)]))
    for error, name in (
        (too_many, "turn_entries"),
        (too_large, "entry_bytes"),
        (too_much, "turn_entry_bytes"),
    ):
        assert isinstance(error, ValueError)
        assert name in str(error)
    halves: Steps = [["set", key, "v"] for key in range(8)]
    await actor.run([*halves, ["save"], *[["set", 10 + key, "v"] for key in range(8)]])
    assert await actor.look([["len"], ["llen"]]) == [16, 0]


@simulated
async def test_superseded_activation_reads_nothing(house: House) -> None:
    """Entries are fenced as states are: what another owner has written is not ours to mix in."""
    cluster = await house.open([Shelves])
    actor = cluster.actor(Shelves, "x")
    await actor.run([["set", key, "v"] for key in range(400)])
    inside = house.store.inside
    mark = (await inside.genesis()).mark  # type: ignore[union-attr]
    for owner in await inside.owners(mark):
        take = Take(partition=owner.partition, seen=owner.token, token=Token(b"x" * 16), silo=None)
        await inside.take(mark, [take])
    error = await outcome(durum.options(actor, timeout=2).run([["append", "l"], ["get", 3]]))
    assert isinstance(error, CommitFailed)
    assert error.did_run is DidRun.ROLLED_BACK
