"""What every store promises of wake-ups and dead letters: with the commit, in order, each under one name."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from durum import errors
from durum.ids import GrainId, Token
from durum.store.effects import NUMBER_LIMIT, WakeUp
from durum.store.parts import MARKS, PAGE_BYTES, REMINDERS, is_last
from tests.support.services import ALICE, BOB, Service, commit

NOW = 1_764_028_800_000


async def all_due(service: Service, token: Token, until_ms: int = NUMBER_LIMIT) -> list[WakeUp]:
    """Every wake-up of partition 0."""
    return list(await service.store.due(0, token, until_ms, 100_000))


async def test_wake_up_is_set_moved_and_dropped_by_its_name(service: Service) -> None:
    """A reminder that is set anew must not ring at its old time too."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, wake={b"w": NOW, b"v": NOW + 1}))
    await store.commit(commit(token, grain=BOB, wake={b"w": NOW - 1}))
    bobs = WakeUp(NOW - 1, BOB, b"w")
    assert await all_due(service, token) == [
        bobs,
        WakeUp(NOW, ALICE, b"w"),
        WakeUp(NOW + 1, ALICE, b"v"),
    ]
    await store.commit(commit(token, version=1, wake={b"w": NOW + 5, b"v": None, b"?": None}))
    assert await all_due(service, token) == [bobs, WakeUp(NOW + 5, ALICE, b"w")]


async def test_wake_ups_are_due_at_their_time_and_not_before(service: Service) -> None:
    """To the millisecond."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, wake={b"w": NOW}))
    assert await all_due(service, token, NOW - 1) == []
    assert await all_due(service, token, NOW) == [WakeUp(NOW, ALICE, b"w")]


async def test_wake_ups_outlive_owners_and_other_commits(service: Service) -> None:
    """They are the partition's, not its owner's."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, wake={b"w": 0}))
    await store.commit(commit(token, version=1))
    assert await all_due(service, await service.hold()) == [WakeUp(0, ALICE, b"w")]


NAMES = (b"", b"\0", b"\0\x01", b"\x01", b"\xff", b"a", b"a\0", b"b")
HOSTILE = ("nul", "nul\0", "nul\0\x01", "nul\x01", "nul\0in", "\u00e9", "e\u0301", "\U0001f40a")


