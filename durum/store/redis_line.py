"""One TCP or socket connection to Redis, from its making to its end. Settles a future for each command.

Owns the order of answers; knows no queue, no reconnecting and no meaning.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from durum.store import redis_errors

Argument = str | bytes | int
Command = tuple[Argument, ...]
Finish = Callable[[asyncio.Future[Any], Any], None]
Entry = tuple[asyncio.Future[Any], Finish, Command]

# Its stub names tuples of one item only.
pack: Final[Callable[[Command], bytes]] = hiredis.pack_command  # type: ignore[assignment]

_BUFFER_BYTES: Final = 256 * 1024


class Refusal(Exception):
    """The server answered a command of the introduction with an error."""


class Line(asyncio.BufferedProtocol):
    """One connection.

    Args:
        url: for messages.
        refused: called with an entry and the error that answered it; it settles the future.
        lost: called once when the connection has ended.
    """

    def __init__(
        self, url: str, *, refused: Callable[[Entry, str], None], lost: Callable[[Line], None]
    ) -> None:
        self._url = url
        self._refused = refused
        self._lost = lost
        self._reader = hiredis.Reader()
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Entry] = deque()
        # When the command of that running number was sent; one mark for a tick.
        self._marks: deque[tuple[float, int]] = deque()
        self._sent = 0
        self.open = False
        self.reason: object = ""
        self.peer_host = ""

    def __repr__(self) -> str:
        return f"<Line {self._url} open={self.open} waiting={len(self._waiting)}>"

    @property
    def waiting(self) -> int:
        """How many commands have no answer yet."""
        return len(self._waiting)

    def write(self, at: float, entries: list[Entry], packed: list[bytes]) -> None:
        """Send a tick's commands.

        Args:
            at: when they were given, in seconds of boottime.
            entries: who waits for which.
            packed: the same as bytes.
        """
        assert self._transport is not None  # noqa: S101 - only an open line is written to
        self._waiting.extend(entries)
        self._sent += len(entries)
        self._marks.append((at, self._sent))
        self._transport.write(b"".join(packed))

    def is_late(self, latest: float) -> bool:
        """Whether a command that was given at `latest` or before still has no answer."""
        answered = self._sent - len(self._waiting)
        while self._marks and self._marks[0][1] <= answered:
            self._marks.popleft()
        return bool(self._marks) and self._marks[0][0] <= latest

    def hang_up(self, reason: object) -> None:
        """End the connection now. All that wait learn why."""
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio.Transport by class, only by what they do.
        self._transport = cast("asyncio.Transport", transport)
        self.open = True
        peer = transport.get_extra_info("peername")
        self.peer_host = str(peer[0]) if isinstance(peer, tuple) else ""

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        gets, waiting = self._reader.gets, self._waiting
        self._reader.feed(self._buffer[:nbytes])  # type: ignore[arg-type] # its stub is too narrow
        try:
            while (reply := gets()) is not False:
                entry = waiting.popleft()
                future, finish, _ = entry
                if future.done():
                    continue  # its caller was told something else before
                try:
                    if type(reply) is hiredis.ReplyError:
                        if finish is introduced:
                            raise Refusal(str(reply))  # noqa: TRY301 - caught for its future
                        self._refused(entry, str(reply))
                    else:
                        finish(future, reply)
                except Exception as exc:  # noqa: BLE001 - it belongs to whoever asked
                    future.set_exception(exc)
        except (hiredis.ProtocolError, IndexError) as exc:
            self.hang_up(f"what came is not Redis's protocol: {exc}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or "the server closed it")

    # -- inside

    def _end(self, reason: object) -> None:
        if not self.open:
            return
        self.open = False
        self.reason = reason
        while self._waiting:
            future, _, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(redis_errors.broken(self._url, reason))
        self._marks.clear()
        self._lost(self)


def introduced(future: asyncio.Future[Any], reply: Any) -> None:
    """Settle a command of the introduction."""
    future.set_result(reply)


def plain(future: asyncio.Future[Any], reply: Any) -> None:
    """Settle a command with its plain reply."""
    future.set_result(reply)
