"""What a type checker tells users of the other ways in: without async, in tests, behind FastAPI.

Checked by mypy and pyright, never run; see api.py on comments that ignore.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import assert_type

import durum
import durum.sync
from durum import Actor, Publishes, read_only
from durum.testing import CALM, CrashPoint, TestCluster, simulate
from durum.web.fastapi import Cluster, Durum, IdempotencyKey


class Account(Actor):
    balance: Decimal = Decimal(0)

    async def deposit(self, amount: Decimal, *, note: str = "") -> Decimal:
        self.balance += amount
        return self.balance

    async def close(self) -> None: ...

    @read_only
    async def get_balance(self) -> Decimal:
        return self.balance


class Log(Actor):
    async def read(self, after: int) -> AsyncIterator[str]:
        yield str(after)


def go_through(cluster: durum.sync.Cluster) -> None:
    log = cluster.actor(Log, "main")
    for line in cluster.stream(log.read, 1):
        assert_type(line, str)
    with cluster.stream(log.read, after=1) as lines:
        assert_type(next(lines), str)
    cluster.stream(log.read, "one")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


class Board(Actor, Publishes[int | str]):
    pass


def follow(cluster: durum.sync.Cluster) -> None:
    with cluster.watch(cluster.actor(Board, "a")) as events:
        assert_type(events.get(timeout=1), int | str | durum.Gap)
        for event in events:
            assert_type(event, int | str | durum.Gap)


def script() -> None:
    with durum.sync.connect("127.0.0.1:7600", routing="gateway") as cluster:
        alice = cluster.actor(Account, "alice")
        assert_type(alice, Account)
        assert_type(cluster.call(alice.deposit, Decimal(10)), Decimal)
        assert_type(cluster.call(alice.deposit, amount=Decimal(10), note="rent"), Decimal)
        assert_type(cluster.call(alice.get_balance), Decimal)
        cluster.call(alice.close)
        assert_type(cluster.call(durum.options(alice, timeout=5).deposit, Decimal(1)), Decimal)
        assert_type(cluster.gather([alice.deposit(Decimal(1)), alice.get_balance()]), list[Decimal])
        assert_type(
            cluster.gather([alice.deposit(Decimal(1))], return_exceptions=True),
            list[Decimal | Exception],
        )
        names = ["ann", "bob"]
        assert_type(
            cluster.map(lambda name: cluster.actor(Account, name).get_balance(), names),
            Iterator[Decimal],
        )

        async def many() -> int:
            return 7

        assert_type(cluster.call(many), int)

        cluster.tell(alice.deposit, Decimal(10), note="rent")
        cluster.tell(durum.options(alice, idempotency_key="k").deposit, Decimal(10))
        cluster.tell(alice.deposit, "10")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        cluster.call(alice.deposit, "10")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        cluster.call(alice.deposit)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        cluster.call(alice.deposit, Decimal(1), timeout=5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        cluster.call(alice.depositt, Decimal(1))  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
        wrong: str = cluster.call(alice.get_balance)  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
        print(wrong)


def only_durum_imported() -> None:
    assert_type(durum.sync.connect("127.0.0.1:7600"), durum.sync.Cluster)
    durum.sync.connect("127.0.0.1:7600", routing="gatewya")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def tests() -> None:
    async with TestCluster([Account], silos=3, virtual=True, config=CALM) as cluster:
        alice = cluster.actor(Account, "alice")
        assert_type(await alice.deposit(Decimal(1)), Decimal)
        await cluster.kill(cluster.owner(alice))
        cluster.partition([0], [1, "client"])
        point = cluster.crash(1, "after", "commit", nth=2)
        assert_type(point, CrashPoint)
        await cluster.skip(hours=3)
        assert_type(cluster.statistics().committed, int)
        cluster.crash(1, "at", "commit")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    async def main() -> int:
        return 7

    assert_type(simulate(main(), 1), int)


async def route(cluster: Cluster, key: IdempotencyKey = None) -> Decimal:
    assert_type(cluster, durum.Cluster)
    return await durum.options(cluster.actor(Account, "a"), idempotency_key=key).deposit(Decimal(1))


def web() -> None:
    Durum("redis://localhost")
    Durum(lambda: durum.Silo([Account]))
    Durum(7)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
