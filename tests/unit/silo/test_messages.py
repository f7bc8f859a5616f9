"""Durable messages of one silo: they leave with their turn's commit, and take effect once, in order."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

import durum
from durum import errors
from durum.config import SiloConfig
from durum.errors import DidRun
from durum.grains.reference import options
from tests.support.post import (
    KINDS,
    Customer,
    Free,
    Ledger,
    Moody,
    Plain,
    Worker,
    letters,
    outbox,
)
from tests.support.turns import SMALL, Fate, House, outcome, simulated


@simulated
async def test_message_takes_effect_after_its_turn(house: House) -> None:
    """Two commits: the sender's, and the receiver's with the mark. Then the store may forget it."""
    cluster = await house.open(KINDS)
    ann, day = cluster.actor(Customer, "ann"), cluster.actor(Ledger, "day")
    assert await ann.buy("day", ["apple"]) == 1
    await asyncio.sleep(0.05)
    assert await day.get() == ["apple"]
    assert len(house.commits()) == 2
    await asyncio.sleep(1.0)
    assert await outbox(house, "Customer/ann") == []
    assert len([each for each in house.operations if each.name == "acknowledge"]) == 1


@simulated
async def test_messages_to_one_receiver_arrive_in_order(house: House) -> None:
    """Within a turn and over turns, however many are on their way."""
    cluster = await house.open(KINDS)
    ann = cluster.actor(Customer, "ann")
    expected = [f"{turn}-{each}" for turn in range(20) for each in range(5)]
    for turn in range(20):
        await ann.buy("day", [f"{turn}-{each}" for each in range(5)])
    await asyncio.sleep(5.0)
    assert await cluster.actor(Ledger, "day").get() == expected
    assert await outbox(house, "Customer/ann") == []


@simulated
async def test_message_is_not_sent_where_the_turn_fails(house: House) -> None:
    """Neither by an exception, nor by a commit that the store refuses."""
    cluster = await house.open(KINDS)
    ann = cluster.actor(Customer, "ann")
    assert isinstance(await outcome(ann.buy("day", ["apple"], fails=True)), ValueError)
    house.next_commits(*[Fate(refused="full")] * 20)
    assert isinstance(await outcome(ann.buy("day", ["pear"])), errors.CommitFailed)
    house.store.heal_all()
    assert await ann.buy("day", ["plum"]) == 1
    await asyncio.sleep(1.0)
    assert await cluster.actor(Ledger, "day").get() == ["plum"]


@simulated
async def test_message_is_sent_once_where_the_answer_to_its_commit_is_lost(house: House) -> None:
    """The same commit again finds itself done, and numbers nothing anew."""
    cluster = await house.open(KINDS)
    house.next_commits(Fate(replies=False), Fate(replies=False))
    await cluster.actor(Customer, "ann").buy("day", ["apple", "pear"])
    house.next_commits(Fate(replies=False), Fate(replies=False))
    await asyncio.sleep(5.0)
    assert await cluster.actor(Ledger, "day").get() == ["apple", "pear"]


@simulated
async def test_message_is_delivered_where_nobody_knows_whether_its_commit_landed(
    house: House,
) -> None:
    """A turn whose outcome is unknown may have sent it; its owner looks, until no ghost can land."""
    cluster = await house.open(KINDS)
    ann = options(cluster.actor(Customer, "ann"), timeout=4.0)
    assert await ann.buy("day", ["apple"]) == 1
    await asyncio.sleep(1.0)
    house.next_commits(*[Fate(replies=False)] * 20)
    failed = await outcome(ann.buy("day", ["pear"]))
    assert isinstance(failed, errors.CallError)
    assert failed.did_run is DidRun.MAYBE
    house.store.heal_all()
    await asyncio.sleep(5.0)
    assert await cluster.actor(Ledger, "day").get() == ["apple", "pear"]

    house.next_commits(*[Fate(late_s=12.0)] * 20)
    failed = await outcome(ann.buy("day", ["plum"]))
    assert isinstance(failed, errors.CallError)
    house.store.heal_all()
    await asyncio.sleep(40.0)
    assert await cluster.actor(Ledger, "day").get() == ["apple", "pear", "plum"]


@simulated
async def test_save_takes_messages_along(house: House) -> None:
    """What was told before it is sent, whatever becomes of the turn; what was told after it is not."""
    cluster = await house.open(KINDS)
    ann = cluster.actor(Customer, "ann")
    assert isinstance(await outcome(ann.buy_and_save("day", "apple", "pear")), ValueError)
    await asyncio.sleep(1.0)
    assert await cluster.actor(Ledger, "day").get() == ["apple"]


@simulated
async def test_nested_turn_sends_its_own_messages(house: House) -> None:
    """They are sent when it commits; those of the outer turn, which fails, are not."""
    cluster = await house.open(KINDS)
    ann = cluster.actor(Customer, "ann")
    assert isinstance(await outcome(ann.buy_inside("day", "outer", "inner")), ValueError)
    await asyncio.sleep(1.0)
    assert await cluster.actor(Ledger, "day").get() == ["inner"]


@simulated
async def test_repeat_of_a_keyed_turn_sends_nothing(house: House) -> None:
    """It gets the first one's reply."""
    cluster = await house.open(KINDS)
    ann = options(cluster.actor(Customer, "ann"), idempotency_key="k")
    assert await ann.buy("day", ["apple"]) == 1
    assert await ann.buy("day", ["apple"]) == 1
    await asyncio.sleep(1.0)
    assert await cluster.actor(Ledger, "day").get() == ["apple"]


