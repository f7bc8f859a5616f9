"""What every store promises of the parts of a grain's record: one commit, one fence, one order."""

from __future__ import annotations

import asyncio

import pytest

from durum import errors
from durum.ids import Token
from durum.store import parts
from durum.store.protocol import NEVER_OWNED, Committed, Record
from tests.support.services import ALICE, BOB, ENTROPY, Service, commit

ODD = [b"", b"\0", b"\0\xff", b"a", b"a\0", b"aa", b"b", b"\x80", b"\xff", b"\xff\xff", b"*\r\n[("]


async def everything(service: Service, token: Token, prefix: bytes = b"") -> dict[bytes, bytes]:
    """All parts of Alice's, page by page."""
    found: dict[bytes, bytes] = {}
    after = b""
    while True:
        page = await service.store.scan_parts(0, token, ALICE, prefix, after, 7)
        found.update(page)
        if parts.is_last(page, 7):
            return found
        after = page[-1][0]


async def test_parts_are_set_replaced_and_dropped_by_commits(service: Service) -> None:
    """The plain path."""
    token, store = await service.hold(), service.store
    await store.commit(commit(token, parts={b"a": b"1", b"b": b"2", b"c": b""}))
    await store.commit(commit(token, version=1, parts={b"a": None, b"b": b"3", b"?": None}))
    assert await store.load_parts(0, token, ALICE, [b"a", b"b", b"c"]) == {b"b": b"3", b"c": b""}
    assert await store.load_parts(0, token, BOB, [b"a", b"b"]) == {}
    assert await everything(service, token) == {b"b": b"3", b"c": b""}


async def test_which_parts_are_there_can_be_asked_without_their_contents(service: Service) -> None:
    """Counting what a turn adds must not load what it replaces."""
    token, store = await service.hold(), service.store
    await store.commit(commit(token, parts={b"a": b"1", b"b": b""}))
    found = await store.load_parts(0, token, ALICE, [b"a", b"b", b"c"], contents=False)
    assert found == {b"a": b"", b"b": b""}
    assert await store.load_parts(0, token, ALICE, []) == {}


async def test_parts_come_in_the_order_of_their_bytes(service: Service) -> None:
    """Paging goes on behind the last name seen; another order would leave some out."""
    token, store = await service.hold(), service.store
    await store.commit(commit(token, parts={name: b"=" + name for name in reversed(ODD)}))
    page = await store.scan_parts(0, token, ALICE, b"", b"", 100)
    assert page == [(name, b"=" + name) for name in sorted(ODD)]
    for at, name in enumerate(sorted(ODD)):
        behind = await store.scan_parts(0, token, ALICE, b"", name, 2)
        assert [each for each, _ in behind] == sorted(ODD)[at + 1 : at + 3] or name == b""
    for prefix in (b"a", b"\0", b"\xff", b"\xff\xff", b"x"):
        found = await store.scan_parts(0, token, ALICE, prefix, b"", 100)
        assert [each for each, _ in found] == [n for n in sorted(ODD) if n.startswith(prefix)]
    assert await store.load_parts(0, token, ALICE, ODD) == {n: b"=" + n for n in ODD}


async def test_after_outside_of_the_prefix_changes_nothing(service: Service) -> None:
    """Whoever pages through one collection may begin anywhere."""
    token, store = await service.hold(), service.store
    await store.commit(commit(token, parts={b"a1": b"", b"b1": b"", b"b2": b"", b"c1": b""}))
    for after, expected in ((b"a9", [b"b1", b"b2"]), (b"b1", [b"b2"]), (b"c", [])):
        found = await store.scan_parts(0, token, ALICE, b"b", after, 100)
        assert [name for name, _ in found] == expected