async def test_wake_ups_come_by_time_then_grain_then_name(service: Service) -> None:
    """Whoever reads on behind one must miss none: bytes decide, whatever they hold."""
    store, token = service.store, await service.hold()
    grains = [GrainId(f"K/{key}") for key in HOSTILE]
    expected = []
    for number, grain in enumerate(grains):
        wake: dict[bytes, int | None] = {name: NOW + (number + len(name)) % 2 for name in NAMES}
        await store.commit(commit(token, grain=grain, wake=wake))
        expected += [(due, grain.encode(), name) for name, due in wake.items()]
    found = await all_due(service, token)
    assert [(one.due_ms, one.grain.encode(), one.name) for one in found] == sorted(expected)


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_wake_ups_are_read_in_pages_behind_the_last_one(service: Service, limit: int) -> None:
    """Many may be due at the same time, and the one that a page ended with may be gone."""
    store, token = service.store, await service.hold()
    versions = {ALICE: itertools.count(), BOB: itertools.count()}
    for grain, count in versions.items():
        wake = {b"%02d" % n: NOW + n // 10 for n in range(30)}
        await store.commit(commit(token, grain=grain, version=next(count), wake=wake))
    expected = await all_due(service, token, NOW + 1)
    assert len(expected) == 40
    found: list[WakeUp] = []
    after = None
    while page := await store.due(0, token, NOW + 1, limit, after):
        assert len(page) <= limit
        found += page
        last = page[-1]
        after = last.due_ms, last.grain, last.name
        gone = {last.name: None}
        await store.commit(
            commit(token, grain=last.grain, version=next(versions[last.grain]), wake=gone)
        )
    assert found == expected


async def test_page_can_begin_behind_what_was_never_there(service: Service) -> None:
    """Before all, between, and behind all."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, wake={b"b": NOW, b"d": NOW}))
    b, d = WakeUp(NOW, ALICE, b"b"), WakeUp(NOW, ALICE, b"d")
    for after, expected in (
        ((NOW - 1, BOB, b"z"), [b, d]),
        ((NOW, ALICE, b"a"), [b, d]),
        ((NOW, ALICE, b"c"), [d]),
        ((NOW, ALICE, b"e"), []),
        ((NOW, BOB, b""), []),
        ((NOW + 1, ALICE, b""), []),
    ):
        assert await store.due(0, token, NOW, 9, after) == expected
    assert await store.due(0, token, NOW, 0) == []


async def test_times_that_cannot_be_sorted_are_refused(service: Service) -> None:
    """Where numbers lose their last digits, a wake-up would be early."""
    store, token = service.store, await service.hold()
    for due in (-1, NUMBER_LIMIT):
        with pytest.raises(errors.DurumBug):
            await store.commit(commit(token, wake={b"w": due}))
    await store.commit(commit(token, wake={b"w": NUMBER_LIMIT - 1, b"v": NUMBER_LIMIT - 2}))
    assert [one.due_ms for one in await all_due(service, token)] == [
        NUMBER_LIMIT - 2,
        NUMBER_LIMIT - 1,
    ]


async def test_erased_grain_is_woken_no_more(service: Service) -> None:
    """Whoever deletes an actor has done with its reminders; other grains' stay."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, wake={b"\0\x01": 1, b"v": 2}))
    for grain in (BOB, GrainId(f"{ALICE}\0"), GrainId(f"{ALICE}x")):
        await store.commit(commit(token, grain=grain, wake={b"w": 3}))
    await store.erase(0, token, ALICE, 1, keep_s=60)
    assert ALICE not in {one.grain for one in await all_due(service, token)}
    assert len(await all_due(service, token)) == 3
    await store.commit(commit(token, version=2, wake={b"w": 4}))
    await store.erase(0, token, ALICE, 3, keep_s=60)
    assert len(await all_due(service, token)) == 3


async def test_erased_grain_keeps_its_marks_for_a_while(service: Service) -> None:
    """By them it knows messages that it has had; nothing else of its parts stays."""
    store, token = service.store, await service.hold()
    marks = {MARKS + b"1": b"m1", MARKS + b"\xff\xff": b"m2"}
    others = {REMINDERS + b"r": b"r", b"\0l": b"", b"\0n": b"", b"field\0a": b"x"}
    await store.commit(commit(token, parts={**marks, **others}))
    first = await store.erase(0, token, ALICE, 1, keep_s=60)
    assert await store.erase(0, token, ALICE, 1, keep_s=60) == first
    names = [*marks, *others]
    assert await store.load_parts(0, token, ALICE, names) == marks
    assert await store.scan_parts(0, token, ALICE, b"", b"", 9) == sorted(marks.items())
    # Once it lives again they are its own, and outlive the time that was set.
    await store.commit(commit(token, version=2, parts={b"p": b"1"}))
    assert await store.load_parts(0, token, ALICE, names) == marks
    await store.erase(0, token, ALICE, 3, keep_s=60)
    assert await store.load_parts(0, token, ALICE, [*names, b"p"]) == marks


async def test_marks_go_with_the_tombstone(service: Service) -> None:
    """Deleting must in the end free all room."""

    store, token = service.store, await service.hold()
    await store.commit(commit(token, parts={MARKS: b"m"}))
    await store.erase(0, token, ALICE, 1, keep_s=0.01)
    version = 0
    async with asyncio.timeout(10):
        while await store.load_parts(0, token, ALICE, [MARKS]):
            # An embedded store tidies up while it erases something else.
            version = (await store.erase(0, token, BOB, version, keep_s=60)).version
            await asyncio.sleep(0.05)


async def test_marks_of_a_grain_that_began_anew_stay(service: Service) -> None:
    """What was to go with the deleted grain must not take what lives along."""

    store, token = service.store, await service.hold()
    await store.commit(commit(token, parts={MARKS: b"m"}))
    await store.erase(0, token, ALICE, 1, keep_s=0.3)
    await store.commit(commit(token, version=2))
    await asyncio.sleep(1.2)  # the time itself is what is tested: Redis counts whole seconds
    await store.erase(0, token, BOB, 0, keep_s=60)
    assert await store.load_parts(0, token, ALICE, [MARKS]) == {MARKS: b"m"}
    assert await store.scan_parts(0, token, ALICE, MARKS, b"", 9) == [(MARKS, b"m")]


# -- dead letters


async def test_letters_are_parked_listed_and_dropped(service: Service) -> None:
    """They are the partition's: whoever commits for one of its grains may drop them."""
    store, token = service.store, await service.hold()
    names = (b"\0", b"2", b"1", b"1\0", b"\xff", b"")
    await store.commit(commit(token, park={name: b"of " + name for name in names}))
    assert await store.letters(0, b"", 99) == [(name, b"of " + name) for name in sorted(names)]
    assert await store.count_letters(0) == 6
    assert await store.letters(0, b"1", 2) == [(b"1\0", b"of 1\0"), (b"2", b"of 2")]
    assert await store.letters(0, b"\xff", 2) == []
    await store.commit(commit(token, grain=BOB, park={b"1": None, b"?": None, b"2": b"anew"}))
    assert await store.letters(0, b"\0", 2) == [(b"1\0", b"of 1\0"), (b"2", b"anew")]
    assert await store.count_letters(0) == 5


async def test_letters_outlive_the_grain(service: Service) -> None:
    """A person has still to look at them."""
    store, token = service.store, await service.hold()
    await store.commit(commit(token, park={b"1": b"letter"}))
    await store.erase(0, token, ALICE, 1, keep_s=60)
    assert await store.count_letters(0) == 1


async def test_partition_that_does_not_exist_has_no_letters(service: Service) -> None:
    """People may ask about anything."""
    assert await service.store.letters(99, b"", 9) == []
    assert await service.store.count_letters(99) == 0


async def test_page_of_large_letters_ends_early(service: Service) -> None:
    """As one of parts does."""
    store, token = service.store, await service.hold()
    half = bytes(PAGE_BYTES // 2)
    await store.commit(commit(token, park={b"%d" % n: half for n in range(3)}))
    page = await store.letters(0, b"", 9)
    assert [name for name, _ in page] == [b"0", b"1"]
    assert not is_last(page, 9)
    assert is_last(await store.letters(0, b"1", 9), 9)


PAGES = test_wake_ups_are_read_in_pages_behind_the_last_one
ANEW = test_marks_of_a_grain_that_began_anew_stay