@simulated
async def test_reentrant_kind_sends_with_its_turn(house: House) -> None:
    """Its fields wait for a save(); its messages do not."""
    cluster = await house.open(KINDS)
    free = cluster.actor(Free, "f")
    await free.add("day", save=False)
    await free.add("day", save=True)
    await asyncio.sleep(1.0)
    assert await cluster.actor(Ledger, "day").get() == ["1", "2"]


@simulated
async def test_kind_without_fields_tells_and_is_told(house: House) -> None:
    """Its record has nothing but marks."""
    cluster = await house.open(KINDS)
    plain = cluster.actor(Plain, "p")
    await cluster.tell(plain.hear, "one")
    await cluster.tell(plain.hear, "two")
    await asyncio.sleep(1.0)
    assert await plain.get() == ["one", "two"]
    assert await cluster.actor(Ledger, "from plain").get() == ["one", "two"]


@simulated
async def test_actor_tells_itself_by_its_own_method(house: House) -> None:
    """Each message is a turn of its own."""
    cluster = await house.open(KINDS)
    await cluster.actor(Customer, "ann").remember(5)
    await asyncio.sleep(1.0)
    assert await cluster.actor(Customer, "ann").get() == 5
    assert len(house.commits()) == 5


@simulated
async def test_message_brings_its_sender_and_baggage(house: House) -> None:
    """As a call does, though nobody waits for it."""
    cluster = await house.open(KINDS)
    await cluster.actor(Customer, "ann").ask("day")
    await cluster.tell(cluster.actor(Ledger, "day").who)
    await asyncio.sleep(1.0)
    assert await cluster.actor(Ledger, "day").get() == [
        "Customer/ann who True",
        "acme",
        "None who True",
        "none",
    ]


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("coroutine", "was called already"),
        ("read_only", "@read_only"),
        ("function", "expected a public method"),
        ("worker", "stateless worker"),
        ("key", "no idempotency_key"),
        ("timeout", "no timeout"),
        ("arguments", "argument what"),
        ("missing", "missing"),
        ("large", "the limit is"),
        ("past", "in the past"),
        ("call", "delay and at are for messages"),
    ],
)
def test_misuse_is_refused_and_says_what_to_do(how: str, text: str) -> None:
    """In the turn itself, which then fails like any other, and sends nothing."""

    @simulated
    async def check(house: House) -> None:
        cluster = await house.open(KINDS)
        failed = await outcome(cluster.actor(Customer, "ann").misuse(how))
        assert text in str(failed)
        assert isinstance(failed, TypeError if how == "missing" else errors.ArgumentError)
        assert await cluster.actor(Customer, "ann").get() == 0
        assert await outbox(house, "Customer/ann") == []

    check()


