"""What every store promises of messages: with the commit or not at all, numbered for ever, until they are
acknowledged."""

from __future__ import annotations

import pytest

from durum import errors
from durum.ids import GrainId, Token, hosted_token
from durum.store import effects
from durum.store.effects import Outgoing, Overfull, Posted
from durum.store.host_table import Host
from durum.store.parts import PAGE_BYTES
from durum.store.protocol import Committed, Owner, Take
from tests.support.services import ALICE, BOB, ENTROPY, OTHER, SILO, Service, commit

SHOP = GrainId("Shop/1")


def to(receiver: GrainId = BOB, *rows: bytes) -> list[Outgoing]:
    """Messages for a grain."""
    return [Outgoing(receiver, row) for row in rows or (b"row",)]


async def numbers(service: Service, token: Token, partition: int = 0) -> list[int]:
    """What is in the outbox."""
    return [one.number for one in await service.store.posted(partition, token, 0, 1000)]


async def test_messages_are_posted_with_their_commit(service: Service) -> None:
    """The plain path: in order, with the holding that they were committed in."""
    store, token = service.store, await service.hold()
    rows = [*to(BOB, b"1", b""), *to(SHOP, b"\0\xff" * 9)]
    assert await store.commit(commit(token, send=rows, state=b"one")) == Committed(1, 1, 1)
    found = await store.posted(0, token, 0, 10)
    assert found == [
        Posted(number, 1, bytes(token), one.receiver, one.row) for number, one in enumerate(rows, 1)
    ]
    assert (await store.load(0, token, ALICE)).state == b"one"
    assert await store.posted(1, await service.hold(1), 0, 10) == []


async def test_numbers_grow_by_one_for_ever(service: Service) -> None:
    """Over grains, over owners, and though nothing is left of the earlier ones: marks count on it."""
    store, token = service.store, await service.hold()
    assert (await store.commit(commit(token, send=to(BOB, b"1", b"2")))).first == 1
    assert (await store.commit(commit(token, grain=BOB, send=to()))).first == 3
    await store.acknowledge(0, token, [1, 2, 3])
    later = await service.hold(silo=OTHER)
    assert (await store.commit(commit(later, version=1, send=to()))).first == 4
    (posted,) = await store.posted(0, later, 0, 10)
    assert (posted.number, posted.epoch, posted.lineage) == (4, 2, later)


async def test_commit_that_sends_nothing_has_no_first_number(service: Service) -> None:
    """Zero is no number."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, send=to()))
    assert await store.commit(commit(token, version=1)) == Committed(2, 2, 0)
    assert await store.commit(commit(token, version=2, wake={b"w": 5})) == Committed(3, 3, 0)


async def test_commit_sent_again_posts_once_and_gets_the_first_number(service: Service) -> None:
    """A message posted twice under two numbers would be delivered twice."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, grain=BOB, send=to()))
    once = commit(token, send=to(BOB, b"a", b"b"), parts={b"p": b"1"}, wake={b"w": 7})
    assert await store.commit(once) == Committed(1, 2, 2)
    await store.commit(commit(token, grain=BOB, version=1, send=to()))
    await service.hold()
    assert await store.commit(once) == Committed(1, 2, 2)
    assert await numbers(service, await service.hold()) == [1, 2, 3, 4]


async def test_plain_commit_sent_again_has_no_number_of_an_earlier_one(service: Service) -> None:
    """The answer that is remembered is that of the last commit."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, send=to()))
    plain = commit(token, version=1)
    for _ in range(2):
        assert await store.commit(plain) == Committed(2, 2, 0)
    woken = commit(token, version=2, wake={b"w": 1})
    for _ in range(2):
        assert await store.commit(woken) == Committed(3, 3, 0)


@pytest.mark.parametrize("fault", ["token", "version", "room"])
async def test_refused_commit_posts_nothing(service: Service, fault: str) -> None:
    """All of a turn or nothing of it."""
    store, token = service.store, await service.hold()
    before = commit(token, send=to(), state=b"old", wake={b"w": 1}, park={b"l": b"1"})
    await store.commit(before)
    refused = commit(
        ENTROPY.token() if fault == "token" else token,
        version=5 if fault == "version" else 1,
        send=to(),
        send_limit=1 if fault == "room" else 0,
        state=b"new",
        replies={b"k" * 16: b"r"},
        parts={b"p": b"1"},
        wake={b"w": None, b"v": 2},
        park={b"l": None, b"m": b"2"},
    )
    with pytest.raises(Overfull if fault == "room" else errors.Superseded):
        await store.commit(refused)
    assert await numbers(service, token) == [1]
    assert (await store.load(0, token, ALICE)).version == 1
    assert await store.replies(0, token, ALICE) == {}
    assert await store.load_parts(0, token, ALICE, [b"p"]) == {}
    assert [(one.due_ms, one.name) for one in await store.due(0, token, 9, 9)] == [(1, b"w")]
    assert await store.letters(0, b"", 9) == [(b"l", b"1")]
    assert await store.commit(commit(token, version=1, send=to())) == Committed(2, 2, 2)


async def test_limit_counts_what_is_in_the_outbox(service: Service) -> None:
    """Overload is refused early, and only where it would grow: what is acknowledged makes room."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, send=to(BOB, b"1", b"2"), send_limit=2))
    for rows in (to(), to(BOB, b"1", b"2", b"3")):
        with pytest.raises(Overfull, match="partition 0"):
            await store.commit(commit(token, version=1, send=rows, send_limit=2))
    await store.acknowledge(0, token, [1])
    assert (await store.commit(commit(token, version=1, send=to(), send_limit=2))).first == 3
    # No limit for what must not be refused, and none for commits that send nothing.
    assert (await store.commit(commit(token, version=2, send=to()))).first == 4
    await store.commit(commit(token, version=3, wake={b"w": 1}, send_limit=1))


