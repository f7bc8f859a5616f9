"""The partition table as callers see it. Pure: links are names."""

from __future__ import annotations

import asyncio
import struct
from typing import cast

from durum.client.routes import Link, Routes
from durum.ids import Address, SiloId
from durum.wire.messages import Moved, Table

A, B, C = Address("a:1"), Address("b:1"), Address("c:1")


class FakeLink:
    """A link that is never used."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.closing = False

    def __repr__(self) -> str:
        return self.name


def link(name: str) -> Link:
    return cast("Link", FakeLink(name))


def table(version: int, *owners: Address | None, dead: tuple[SiloId, ...] = ()) -> Table:
    """A table of as many partitions as owners are given."""
    silos = tuple(sorted({owner for owner in owners if owner is not None}))
    numbers = [0xFFFF if owner is None else silos.index(owner) for owner in owners]
    return Table(
        version=version,
        silos=silos,
        owners=struct.pack(f"<{len(numbers)}H", *numbers),
        kinds=tuple(("Account",) for _ in silos),
        dead=dead,
    )


def test_routes_know_nobody_before_the_first_table() -> None:
    """There is one partition without an owner then, so that the hot path needs no special case."""
    routes = Routes()
    assert (routes.version, list(routes.silos), list(routes.dead)) == (0, [], [])
    assert routes.by_partition == [None]
    assert routes.owner(0) is None
    assert not routes.hosts("Account")
    assert repr(routes) == "<Routes version=0 silos=0>"


def test_routes_lead_to_the_open_connections_of_owners() -> None:
    """A call looks up one list entry; whoever is not connected is dialed when first needed."""
    routes, to_a = Routes(), link("to a")
    assert routes.learn(table(1, A, B, None, A, dead=(SiloId("d:1@1"),)), {A: to_a})
    assert routes.by_partition == [to_a, None, None, to_a]
    assert [routes.owner(p) for p in range(4)] == [A, B, None, A]
    assert list(routes.silos) == [A, B]
    assert list(routes.dead) == ["d:1@1"]
    assert routes.hosts("Account")
    assert not routes.hosts("Order")


def test_routes_ignore_a_table_that_is_not_newer() -> None:
    """Tables of several silos arrive in any order."""
    routes = Routes()
    assert routes.learn(table(2, B), {})
    assert not routes.learn(table(1, A), {})
    assert not routes.learn(table(2, A), {})
    assert routes.owner(0) == B


def test_routes_without_partitions_stay_usable() -> None:
    """A cluster in which no silo is active yet has a table too."""
    routes = Routes()
    assert routes.learn(Table(version=1, silos=(), owners=b"", kinds=()), {})
    assert routes.by_partition == [None]


def test_routes_follow_a_redirect_until_a_newer_table_comes() -> None:
    """The silo that was asked knows better than the table at hand, but not than the next one."""
    routes, to_a = Routes(), link("to a")
    routes.learn(table(3, A, A), {A: to_a})
    routes.redirect(0, Moved(1, B, 4))
    assert (routes.owner(0), routes.owner(1)) == (B, A)
    assert routes.by_partition == [None, to_a]
    routes.learn(table(4, A, A), {A: to_a})
    assert routes.owner(0) == A


def test_routes_keep_a_redirect_that_is_newer_than_the_table() -> None:
    """The table that comes then is still older than what the redirect was told by."""
    routes, to_a = Routes(), link("to a")
    routes.learn(table(3, A), {A: to_a})
    routes.redirect(0, Moved(1, B, 9))
    routes.learn(table(5, A), {A: to_a})
    assert routes.owner(0) == B
    assert routes.by_partition == [None]


def test_routes_forget_a_redirect_when_an_older_silo_or_nobody_answers() -> None:
    """Following old news in a circle would not end."""
    routes = Routes()
    routes.learn(table(3, A), {A: link("to a")})
    routes.redirect(0, Moved(1, B, 3))
    assert routes.owner(0) == B
    routes.redirect(0, Moved(1, C, 2))
    assert routes.owner(0) == A
    routes.redirect(0, Moved(1, B, 3))
    routes.redirect(0, Moved(1, Address(""), 3))
    assert routes.owner(0) == A


def test_routes_use_and_lose_connections() -> None:
    """A connection that takes no more calls must not be tried by every call first."""
    routes, first, second = Routes(), link("first"), link("second")
    routes.learn(table(1, A, B, A), {A: first})
    routes.use(1, second)
    assert routes.by_partition == [first, second, first]
    routes.lose(first)
    assert routes.by_partition == [None, second, None]
    first.closing = True
    routes.use(0, first)
    assert routes.by_partition == [None, second, None]


def test_routes_of_a_silo_keep_its_own_grains_inside() -> None:
    """A silo does not dial itself."""
    inward = link("inward")
    routes = Routes(own=(A, inward))
    assert not routes.leads_here(0)
    routes.learn(table(1, A, B), {})
    assert routes.by_partition == [inward, None]
    assert routes.own_link(A) is inward
    assert routes.own_link(B) is None
    assert Routes().own_link(A) is None
    assert [routes.leads_here(grain) for grain in (0, 1, 2)] == [True, False, True]
    assert not Routes().leads_here(0)


async def test_routes_wake_whoever_waits_for_the_next_table() -> None:
    """Calls without an owner wait for news and not for a clock."""
    routes = Routes()
    waiting = asyncio.ensure_future(routes.wait_change())
    await asyncio.sleep(0)
    routes.learn(table(1, A), {})
    await waiting
    again = asyncio.ensure_future(routes.wait_change())
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()
