"""The yardstick with what any actor system pays for besides. Owns that prototype; knows nothing of Durum.

Arguments and results are bytes that only the ends read, by the types that a method declares; each call has
a deadline, a copy of the context, and a place in its actor's mailbox. Still there is no routing, no
membership, no lease, no counting, and no error but a bug.

    python -m bench.yardstick_rich serve       serves
    python -m bench.yardstick_rich play PORT   calls, as told on standard input
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

import msgspec

from bench import load
from bench.yardstick import Link

_TIMEOUT_MS: Final = 30_000
_encode = msgspec.msgpack.Encoder().encode


class Request(msgspec.Struct, array_like=True, gc=False):
    """Please run a method."""

    id: int
    kind: str
    key: str
    method: str
    args: bytes
    timeout_ms: int


class Answer(msgspec.Struct, array_like=True, gc=False):
    """What it returned, or what went wrong."""

    id: int
    result: bytes
    error: str = ""


class Turn(msgspec.Struct):
    """A call at its actor."""

    request: Request
    method: Method
    server: Server
    deadline: float


CURRENT: ContextVar[Turn | None] = ContextVar("yardstick_turn", default=None)


class Method:
    """One method, with readers and writers of its declared types."""

    __slots__ = ("function", "read")

    def __init__(self, function: Callable[..., Coroutine[Any, Any, int]], args: Any) -> None:
        self.function = function
        self.read = msgspec.msgpack.Decoder(args).decode


class Counter:
    """An actor with a mailbox."""

    __slots__ = ("key", "mailbox", "running", "total")

    def __init__(self, key: str) -> None:
        self.key = key
        self.total = 0
        self.running: Turn | None = None
        self.mailbox: deque[Turn] = deque()

    async def add(self, amount: int) -> int:
        self.total += amount
        return self.total


_actors: Final[dict[tuple[str, str], Counter]] = {}
_methods: Final = {("Counter", "add"): Method(Counter.add, tuple[int])}


class Server(Link[Request, Answer]):
    """The called side."""

    def __init__(self, base: Context) -> None:
        super().__init__(Request)
        self._fork = base.copy

    def take(self, batch: list[Request]) -> None:
        now = time.monotonic()
        for request in batch:
            actor = _actors.get((request.kind, request.key))
            if actor is None:
                actor = _actors[request.kind, request.key] = Counter(request.key)
            method = _methods[request.kind, request.method]
            turn = Turn(request, method, self, now + request.timeout_ms / 1000)
            if actor.running is not None or actor.mailbox:
                actor.mailbox.append(turn)
                continue
            self._run(actor, turn, now)

    def read_ended(self) -> None:
        self.flush()

    def _run(self, actor: Counter, turn: Turn, now: float) -> None:
        actor.running = turn
        request, method = turn.request, turn.method
        if now >= turn.deadline:
            self._end(actor, Answer(request.id, b"", "too late"))
            return
        context = self._fork()
        context.run(CURRENT.set, turn)
        try:
            step = method.function(actor, *method.read(request.args))
            context.run(step.send, None)
        except StopIteration as stop:
            if type(stop.value) is not int:
                raise TypeError(stop.value) from None
            self._end(actor, Answer(request.id, _encode(stop.value)))
        except Exception as exc:
            self._end(actor, Answer(request.id, b"", repr(exc)))
        else:
            raise NotImplementedError("no method here waits")

    def _end(self, actor: Counter, answer: Answer) -> None:
        self.out.append(answer)
        actor.running = None
        if actor.mailbox:
            following = actor.mailbox.popleft()
            following.server._run(actor, following, time.monotonic())


class Player(Link[Answer, Request]):
    """The calling side."""

    def __init__(self) -> None:
        super().__init__(Answer)
        self._last = 0
        self._scheduled = False
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._loop = asyncio.get_running_loop()
        self._read = msgspec.msgpack.Decoder(int).decode

    async def call(self, kind: str, key: str, method: str, *args: int) -> int:
        """Call an actor's method."""
        self._last = number = self._last + 1
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._pending[number] = future
        self.out.append(Request(number, kind, key, method, _encode(args), _TIMEOUT_MS))
        if not self._scheduled:
            if len(self._pending) == 1:
                self.flush()
            else:
                self._scheduled = True
                self._loop.call_soon(self._flush_round)
        try:
            answer = await future
        except asyncio.CancelledError:
            self._pending.pop(number, None)
            raise
        if answer.error:
            raise RuntimeError(answer.error)
        return self._read(answer.result)

    def _flush_round(self) -> None:
        self._scheduled = False
        self.flush()

    def take(self, batch: list[Answer]) -> None:
        pending = self._pending
        for answer in batch:
            future = pending.pop(answer.id, None)
            if future is not None and not future.done():
                future.set_result(answer)

    def read_ended(self) -> None:
        pass  # as in the bare yardstick


async def serve() -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    base = copy_context()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    server = await loop.create_server(lambda: Server(base), "127.0.0.1", 0)
    load.say({"port": server.sockets[0].getsockname()[1]})
    await asyncio.Event().wait()


async def play(port: int) -> None:
    """Make calls as told."""
    loop = asyncio.get_running_loop()
    _, player = await loop.create_connection(Player, "127.0.0.1", port)
    await load.obey(lambda key: player.call("Counter", key, "add", 1))


if __name__ == "__main__":
    load.run(serve() if sys.argv[1] == "serve" else play(int(sys.argv[2])))
