"""What nobody in his right mind sends, and somebody will."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import struct
import unicodedata
from typing import Any

import msgspec
import pytest

import durum
from durum import errors
from durum.errors import DidRun
from durum.ids import GrainId, SiloId
from durum.wire.connection import LinkBroken
from durum.wire.messages import Call, Failure, HandOver, Hop, Moved, Probe, Reply
from tests.support.bystander import bystander
from tests.support.commands import Running
from tests.support.fleet import Fleet, appears, owner_of, raw_link, stranger, until
from tests.support.grains import Counter, Echo, Guarded, Slow

KEYS = (
    "plain",
    "{1}",
    "}{",
    "{}",
    "a:b",
    ":",
    "a/b",
    "/",
    "..",
    "../plain",
    "%2e%2e",
    "a\0",
    "a",
    "\0",
    "a\n",
    "a\r\nDEL *",
    " plain",
    "plain ",
    "*",
    "Counter/plain",
    "' OR 1=1 --",
    '"',
    "\\",
    "é",
    unicodedata.normalize("NFD", "é"),
    "а",  # noqa: RUF001 - Cyrillic, as hostile as can be
    "ﬁ",
    "fi",
    "ẞ",
    "ß",
    "SS",
    "\u200b",
    "\u202eplain",
    "🦄",
    "x" * 1024,
    "x" * 1023,
    "€" * 341,
)


@pytest.mark.parametrize("fleet", ["sqlite", "valkey"], indirect=True)
async def test_odd_keys_never_alias_each_other(fleet: Fleet) -> None:
    """Each is an actor of its own, also after all of it was loaded from the store again."""
    assert len(set(KEYS)) == len(KEYS)
    (silo,) = await fleet.started(1)
    async with fleet.connect() as cluster:
        for amount, key in enumerate(KEYS, 1):
            keyed = durum.options(cluster.actor(Counter, key), idempotency_key=key[:200])
            assert await keyed.add(amount) == amount
    await fleet.kill(silo)
    await fleet.start()
    async with fleet.connect() as cluster:
        found = await asyncio.gather(*(cluster.actor(Counter, key).get() for key in KEYS))
        assert found == list(range(1, len(KEYS) + 1))
        for amount, key in enumerate(KEYS, 1):
            keyed = durum.options(cluster.actor(Counter, key), idempotency_key=key[:200])
            assert await keyed.add(amount) == amount


@pytest.mark.parametrize("key", ["", "x" * 1025, "€" * 342, "\ud800", 7, None, b"x"])
async def test_keys_beyond_the_rules_are_refused_here(three: Fleet, key: Any) -> None:
    """Before anything is sent."""
    async with three.connect() as cluster:
        with pytest.raises(errors.ArgumentError, match="key"):
            await cluster.actor(Counter, key).get()


async def answer_of(silo: Running, grain: str, method: str, args: bytes = b"\x90") -> Any:
    async with raw_link(silo) as (link, _):
        return await link.request(Call(link.next_id(), GrainId(grain), method, args))


@pytest.mark.parametrize(
    "method",
    [
        "__init__",
        "__class__",
        "__dict__",
        "__reduce_ex__",
        "__spell__",
        "_hidden",
        "_durum_host",
        "secret",
        "calls",
        "on_activate",
        "on_deactivate",
        "migrate_state",
        "key",
        "actor",
        "save",
        "deactivate",
        "context",
        "mro",
        "",
        "shown\0",
        "Shown",
        "ѕhown",  # noqa: RUF001 - its first letter is Cyrillic
        "shown.__call__",
        "x" * 100_000,
    ],
)
async def test_names_that_are_no_public_method_are_refused(three: Fleet, method: str) -> None:
    """Only what the author has made public can be reached, whatever the bytes say."""
    for silo in three.silos:
        answer = await answer_of(silo, "Guarded/x", method)
        if not isinstance(answer, Failure):
            assert type(answer).__name__ == "Moved"
            continue
        assert (answer.error, answer.did_run) == ("NoSuchMethod", DidRun.NO)
        assert len(answer.text) < 2000
    async with three.connect() as cluster:
        if not hasattr(object, method):
            with pytest.raises(AttributeError):
                getattr(cluster.actor(Guarded, "x"), method)
        assert await cluster.actor(Guarded, f"own {method[:100]}").shown() == 1


@pytest.mark.parametrize(
    "grain", ["", "/", "Counter", "/x", "Counter/", "Nobody/x", "counter/x", "Counter /x", "\0/x"]
)
async def test_grain_ids_that_name_nothing_are_refused(three: Fleet, grain: str) -> None:
    """A client of another language, or of somebody's own making, may send any text as an id."""
    answers = [await answer_of(silo, grain, "get") for silo in three.silos]
    assert [one for one in answers if isinstance(one, Reply)] == []
    failures = [one for one in answers if isinstance(one, Failure)]
    assert {one.did_run for one in failures} <= {DidRun.NO}


