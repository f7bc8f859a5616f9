"""Messages that could not be taken: listed, shown, sent again, dropped, from Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

import durum
from durum import errors
from durum.client.client import Cluster
from durum.client.letters import DeadLetter
from durum.config import Limits, SiloConfig
from durum.silo.silo import Silo

_works: set[str] = set()
"""Keys whose actors take what they are told."""


class Box(durum.Actor, message_attempts=2):
    """Takes words, where it works."""

    words: list[str] = []

    async def put(self, word: str) -> None:
        if self.key not in _works:
            raise ValueError(f"no room for {word}")
        self.words.append(word)

    @durum.read_only
    async def look(self) -> list[str]:
        return self.words


class Stubborn(durum.Actor, message_attempts=1000):
    """Takes nothing."""

    words: int = 0

    async def put(self) -> None:
        raise ValueError("never")


class Sender(durum.Actor):
    """Sends words."""

    async def send_stubborn(self, key: str) -> None:
        self.tell(self.actor(Stubborn, key).put)

    async def send(self, key: str, *, word: str = "hi") -> None:
        self.tell(self.actor(Box, key).put, word)


@pytest.fixture
async def silos() -> AsyncIterator[list[Silo]]:
    """Two, so that most of what is asked is another's."""
    _works.clear()
    limits = Limits(message_retry_s=0.01)
    config = SiloConfig(limits=limits)
    kinds = [Box, Sender, Stubborn]
    async with (
        Silo(kinds, "memory:letters", config=config) as one,
        Silo(kinds, "memory:letters", config=config) as other,
    ):
        while not (one.statistics().ready and other.statistics().ready):
            await asyncio.sleep(0.01)
        yield [one, other]


@pytest.fixture
async def cluster(silos: list[Silo]) -> AsyncIterator[Cluster]:
    async with silos[0].connect() as one:
        yield one


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():
            await asyncio.sleep(0.01)


async def parked(cluster: Cluster, count: int) -> tuple[DeadLetter, ...]:
    """All dead letters, once there are so many."""
    found: tuple[DeadLetter, ...] = ()

    async def enough() -> bool:
        nonlocal found
        found = (await cluster.admin.messages.dead_letters()).letters
        return len(found) >= count

    await until(enough)
    return found


async def test_letter_tells_what_became_of_its_message(cluster: Cluster) -> None:
    """Whoever has to decide on it needs to know what it was, and why it failed."""
    began = datetime.now(UTC)
    await cluster.actor(Sender, "s").send("x", word="one")
    (letter,) = await parked(cluster, 1)
    assert (letter.kind, letter.key, letter.method) == ("Box", "x", "put")
    assert letter.args is not None
    assert "one" in letter.args
    assert letter.sender == "Sender/s"
    assert (letter.attempts, letter.error, letter.text) == (2, "ValueError", "no room for one")
    assert "no room for" in letter.traceback
    assert began - timedelta(seconds=2) < letter.sent <= letter.parked
    assert await cluster.admin.messages.show("Box", "x", letter.id) == letter
    assert await cluster.admin.messages.show(Box, "y", letter.id) is None


async def test_retried_message_runs_once_and_its_letter_is_gone(cluster: Cluster) -> None:
    """The fault is mended, so the message has its effect now."""
    await cluster.actor(Sender, "s").send("x", word="one")
    (letter,) = await parked(cluster, 1)
    _works.add("x")
    assert await cluster.admin.messages.retry(letter)
    await until(lambda: _is(cluster, "x", ["one"]))
    assert not await cluster.admin.messages.retry(letter)
    assert (await cluster.admin.messages.dead_letters()).letters == ()
    await cluster.actor(Sender, "s").send("x", word="two")
    await until(lambda: _is(cluster, "x", ["one", "two"]))


async def test_retried_message_that_fails_again_is_another_letter(cluster: Cluster) -> None:
    """It has all its attempts again, and is not lost."""
    await cluster.actor(Sender, "s").send("x")
    (letter,) = await parked(cluster, 1)
    assert await cluster.admin.messages.retry(letter)
    (again,) = await parked(cluster, 1)
    assert again.id != letter.id
    assert (again.attempts, again.text) == (letter.attempts, letter.text)


async def test_dropped_letter_is_gone_for_good(cluster: Cluster) -> None:
    """And those of others stay."""
    await cluster.actor(Sender, "s").send("x")
    await cluster.actor(Sender, "s").send("y")
    letters = await parked(cluster, 2)
    (of_x,) = [each for each in letters if each.key == "x"]
    assert await cluster.admin.messages.drop(of_x)
    assert not await cluster.admin.messages.drop(of_x)
    assert [each.key for each in await parked(cluster, 1)] == ["y"]


async def test_letters_are_listed_by_kind_and_page(cluster: Cluster) -> None:
    """However many there are: each on one page."""
    for number in range(7):
        await cluster.actor(Sender, "s").send(f"k{number}")
    await parked(cluster, 7)
    seen: list[str] = []
    after = ""
    while True:
        page = await cluster.admin.messages.dead_letters("Box", prefix="k", after=after, limit=3)
        assert len(page.letters) <= 3
        seen += [each.key for each in page.letters]
        after = page.after
        if not after:
            break
    assert sorted(seen) == [f"k{number}" for number in range(7)]
    assert (await cluster.admin.messages.dead_letters("Sender")).letters == ()
    assert [
        each.key async for each in cluster.admin.messages.every_dead_letter(Box, prefix="k3")
    ] == ["k3"]
    with pytest.raises(errors.ArgumentError, match="is not what a page gave"):
        await cluster.admin.messages.dead_letters(after="nonsense")
    with pytest.raises(errors.ArgumentError, match="needs a kind"):
        await cluster.admin.messages.dead_letters(prefix="k")
    with pytest.raises(errors.ArgumentError, match="is no dead letter's id"):
        await cluster.admin.messages.show(Box, "x", "nonsense")


async def test_waiting_messages_say_for_whom_and_why(cluster: Cluster, silos: list[Silo]) -> None:
    """A receiver that takes nothing holds its line up, and an operator can see that."""
    await cluster.actor(Sender, "s").send_stubborn("x")

    async def failing() -> bool:
        return any(line.failures for line in await cluster.admin.messages.waiting())

    await until(failing)
    (line,) = await cluster.admin.messages.waiting()
    assert (line.kind, line.key, line.messages) == ("Stubborn", "x", 1)
    assert "never" in line.why
    found = [silo.statistics().post for silo in silos]
    assert sum(each.waiting for each in found) == sum(each.failing for each in found) == 1


async def _is(cluster: Cluster, key: str, words: list[str]) -> bool:
    return await cluster.actor(Box, key).look() == words
