"""Steady calls to counters while faults fall, and whether they add up in the end.

Owns who calls and the record of it; the arithmetic is durum.testing's. About 100 calls a second, so that
pauses come from the fault and not from the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable
from typing import Final

import durum
from durum import errors
from durum.client.client import Cluster
from durum.errors import DidRun
from durum.testing.history import History
from durum.testing.ledgers import check_counter
from tests.support.grains import Counter

CALLERS: Final = 5
PAUSE_S: Final = 0.04
TIMEOUT_S: Final = 25.0


class Load:
    """Callers of counters.

    Args:
        cluster: whom to call through.
        keyed: give each call an idempotency key, and repeat it under that key until it is answered.
        keys: how many counters.
        kind: which counters.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        keyed: bool = False,
        keys: int = 36,
        kind: type[Counter] = Counter,
    ) -> None:
        self.cluster = cluster
        self.kind = kind
        self.keyed = keyed
        name = "keyed" if keyed else "plain"
        self.keys = [f"{name}-{number}" for number in range(keys)]
        self.history = History()
        self.failures: list[errors.CallError] = []
        self.answered = 0
        self._numbers = itertools.count()
        self._over = False

    def counter(self, key: str) -> Counter:
        return durum.options(self.cluster.actor(self.kind, key), timeout=TIMEOUT_S)

    async def call(self, caller: int) -> None:
        """Call until told to stop. An untyped error ends the test."""
        for number in itertools.count(caller * 7):
            if self._over:
                return
            key = self.keys[number * 5 % len(self.keys)]
            with contextlib.suppress(errors.CallError):
                await self._one(key, f"caller {caller}", reads=number % 4 == 3)
                self.answered += 1
            await asyncio.sleep(PAUSE_S)

    async def _one(self, key: str, client: str, *, reads: bool) -> None:
        counter = self.counter(key)
        if reads:
            name = "read"
            call = read(counter) if self.keyed else self._noting(counter.get())
        else:
            name = "add"
            call = self._repeated(counter) if self.keyed else self._noting(counter.add(1))
        await self.history.call(key, name, None, call, client=client)

    async def _noting(self, call: Awaitable[int]) -> int:
        try:
            return await call
        except errors.CallError as exc:
            self.failures.append(exc)
            raise

    async def _repeated(self, counter: Counter) -> int:
        keyed = durum.options(counter, idempotency_key=f"add {next(self._numbers)}")
        while True:
            with contextlib.suppress(errors.CallError):
                return await self._noting(keyed.add(1))

    def stop(self) -> None:
        """Let each caller end with the call that it makes now."""
        self._over = True

    async def passes(self, calls: int) -> None:
        """Wait until so many more calls have been answered."""
        goal = self.answered + calls
        async with asyncio.timeout(TIMEOUT_S):
            while self.answered < goal:
                await asyncio.sleep(0.01)

    async def all_answer(self) -> None:
        """Read every counter: it is served."""
        await asyncio.gather(*(read(self.counter(key)) for key in self.keys))

    def only_typed(self) -> None:
        """What callers were told: that it did not run, that it kept nothing, or that nobody knows."""
        kinds = {type(failure) for failure in self.failures}
        assert kinds <= {errors.CallTimeout, errors.CommitFailed, errors.SiloLost}, kinds
        assert DidRun.YES not in {failure.did_run for failure in self.failures}

    async def check(self) -> None:
        """Compare what was answered with what is there.

        Keyed calls are exact: all of them were answered in the end, so each counts once.
        """
        by_key = self.history.by_key()
        finals = await asyncio.gather(*(self.counter(key).get() for key in by_key))
        assert by_key
        for (key, operations), final in zip(by_key.items(), finals, strict=True):
            assert check_counter(operations, final) == [], (key, final)
            if self.keyed:
                assert all(operation.known for operation in operations if operation.name == "add")


async def read(counter: Counter) -> int:
    """Read a counter, again where the connection broke meanwhile: a reading harms nobody."""
    while True:
        with contextlib.suppress(errors.SiloLost):
            return await counter.get()


@contextlib.asynccontextmanager
async def load(
    cluster: Cluster, *, keyed: bool = False, kind: type[Counter] = Counter
) -> AsyncIterator[Load]:
    """Have counters called while the block runs; check them after it."""
    calls = Load(cluster, keyed=keyed, kind=kind)
    async with asyncio.TaskGroup() as callers:
        for number in range(CALLERS):
            callers.create_task(calls.call(number), name=f"caller {number}")
        await calls.passes(30)
        yield calls
        await calls.passes(30)
        calls.stop()
    await calls.check()