async def test_grain_id_of_huge_length_is_refused(three: Fleet) -> None:
    """The limit on keys is the silo's to keep, not the client's."""
    answers = [await answer_of(silo, "Counter/" + "x" * 65_536, "get") for silo in three.silos]
    assert [one for one in answers if isinstance(one, Reply)] == []


@pytest.mark.parametrize(
    "args",
    [
        *(
            b"",
            b"\x91",
            b"\xc1",
            b"\x91\xa1x",
            b"\x92\x01\x02",
            b"\x80",
            b"\x81\xa1x\x01",
            b"\x91\xc0",
        ),
        *(b"\x91" * 50_000 + b"\x01", b"\xdd\xff\xff\xff\xff"),
    ],
    ids=lambda args: f"{args[:6].hex()}-{len(args)}",
)
async def test_arguments_that_do_not_fit_are_refused(three: Fleet, args: bytes) -> None:
    """No user code runs on what its signature does not allow."""
    for silo in three.silos:
        answer = await answer_of(silo, "Counter/arguments", "add", args)
        if isinstance(answer, Failure):
            assert (answer.error, answer.did_run) == ("ArgumentError", DidRun.NO)
        else:
            assert type(answer).__name__ == "Moved"
    async with three.connect() as cluster:
        assert await cluster.actor(Counter, "arguments").get() == 0


async def test_huge_and_deep_arguments_are_refused_and_harm_nobody(three: Fleet) -> None:
    """Refused before they are sent, or by the frame's limit; others' calls go on meanwhile."""
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    async with three.connect() as cluster:
        echo = cluster.actor(Echo, "big")
        with pytest.raises(errors.ArgumentError):
            await echo.length("x" * 5_000_000)
        with pytest.raises(errors.ArgumentError):
            await echo.anything(deep)
        assert await echo.length("x" * 3_000_000) == 3_000_000
        assert await echo.same("still") == "still"


async def test_huge_result_is_an_error_of_that_call_only(three: Fleet) -> None:
    """A report that has grown over the years must not cost the connection of everybody else."""
    async with three.connect() as cluster:
        echo = cluster.actor(Echo, "big result")
        others = [asyncio.create_task(cluster.actor(Echo, f"k{n}").same("x")) for n in range(20)]
        with pytest.raises(ValueError, match="limit"):
            await echo.repeated("0123456789", 500_000)
        assert await asyncio.gather(*others) == ["x"] * 20
        assert await echo.repeated("x", 3) == "xxx"


@pytest.mark.parametrize(
    "fields",
    [
        {"timeout_ms": 2**63 - 1},
        {"timeout_ms": 2**63 - 1, "key": "k" * 1_000_000},
        {"hops": 2**63 - 1},
        {"chain": tuple(Hop(GrainId("Counter/z"), 2**62 + n) for n in range(10_000))},
        {"request": "r" * 1_000_000},
    ],
    ids=["long", "long key", "hops", "chain", "request"],
)
async def test_odd_fields_of_a_call_are_taken_or_refused(
    three: Fleet, fields: dict[str, Any]
) -> None:
    """Numbers and texts that our own clients never send must not end anything but their own call."""
    async with three.connect() as cluster:
        for method in ("add", "get"):
            for silo in three.silos:
                async with raw_link(silo) as (link, _):
                    call = Call(link.next_id(), GrainId("Counter/odd"), method, b"\x90", **fields)
                    assert isinstance(await link.request(call), Reply | Failure | Moved)
        assert await cluster.actor(Counter, "odd").get() == 0


