"""Grains that are placed one by one: where they go, how calls find them, what becomes of their records."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

from durum import errors
from durum.config import SiloConfig
from durum.grains.actor import Actor, one_way, read_only
from durum.grains.maps import Map
from durum.grains.placement import LeastLoaded, OnSilos, PreferLocal, Random
from durum.grains.publishing import Publishes
from durum.grains.reference import options
from durum.ids import GrainId, SiloId
from durum.placement.partitions import partition_of
from durum.silo import votes
from durum.store.host_table import Host
from durum.testing.hosts import current, machine
from durum.views import SiloRow, View
from tests.support.turns import SMALL, House, outcome, simulated


class Cart(Actor, placement=PreferLocal()):
    items: list[str] = []
    prices: Map[str, int] = Map()
    _told: list[str] = []

    async def add(self, item: str, seconds: float = 0.0) -> str:
        self.items.append(item)
        await asyncio.sleep(seconds)
        return machine(current())

    async def price(self, item: str, amount: int) -> None:
        self.prices[item] = amount

    @read_only
    async def count(self) -> int:
        return len(self.items)

    @read_only
    async def where(self) -> str:
        return machine(current())

    @one_way
    async def drop_in(self, item: str) -> None:
        self.items.append(item)

    async def feed(self) -> AsyncIterator[str]:
        for item in list(self.items):
            yield item

    async def tick_soon(self) -> None:
        self.set_timer(self._tick, due=1.0)

    async def _tick(self) -> None:
        self.items.append("tick")

    async def leave(self) -> None:
        self.deactivate()

    async def fail(self) -> None:
        self.items.append("never")
        raise ValueError("no")


class Shopper(Actor):
    async def shop(self, cart: str) -> tuple[str, str]:
        return machine(current()), await self.actor(Cart, cart).add("apple")


class Crawler(Actor, placement=Random()):
    async def where(self) -> str:
        return machine(current())


class Match(Actor, placement=LeastLoaded()):
    async def where(self) -> str:
        return machine(current())


class Train(Actor, placement=OnSilos(role="gpu"), idle_after=timedelta(seconds=20)):
    steps: int = 0

    async def step(self) -> tuple[str, int]:
        self.steps += 1
        return machine(current()), self.steps


class Ticker(Actor, Publishes[int], placement=LeastLoaded()):
    async def tell_all(self, number: int) -> None:
        self.publish(number)


ALL = (Cart, Shopper, Crawler, Match, Train, Ticker)
GPU = SiloConfig(partitions=8, roles=("gpu",))


async def trio(house: House, config: SiloConfig = SMALL) -> None:
    for host in ("a", "b", "c"):
        await house.start(host, ALL, config)
    await asyncio.sleep(5)


async def record(house: House, grain: str) -> Host | None:
    """A grain's host record as the store has it."""
    return await house.store.host("look").find_host(partition_of(GrainId(grain), 8), GrainId(grain))


def alive(house: House, grain: str) -> list[str]:
    return [host for host, silo in house.silos.items() if grain in silo.life.catalog.activations]


def owner(house: House, grain: str) -> str:
    partition = partition_of(GrainId(grain), 8)
    (host,) = [h for h, s in house.silos.items() if s.life.ownership.holding(partition)]
    return host


@simulated
async def test_an_actor_that_prefers_local_lives_where_it_is_called_from(house: House) -> None:
    """That is all it is for: the calls between the two then need no network."""
    await trio(house)
    cluster = await house.connect("a")
    for n in range(12):
        caller, host = await cluster.actor(Shopper, f"s{n}").shop(f"c{n}")
        assert caller == host
        assert alive(house, f"Cart/c{n}") == [host]


@simulated
async def test_it_stays_there_while_others_call_it(house: House) -> None:
    """Else its state would travel with each call."""
    await trio(house)
    cluster = await house.connect("a", "b", "c")
    _, host = await cluster.actor(Shopper, "s").shop("c")
    for n in range(8):
        _, found = await cluster.actor(Shopper, f"other{n}").shop("c")
        assert found == host
    assert await cluster.actor(Cart, "c").count() == 9


@simulated
async def test_a_clients_call_places_it_on_the_owner_of_its_partition(house: House) -> None:
    """There is no silo that calls, and the owner has the call already."""
    await trio(house)
    cluster = await house.connect("a")
    for n in range(8):
        host = await cluster.actor(Cart, f"c{n}").add("pear")
        assert host == owner(house, f"Cart/c{n}")
        noted = await record(house, f"Cart/c{n}")
        assert noted is not None
        assert noted.silo == house.silo(host).id