async def test_commit_sent_again_is_never_overfull(service: Service) -> None:
    """It is done, whatever the outbox has become since."""
    store, token = service.store, await service.hold()
    once = commit(token, send=to(), send_limit=1)
    for _ in range(2):
        assert (await store.commit(once)).first == 1


async def test_acknowledging_takes_away_what_is_named(service: Service) -> None:
    """In any order, again, and what is not there."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, send=to(BOB, *(b"%d" % n for n in range(1, 7)))))
    for _ in range(2):
        await store.acknowledge(0, token, [5, 2, 99])
    await store.acknowledge(0, token, [])
    assert await numbers(service, token) == [1, 3, 4, 6]
    assert (await owner(service, token)).posted == 4


async def test_outbox_is_read_in_pages(service: Service) -> None:
    """A new owner reads what is left, from the oldest on."""
    store, token = service.store, await service.hold()
    rows = [b"%d" % n for n in range(1, 301)]
    await store.commit(commit(token, send=to(BOB, *rows)))
    page = await store.posted(0, token, 0, 200)
    assert [one.number for one in page] == list(range(1, 201))
    assert not effects.is_last(page, 200)
    rest = await store.posted(0, token, 200, 200)
    assert [one.number for one in rest] == list(range(201, 301))
    assert effects.is_last(rest, 200)
    assert [one.row for one in (*page, *rest)] == rows
    assert await store.posted(0, token, 300, 200) == []
    assert await store.posted(0, token, 0, 0) == []


async def test_page_of_large_messages_ends_early(service: Service) -> None:
    """A page must fit into memory, however many rows it was asked for."""
    store, token = service.store, await service.hold()
    half = bytes(PAGE_BYTES // 2)
    await store.commit(commit(token, send=to(BOB, b"", half, b"x", half, half, b"y")))
    page = await store.posted(0, token, 0, 100)
    assert [one.number for one in page] == [1, 2, 3, 4]
    assert not effects.is_last(page, 100)
    assert effects.is_last(await store.posted(0, token, 4, 100), 100)


async def owner(service: Service, seen: Token) -> Owner:
    """Take partition 0."""
    take = Take(partition=0, seen=seen, token=ENTROPY.token(), silo=SILO)
    (found,) = await service.store.take(service.mark, [take])
    return found


async def test_take_tells_what_is_pending(service: Service) -> None:
    """A claim reads nothing more where nothing is."""
    store, token = service.store, await service.hold()
    found = await owner(service, token)
    assert (found.posted, found.first_posted_epoch, found.earliest_due_ms) == (0, 0, None)
    await store.commit(commit(found.token, send=to(BOB, b"1", b"2"), wake={b"b": 9, b"a": 7}))
    found = await owner(service, found.token)
    assert (found.posted, found.first_posted_epoch, found.earliest_due_ms) == (2, 2, 7)
    await store.acknowledge(0, found.token, [1])
    await store.commit(commit(found.token, version=1, send=to(), wake={b"a": None}))
    found = await owner(service, found.token)
    assert (found.posted, found.first_posted_epoch, found.earliest_due_ms) == (2, 2, 9)
    await store.acknowledge(0, found.token, [2])
    found = await owner(service, Token(b"not the one seen"))
    assert (found.posted, found.first_posted_epoch) == (1, 3)
    (again, *_) = await store.owners(service.mark)
    assert (again.posted, again.first_posted_epoch, again.earliest_due_ms) == (0, 0, None)


async def test_host_sends_through_its_partitions_outbox(service: Service) -> None:
    """Numbers are the partition's, and so are epoch and lineage; the host itself has no say about it."""
    store, token = service.store, await service.hold()
    host = Host(OTHER, hosted_token(ENTROPY.token(), ALICE))
    await store.place(0, token, ALICE, seen=None, host=host)
    await store.commit(commit(token, grain=BOB, send=to()))
    assert await store.commit(commit(host.token, send=to(SHOP, b"h"))) == Committed(1, 2, 2)
    assert (await store.posted(0, token, 1, 9))[0] == Posted(2, 1, bytes(token), SHOP, b"h")
    with pytest.raises(errors.Superseded):
        await store.commit(commit(token, grain=BOB, send=to()))


