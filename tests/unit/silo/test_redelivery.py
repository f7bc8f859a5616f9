"""Messages of silos that die: the partition's next owner delivers again, and nobody takes anything twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from durum.silo import post as post_module
from durum.silo.marks import Marks, Verdict
from durum.silo.outbox import Outbox
from durum.testing.store import Stage
from durum.testing.store_client import Operation
from tests.support.post import KINDS, Customer, Ledger, Moody, letters, outbox
from tests.support.turns import SMALL, Fate, House, simulated

STEPS = [
    ("commit", Stage.SENT, 1),  # the sender's: nothing has happened
    ("commit", Stage.APPLIED, 1),  # it was sent, and nobody knows
    ("scan_parts", Stage.SENT, 1),  # the receiver's marks
    ("commit", Stage.SENT, 2),  # the receiver's
    ("commit", Stage.APPLIED, 2),  # it was taken, and nobody knows
    ("commit", Stage.APPLIED, 3),
    ("acknowledge", Stage.SENT, 1),
    ("acknowledge", Stage.APPLIED, 1),
]
NAMES = [f"{number}" for number in range(6)]


def kill_at(house: House, name: str, stage: Stage, nth: int, victim: str = "a") -> list[str]:
    """Kill a silo at a step of the store. What is returned has its name once that was done."""
    left = nth
    dead: list[str] = []
    if stage is Stage.SENT:  # and what it sent does not arrive
        house.store.next(victim, name, *[Fate()] * (nth - 1), Fate(lands=False))

    def watch(operation: Operation, at: Stage) -> None:
        nonlocal left
        if operation.host == victim and operation.name == name and at is stage and not dead:
            left -= 1
            if not left:
                dead.append(victim)
                house.kill(victim)

    house.store.watch(watch)
    return dead


def scenario(name: str, stage: Stage, nth: int) -> Callable[[], None]:
    """One silo sends and receives, and dies; another one finishes it."""

    @simulated
    async def check(house: House) -> None:
        await house.start("a", KINDS)
        cluster = await house.connect("a", host="first")
        dead = kill_at(house, name, stage, nth)
        calls = asyncio.ensure_future(cluster.actor(Customer, "ann").buy("day", NAMES))
        await asyncio.sleep(1.0)
        calls.cancel()
        assert dead == ["a"]
        await house.start("b", KINDS)
        again = await house.connect("b", host="second")
        sent = await again.actor(Customer, "ann").get()
        await asyncio.sleep(20.0)
        assert sent == (0 if (name, stage, nth) == STEPS[0] else 6)
        assert await again.actor(Ledger, "day").get() == NAMES[:sent]
        assert await outbox(house, "Customer/ann") == []

    return check


@pytest.mark.parametrize(("name", "stage", "nth"), STEPS)
def test_messages_take_effect_once_when_their_silo_dies(name: str, stage: Stage, nth: int) -> None:
    """Before and after each step that it takes with the store."""
    scenario(name, stage, nth)()


@simulated
async def test_message_that_saved_is_parked_by_the_next_owner(house: House) -> None:
    """Its silo died between the save and its end: nobody knows what of the rest was done."""
    await house.start("a", KINDS)
    cluster = await house.connect("a", host="first")
    moody = cluster.actor(Moody, "m")
    await cluster.tell(moody.book_half, "one", False)
    await cluster.tell(moody.book, "two")
    await asyncio.sleep(0.5)  # it has saved, and sleeps
    house.kill("a")
    await house.start("b", KINDS)
    again = await house.connect("b", host="second")
    await asyncio.sleep(20.0)
    assert await again.actor(Moody, "m").get() == ["one half", "two"]
    (letter,) = await letters(house)
    assert "saved a part of its work" in letter.text


@simulated
async def test_messages_are_read_again_where_there_was_no_room_for_them(house: House) -> None:
    """A silo keeps only so many bytes of what waits; the store has them all."""
    cluster = await house.open(KINDS)
    house.silo().life.offices.post._room.left = 2500
    busy = asyncio.ensure_future(cluster.actor(Ledger, "day").linger(5.0))
    await asyncio.sleep(0.1)
    large = [f"{number} {'x' * 1000}" for number in range(20)]
    ann = cluster.actor(Customer, "ann")
    for each in large:
        await ann.buy("day", [each])
    await ann.buy("night", large)
    await busy
    await asyncio.sleep(30.0)
    assert await cluster.actor(Ledger, "day").get() == large
    assert await cluster.actor(Ledger, "night").get() == large
    assert house.silo().life.offices.post._room.left == 2500
    assert await outbox(house, "Customer/ann") == []


@simulated
async def test_partition_that_is_handed_over_takes_its_messages_along(house: House) -> None:
    """Those that wait are delivered by the next owner; those under way are not lost, and not doubled."""
    await house.start("a", KINDS)
    cluster = await house.connect("a", host="first")
    ann = cluster.actor(Customer, "ann")
    for number in range(20):
        await ann.buy("day", [f"{number}-{each}" for each in range(5)])
        if number == 10:
            await house.start("b", KINDS)
    await asyncio.sleep(5.0)
    await house.silos.pop("a").close()
    again = await house.connect("b", host="second")
    await asyncio.sleep(5.0)
    expected = [f"{number}-{each}" for number in range(20) for each in range(5)]
    assert await again.actor(Ledger, "day").get() == expected


@simulated
async def test_message_waits_while_its_kind_is_not_hosted(house: House) -> None:
    """That is no fault of its own: it stays in its outbox, and goes out once somebody hosts the kind."""
    cluster = await house.open([each for each in KINDS if each is not Ledger])
    await cluster.actor(Customer, "ann").buy("day", ["apple", "pear"])
    await asyncio.sleep(120.0)
    (backlog,) = await cluster.admin.messages.waiting()
    assert (backlog.kind, backlog.key, backlog.messages) == ("Ledger", "day", 2)
    assert "NoSuchKind" in backlog.why
    assert await outbox(house, "Customer/ann") == ["Ledger/day.book"] * 2
    assert await letters(house) == []
    await house.start("b", KINDS)
    await asyncio.sleep(30.0)
    assert await cluster.actor(Ledger, "day").get() == ["apple", "pear"]
    assert await cluster.admin.messages.waiting() == []


@simulated
async def test_grain_under_an_alias_takes_messages_of_both_names(house: House) -> None:
    """By each name it is a receiver of its own, whose messages are numbered side by side."""

    class Old(Ledger, kind="Daybook"):
        pass

    class New(Ledger, kind="Ledger2", aliases=("Daybook",)):
        pass

    cluster = await house.open([*KINDS, New], msgspec.structs.replace(SMALL, partitions=1))
    new, old = cluster.actor(New, "d"), cluster.actor(Old, "d")
    for number in range(5):
        await cluster.tell(new.book, f"new {number}")
        await cluster.tell(old.book, f"old {number}")
    await asyncio.sleep(5.0)
    found = await new.get()
    assert [each for each in found if each.startswith("new")] == [f"new {n}" for n in range(5)]
    assert [each for each in found if each.startswith("old")] == [f"old {n}" for n in range(5)]


# The tests of the tests -------------------------------------------------------------------------------


def _acknowledge_at_once(self: Outbox, now: float) -> object:
    batch = _next(self, now)
    if batch is not None:
        self._done += batch.numbers
    return batch


def _blind(self: object, holding: object) -> None:
    self._held[holding.partition] = holding  # type: ignore[attr-defined]


_next = Outbox.next


@pytest.mark.parametrize(
    ("owner", "name", "instead", "step"),
    [
        pytest.param(
            Marks,
            "judge",
            lambda self, name, epoch, lineage, number: Verdict.NEW,
            ("commit", Stage.APPLIED, 3),
            id="no marks",
        ),
        pytest.param(
            Outbox, "next", _acknowledge_at_once, ("commit", Stage.SENT, 2), id="ack first"
        ),
        pytest.param(
            post_module.PostOffice, "held", _blind, ("commit", Stage.APPLIED, 1), id="no look"
        ),
    ],
)
def test_mutant_is_found(
    owner: type,
    name: str,
    instead: Callable[..., object],
    step: tuple[str, Stage, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A test that also passes without the mechanism proves nothing."""
    monkeypatch.setattr(owner, name, instead)
    if name == "next":
        monkeypatch.setattr("durum.silo.desk.ACK_S", 0.0)
    with pytest.raises(AssertionError):
        scenario(*step)()