@simulated
async def test_random_ones_are_everywhere(house: House) -> None:
    """Not by their keys: the same key may come back elsewhere."""
    await trio(house)
    cluster = await house.connect("a")
    counts = Counter([await cluster.actor(Crawler, f"r{n}").where() for n in range(90)])
    assert set(counts) == {"a", "b", "c"}
    assert min(counts.values()) > 15


@simulated
async def test_the_least_loaded_silo_gets_the_next_one(house: House) -> None:
    """Between two reports of loads as well, or all owners would send everything to one silo."""
    await house.start("a", ALL)
    cluster = await house.connect("a")
    for n in range(60):
        await cluster.actor(Shopper, f"s{n}").shop(f"c{n}")
    await house.start("b", ALL)
    await asyncio.sleep(20)
    before = len(house.silo("b").life.catalog)
    counts = Counter([await cluster.actor(Match, f"m{n}").where() for n in range(40)])
    assert counts["b"] > 30, (counts, before)


@simulated
async def test_loads_are_in_proportion_to_weights(house: House) -> None:
    """A machine of twice the size is to have twice as much to do."""
    await house.start("a", ALL, SiloConfig(partitions=8, weight=1.0))
    await house.start("b", ALL, SiloConfig(partitions=8, weight=3.0))
    await asyncio.sleep(5)
    cluster = await house.connect("a")
    counts = Counter([await cluster.actor(Match, f"m{n}").where() for n in range(80)])
    assert 55 <= counts["b"] <= 65


@simulated
async def test_a_role_decides(house: House) -> None:
    """A silo without the role must not get one, whoever owns its partition."""
    await house.start("a", ALL)
    await house.start("b", ALL, GPU)
    await house.start("c", ALL)
    await asyncio.sleep(5)
    cluster = await house.connect("a")
    for n in range(20):
        assert await cluster.actor(Train, f"t{n}").step() == ("b", 1)


@simulated
async def test_calls_wait_for_a_silo_with_the_role(house: House) -> None:
    """A restart of the only one must not fail a call at once, and what fails says what is missing."""
    await house.start("a", ALL)
    cluster = await house.connect("a")
    early = options(cluster.actor(Train, "t"), timeout=3.0)
    end = await outcome(early.step())
    assert isinstance(end, errors.CallTimeout)
    assert end.did_run == "no"
    assert "in the role 'gpu'" in str(end)
    assert "none has any role" in str(end)
    waiting = asyncio.ensure_future(cluster.actor(Train, "t").step())
    await asyncio.sleep(2)
    assert not waiting.done()
    await house.start("g", ALL, GPU)
    assert await waiting == ("g", 1)


@simulated
async def test_a_silo_that_leaves_lets_go_and_no_call_fails(house: House) -> None:
    """A rolling restart: its actors come back elsewhere with all they had."""
    await trio(house)
    cluster = await house.connect("a", "b", "c")
    carts = [f"c{n}" for n in range(12)]

    async def shop(cart: str) -> int:
        for n in range(40):
            await cluster.actor(Cart, cart).add(f"i{n}")
            await asyncio.sleep(0.1)
        return await cluster.actor(Cart, cart).count()

    shopping = [asyncio.ensure_future(shop(cart)) for cart in carts]
    await asyncio.sleep(1)
    for host in ("a", "b"):
        silo = house.silos.pop(host)
        await house.loop.start(host, silo.close())
    assert await asyncio.gather(*shopping) == [40] * len(carts)
    for cart in carts:
        assert alive(house, f"Cart/{cart}") == ["c"]


@simulated
async def test_a_dead_hosts_actors_come_back_elsewhere(house: House) -> None:
    """Its records are taken over once its lease has surely ended."""
    await trio(house)
    cluster = await house.connect("a", "b", "c")
    places: dict[str, str] = {}
    for n in range(12):
        places[f"m{n}"] = await cluster.actor(Match, f"m{n}").where()
    assert "b" in places.values()
    house.kill("b")
    await asyncio.sleep(0.5)  # calls under way have an unknown outcome
    for match, before in places.items():
        after = await cluster.actor(Match, match).where()
        assert after == before if before != "b" else after in {"a", "c"}


@simulated
async def test_an_owners_death_moves_no_actor_that_it_does_not_host(house: House) -> None:
    """Only its partitions are taken over; the record tells the new owner where each is."""
    await trio(house)
    cluster = await house.connect("a", "b", "c")
    for n in range(30):
        name = f"m{n}"
        host = await cluster.actor(Match, name).where()
        if host != owner(house, f"Match/{name}"):
            break
    house.kill(owner(house, f"Match/{name}"))
    assert await cluster.actor(Match, name).where() == host
    fresh = await house.connect(*house.silos, host="fresh")
    assert await fresh.actor(Match, name).where() == host


