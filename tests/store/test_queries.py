"""What every store promises of its list of grains, and of erasing one."""

from __future__ import annotations

import asyncio

import pytest

from durum import errors
from durum.ids import GrainId, Token
from durum.store.protocol import Committed, Record
from tests.support.services import ALICE, BOB, ENTROPY, Service, commit

KEY = b"k" * 16
ODD = [
    GrainId("Account/\0"),
    GrainId("Account/a{b}c"),
    GrainId("Account/ä"),
    GrainId("Account/\U0010ffff"),
    GrainId("Account/(x"),
    GrainId("Account/[x"),
]


async def fill(service: Service, *grains: GrainId, partition: int = 0) -> Token:
    token = await service.hold(partition)
    await asyncio.gather(
        *(service.store.commit(commit(token, grain=grain, partition=partition)) for grain in grains)
    )
    return token


def by_bytes(grains: list[GrainId]) -> list[GrainId]:
    return sorted(grains, key=str.encode)


async def test_grain_is_listed_from_its_first_commit_on(service: Service) -> None:
    """A list that misses grains is worse than none; one that repeats them is wrong too."""
    assert await service.store.scan(0, "", "", 10) == []
    token = await fill(service, ALICE)
    await service.store.commit(commit(token, version=1))
    assert await service.store.scan(0, "", "", 10) == [ALICE]
    assert await service.store.count(0, "") == 1


async def test_looking_at_a_grain_does_not_list_it(service: Service) -> None:
    """Every grain exists; only those that have kept something are worth listing."""
    token = await service.hold()
    await service.store.load(0, token, ALICE)
    await service.store.load(0, token, ALICE, raise_version=True)
    assert await service.store.scan(0, "", "", 10) == []
    assert await service.store.count(0, "") == 0


async def test_raised_grain_is_listed_once_it_is_committed(service: Service) -> None:
    """Its record was there before its first commit."""
    token = await service.hold()
    await service.store.load(0, token, ALICE, raise_version=True)
    await service.store.commit(commit(token, version=1))
    assert await service.store.scan(0, "", "", 10) == [ALICE]


async def test_kinds_and_prefixes_are_told_apart(service: Service) -> None:
    """Account and Accountant begin alike."""
    other = GrainId("Accountant/alice")
    await fill(service, ALICE, BOB, other)
    assert await service.store.scan(0, "Account/", "", 10) == [ALICE, BOB]
    assert await service.store.scan(0, "Account/b", "", 10) == [BOB]
    assert await service.store.count(0, "Account/") == 2
    assert await service.store.count(0, "Accountant/") == 1


async def test_pages_join_without_gap_or_overlap(service: Service) -> None:
    """Whoever walks through all grains must see each once."""
    grains = [GrainId(f"Account/{number}") for number in range(25)]
    await fill(service, *grains)
    pages, after = [], ""
    while page := await service.store.scan(0, "Account/", after, 10):
        pages.append(len(page))
        after = page[-1]
        assert all(grain in grains for grain in page)
        grains = [grain for grain in grains if grain not in page]
    assert (pages, grains) == ([10, 10, 5], [])


async def test_page_begins_behind_an_id_that_need_not_exist(service: Service) -> None:
    """The last one of a page may be erased before the next page is read."""
    await fill(service, ALICE, BOB)
    assert await service.store.scan(0, "Account/", "Account/alicf", 10) == [BOB]
    assert await service.store.scan(0, "Account/", "A", 10) == [ALICE, BOB]
    assert await service.store.scan(0, "Account/", "B", 10) == []


async def test_odd_keys_are_listed_as_they_are(service: Service) -> None:
    """Keys are anybody's text; none may be lost, cut or taken for syntax."""
    await fill(service, *ODD)
    assert await service.store.scan(0, "Account/", "", 100) == by_bytes(ODD)
    for grain in ODD:
        assert await service.store.scan(0, grain, "", 10) == [grain]
        assert await service.store.count(0, grain) == 1


async def test_partitions_are_listed_apart(service: Service) -> None:
    """Each owner answers for its own; a partition that does not exist has none."""
    await fill(service, ALICE)
    await fill(service, BOB, partition=1)
    assert await service.store.scan(0, "", "", 10) == [ALICE]
    assert await service.store.scan(1, "", "", 10) == [BOB]
    assert await service.store.scan(99, "", "", 10) == []


# Erasing ----------------------------------------------------------------------------------------------


async def test_erased_grain_has_no_state_and_is_not_listed(service: Service) -> None:
    """What deleting means."""
    token = await fill(service, ALICE, BOB)
    assert await service.store.erase(0, token, ALICE, 1, keep_s=60) == Committed(2, 3)
    assert await service.store.load(0, token, ALICE) == Record(version=2, state=None)
    assert await service.store.scan(0, "", "", 10) == [BOB]


