"""Carries calls for clients that cannot reach every silo. Owns what it has on its hands for them; decides
nothing about calls: the silo's own router brings them to their owners.

Only what a client asked for is passed on, never what another silo sent, so that no call can go in circles.
"""

from __future__ import annotations

import asyncio

from durum import errors
from durum.client.router import Router
from durum.config import Limits
from durum.ids import SiloId
from durum.silo.observers import WINDOW_LIMIT
from durum.silo.turn import Sink, refuse
from durum.tasks import TaskOwner
from durum.wire.messages import Call, Credit, Item, Open


class Relay:
    """Calls on their way to another silo, and their answers on the way back.

    Args:
        silo: this silo, for messages.
        router: brings them to their owners.
        tasks: owner of the tasks that wait for answers.
        limits: silo_calls and silo_bytes bound what is carried at once, beside the silo's own calls.
    """

    def __init__(self, silo: SiloId, router: Router, tasks: TaskOwner, limits: Limits) -> None:
        self._silo = silo
        self._router = router
        self._tasks = tasks
        self._limits = limits
        self._carried: dict[tuple[int, int], asyncio.Task[object]] = {}
        self._credits: dict[tuple[int, int], asyncio.Semaphore] = {}
        self._bytes = 0

    def take(self, connection: Sink, call: Call | Open, *, astray: bool = False) -> bool:
        """Carry a client's call, unless it belongs to this silo itself.

        Args:
            connection: the client's.
            call: as it came; answered once, now or later.
            astray: its grain may be elsewhere although its partition is here.

        Returns:
            False where the call has to be served here.
        """
        if self._router.leads_here(call.grain) and not astray:
            return False
        limits = self._limits
        if len(self._carried) >= limits.silo_calls or self._bytes > limits.silo_bytes:
            refuse(
                connection,
                call.id,
                errors.Overloaded(
                    f"{self._silo} passes on {len(self._carried)} calls with {self._bytes} bytes (limits"
                    f" {limits.silo_calls}, {limits.silo_bytes}); the call did not run. Slow down, give"
                    " the client more silos' addresses, or raise silo_calls or silo_bytes."
                ),
            )
            return True
        if (id(connection), call.id) in self._carried:
            text = f"{call.grain}: the connection has a call of this number under way; the call did not run."
            refuse(connection, call.id, errors.Rejected(text))
            return True
        self._bytes += len(call.args)
        carrying = (
            self._carry_stream(connection, call)
            if isinstance(call, Open)
            else self._carry(connection, call)
        )
        task = self._tasks.start(carrying, f"relay {call.grain}")
        self._carried[id(connection), call.id] = task
        task.add_done_callback(lambda _: self._over(connection, call))
        return True

    def cancel(self, connection: Sink, call_id: int) -> bool:
        """The client no longer waits. False where the call is none of these."""
        task = self._carried.get((id(connection), call_id))
        if task is None:
            return False
        task.cancel()  # the router sends the cancellation on
        return True

    async def _carry(self, connection: Sink, call: Call) -> None:
        try:
            answer = await self._router.relay(call)
        except errors.CallError as exc:
            refuse(connection, call.id, exc)
        else:
            answer.id = call.id
            connection.send(answer)

    def credit(self, connection: Sink, message: Credit) -> bool:
        """The client has room for more items. False where the stream is none of these."""
        credit = self._credits.get((id(connection), message.id))
        if credit is None:
            return False
        for _ in range(min(message.items, WINDOW_LIMIT)):
            credit.release()
        return True

    def lost(self, connection: Sink) -> None:
        """A client is gone, and nobody waits for its calls and streams any more."""
        for mark in [mark for mark in self._carried if mark[0] == id(connection)]:
            self._carried[mark].cancel()  # the router sends the cancellation on

    async def _carry_stream(self, connection: Sink, message: Open) -> None:
        mark = (id(connection), message.id)
        credit = self._credits[mark] = asyncio.Semaphore(max(1, min(message.window, WINDOW_LIMIT)))
        incoming = self._router.relay_stream(message)
        try:
            while True:
                await credit.acquire()
                outcome = await incoming.take()
                if not isinstance(outcome, bytes):
                    break
                connection.send(Item(message.id, outcome))
        except errors.CallError as exc:
            refuse(connection, message.id, exc)
        else:
            outcome.id = message.id
            connection.send(outcome)
        finally:
            incoming.close()
            del self._credits[mark]

    def _over(self, connection: Sink, call: Call | Open) -> None:
        self._bytes -= len(call.args)
        del self._carried[id(connection), call.id]

    def __repr__(self) -> str:
        return f"<Relay {self._silo} calls={len(self._carried)} bytes={self._bytes}>"