WRONG = ("random", "former", "hosted")


async def wrong_token(service: Service, which: str) -> Token:
    """A token that is not the owner's, of a partition that has one."""
    former = await service.hold()
    token = await service.hold()
    await service.store.commit(commit(token, send=to(), wake={b"w": 1}))
    host = Host(SILO, hosted_token(ENTROPY.token(), ALICE))
    await service.store.place(0, token, ALICE, seen=None, host=host)
    return {"random": ENTROPY.token(), "former": former, "hosted": host.token}[which]


@pytest.mark.parametrize("which", WRONG)
async def test_outbox_and_wake_ups_are_the_owners(service: Service, which: str) -> None:
    """A superseded silo must not take messages away that its successor delivers, nor go on delivering."""
    store, wrong = service.store, await wrong_token(service, which)
    for operation in (
        lambda: store.posted(0, wrong, 0, 9),
        lambda: store.acknowledge(0, wrong, [1]),
        lambda: store.due(0, wrong, 9, 9),
    ):
        with pytest.raises(errors.Superseded):
            await operation()
    assert await numbers(service, await service.hold()) == [1]


async def test_effects_without_an_owner_record_are_data_loss(service: Service) -> None:
    """Missing data must never read as nothing pending."""
    store, token = service.store, ENTROPY.token()
    for operation in (
        lambda: store.posted(99, token, 0, 9),
        lambda: store.acknowledge(99, token, [1]),
        lambda: store.due(99, token, 9, 9),
        lambda: store.commit(commit(token, partition=99, send=to())),
    ):
        with pytest.raises(errors.DataLoss):
            await operation()


async def test_messages_and_parts_and_replies_go_together(service: Service) -> None:
    """One commit has all kinds of effects at once, and purges besides."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, parts={b"a1": b"1", b"a2": b"2", b"b": b"3"}))
    key = b"k" * 16
    await store.commit(
        commit(
            token,
            version=1,
            state=None,
            replies={key: b"r"},
            forget=[b"?" * 16],
            parts={b"b": None, b"c": b"4"},
            purge=[(b"a", b"b")],
            send=to(BOB, b"1"),
            wake={b"w": 3, b"none": None},
            park={b"l": b"letter", b"none": None},
        )
    )
    assert await store.replies(0, token, ALICE) == {key: b"r"}
    assert await store.scan_parts(0, token, ALICE, b"", b"", 9) == [(b"c", b"4")]
    assert await numbers(service, token) == [1]
    assert [one.name for one in await store.due(0, token, 3, 9)] == [b"w"]
    assert await store.letters(0, b"", 9) == [(b"l", b"letter")]


async def test_many_messages_of_one_commit(service: Service) -> None:
    """Scripts have limits on what they can unpack; a fan-out must not meet them."""
    store, token = service.store, await service.hold()
    many = [b"%d" % n for n in range(20_000)]
    assert (await store.commit(commit(token, send=to(BOB, *many)))).first == 1
    for start in range(0, 20_000, 500):
        await store.acknowledge(0, token, range(start + 1, start + 501))
    assert await numbers(service, token) == []


@pytest.mark.parametrize("which", range(9))
async def test_key_of_another_type_stops_a_commit_whole(service: Service, which: int) -> None:
    """Scripts have no undo: what fails in the middle would leave half a commit."""
    pipe = getattr(service.store, "_pipe", None)
    if pipe is None:
        pytest.skip("only Redis has keys of types")
    store, token = service.store, await service.hold()
    keys = store._keys  # type: ignore[attr-defined]
    all_keys = (
        keys.index(0),
        keys.grain(0, ALICE),
        keys.replies(0, ALICE),
        *keys.parts(0, ALICE),
        keys.outbox(0),
        keys.wake_ups(0),
        *keys.letters(0),
    )

    def plain(future: object, reply: object) -> None:
        future.set_result(reply)  # type: ignore[attr-defined]

    await pipe.send(("SET", all_keys[which], "x"), plain)
    everything = commit(
        token,
        replies={b"k" * 16: b"r"},
        parts={b"p": b"1"},
        send=to(),
        wake={b"w": 1},
        park={b"l": b"1"},
    )
    with pytest.raises(errors.StoreError):
        await store.commit(everything)
    for number, key in enumerate(all_keys):
        assert await pipe.send(("EXISTS", key), plain) == (number == which)
    owner_record = await pipe.send(("HMGET", keys.owner(0), "c", "n"), plain)
    assert owner_record == [b"0", None]