@simulated
async def test_message_is_refused_where_nothing_commits_it(house: House) -> None:
    """In a turn that only reads, and in a stateless worker."""
    cluster = await house.open(KINDS)
    assert "@read_only turn" in str(await outcome(cluster.actor(Customer, "ann").look("day")))
    assert "stateless worker" in str(await outcome(cluster.actor(Worker, "w").tell_others()))


# What its receiver makes of it ---------------------------------------------------------------------------


@simulated
async def test_message_runs_again_where_its_method_raises(house: House) -> None:
    """Nothing of a failed attempt is kept, those behind it wait, and its id is the same each time."""
    cluster = await house.open(KINDS)
    moody = cluster.actor(Moody, "m")
    await cluster.actor(Customer, "ann").bother("m", ["one", "slow start", "two"])
    await asyncio.sleep(5.0)
    assert await moody.get() == ["one", "slow start", "two"]
    seen = [each.split()[-1] for each in await moody.seen() if each.startswith("slow")]
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert await letters(house) == []


@simulated
async def test_message_is_parked_after_its_last_attempt(house: House) -> None:
    """With its error, in one commit with the mark; those behind it go on."""
    cluster = await house.open(KINDS)
    moody = cluster.actor(Moody, "m")
    await cluster.actor(Customer, "ann").bother("m", ["one", "bad", "two"])
    await asyncio.sleep(5.0)
    assert await moody.get() == ["one", "two"]
    (letter,) = await letters(house)
    assert (letter.receiver, letter.error, letter.text) == ("Moody/m", "ValueError", "not bad")
    assert letter.attempts == 3
    assert 'raise ValueError(f"not {what}")' in letter.traceback
    assert await outbox(house, "Customer/ann") == []
    assert house.silo().life.services.load.parked == 1


@simulated
async def test_message_that_saved_and_failed_is_parked_at_once(house: House) -> None:
    """What it saved stays, so running it again would do that twice."""
    cluster = await house.open(KINDS)
    moody = cluster.actor(Moody, "m")
    await cluster.tell(moody.book_half, "one", False)
    await cluster.tell(moody.book_half, "two", True)
    await cluster.tell(moody.book, "three")
    await asyncio.sleep(5.0)
    assert await moody.get() == ["one half", "one rest", "two half", "three"]
    (letter,) = await letters(house)
    assert (letter.text, letter.attempts) == ("after the save", 1)


@simulated
async def test_save_of_nothing_leaves_a_message_whole(house: House) -> None:
    """It may still be run again."""
    cluster = await house.open(KINDS)
    moody = cluster.actor(Moody, "m")
    await cluster.tell(moody.save_nothing, "one")
    await asyncio.sleep(5.0)
    assert await moody.get() == ["one"]
    assert await letters(house) == []


@simulated
async def test_message_that_takes_too_long_counts_as_failed(house: House) -> None:
    """It is rolled back at its deadline, which is a call's, and parked in the end."""
    limits = msgspec.structs.replace(SMALL.limits, call_timeout_s=2.0, message_attempts=2)
    cluster = await house.open(KINDS, msgspec.structs.replace(SMALL, limits=limits))
    day = cluster.actor(Ledger, "day")
    await cluster.tell(day.book_slowly, "one", 60.0)
    await cluster.tell(day.book, "two")
    await asyncio.sleep(15.0)
    assert await day.get() == ["two"]
    (letter,) = await letters(house)
    assert (letter.error, letter.attempts) == ("CallTimeout", 2)


