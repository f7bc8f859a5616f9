"""The layers of an activation's entries: which one wins, and what an answer is worth that came late."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from durum.config import Limits
from durum.grains.entries import CACHED_ENTRIES, UNKNOWN, Entries
from durum.store.parts import Part


class Slow:
    """A store whose answers are as old as their questions, and come when the test says so."""

    def __init__(self, **stored: bytes) -> None:
        self.limits = Limits()
        self.stored = {name.encode(): content for name, content in stored.items()}
        self.asked = 0
        self.answers = asyncio.Event()

    async def load(self, names: Sequence[bytes], *, contents: bool = True) -> Mapping[bytes, bytes]:
        found = {name: self.stored[name] for name in names if name in self.stored}
        await self._wait()
        return found

    async def scan(self, prefix: bytes, after: bytes, limit: int) -> Sequence[Part]:
        names = [n for n in sorted(self.stored) if n.startswith(prefix) and n > after]
        page = [(name, self.stored[name]) for name in names[:limit]]
        await self._wait()
        return page

    async def _wait(self) -> None:
        self.asked += 1
        await self.answers.wait()


class Counted:
    """A collection that only counts."""

    def __init__(self) -> None:
        self.unresolved: dict[bytes, None] = {}
        self.length = 0

    def resolve(self, name: bytes, content: bytes | None, *, there: bool) -> None:
        del self.unresolved[name]
        self.length += (content is not None) - there

    def settle(self) -> None: ...

    def sweep(self) -> None: ...


def commit(entries: Entries, store: Slow, **changes: bytes | None) -> None:
    """Change entries, commit them, and have the commit succeed."""
    for name, content in changes.items():
        entries.stage(name.encode(), content)
    taken = entries.take()
    assert taken is not None
    for key, content in taken.items():
        if content is None:
            store.stored.pop(key, None)
        else:
            store.stored[key] = content
    entries.landed()


def crowd(entries: Entries, store: Slow) -> None:
    """Have the cache forget all but these."""
    commit(entries, store, **{f"crowd{n}": b"" for n in range(CACHED_ENTRIES)})


async def asking(
    entries: Entries, store: Slow, names: Sequence[bytes]
) -> asyncio.Task[dict[bytes, bytes]]:
    """A read that waits for its answer."""
    task = asyncio.ensure_future(entries.load(names))
    await asyncio.sleep(0)
    assert store.asked == 1
    return task


async def test_answer_older_than_a_commit_is_asked_for_again() -> None:
    """It would be believed and kept, though this very activation has committed another value since."""
    store = Slow(a=b"old")
    entries = Entries(store)
    task = await asking(entries, store, [b"a"])
    commit(entries, store, a=b"new")
    crowd(entries, store)
    store.answers.set()
    assert await task == {b"a": b"new"}
    assert entries.find(b"a") == b"new"


async def test_page_older_than_a_commit_is_asked_for_again() -> None:
    """As for single entries."""
    store = Slow(a=b"old", b=b"gone")
    entries = Entries(store)
    task = asyncio.ensure_future(entries.page(b"", b"", 9, stored=True))
    await asyncio.sleep(0)
    commit(entries, store, a=b"new", b=None, c=b"3")
    store.answers.set()
    assert await task == ([(b"a", b"new"), (b"c", b"3")], b"")
    assert store.asked == 2


async def test_count_that_is_older_than_a_commit_is_taken_again() -> None:
    """A length would be wrong for ever."""
    store, counted = Slow(), Counted()
    entries = Entries(store)
    entries.owners["items"] = counted
    entries.stage(b"a", b"1")
    counted.unresolved[b"a"] = None
    task = asyncio.ensure_future(entries.resolve())
    await asyncio.sleep(0)
    taken = entries.take()  # another turn's save, which has resolved it by itself
    counted.unresolved.clear()
    assert taken == {b"a": b"1"}
    counted.length = 1
    store.stored[b"a"] = b"1"
    entries.landed()
    crowd(entries, store)
    assert entries.find(b"a") is UNKNOWN
    entries.stage(b"a", None)
    counted.unresolved[b"a"] = None
    store.answers.set()
    await task
    assert counted.length == 0


async def test_change_made_while_a_read_waits_wins_over_its_answer() -> None:
    """The turn sees its own changes, whenever it has made them."""
    store = Slow(a=b"stored", b=b"stored")
    entries = Entries(store)
    task = await asking(entries, store, [b"a", b"b", b"c"])
    entries.stage(b"a", b"mine")
    entries.stage(b"b", None)
    store.answers.set()
    assert await task == {b"a": b"mine"}
    entries.roll_back()
    assert await entries.load([b"a", b"b", b"c"]) == {b"a": b"stored", b"b": b"stored"}
    assert store.asked == 1


async def test_what_a_turn_has_changed_is_never_kept_as_stored() -> None:
    """After a roll-back the cache would tell of what has not happened."""
    store = Slow(a=b"stored")
    store.answers.set()
    entries = Entries(store)
    entries.stage(b"a", b"mine")
    assert await entries.load([b"a", b"b"]) == {b"a": b"mine"}
    entries.roll_back()
    assert entries.find(b"a") is UNKNOWN
    assert entries.find(b"b") is None
    assert await entries.load([b"a"]) == {b"a": b"stored"}


async def test_commits_under_way_are_seen_and_forgotten_together() -> None:
    """What fails takes all behind it along; nothing of it may stay in memory."""
    store = Slow(a=b"0")
    store.answers.set()
    entries = Entries(store)
    assert await entries.load([b"a"]) == {b"a": b"0"}
    for content in (b"1", b"2"):
        entries.stage(b"a", content)
        assert entries.take() == {b"a": content}
    entries.stage(b"b", b"3")
    assert (entries.find(b"a"), entries.find(b"b")) == (b"2", b"3")
    entries.roll_back()
    assert (entries.find(b"a"), entries.find(b"b")) == (b"2", UNKNOWN)
    entries.forget()
    assert entries.find(b"a") is UNKNOWN
    assert await entries.load([b"a"]) == {b"a": b"0"}
    assert repr(entries) == "<Entries [] changed=0 flying=0 cached=1>"