async def test_erased_grain_remembers_its_replies(service: Service) -> None:
    """A keyed call that is repeated after the deletion must not run a second time."""
    token = await service.hold()
    await service.store.commit(commit(token, replies={KEY: b"reply"}))
    await service.store.erase(0, token, ALICE, 1, keep_s=60)
    assert await service.store.replies(0, token, ALICE) == {KEY: b"reply"}


async def test_commit_from_before_the_erasure_is_superseded(service: Service) -> None:
    """A ghost must not bring back what was deleted."""
    token = await fill(service, ALICE)
    await service.store.erase(0, token, ALICE, 1, keep_s=60)
    with pytest.raises(errors.Superseded):
        await service.store.commit(commit(token, version=1, state=b"ghost"))
    assert await service.store.load(0, token, ALICE) == Record(version=2, state=None)


async def test_erased_grain_can_begin_anew(service: Service) -> None:
    """Its key is as good as before."""
    token = await fill(service, ALICE)
    await service.store.erase(0, token, ALICE, 1, keep_s=60)
    assert await service.store.commit(commit(token, version=2, state=b"new")) == Committed(3, 3)
    assert await service.store.load(0, token, ALICE) == Record(version=3, state=b"new")
    assert await service.store.scan(0, "", "", 10) == [ALICE]


async def test_erasing_sent_again_finds_itself_done(service: Service) -> None:
    """A lost answer is answered by sending the same bytes again."""
    token = await fill(service, ALICE)
    first = await service.store.erase(0, token, ALICE, 1, keep_s=60)
    assert await service.store.erase(0, token, ALICE, 1, keep_s=60) == first


async def test_erasing_checks_the_token_and_the_version(service: Service) -> None:
    """It is a write like all others: a superseded silo must not delete, and nobody what changed since."""
    token = await fill(service, ALICE)
    with pytest.raises(errors.Superseded):
        await service.store.erase(0, ENTROPY.token(), ALICE, 1, keep_s=60)
    for version in (0, 2):
        with pytest.raises(errors.Superseded):
            await service.store.erase(0, token, ALICE, version, keep_s=60)
    with pytest.raises(errors.DataLoss):
        await service.store.erase(99, token, ALICE, 1, keep_s=60)
    assert await service.store.load(0, token, ALICE) == Record(version=1, state=b"state")
    assert await service.store.scan(0, "", "", 10) == [ALICE]


async def test_what_is_kept_goes_once_its_time_is_over(service: Service) -> None:
    """Deleting must in the end free all room."""
    token = await service.hold()
    await service.store.commit(commit(token, replies={KEY: b"reply"}))
    await service.store.erase(0, token, ALICE, 1, keep_s=0.01)
    version = 0
    async with asyncio.timeout(10):
        while await service.store.replies(0, token, ALICE):
            # An embedded store tidies up while it erases something else.
            version = (await service.store.erase(0, token, BOB, version, keep_s=60)).version
            await asyncio.sleep(0.05)
    assert await service.store.load(0, token, ALICE) == Record(version=0, state=None)


async def test_grain_that_began_anew_keeps_everything(service: Service) -> None:
    """What was to go with the deleted grain must not take the new one's replies along."""
    token = await service.hold()
    await service.store.commit(commit(token, replies={KEY: b"reply"}))
    await service.store.erase(0, token, ALICE, 1, keep_s=0.3)
    await service.store.commit(commit(token, version=2))
    other = b"o" * 16
    await service.store.commit(commit(token, version=3, replies={other: b"new"}))
    await asyncio.sleep(1.2)  # the time itself is what is tested: Redis counts whole seconds
    await service.store.erase(0, token, BOB, 0, keep_s=60)
    assert (await service.store.replies(0, token, ALICE))[other] == b"new"
    assert await service.store.load(0, token, ALICE) == Record(version=4, state=b"state")


async def test_index_of_another_type_stops_a_first_commit_whole(
    service: Service,
) -> None:
    """Scripts have no undo: what fails in the middle would leave half a commit."""
    pipe = getattr(service.store, "_pipe", None)
    if pipe is None:
        pytest.skip("only Redis has keys of types")
    token = await service.hold()
    key = service.store._keys.index(0)  # type: ignore[attr-defined]
    await pipe.send(("SET", key, "x"), lambda future, reply: future.set_result(reply))
    with pytest.raises(errors.StoreError):
        await service.store.commit(commit(token))
    assert await service.store.load(0, token, ALICE) == Record(version=0, state=None)