@simulated
async def test_message_of_an_unknown_method_is_parked(house: House) -> None:
    """Its class may have had it once, or will have it: the message is kept aside, and its sender goes on."""
    cluster = await house.open(KINDS)
    day = cluster.actor(Ledger, "day")

    class Newer(durum.Actor, kind="Ledger"):
        async def book(self, what: str) -> None: ...

        async def audit(self) -> None: ...

    newer = cluster.actor(Newer, "day")
    refused = await outcome(cluster.tell(newer.audit))
    assert isinstance(refused, errors.NoSuchMethod)
    await cluster.tell(day.book, "one")
    await asyncio.sleep(1.0)
    assert await day.get() == ["one"]


@simulated
async def test_messages_wait_in_the_mailbox_like_calls(house: House) -> None:
    """A busy receiver takes them when it has time; accepting a client's needs none."""
    cluster = await house.open(KINDS)
    day = cluster.actor(Ledger, "day")
    busy = asyncio.ensure_future(day.linger(10.0))
    await asyncio.sleep(0.5)
    began = house.loop.time()
    await cluster.tell(day.book, "one")
    assert house.loop.time() - began < 0.1
    await cluster.tell(day.book, "two")
    await asyncio.sleep(1.0)
    await busy
    await asyncio.sleep(0.1)
    assert await day.get() == ["one", "two"]


# From clients -------------------------------------------------------------------------------------------


@simulated
async def test_client_tells_once_with_a_key(house: House) -> None:
    """A repeat is answered as the first was; other arguments under the key are an error; nothing runs."""
    cluster = await house.open(KINDS)
    day = options(cluster.actor(Ledger, "day"), idempotency_key="k")
    await asyncio.gather(*(cluster.tell(day.book, "one") for _ in range(5)))
    await cluster.tell(day.book, "one")
    other = await outcome(cluster.tell(day.book, "two"))
    assert isinstance(other, errors.ArgumentError)
    assert "idempotency_key" in str(other)
    await day.book("call")  # a call's keys are others
    await asyncio.sleep(1.0)
    assert sorted(await cluster.actor(Ledger, "day").get()) == ["call", "one"]


@simulated
async def test_keyed_message_is_the_same_however_its_arguments_are_written(house: House) -> None:
    """Sets are written in any order; an error would say that the key was used for something else."""
    cluster = await house.open(KINDS)
    day = options(cluster.actor(Ledger, "day"), idempotency_key="k")
    one, same = {0, 8}, {8, 0}
    assert list(one) != list(same)
    await cluster.tell(day.book_all, one)
    await cluster.tell(day.book_all, same)
    await asyncio.sleep(3.0)
    assert await cluster.actor(Ledger, "day").get() == ["0", "8"]


@simulated
async def test_client_tells_once_where_answers_are_lost(house: House) -> None:
    """Between silo and store, which the silo heals without the client."""
    cluster = await house.open(KINDS)
    day = cluster.actor(Ledger, "day")
    house.next_commits(Fate(replies=False), Fate(replies=False))
    await cluster.tell(day.book, "one")
    await asyncio.sleep(5.0)
    assert await day.get() == ["one"]


@simulated
async def test_client_is_told_where_its_message_was_not_accepted(house: House) -> None:
    """And nothing is delivered."""
    cluster = await house.open(KINDS)
    day = cluster.actor(Ledger, "day")
    house.next_commits(*[Fate(refused="full")] * 30)
    failed = await outcome(cluster.tell(day.book, "one"))
    assert isinstance(failed, errors.CommitFailed)
    assert failed.did_run is DidRun.ROLLED_BACK
    assert "was not taken in" in str(failed)
    house.store.heal_all()
    assert await day.get() == []
    past = options(day, at=datetime(2001, 1, 1, tzinfo=UTC))
    assert "in the past" in str(await outcome(cluster.tell(past.book, "x")))
    assert "expected a public method" in str(await outcome(cluster.tell(asyncio.sleep, 1)))
    worker = cluster.actor(Worker, "w")
    assert "stateless worker" in str(await outcome(cluster.tell(worker.work)))
    elsewhere = await house.connect("a", host="other")
    assert "another connection" in str(await outcome(elsewhere.tell(day.book, "x")))
    assert await outbox(house, "Ledger/day") == []


