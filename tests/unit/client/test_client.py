"""A cluster as its callers see it: connecting, staying connected, and being closed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durum import errors
from durum.client.client import connect
from durum.clock import SystemClock
from durum.errors import DidRun
from durum.grains.actor import Actor, read_only
from durum.grains.reference import options
from durum.ids import SystemEntropy
from durum.silo.silo import Silo
from durum.store.urls import open_store
from durum.testing.links import Cut
from tests.support.turns import SMALL, House, outcome, settled, simulated

SECRET = "a secret of sufficient length"
OTHER = "another secret of such length"


class Tally(Actor):
    value: int = 0

    async def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    async def add_slowly(self, amount: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        self.value += amount
        return self.value

    @read_only
    async def get(self) -> int:
        return self.value


@simulated
async def test_client_that_reaches_nobody_says_what_it_tried(house: House) -> None:
    """`timed out` would leave people guessing between address, name, secret and firewall."""
    house.network.host("b")
    with pytest.raises(errors.NoSilo) as caught:
        await house.connect("a", "b", connect_timeout_s=2.0)
    text = str(caught.value)
    assert "answered within 2 s" in text
    assert "a:7600: " in text
    assert "b:7600: " in text
    assert "refused" in text
    assert "cluster 'default'" in text
    assert house.loop.time() == pytest.approx(2.0, abs=0.3)


@simulated
async def test_client_waits_for_a_silo_that_is_just_starting(house: House) -> None:
    """People start both at once."""
    house.network.host("a")
    opening = asyncio.ensure_future(house.connect("a"))
    await asyncio.sleep(3.0)
    await house.start("a", [Tally])
    cluster = await opening
    assert await cluster.actor(Tally, "t").add(1) == 1
    assert list(cluster.silos) == ["a:7600"]
    assert repr(cluster) == "<Cluster 'default' silos=1 links=1>"


@pytest.mark.parametrize(
    ("secret", "name", "why"),
    [
        (OTHER, "default", "different cluster secrets"),
        ("", "default", "has a cluster secret"),
        (SECRET, "other", "cluster 'default'"),
    ],
)
def test_client_that_is_turned_away_learns_it_at_once(secret: str, name: str, why: str) -> None:
    """It will not get better by waiting, and the whole timeout would look like an outage."""

    @simulated
    async def check(house: House) -> None:
        await house.start("a", [Tally], secret=SECRET)
        await house.start("b", [Tally], secret=SECRET)
        began = house.loop.time()
        with pytest.raises(errors.IncompatibleSilo, match=why) as caught:
            await house.connect("a", "b", secret=secret, cluster=name)
        assert house.loop.time() - began < 1.0
        assert "Nothing was called" in str(caught.value)
        assert "a:7600" in str(caught.value)
        assert "b:7600" in str(caught.value)
        cluster = await house.connect("a", secret=SECRET)
        assert await cluster.actor(Tally, "t").add(1) == 1

    check()


@simulated
async def test_client_waits_for_the_others_where_only_some_turn_it_away(house: House) -> None:
    """One wrong address in a list must not make the right ones useless."""
    await house.start("a", [Tally], secret=SECRET)
    house.network.host("b")
    opening = asyncio.ensure_future(house.connect("a", "b", secret=OTHER, connect_timeout_s=3.0))
    ended = await outcome(opening)
    assert isinstance(ended, errors.IncompatibleSilo)
    assert house.loop.time() > 3.0
    assert "b:7600" in str(ended)


def test_client_refuses_what_is_no_target() -> None:
    """A typing mistake must show before anything is awaited."""
    targets: list[str | list[str]] = ["nonsense", "host", ":1", []]
    for target in targets:
        with pytest.raises(errors.ConfigError):
            connect(target)


@simulated
async def test_client_goes_on_when_its_silo_dies(house: House) -> None:
    """Its grains move to others, and the client finds them there: only what was under way may be lost."""
    await house.start("a", [Tally])
    await house.start("b", [Tally])
    cluster = await house.connect("a", "b")
    tallies = [cluster.actor(Tally, str(n)) for n in range(20)]
    assert await asyncio.gather(*(tally.add(1) for tally in tallies)) == [1] * 20
    under_way = [asyncio.ensure_future(tally.add_slowly(1, 5.0)) for tally in tallies]
    await asyncio.sleep(1.0)
    house.kill("a")
    ended = await settled(*under_way)
    lost = [each for each in ended if isinstance(each, errors.SiloLost)]
    assert lost
    assert all(each.did_run is DidRun.MAYBE for each in lost)
    assert len(lost) + ended.count(2) == 20
    values = await asyncio.gather(*(tally.get() for tally in tallies))
    assert values.count(1) == len(lost)
    assert list(cluster.silos) == ["b:7600"]


@simulated
async def test_client_notices_a_silo_whose_machine_vanished(house: House) -> None:
    """No connection breaks when the power goes: the others say that it is dead, and calls end by that."""
    await house.start("a", [Tally])
    await house.start("b", [Tally])
    cluster = await house.connect("a", "b")
    tallies = [cluster.actor(Tally, str(n)) for n in range(8)]
    await asyncio.gather(*(tally.add(1) for tally in tallies))
    house.network.isolate("a", Cut.DROP)
    house.store.cut("a")
    calls = [asyncio.ensure_future(outcome(tally.add(1))) for tally in tallies]
    ended = await settled(*calls)
    assert house.loop.time() < 25
    lost = [each for each in ended if isinstance(each, errors.SiloLost)]
    assert len(lost) + ended.count(2) == 8
    assert lost
    for tally in tallies:
        assert await tally.add(0) in (1, 2)


@simulated
async def test_client_comes_back_after_all_silos_were_away(house: House) -> None:
    """A full restart of the cluster must not need a restart of its clients."""
    cluster = await house.open([Tally])
    tally = cluster.actor(Tally, "t")
    assert await tally.add(1) == 1
    house.kill("a")
    await asyncio.sleep(0.1)  # the connection's end has been noticed
    call = asyncio.ensure_future(options(tally, timeout=60.0).add(1))
    await asyncio.sleep(15.0)
    await house.start("a#2", [Tally])
    assert await call == 2


@simulated
async def test_client_fails_no_call_when_a_silo_leaves(house: House) -> None:
    """The silo says goodbye; what is under way is answered, what is new goes elsewhere."""
    await house.start("a", [Tally])
    await house.start("b", [Tally])
    cluster = await house.connect("a", "b")
    tallies = [cluster.actor(Tally, str(n)) for n in range(20)]
    await asyncio.gather(*(tally.add(1) for tally in tallies))

    async def load(tally: Tally) -> int:
        for _ in range(40):
            await tally.add(1)
            await asyncio.sleep(0.05)
        return await tally.get()

    loads = [asyncio.ensure_future(load(tally)) for tally in tallies]
    await asyncio.sleep(0.5)
    await house.silos.pop("a").close()
    assert await asyncio.gather(*loads) == [41] * 20
    assert list(cluster.silos) == ["b:7600"]


@simulated
async def test_client_that_is_closed_ends_its_calls(house: House) -> None:
    """A call that waits for ever keeps a program from ending; the errors say what is known."""
    cluster = await house.open([Tally])
    tally = cluster.actor(Tally, "t")
    under_way = asyncio.ensure_future(outcome(tally.add_slowly(1, 5.0)))
    await asyncio.sleep(0.5)
    await cluster.close()
    ended = await under_way
    assert isinstance(ended, errors.SiloLost)
    with pytest.raises(errors.ShuttingDown) as caught:
        await tally.add(1)
    assert caught.value.did_run is DidRun.NO
    await cluster.close()


@simulated
async def test_client_follows_grains_when_silos_join(house: House) -> None:
    """It goes straight to the owner, wherever that is now."""
    cluster = await house.open([Tally])
    tallies = [cluster.actor(Tally, str(n)) for n in range(20)]
    await asyncio.gather(*(tally.add(1) for tally in tallies))
    second = await house.start("b", [Tally])
    for _ in range(30):
        assert await asyncio.gather(*(tally.add(0) for tally in tallies)) == [1] * 20
        await asyncio.sleep(0.2)
    assert len(second.life.catalog) > 3
    assert len(house.silo("a").life.catalog) > 3
    assert sorted(cluster.silos) == ["a:7600", "b:7600"]


async def test_client_finds_silos_by_their_store(tmp_path: Path) -> None:
    """A store's URL is what configuration has already; where silos are is written in there."""
    url = f"sqlite:///{tmp_path}/shop.db"
    async with (
        Silo([Tally], url, config=SMALL) as silo,
        connect(url, connect_timeout_s=5.0) as cluster,
    ):
        assert await cluster.actor(Tally, "t").add(2) == 2
        assert list(cluster.silos) == [silo.address]
        async with connect([silo.address, url]) as both:
            assert await both.actor(Tally, "t").get() == 2


async def test_client_says_what_is_wrong_with_a_store(tmp_path: Path) -> None:
    """A store without a service, and one without a living silo, need different cures; neither is made by
    asking."""
    missing = tmp_path / "missing.db"
    with pytest.raises(errors.NoSilo, match=r"missing\.db: there is no such file"):
        await connect(f"sqlite:///{missing}", connect_timeout_s=0.5)
    url = f"sqlite:///{tmp_path}/shop.db"
    store = await open_store(url, cluster="default", clock=SystemClock(), entropy=SystemEntropy())
    await store.close()
    with pytest.raises(errors.NoSilo, match="no service was created in it"):
        await connect(url, connect_timeout_s=0.5)
    async with Silo([Tally], url, config=SMALL):
        pass
    with pytest.raises(errors.NoSilo, match="it lists no active silo"):
        await connect(url, connect_timeout_s=0.5)
    with pytest.raises(errors.NoSilo, match="names no store"):
        await connect("mysql://user:password@host/db", connect_timeout_s=0.5)
    with pytest.raises(errors.NoSilo) as caught:
        await connect("mysql://user:password@host/db", connect_timeout_s=0.5)
    assert "password" not in str(caught.value)
    assert not missing.exists()
