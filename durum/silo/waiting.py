"""Calls that wait until it is known where they go. Owns them meanwhile: they count, can be cancelled, and
end at their deadline; what they wait for is another's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from durum import errors
from durum.errors import DidRun
from durum.silo.services import Services
from durum.silo.turn import Sink
from durum.wire.messages import Call

T = TypeVar("T")


class Refuse(Protocol):
    """Refuses a call that is no turn yet."""

    def __call__(self, sink: Sink, call: Call, error: errors.CallError, /) -> None: ...


class Waiting:
    """The calls of one silo that wait for their way.

    Args:
        services: the silo's.
        refuse: see Refuse.
    """

    def __init__(self, services: Services, refuse: Refuse) -> None:
        self._services = services
        self._refuse = refuse
        self._calls: dict[tuple[int, int], tuple[asyncio.Task[object], int]] = {}

    def hold(
        self,
        sink: Sink,
        call: Call,
        *,
        until: Callable[[], Coroutine[Any, Any, T]],
        then: Callable[[Sink, Call, T], None],
        late: str,
    ) -> None:
        """Let a call wait.

        Args:
            sink: where its answer goes.
            call: which.
            until: what it waits for; a CallError that it raises is the call's answer.
            then: called with what came of it, in time; the call has the rest of its time left.
            late: why it did not come to that, in words.
        """
        mark = (id(sink), call.id)
        if mark in self._calls:
            again = f"{call.grain}: another call of this connection has the id {call.id}; it did not run."
            return self._refuse(sink, call, errors.Rejected(again))
        load, size = self._services.load, len(call.args)
        load.calls += 1
        load.bytes += size
        task = self._services.tasks.start(
            self._wait(sink, call, until, then, late),
            f"hold {call.grain}",
            self._services.base.copy(),
        )
        self._calls[mark] = (task, size)
        return None

    def cancel(self, sink: Sink, number: int) -> bool:
        """A caller no longer waits. False where the call is none of these."""
        if (id(sink), number) not in self._calls:
            return False
        self._release((id(sink), number)).cancel()
        return True

    def lost(self, gone: Mapping[int, Sink]) -> None:
        """Drop the calls of those who are gone, by their identities."""
        for mark in [mark for mark in self._calls if mark[0] in gone]:
            self._release(mark).cancel()

    def _release(self, mark: tuple[int, int]) -> asyncio.Task[object]:
        task, size = self._calls.pop(mark)
        self._services.load.calls -= 1
        self._services.load.bytes -= size
        return task

    async def _wait(
        self,
        sink: Sink,
        call: Call,
        until: Callable[[], Coroutine[Any, Any, T]],
        then: Callable[[Sink, Call, T], None],
        late: str,
    ) -> None:
        clock = self._services.clock
        since = clock.boottime()
        error: errors.CallError | None = None
        found: list[T] = []
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                found.append(await until())
        except TimeoutError:
            error = errors.CallTimeout(f"{call.grain}: {late}; the call did not run.", DidRun.NO)
        except errors.CallError as exc:
            error = exc
        self._release((id(sink), call.id))
        call.timeout_ms -= int((clock.boottime() - since) * 1000)
        if error is None and call.timeout_ms <= 0:
            error = errors.CallTimeout(f"{call.grain}: {late}; the call did not run.", DidRun.NO)
        if error is not None:
            self._refuse(sink, call, error)
        else:
            then(sink, call, found[0])

    def __len__(self) -> int:
        return len(self._calls)

    def __repr__(self) -> str:
        return f"<Waiting {len(self)}>"