@simulated
async def test_outbox_that_is_full_refuses_turns_and_clients(house: House) -> None:
    """The turn rolls back, and can be repeated when there is room."""
    limits = msgspec.structs.replace(SMALL.limits, outbox_rows=3)
    config: SiloConfig = msgspec.structs.replace(SMALL, limits=limits, partitions=1)
    cluster = await house.open(KINDS, config)
    day, ann = cluster.actor(Ledger, "day"), cluster.actor(Customer, "ann")
    busy = asyncio.ensure_future(day.linger(10.0))
    await asyncio.sleep(0.1)
    await ann.buy("day", ["one", "two"])
    refused = await outcome(ann.buy("day", ["three", "four"]))
    assert isinstance(refused, errors.Overloaded)
    assert refused.did_run is DidRun.ROLLED_BACK
    assert "outbox_rows" in str(refused)
    await ann.buy("day", ["three"])
    assert isinstance(await outcome(cluster.tell(day.book, "x")), errors.Overloaded)
    await busy
    await asyncio.sleep(1.0)
    await ann.buy("day", ["four"])
    await asyncio.sleep(1.0)
    assert await day.get() == ["one", "two", "three", "four"]
    assert await ann.get() == 4


# Later --------------------------------------------------------------------------------------------------


@simulated
async def test_delayed_message_waits_until_it_is_due(house: House) -> None:
    """Never early; from an actor and from a client, after a time and at a time."""
    cluster = await house.open(KINDS)
    ann, day = cluster.actor(Customer, "ann"), cluster.actor(Ledger, "day")
    now = datetime.fromtimestamp(house.silo().life.services.store_time(), tz=UTC)
    await ann.buy_later("day", "in 20", 20.0)
    await ann.buy_at("day", "at 30", now + timedelta(seconds=30))
    await cluster.tell(options(day, delay=timedelta(seconds=40)).book, "client in 40")
    await cluster.tell(options(day, at=now + timedelta(seconds=50)).book, "client at 50")
    await ann.buy_later("day", "now", 0.0)
    began = house.loop.time()
    seen: dict[str, float] = {}
    while house.loop.time() - began < 70:
        await asyncio.sleep(0.25)
        for each in await day.get():
            seen.setdefault(each, house.loop.time() - began)
    assert list(seen) == ["now", "in 20", "at 30", "client in 40", "client at 50"]
    assert seen["now"] < 1.0
    for each, due in (("in 20", 20), ("at 30", 30), ("client in 40", 40), ("client at 50", 50)):
        assert due - 0.5 <= seen[each] <= due + 3.0, (each, seen[each])


@simulated
async def test_delayed_message_outlives_its_silo(house: House) -> None:
    """It lies in the sender's record, and the partition's next owner wakes it."""
    cluster = await house.open(KINDS)
    await cluster.actor(Customer, "ann").buy_later("day", "apple", 60.0)
    house.kill("a")
    await house.start("b", KINDS)
    again = await house.connect("b", host="again")
    await asyncio.sleep(80.0)
    assert await again.actor(Ledger, "day").get() == ["apple"]
    assert await outbox(house, "Customer/ann") == []


@simulated
async def test_large_messages_are_all_read_by_the_next_owner(house: House) -> None:
    """A page of the store ends by its bytes also, so that a short one need not be the last."""
    cluster = await house.open(KINDS)
    sent = [f"{number}" + "x" * 60_000 for number in range(40)]
    busy = asyncio.ensure_future(outcome(cluster.actor(Ledger, "day").linger(60.0)))
    for first in range(0, len(sent), 4):
        await cluster.actor(Customer, "ann").buy("day", sent[first : first + 4])
    assert 0 < len(await outbox(house, "Customer/ann")) < len(sent)  # that is one page
    house.kill("a")
    await busy
    await house.start("b", KINDS)
    again = await house.connect("b", host="again")
    await asyncio.sleep(80.0)
    assert await again.actor(Ledger, "day").get() == sent
    assert await outbox(house, "Customer/ann") == []