async def test_page_ends_with_the_part_that_fills_it(service: Service) -> None:
    """A page of large parts must fit into a frame and into memory."""
    token, store = await service.hold(), service.store
    third = b"x" * (parts.PAGE_BYTES // 3 + 1)
    await store.commit(commit(token, parts={b"%d" % n: third for n in range(5)}))
    page = await store.scan_parts(0, token, ALICE, b"", b"", 100)
    assert [name for name, _ in page] == [b"0", b"1", b"2"]
    assert not parts.is_last(page, 100)
    rest = await store.scan_parts(0, token, ALICE, b"", b"2", 100)
    assert [name for name, _ in rest] == [b"3", b"4"]
    assert parts.is_last(rest, 100)


async def test_commit_writes_state_replies_and_parts_together(service: Service) -> None:
    """An entry without the length that counts it would never be found or dropped again."""
    token, store = await service.hold(), service.store
    one, two, three = (bytes([n]) * 16 for n in (1, 2, 3))
    await store.commit(
        commit(token, state=b"1", parts={b"a": b"1"}, replies={one: b"r", two: b"s"})
    )
    answer = await store.commit(
        commit(
            token,
            version=1,
            state=b"2",
            parts={b"a": None, b"b": b"2"},
            replies={three: b"t"},
            forget=[one],
        )
    )
    assert answer == Committed(2, 2)
    assert await store.load(0, token, ALICE) == Record(version=2, state=b"2")
    assert await store.replies(0, token, ALICE) == {two: b"s", three: b"t"}
    assert await everything(service, token) == {b"b": b"2"}


async def test_commit_of_parts_alone_leaves_the_state(service: Service) -> None:
    """Replacing an entry changes no length."""
    token, store = await service.hold(), service.store
    await store.commit(commit(token, state=b"1", parts={b"a": b"1"}))
    answer = await store.commit(commit(token, version=1, state=None, parts={b"a": b"2"}))
    assert answer == Committed(2, 2)
    assert await store.load(0, token, ALICE) == Record(version=2, state=b"1")
    assert await everything(service, token) == {b"a": b"2"}


@pytest.mark.parametrize("fault", ["token", "version"])
async def test_refused_commit_changes_no_part(service: Service, fault: str) -> None:
    """All of a turn or nothing of it."""
    token, store = await service.hold(), service.store
    await store.commit(commit(token, parts={b"a": b"1", b"b": b"2"}))
    refused = commit(
        token if fault == "version" else ENTROPY.token(),
        version=1 if fault == "token" else 0,
        parts={b"a": None, b"b": b"3", b"c": b"4"},
        purge=[(b"", b"z")],
    )
    with pytest.raises(errors.Superseded):
        await store.commit(refused)
    assert await everything(service, token) == {b"a": b"1", b"b": b"2"}


async def test_commit_of_parts_sent_again_changes_nothing(service: Service) -> None:
    """A lost reply is answered by sending the same bytes again, after a takeover too."""
    token, store = await service.hold(), service.store
    await store.commit(commit(token, parts={b"%04d" % n: b"" for n in range(1500)}))
    once = commit(token, version=1, parts={b"x": b"1"}, purge=[(b"0", b"2")])
    first = await store.commit(once)
    assert await store.commit(once) == first
    later = await service.hold()
    assert await store.commit(once) == first
    assert len(await everything(service, later)) == 501
    assert (await store.load(0, later, ALICE)).version == 2


async def test_raise_version_kills_a_commit_of_parts_that_lands_later(service: Service) -> None:
    """A ghost must not slip an entry under a length that does not count it."""
    token, store = await service.hold(), service.store
    ghost = commit(token, parts={b"a": b"ghost"})
    await store.load(0, token, ALICE, raise_version=True)
    with pytest.raises(errors.Superseded):
        await store.commit(ghost)
    assert await everything(service, token) == {}


@pytest.mark.parametrize("wrong", [b"x" * 16, NEVER_OWNED])
async def test_reading_parts_checks_the_token(service: Service, wrong: bytes) -> None:
    """A superseded silo would answer from entries that another one is changing."""
    await service.hold()
    token, store = Token(wrong), service.store
    for operation in (
        lambda: store.load_parts(0, token, ALICE, [b"a"]),
        lambda: store.load_parts(0, token, ALICE, [b"a"], contents=False),
        lambda: store.scan_parts(0, token, ALICE, b"", b"", 10),
    ):
        with pytest.raises(errors.Superseded):
            await operation()


async def test_missing_owner_record_is_data_loss_for_parts_too(service: Service) -> None:
    """Missing data must never read as no entries."""
    store, token = service.store, Token(b"x" * 16)
    for operation in (
        lambda: store.load_parts(99, token, ALICE, [b"a"]),
        lambda: store.scan_parts(99, token, ALICE, b"", b"", 10),
        lambda: store.commit(commit(token, partition=99, parts={b"a": b""})),
    ):
        with pytest.raises(errors.DataLoss):
            await operation()


async def test_purge_drops_a_bounded_number_of_the_least(service: Service) -> None:
    """A collection of a million entries is cleared without one turn that takes seconds."""
    token, store = await service.hold(), service.store
    many = parts.PURGED_PER_COMMIT + 200
    await store.commit(commit(token, parts={b"a%05d" % n: b"." for n in range(many)}))
    await store.commit(commit(token, version=1, parts={b"b": b"", b"Z": b""}))
    await store.commit(commit(token, version=2, state=None, purge=[(b"a", b"b"), (b"0", b"9")]))
    left = await everything(service, token)
    assert sorted(left) == [b"Z", *(b"a%05d" % n for n in range(many - 200, many)), b"b"]
    await store.commit(commit(token, version=3, state=None, purge=[(b"a", b"b")]))
    assert sorted(await everything(service, token)) == [b"Z", b"b"]


async def test_part_set_by_the_commit_that_purges_its_name_is_kept(service: Service) -> None:
    """Purging comes first: what a commit sets is there after it, whatever it also purges."""
    token, store = await service.hold(), service.store
    await store.commit(commit(token, parts={b"a": b"1", b"b": b"2"}))
    await store.commit(commit(token, version=1, parts={b"b": b"3"}, purge=[(b"a", b"c")]))
    assert await everything(service, token) == {b"b": b"3"}


async def test_erased_grain_has_no_parts_when_it_comes_again(service: Service) -> None:
    """Entries of an earlier life would be counted by nobody, and seen by everybody."""
    token, store = await service.hold(), service.store
    many = {b"%04d" % n: b"old" for n in range(1000)}
    await store.commit(commit(token, parts=many))
    await store.commit(commit(token, grain=BOB, parts={b"1": b"bob"}))
    await store.erase(0, token, ALICE, 1, keep_s=60.0)
    assert await everything(service, token) == {}
    for version in range(2, 8):
        name = b"new%d" % version
        await store.commit(commit(token, version=version, parts={name: b""}))
    assert sorted(await everything(service, token)) == [b"new%d" % n for n in range(2, 8)]
    assert await store.load_parts(0, token, BOB, [b"1"]) == {b"1": b"bob"}


async def test_many_parts_are_changed_in_one_commit(service: Service) -> None:
    """Ten thousand is the default limit of a turn; a script must not trip over their number."""
    token, store = await service.hold(), service.store
    many = {n.to_bytes(8, "big"): b"v%d" % n for n in range(10_000)}
    await store.commit(commit(token, parts=many))
    names = list(many)[:: 10_000 // 300]
    assert await store.load_parts(0, token, ALICE, names) == {name: many[name] for name in names}
    await store.commit(commit(token, version=1, parts=dict.fromkeys(many)))
    assert await everything(service, token) == {}


async def test_parts_read_in_the_tick_of_a_commit_see_it(service: Service) -> None:
    """What one silo sends arrives in that order, whatever the kind of operation."""
    token, store = await service.hold(), service.store
    writing = store.commit(commit(token, parts={b"a": b"1"}))
    reading = store.load_parts(0, token, ALICE, [b"a"])
    page = store.scan_parts(0, token, ALICE, b"", b"", 10)
    again = store.commit(commit(token, version=1, parts={b"a": b"2"}))
    await asyncio.gather(writing, again)
    assert await reading == {b"a": b"1"}
    assert await page == [(b"a", b"1")]