async def test_calls_that_share_an_id_do_not_end_the_silo(sqlite_fleet: Fleet) -> None:
    """A client with a mistake in it, at the worst moment: its partition is on its way to this silo."""
    fleet = sqlite_fleet
    await fleet.started(1)
    async with fleet.connect() as cluster:
        keys = [f"k{number}" for number in range(12)]
        lingering = [
            asyncio.create_task(cluster.actor(Counter, key).linger(str(fleet.home / key)))
            for key in keys
        ]
        for key in keys:
            await appears(fleet.home / f"{key}-began")
        (newcomer,) = await fleet.start()

        async def moving() -> bool:
            return any(owner_of(cluster, Counter, key) == address for key in keys)

        address = newcomer.first_line["address"]
        await until(moving, "the move")
        moved = next(key for key in keys if owner_of(cluster, Counter, key) == address)
        async with raw_link(newcomer) as (link, _):
            call = Call(link.next_id(), GrainId(f"Counter/{moved}"), "get", b"\x90")
            first = link.request(call)
            again = link.request(call)
            assert first is not again
            # Only its calls get there: once this is answered, both of them have been taken in.
            await link.request(Call(link.next_id(), GrainId("Nobody/x"), "get", b"\x90"))
            for task in lingering:
                task.cancel()
            await asyncio.wait(lingering)
            await again
        assert await cluster.actor(Counter, moved).add(1) == 1
        assert newcomer.process.poll() is None


class Owned:
    """Something that would run code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.system, ("touch owned",))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        struct.pack("<I", 0xFFFFFFFF) + b"x" * 100_000,
        struct.pack("<I", 40) + pickle.dumps(Owned())[:40].ljust(40, b"."),
        os.urandom(10_000),
        b"\0" * 65_536,
        b"",
    ],
    ids=["http", "tls", "4 GB", "pickle", "noise", "zeros", "nothing"],
)
async def test_strangers_are_closed_and_others_served(three: Fleet, data: bytes) -> None:
    """A port scanner must not find a way in, nor keep anything open."""
    silo = three.silos[0]
    async with three.connect() as cluster, stranger(silo) as (reader, writer):
        writer.write(data)
        echo = cluster.actor(Echo, "beside strangers")
        assert await echo.same("still") == "still"
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                pass
        assert await echo.same("still") == "still"
    assert not (three.home / "owned").exists()


@pytest.mark.parametrize(
    "body",
    [
        [[99, 1, 2, 3]],
        [[1]],
        [[1, "x", 2, 3, 4]],
        [[]],
        [[1, 1, "Counter/x", "add", b"\x91\x01"]] * 3 + [[99]],
        {"a": 1},
        [[0, 1]],
        [["Call", 1]],
    ],
    ids=lambda body: str(body)[:40],
)
async def test_undefined_messages_cost_their_sender_the_connection_only(
    three: Fleet, body: Any
) -> None:
    """After the handshake, too, nothing is guessed at."""
    async with three.connect() as cluster, raw_link(three.silos[0]) as (link, recorder):
        packed = msgspec.msgpack.encode(body)
        link._transport.write(struct.pack("<I", len(packed)) + packed)
        await recorder.until(lambda: bool(recorder.ends))
        assert await cluster.actor(Echo, "beside").same("still") == "still"


async def test_client_may_not_send_what_only_silos_may(three: Fleet) -> None:
    """Asking for partitions, or reporting views, is for those who have shown that they are silos."""
    for message in (
        HandOver(1, 1_000_000, tuple(range(1024))),
        Probe(1, 1_000_000, SiloId("x:1@1")),
    ):
        async with raw_link(three.silos[0]) as (link, recorder):
            with pytest.raises(LinkBroken):
                await link.request(message)
            await recorder.until(lambda: bool(recorder.ends))
    held = await three.held()
    assert len(held) == 3


async def test_flood_at_a_slow_actor_is_refused_early_and_harms_nobody(three: Fleet) -> None:
    """Twenty thousand calls at an actor that serves fifty a second. Most are told so at once, in words that
    say that they did not run; the actor itself and all others go on, and hardly notice.
    """
    addresses = [silo.first_line["address"] for silo in three.silos]
    async with three.connect() as cluster, three.connect() as other:
        slow = durum.options(cluster.actor(Slow, "flooded"), timeout=4)
        async with bystander(addresses) as took:
            flood = [asyncio.create_task(slow.work()) for _ in range(20_000)]
            outcomes = await asyncio.gather(*flood, return_exceptions=True)
        print(f"beside it, {len(took)} calls took {max(took):.3f} s at most")
        assert len(took) > 50
        assert sorted(took)[len(took) * 99 // 100] < 0.5
        kinds = {type(one) for one in outcomes}
        assert kinds <= {int, errors.Overloaded, errors.CallTimeout}
        refused = [one for one in outcomes if isinstance(one, errors.Overloaded)]
        assert len(refused) > 15_000
        assert {one.did_run for one in refused} == {DidRun.NO}
        served = [one for one in outcomes if isinstance(one, int)]
        assert len(set(served)) == len(served)
        assert await durum.options(other.actor(Slow, "flooded"), timeout=5).work() > len(served)
