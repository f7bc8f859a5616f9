"""Actors that tell each other, and what a test wants to know of their messages."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import durum
from durum import Actor, StatelessWorker, read_only
from durum.ids import GrainId
from durum.placement.partitions import partition_of
from durum.wire import post as wire
from tests.support.turns import SMALL, House


class Ledger(Actor):
    """Books what it is told."""

    entries: list[str] = []

    async def book(self, what: str) -> None:
        self.entries.append(what)

    async def book_all(self, what: set[int]) -> None:
        self.entries += [str(each) for each in sorted(what)]

    async def book_slowly(self, what: str, seconds: float = 1.0) -> None:
        await asyncio.sleep(seconds)
        self.entries.append(what)

    async def linger(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def who(self) -> None:
        context = self.context
        self.entries.append(f"{context.caller} {context.method} {context.message != ''}")
        self.entries.append(dict(durum.baggage).get("tenant", "none"))

    @read_only
    async def get(self) -> list[str]:
        return self.entries


class Moody(Actor, message_attempts=3):
    """Fails as often as it is told to."""

    entries: list[str] = []
    fails: int = 0
    _seen: list[str]

    async def on_activate(self) -> None:
        self._seen = []

    async def book(self, what: str) -> None:
        self._seen.append(f"{what} {self.context.message}")
        self.entries.append(what)
        tries = sum(each.startswith(f"{what} ") for each in self._seen)
        if what.startswith("bad") or (what.startswith("slow start") and tries < 3):
            raise ValueError(f"not {what}")

    async def book_half(self, what: str, fails: bool) -> None:
        self.entries.append(f"{what} half")
        await self.save()
        await asyncio.sleep(1.0)
        if fails:
            raise ValueError("after the save")
        self.entries.append(f"{what} rest")

    async def save_nothing(self, what: str) -> None:
        await self.save()
        self._seen.append(f"{what} {self.context.message}")
        if len(self._seen) < 2:
            raise ValueError("after a save of nothing")
        self.entries.append(what)

    @read_only
    async def get(self) -> list[str]:
        return self.entries

    @read_only
    async def seen(self) -> list[str]:
        return self._seen


class Customer(Actor):
    """Tells ledgers."""

    sent: int = 0

    async def buy(self, ledger: str, what: list[str], *, fails: bool = False) -> int:
        for each in what:
            self.sent += 1
            self.tell(self.actor(Ledger, ledger).book, each)
        if fails:
            raise ValueError("changed my mind")
        return self.sent

    async def bother(self, moody: str, what: list[str]) -> None:
        for each in what:
            self.tell(self.actor(Moody, moody).book, each)

    async def buy_and_save(self, ledger: str, first: str, second: str) -> None:
        self.tell(self.actor(Ledger, ledger).book, first)
        await self.save()
        self.tell(self.actor(Ledger, ledger).book, second)
        raise ValueError("after the save")

    async def buy_later(self, ledger: str, what: str, seconds: float) -> None:
        ref = durum.options(self.actor(Ledger, ledger), delay=timedelta(seconds=seconds))
        self.tell(ref.book, what)

    async def buy_at(self, ledger: str, what: str, at: datetime) -> None:
        self.tell(durum.options(self.actor(Ledger, ledger), at=at).book, what)

    async def buy_inside(self, ledger: str, outer: str, inner: str) -> None:
        self.tell(self.actor(Ledger, ledger).book, outer)
        await self.actor(Customer, self.key).buy(ledger, [inner])
        raise ValueError("after the call")

    async def remember(self, times: int) -> None:
        """Tells itself, by its own method."""
        self.sent += 1
        if times > 1:
            self.tell(self.remember, times - 1)

    async def ask(self, ledger: str) -> None:
        with durum.baggage.scope(tenant="acme"):
            self.tell(self.actor(Ledger, ledger).who)

    async def misuse(self, how: str) -> None:
        ref = self.actor(Ledger, "l")
        self.sent += 1
        if how == "coroutine":
            self.tell(ref.book("x"))  # type: ignore[arg-type]
        elif how == "read_only":
            self.tell(ref.get)
        elif how == "function":
            self.tell(asyncio.sleep, 1.0)
        elif how == "worker":
            self.tell(self.actor(Worker, "w").work)
        elif how == "key":
            self.tell(durum.options(ref, idempotency_key="k").book, "x")
        elif how == "timeout":
            self.tell(durum.options(ref, timeout=5).book, "x")
        elif how == "arguments":
            self.tell(ref.book, 7)  # type: ignore[arg-type]
        elif how == "missing":
            self.tell(ref.book)  # type: ignore[call-arg]
        elif how == "large":
            self.tell(ref.book, "x" * 4_188_000)
        elif how == "past":
            self.tell(
                durum.options(ref, at=datetime.fromisoformat("2001-01-01T00:00+01:00")).book, "x"
            )
        elif how == "call":
            await durum.options(ref, delay=1).book("x")

    @read_only
    async def look(self, ledger: str) -> None:
        self.tell(self.actor(Ledger, ledger).book, "x")

    @read_only
    async def get(self) -> int:
        return self.sent


class Plain(Actor):
    """Has no durable fields, and is told and tells all the same."""

    _heard: list[str]

    async def on_activate(self) -> None:
        self._heard = []

    async def hear(self, what: str) -> None:
        self._heard.append(what)
        self.tell(self.actor(Ledger, "from plain").book, what)

    async def fail(self) -> None:
        raise ValueError("no")

    async def get(self) -> list[str]:
        return self._heard


class Free(Actor, reentrant=True):
    """Turns of it interleave; fields are committed by save() only."""

    count: int = 0

    async def add(self, ledger: str, *, save: bool) -> None:
        self.count += 1
        self.tell(self.actor(Ledger, ledger).book, f"{self.count}")
        if save:
            await self.save()

    @read_only
    async def get(self) -> int:
        return self.count


class Worker(Actor, placement=StatelessWorker()):
    async def work(self) -> None: ...

    async def tell_others(self) -> None:
        self.tell(self.actor(Ledger, "l").book, "x")


KINDS = [Ledger, Moody, Customer, Plain, Free, Worker]


async def outbox(house: House, grain: str) -> list[str]:
    """What the outbox of a grain's partition has in the store: receiver and method."""
    inside = house.store.inside
    partition = partition_of(GrainId(grain), SMALL.partitions)
    genesis = await inside.genesis()
    assert genesis is not None
    token = (await inside.owners(genesis.mark))[partition].token
    rows = await inside.posted(partition, token, 0, 1000)
    return [f"{row.receiver}.{wire.decode_row(row.row).method}" for row in rows]


async def letters(house: House) -> list[wire.Letter]:
    """All dead letters in the store."""
    inside = house.store.inside
    return [
        wire.decode_letter(content)
        for partition in range(SMALL.partitions)
        for _, content in await inside.letters(partition, b"", 1000)
    ]
