"""The least an actor call can cost in Python. Owns a bare prototype of the wire; knows nothing of Durum's.

Two uvloop processes, one TCP connection. A frame is its length and one msgpack array of messages;
what one read produced leaves when the read ends, a lone request leaves at once. An actor is a dict
entry; its method's coroutine is stepped by hand and needs no Task. There is no routing, no deadline,
no membership, no error but a bug: what Durum costs beyond this is what its promises cost.

    python -m bench.yardstick serve [REDIS_PORT]     serves; with a port, each call is a fenced write
    python -m bench.yardstick play PORT [durable]    calls, as told on standard input

The fenced write runs Durum's own commit script, with the same keys and arguments that its store sends.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from struct import Struct
from typing import Any, Final, Generic, TypeVar, cast

import hiredis
import msgspec

from bench import load
from durum.store.redis_keys import Keys
from durum.store.redis_line import Command, pack
from durum.store.redis_scripts import Script, read_scripts

PARTITIONS: Final = 1024
TOKEN: Final = b"yardstick-token!"
CLUSTER: Final = "yardstick"
_ROOM_BYTES: Final = 1 << 18
_LENGTH: Final = Struct("<I")
_encode = msgspec.msgpack.Encoder().encode


class Request(msgspec.Struct, array_like=True, gc=False):
    """Please run a method."""

    id: int
    kind: str
    key: str
    method: str
    args: list[int]


class Answer(msgspec.Struct, array_like=True, gc=False):
    """What it returned, or what went wrong."""

    id: int
    result: int | None
    error: str | None = None


class CounterState(msgspec.Struct, tag_field="", tag=1, gc=False):
    """A durable counter's state, byte for byte as Durum stores it."""

    total: int


In = TypeVar("In")
Out = TypeVar("Out")


