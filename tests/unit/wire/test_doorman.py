"""Who may stand at the door: counts, rates, and that nobody can grow the counting itself."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durum.config import Limits
from durum.ids import split_address
from durum.wire import links
from durum.wire.doorman import BURST_S, HOSTS_LIMIT, Doorman, network_of
from durum.wire.network import TcpNetwork
from tests.support.wire import ANYWHERE, SECRET, Recorder, client, echo, silo


def test_doorman_bounds_the_strangers_of_one_host() -> None:
    """One host cannot take all places; another one still gets in."""
    doorman: Doorman[int] = Doorman(Limits(strangers_per_host=3))
    assert [doorman.admit(n, "10.0.0.1", 0.0) for n in range(3)] == ["", "", ""]
    assert "3 connections from this host" in doorman.admit(3, "10.0.0.1", 0.0)
    assert doorman.admit(4, "10.0.0.2", 0.0) == ""
    assert repr(doorman) == "<Doorman strangers=4 hosts=2>"
    doorman.know(0)
    assert doorman.admit(5, "10.0.0.1", 0.0) == ""
    doorman.forget(1)
    doorman.forget(1)
    assert doorman.admit(6, "10.0.0.1", 0.0) == ""
    assert doorman.admit(7, "10.0.0.1", 0.0) != ""


def test_doorman_names_the_oldest_where_there_are_too_many() -> None:
    """A flood from many hosts must not keep friends out: whoever has stood longest gives way."""
    doorman: Doorman[int] = Doorman(Limits(strangers=2))
    for n in range(2):
        assert doorman.admit(n, f"10.0.0.{n}", 0.0) == ""
    assert doorman.crowded() is None
    assert doorman.admit(2, "10.0.0.2", 0.0) == ""
    assert doorman.crowded() == 0
    doorman.forget(0)
    assert doorman.crowded() is None


def test_doorman_bounds_the_arrivals_of_one_host() -> None:
    """A handshake costs a signature under TLS; a host that comes again and again must not spend all."""
    doorman: Doorman[int] = Doorman(Limits(arrivals_per_s=10.0, strangers_per_host=10_000))
    burst = int(10 * BURST_S)
    assert all(doorman.admit(n, "10.0.0.1", 5.0) == "" for n in range(burst))
    assert "10 connections a second" in doorman.admit(burst, "10.0.0.1", 5.0)
    assert doorman.admit(burst + 1, "10.0.0.2", 5.0) == ""
    admitted = [doorman.admit(1000 + n, "10.0.0.1", 5.0 + n / 100) == "" for n in range(1000)]
    assert sum(admitted) == pytest.approx(100, abs=1)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("silo-a", "silo-a"),
    ],
)
def test_hosts_are_told_apart_by_what_one_is_given(host: str, network: str) -> None:
    """An IPv6 host has 2**64 addresses of its own; each of them anew would be no limit."""
    assert network_of(host) == network


def test_doorman_remembers_few_hosts() -> None:
    """Its own memory must not be what a flood fills."""
    doorman: Doorman[int] = Doorman(Limits())
    for n in range(HOSTS_LIMIT + 100):
        doorman.admit(n, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 0.0)
        doorman.forget(n)
    assert repr(doorman) == f"<Doorman strangers=0 hosts={HOSTS_LIMIT}>"


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 3), st.booleans(), st.floats(0, 1)),
        max_size=200,
    )
)
def test_doorman_counts_right_whatever_happens(
    steps: list[tuple[int, int, bool, float]],
) -> None:
    """A count that drifts either lets everybody in or nobody, for ever."""
    limits = Limits(strangers_per_host=5, strangers=8, arrivals_per_s=20.0)
    doorman: Doorman[int] = Doorman(limits)
    inside: dict[int, int] = {}
    now = 0.0
    for who, host, comes, pause in steps:
        now += pause
        if comes and who not in inside:
            refused = doorman.admit(who, f"10.0.0.{host}", now)
            if not refused:
                inside[who] = host
        elif not comes:
            doorman.forget(who)
            inside.pop(who, None)
        while (oldest := doorman.crowded()) is not None:
            assert oldest == next(iter(inside))
            doorman.forget(oldest)
            del inside[oldest]
        assert len(inside) <= 8
        assert max([*map(list(inside.values()).count, range(4))]) <= 5
        assert repr(doorman).startswith(f"<Doorman strangers={len(inside)} ")


def test_friends_come_in_while_one_host_floods() -> None:
    """On a real port: strangers beyond the bounds are told so at once, a friend is served."""

    async def main() -> None:
        inside = Recorder(echo)
        limits = Limits(strangers=8, strangers_per_host=100, handshake_s=2)
        server = await links.serve(TcpNetwork(), ANYWHERE, silo(SECRET), inside, limits)
        host, port = split_address(server.address)
        flood = [await asyncio.open_connection(host, port) for _ in range(60)]
        friend = await links.dial(TcpNetwork(), server.address, client(SECRET), Recorder(), limits)
        assert len(server.connections) <= 9
        assert server.statistics().turned_away >= 51
        for reader, writer in flood:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
        friend.abort()
        await friend.wait_closed()
        await server.close()

    asyncio.run(main())


def test_host_that_comes_too_fast_is_told_to_come_again() -> None:
    """A refusal that says so is tried again by dialers; silence would cost them their patience."""

    async def main() -> None:
        limits = Limits(arrivals_per_s=5, strangers_per_host=3)
        server = await links.serve(TcpNetwork(), ANYWHERE, silo(SECRET), Recorder(), limits)
        for _ in range(10):
            friend = await links.dial(
                TcpNetwork(), server.address, client(SECRET), Recorder(), Limits()
            )
            friend.abort()
            await friend.wait_closed()
        with pytest.raises(ConnectionAbortedError, match="5 connections a second"):
            await links.dial(TcpNetwork(), server.address, client(SECRET), Recorder(), Limits())
        await server.close()

    asyncio.run(main())