@simulated
async def test_one_that_is_put_away_leaves_no_record(house: House) -> None:
    """Where nobody remembers it, it can be placed anew; and records take room."""
    await house.start("a", ALL)
    await house.start("g", ALL, GPU)
    await asyncio.sleep(5)
    cluster = await house.connect("a", "g")
    assert await cluster.actor(Train, "t").step() == ("g", 1)
    assert await record(house, "Train/t") is not None
    await asyncio.sleep(60)
    assert alive(house, "Train/t") == []
    assert await record(house, "Train/t") is None
    assert await cluster.actor(Train, "t").step() == ("g", 2)


@simulated
async def test_calls_during_its_goodbye_are_placed_anew(house: House) -> None:
    """Letting go and being called again at the same time must lose neither."""
    await trio(house)
    cluster = await house.connect("a", "b", "c")
    cart = cluster.actor(Cart, "c")
    for n in range(20):
        await cart.add(f"i{n}")
        adding = [asyncio.ensure_future(cart.add(f"j{n}-{m}")) for m in range(3)]
        await cart.leave()
        await asyncio.gather(*adding)
    assert await cart.count() == 80


@simulated
async def test_all_that_actors_can_do_works_where_it_is_hosted(house: House) -> None:
    """Keys, streams, one-way calls, timers, collections, rollback: none of them knows of partitions."""
    await trio(house)
    cluster = await house.connect("a", "b", "c")
    _, host = await cluster.actor(Shopper, "s2").shop("c")
    cart = cluster.actor(Cart, "c")
    assert host != owner(house, "Cart/c"), "choose another shopper"
    once = options(cart, idempotency_key="k")
    assert await once.add("plum") == await once.add("plum") == host
    await cart.drop_in("fig")
    await asyncio.sleep(1)
    await cart.price("fig", 3)
    assert isinstance(await outcome(cart.fail()), ValueError)
    await cart.tick_soon()
    await asyncio.sleep(2)
    assert [item async for item in cart.feed()] == ["apple", "plum", "fig", "tick"]
    assert [item async for item in (await house.connect("a", host="new")).actor(Cart, "c").feed()]


@simulated
async def test_clients_of_a_gateway_reach_it(house: House) -> None:
    """They can dial nobody else, so being told where to go would not help them."""
    await trio(house)
    near = await house.connect("a", "b", "c")
    hosts = {f"m{n}": await near.actor(Match, f"m{n}").where() for n in range(12)}
    far = await house.connect("a", host="far", routing="gateway")
    for name, host in hosts.items():
        assert await far.actor(Match, name).where() == host
    for n in range(8):  # a gateway is where its clients' calls come from
        assert await far.actor(Cart, f"c{n}").add("x") == "a"
        assert [item async for item in far.actor(Cart, f"c{n}").feed()] == ["x"]


@simulated
async def test_operators_reach_it_where_it_is(house: House) -> None:
    """Looked at, put away and deleted by the silo that has it; by the owner where none has."""
    await trio(house)
    cluster = await house.connect("a", "b", "c")
    hosts = {await cluster.actor(Match, f"m{n}").where() for n in range(6)}
    assert len(hosts) > 1
    _, host = await cluster.actor(Shopper, "s2").shop("c")
    admin = cluster.admin
    found = await admin.inspect(Cart, "c")
    assert found.silo == house.silo(host).id
    assert found.active
    assert await admin.deactivate(Cart, "c")
    assert await record(house, "Cart/c") is None
    found = await admin.inspect(Cart, "c")
    assert not found.active
    assert found.state is not None
    await cluster.actor(Cart, "c").add("y")
    assert await admin.delete(Cart, "c")
    assert await record(house, "Cart/c") is None
    assert await cluster.actor(Cart, "c").count() == 0
    await admin.deactivate(Cart, "c")
    assert not await admin.delete(Cart, "c")


@simulated
async def test_a_lost_record_drops_the_one_activation(house: House) -> None:
    """Somebody else hosts it now: nothing else of the silo is in doubt."""
    await trio(house)
    cluster = await house.connect("a", "b", "c")
    await cluster.actor(Cart, "other").add("x")
    host = await cluster.actor(Cart, "c").add("x")
    grain, noted = GrainId("Cart/c"), await record(house, "Cart/c")
    assert noted is not None
    store = house.store.host("look")
    await store.place(partition_of(grain, 8), noted.token, grain, seen=noted.token, host=None)
    before = house.silo(host).statistics().ownership.held
    end = await outcome(cluster.actor(Cart, "c").add("y"))
    assert isinstance(end, errors.CommitFailed)
    assert end.did_run == "rolled_back"
    assert house.silo(host).statistics().ownership.held == before
    await cluster.actor(Cart, "c").add("z")
    assert await cluster.actor(Cart, "c").count() == 2