class Link(asyncio.BufferedProtocol, Generic[In, Out]):
    """Frames in and out. A subclass takes each frame's messages."""

    def __init__(self, incoming: type[In]) -> None:
        self.out: list[Out] = []
        self._decode: Callable[[memoryview], list[In]] = msgspec.msgpack.Decoder(
            list[incoming]  # type: ignore[valid-type]
        ).decode
        self._room = memoryview(bytearray(_ROOM_BYTES))
        self._filled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast("asyncio.Transport", transport).write

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        if self._filled == len(self._room):
            larger = memoryview(bytearray(2 * self._filled))
            larger[: self._filled] = self._room
            self._room = larger
        return self._room[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        room, end, at = self._room, self._filled + nbytes, 0
        while end - at >= 4:
            stop = at + 4 + _LENGTH.unpack_from(room, at)[0]
            if stop > end:
                break
            self.take(self._decode(room[at + 4 : stop]))
            at = stop
        if at and at < end:
            room[: end - at] = bytes(room[at:end])
        self._filled = end - at
        self.read_ended()

    def flush(self) -> None:
        """Send everything as one frame."""
        if self.out:
            payload = _encode(self.out)
            self.out.clear()
            self.write(_LENGTH.pack(len(payload)) + payload)

    def take(self, batch: list[In]) -> None:
        """Handle a frame's messages."""
        raise NotImplementedError

    def read_ended(self) -> None:
        """All whole frames of one read were taken."""
        raise NotImplementedError


class Player(Link[Answer, Request]):
    """The calling side."""

    def __init__(self) -> None:
        super().__init__(Answer)
        self._last = 0
        self._reading = self._scheduled = False
        self._pending: dict[int, asyncio.Future[int | None]] = {}
        self._loop = asyncio.get_running_loop()

    def call(self, kind: str, key: str, method: str, args: list[int]) -> asyncio.Future[int | None]:
        """Call an actor's method; the future gets the result."""
        self._last = number = self._last + 1
        self._pending[number] = future = self._loop.create_future()
        self.out.append(Request(number, kind, key, method, args))
        if not self._scheduled:
            if len(self._pending) == 1:
                self.flush()
            else:
                self._scheduled = True
                self._loop.call_soon(self._flush_round)
        return future

    def _flush_round(self) -> None:
        self._scheduled = False
        self.flush()

    def take(self, batch: list[Answer]) -> None:
        pending = self._pending
        for answer in batch:
            future = pending.pop(answer.id)
            if answer.error is None:
                future.set_result(answer.result)
            else:
                future.set_exception(RuntimeError(answer.error))

    def read_ended(self) -> None:
        pass  # who waited goes on in the loop's next round, and its calls leave after that


class Counter:
    """An actor."""

    __slots__ = ("busy", "key", "prefix", "total", "version", "waiting")

    save: Callable[[Counter], Awaitable[None]]

    def __init__(self, key: str) -> None:
        self.key = key
        self.total = self.version = 0
        self.busy = False
        self.waiting: deque[tuple[Request, Server]] = deque()
        partition = zlib.crc32(f"Counter/{key}".encode()) % PARTITIONS
        self.prefix = Keys(CLUSTER).prefix(partition)

    async def add(self, amount: int) -> int:
        """In memory."""
        self.total += amount
        return self.total

    async def put(self, amount: int) -> int:
        """The same, answered once it is committed."""
        self.total += amount
        await Counter.save(self)
        return self.total


Step = Coroutine[Any, None, int]
_actors: Final[dict[tuple[str, str], Counter]] = {}
_methods: Final[dict[tuple[str, str], Callable[..., Step]]] = {
    ("Counter", "add"): Counter.add,
    ("Counter", "put"): Counter.put,
}


class Server(Link[Request, Answer]):
    """The called side."""

    def __init__(self, pipe: Pipe | None) -> None:
        super().__init__(Request)
        self._pipe = pipe
        if pipe is not None:
            pipe.on_read_end = self.read_ended

    def take(self, batch: list[Request]) -> None:
        actors, methods, out = _actors, _methods, self.out
        for request in batch:
            actor = actors.get((request.kind, request.key))
            if actor is None:
                actor = actors[request.kind, request.key] = Counter(request.key)
            if actor.busy:
                actor.waiting.append((request, self))
                continue
            step = methods[request.kind, request.method](actor, *request.args)
            try:
                future = step.send(None)
            except StopIteration as stop:
                out.append(Answer(request.id, stop.value))
            except Exception as exc:
                out.append(Answer(request.id, None, repr(exc)))
            else:
                self._wait(actor, request, step, future)

    def read_ended(self) -> None:
        if self._pipe is not None:
            self._pipe.flush()
        self.flush()

    def _wait(self, actor: Counter, request: Request, step: Step, future: Any) -> None:
        actor.busy = True
        future._asyncio_future_blocking = False
        future.add_done_callback(lambda _: self._finish(actor, request, step))

    def _finish(self, actor: Counter, request: Request, step: Step) -> None:
        try:
            step.send(None)
        except StopIteration as stop:
            self.out.append(Answer(request.id, stop.value))
        except Exception as exc:
            self.out.append(Answer(request.id, None, repr(exc)))
        actor.busy = False
        while actor.waiting and not actor.busy:
            following, server = actor.waiting.popleft()
            server.take([following])


class Pipe(asyncio.Protocol):
    """One connection to Redis; all commands of one read leave in one write."""

    def __init__(self) -> None:
        self.on_read_end: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._out: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast("asyncio.Transport", transport).write

    def send(self, command: Command) -> asyncio.Future[Any]:
        """Queue a command; flush() sends it."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._out.append(pack(command))
        self._waiting.append(future)
        return future

    def flush(self) -> None:
        """Send what is queued."""
        if self._out:
            self._write(b"".join(self._out))
            self._out.clear()

    def data_received(self, data: bytes) -> None:
        gets, waiting = self._reader.gets, self._waiting
        self._reader.feed(data)
        while (reply := gets()) is not False:
            waiting.popleft().set_result(reply)
        # The futures' callbacks stand in the loop's queue already; this comes after them.
        self._loop.call_soon(self.on_read_end)


async def fenced_writes(port: int) -> Pipe:
    """Connect to Redis, own all partitions there, and have counters save by Durum's commit script."""
    loop = asyncio.get_running_loop()
    _, pipe = await loop.create_connection(Pipe, "127.0.0.1", port)
    script: Script = read_scripts()["commit"]
    keys, encode = Keys(CLUSTER), msgspec.msgpack.Encoder().encode
    answers = [pipe.send(("SCRIPT", "LOAD", script.text))]
    answers += [
        pipe.send(
            (
                "HSET",
                keys.prefix(each) + "own",
                "m",
                "mark",
                "s",
                "silo",
                "e",
                1,
                "t",
                TOKEN,
                "c",
                0,
            )
        )
        for each in range(PARTITIONS)
    ]
    pipe.flush()
    await asyncio.gather(*answers)
    commits = 0

    async def save(counter: Counter) -> None:
        nonlocal commits
        commits += 1
        version = counter.version
        command: Command = (
            "EVALSHA",
            script.sha,
            2,
            counter.prefix + "own",
            f"{counter.prefix}g:Counter/{counter.key}",
            TOKEN,
            b"8 bytes!" + commits.to_bytes(8, "big"),
            version,
            version + 1,
            1,
            encode(CounterState(counter.total)),
        )
        reply = await pipe.send(command)
        if type(reply) is not int or reply <= 0:
            raise RuntimeError(f"the commit was refused: {reply!r}")
        counter.version = version + 1

    Counter.save = save
    return pipe


async def serve(redis_port: int) -> None:
    """Serve until the process is ended."""
    pipe = await fenced_writes(redis_port) if redis_port else None
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(pipe), "127.0.0.1", 0)
    load.say({"port": server.sockets[0].getsockname()[1]})
    await asyncio.Event().wait()


async def play(port: int, method: str) -> None:
    """Make calls as told."""
    loop = asyncio.get_running_loop()
    _, player = await loop.create_connection(Player, "127.0.0.1", port)
    one = [1]
    await load.obey(lambda key: player.call("Counter", key, method, one))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        load.run(serve(int(sys.argv[2]) if len(sys.argv) > 2 else 0))
    else:
        load.run(play(int(sys.argv[2]), "put" if "durable" in sys.argv else "add"))
