"""What a type checker tells users of Durum. Checked by mypy and pyright, never run.

A line with ignore comments is a mistake that both must flag: both also flag a comment that ignores
nothing, so that a mistake which goes unnoticed fails the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, assert_type, reveal_type

import durum
from durum import Actor, Cluster, Opaque, Publishes, Timer, field, options, read_only


class Shelf(Actor, pickle=True):
    last: Opaque[Fraction | None] = None

    async def swap(self, measure: Callable[[str], int], new: Opaque[Fraction]) -> Fraction | None:
        last, self.last = self.last, new
        assert_type(self.last, Fraction)
        return last


class Account(Actor, idle_after=timedelta(minutes=5), version=2):
    balance: Decimal = Decimal(0)
    history: list[str] = field(default_factory=list)
    _cached: int = 0

    async def deposit(self, amount: Decimal, *, note: str = "") -> Decimal:
        self.balance += amount
        self.history.append(note)
        return self.balance

    async def close(self) -> None:
        await self.save()
        self.deactivate()

    @read_only
    async def get_balance(self) -> Decimal:
        return self.balance

    async def on_activate(self) -> None:
        assert_type(self.key, str)
        assert_type(self.context.request, str)


class Warehouse(Actor):
    stock: durum.Map[str, Decimal] = durum.Map()
    orders: durum.Map[tuple[str, int], list[str]] = durum.Map()
    log: durum.List[timedelta] = durum.List()

    async def look(self) -> None:
        assert_type(self.stock, durum.Map[str, Decimal])
        assert_type(await self.stock.get("pear"), Decimal | None)
        assert_type(await self.stock.get("pear", 0), Decimal | int)
        assert_type(await self.stock.get_many(["pear"]), dict[str, Decimal])
        assert_type(await self.stock.contains("pear"), bool)
        assert_type(await self.stock.pop("pear"), Decimal)
        assert_type(await self.stock.pop("pear", None), Decimal | None)
        assert_type(await self.stock.count(), int)
        assert_type(len(self.stock), int)
        async for name, amount in self.stock.items(prefix="p", after="pa", limit=10):
            assert_type(name, str)
            assert_type(amount, Decimal)
        async for key, names in self.orders.items(prefix=("ann",)):
            assert_type(key, tuple[str, int])
            assert_type(names, list[str])
        assert_type(await self.log.get(-1), timedelta)
        assert_type(await self.log.slice(0, 5), list[timedelta])
        async for each in self.log:
            assert_type(each, timedelta)

    async def change(self) -> None:
        self.stock["pear"] = Decimal(1)
        self.stock.set("pear", Decimal(2))
        self.stock.update({"plum": Decimal(3)})
        del self.stock["pear"]
        self.stock.discard("pear")
        self.stock.clear()
        self.log.append(timedelta(seconds=1))
        self.log.extend([timedelta(seconds=1)])
        self.log.set(0, timedelta(seconds=2))
        self.log[-1] = timedelta(seconds=2)
        self.log.truncate_front(1)

    async def wrong(self) -> None:
        self.stock["pear"] = "1"  # type: ignore[assignment] # pyright: ignore[reportArgumentType]
        self.stock[7] = Decimal(1)  # type: ignore[index] # pyright: ignore[reportArgumentType]
        self.stock["pear"]  # type: ignore[index] # pyright: ignore[reportIndexIssue]
        print("pear" in self.stock)  # type: ignore[operator] # pyright: ignore[reportOperatorIssue]
        self.log.append("1 s")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        print(await self.stock.get("pear") + 1)  # type: ignore[operator] # pyright: ignore[reportOptionalOperand]
        self.stock.get("pear")  # type: ignore[unused-coroutine] # pyright: ignore[reportUnusedCoroutine]
        self.stock = {}  # type: ignore[assignment] # pyright: ignore[reportAttributeAccessIssue]


class Shelved(Actor):
    items: durum.Map[str, int] = durum.List()  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]


class Teller(Actor):
    moved: int = 0

    async def move(self, source: str, target: str, amount: Decimal) -> Decimal:
        other = self.actor(Account, source)
        assert_type(other, Account)
        await other.deposit(-amount)
        return assert_type(await self.actor(Account, target).deposit(amount), Decimal)


class Customer(Actor):
    async def buy(self, amount: Decimal) -> None:
        account = self.actor(Account, "shop")
        self.tell(account.deposit, amount)
        self.tell(account.deposit, amount=amount, note="rent")
        self.tell(durum.options(account, delay=timedelta(hours=1)).deposit, amount)
        self.tell(self.buy, amount)
        self.tell(account.deposit)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        self.tell(account.deposit, "10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.tell(account.deposit, amount, delay=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        self.tell(account.deposit(amount))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


class Ticker(Actor):
    async def begin(self) -> None:
        assert_type(self.set_timer(self._tick, 1, "a", due=1.5, every=timedelta(seconds=2)), Timer)
        self.set_timer(self._tick, 1, "a", every=3, name="tick", keep_alive=True).cancel()
        self.set_timer(self._tick, "1", "a", due=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.set_timer(self._tick, 1, due=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    async def _tick(self, number: int, text: str) -> None: ...


class Views(Actor):
    @durum.one_way
    async def seen(self, path: str) -> None: ...

    @durum.one_way  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    async def ask(self) -> int:
        return 1


async def send(views: Views) -> None:
    coroutine: Coroutine[Any, Any, None] = views.seen("/")
    await coroutine
    await views.seen(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Journal(Actor):
    async def read(self, start: int) -> AsyncIterator[str]:
        yield "a"


async def read(journal: Journal) -> None:
    async for line in journal.read(1):
        assert_type(line, str)
    async for _ in journal.read("1"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        pass
    await journal.read(1)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


class Board(Actor, Publishes[Decimal | str]):
    async def move(self) -> None:
        self.publish(Decimal(1))
        self.publish("a")
        self.publish(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Score(Actor):
    async def begin(self) -> None:
        assert_type(durum.follow(self.actor(Board, "a"), self._on_event, keep_alive=True), Timer)
        durum.follow(self.actor(Board, "a"), self._on_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        async with durum.watch(self.actor(Board, "a")) as events:
            assert_type(events, durum.Watch[Decimal | str])

    async def _on_event(self, event: Decimal | str | durum.Gap) -> None: ...

    async def _on_text(self, event: str) -> None: ...


async def watch(cluster: Cluster, account: Account) -> None:
    async with cluster.watch(cluster.actor(Board, "a")) as events:
        async for event in events:
            assert_type(event, Decimal | str | durum.Gap)
            if isinstance(event, durum.Gap):
                assert_type(event.missed, int | None)
    cluster.watch(account)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Resize(Actor, placement=durum.StatelessWorker(max_local=2)):
    async def work(self, data: bytes) -> bytes:
        return data


class Cart(Actor, placement=durum.PreferLocal()):
    items: list[str] = []


class Crawler(Actor, placement=durum.Random()): ...


class Match(Actor, placement=durum.LeastLoaded()): ...


class Train(Actor, placement=durum.OnSilos(role="gpu")): ...


class Role(Actor, placement=durum.OnSilos(3)): ...  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


class Savings(Account, kind="savings"):
    async def interest(self, percent: float) -> None: ...


async def right(cluster: Cluster) -> None:
    alice = cluster.actor(Account, "alice")
    assert_type(alice, Account)
    assert_type(await alice.deposit(Decimal(10)), Decimal)
    assert_type(await alice.deposit(amount=Decimal(10), note="rent"), Decimal)
    assert_type(await alice.get_balance(), Decimal)
    assert_type(await alice.close(), None)
    coroutine: Coroutine[Any, Any, Decimal] = alice.deposit(Decimal(10))
    assert_type(await coroutine, Decimal)

    once = options(alice, timeout=2.5, idempotency_key="order-7")
    assert_type(once, Account)
    assert_type(await once.deposit(Decimal(10)), Decimal)
    assert_type(await durum.options(alice, timeout=timedelta(seconds=2)).get_balance(), Decimal)

    saver = cluster.actor(Savings, "bob")
    assert_type(await saver.deposit(Decimal(1)), Decimal)
    await saver.interest(2)
    reveal_type(alice.deposit)
    reveal_type(saver.deposit)


async def connected() -> None:
    async with durum.connect("127.0.0.1:7600") as cluster:
        assert_type(cluster.actor(Account, "alice"), Account)


async def wrong(cluster: Cluster) -> None:
    alice = cluster.actor(Account, "alice")
    shelf = cluster.actor(Shelf, "a")
    assert_type(await shelf.swap(len, Fraction(1)), Fraction | None)
    await shelf.swap(len, 1.5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await alice.deposit("10")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await alice.deposit()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await alice.deposit(Decimal(1), "x")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await alice.deposit(Decimal(1), tip=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await alice.depositt(Decimal(1))  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    balance: Decimal = alice.get_balance()  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    print(balance)
    alice.deposit(Decimal(1))  # type: ignore[unused-coroutine] # pyright: ignore[reportUnusedCoroutine]
    print(alice.get_balance() + 1)  # type: ignore[operator] # pyright: ignore[reportOperatorIssue]
    cluster.actor(Account)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    cluster.actor(Account, 7)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    cluster.actor("Account", "alice")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    options(alice, timeout="2")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    options(alice, retries=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await options(alice, timeout=1).depositt()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


class Misspelt(Actor, knid="account"):  # type: ignore[call-arg] # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
    size: int = "large"  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    items: list[int] = field(default_factory=str)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