@simulated
async def test_a_record_of_a_silo_that_never_came_is_no_obstacle(house: House) -> None:
    """The owner died between the record and the call that it was for; its host, too, is long gone."""
    await trio(house)
    cluster = await house.connect("a", "b", "c")
    partition = partition_of(GrainId("Cart/c"), 8)
    holding = house.silo(owner(house, "Cart/c")).life.ownership.holding(partition)
    assert holding is not None
    host = Host(SiloId("z:1@5"), type(holding.token)(b"0" * 16 + b"Cart/c"))
    await house.store.host("look").place(
        partition, holding.token, GrainId("Cart/c"), seen=None, host=host
    )
    await cluster.actor(Cart, "c").add("x")
    assert await cluster.actor(Cart, "c").count() == 1


def test_nothing_is_asked_of_the_store_twice_by_many_callers() -> None:
    """A thousand calls to a new actor are one placing, not a thousand."""

    @simulated
    async def body(house: House) -> None:
        await trio(house)
        cluster = await house.connect("a", "b", "c")
        seen = len(house.operations)
        await asyncio.gather(*(cluster.actor(Cart, "c").add(str(n)) for n in range(50)))
        names = Counter(operation.name for operation in house.operations[seen:])
        assert names["place"] == 1
        assert names["find_host"] <= 2

    body()


@simulated
async def test_a_watch_is_where_the_events_are(house: House) -> None:
    """An owner that took it in would wait for events that another silo sends."""
    await trio(house)
    cluster = await house.connect("a", "b", "c")
    seen: list[object] = []

    async def look(key: str) -> None:
        async with cluster.watch(cluster.actor(Ticker, key)) as events:
            async for event in events:
                seen.append(event)  # noqa: PERF401 - looked at while more are coming

    for n in range(6):
        watching = asyncio.ensure_future(look(f"t{n}"))
        await asyncio.sleep(1)
        for number in range(3):
            await cluster.actor(Ticker, f"t{n}").tell_all(number)
        await cluster.admin.deactivate(Ticker, f"t{n}")
        await cluster.actor(Ticker, f"t{n}").tell_all(3)
        await asyncio.sleep(1)
        watching.cancel()
        assert seen == [0, 1, 2, 3], n
        seen.clear()


class Till(Actor, placement=PreferLocal()):
    total: int = 0

    async def add(self) -> tuple[str, int]:
        self.total += 1
        return machine(current()), self.total

    @read_only
    async def peek(self) -> int:
        return self.total


class Spy(Actor, placement=PreferLocal()):
    """Looks at a till of its own silo, as long as that may answer."""

    async def look(self, till: str, seen: str) -> str:
        self.set_timer(self._look, till, seen, every=0.05, due=0.0)
        return machine(current())

    async def _look(self, till: str, seen: str) -> None:
        value = await options(self.actor(Till, till), timeout=0.04).peek()
        sightings.setdefault(seen, []).append((asyncio.get_running_loop().time(), value))


class Sender(Actor):
    async def send(self, till: str) -> tuple[str, str]:
        spy = await self.actor(Spy, till).look(till, till)
        host, _ = await self.actor(Till, till).add()
        return spy, host


sightings: dict[str, list[tuple[float, int]]] = {}


def condemn(view: View, silo: SiloId) -> tuple[SiloRow, SiloRow]:
    """A row declared dead early, as if votes had come in before the lease was over."""
    row = view.by_id[silo]
    since = max(one.since for one in view.rows)
    return votes.condemned(row, since, "for the test", gone=False), row


@simulated
async def test_a_host_that_may_still_answer_is_waited_out(house: House) -> None:
    """It is declared dead and does not know it: what it reads must not be older than others' answers."""
    sightings.clear()
    for host in ("a", "b", "c"):
        await house.start(host, [Till, Spy, Sender])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b", "c")
    till = next(
        key
        for key in (f"t{n}" for n in range(100))
        if owner(house, f"Sender/{key}") == "b" and owner(house, f"Till/{key}") == "a"
    )
    assert await cluster.actor(Sender, till).send(till) == ("b", "b")
    condemned = house.silo("b").id
    await asyncio.sleep(1)
    house.store.cut("b")
    membership = house.silo("a").life.membership
    await house.loop.start("a", membership.change(lambda view: condemn(view, condemned)))
    host, total = await cluster.actor(Till, till).add()
    added_at = house.loop.time()
    assert (host != "b", total) == (True, 2)
    await asyncio.sleep(1)
    looks = sightings[till]
    assert len(looks) > 20
    assert {value for at, value in looks if at > added_at} <= {2}
    house.store.heal("b")
