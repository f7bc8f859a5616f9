"""A lasting way to a Redis server: all commands of a loop tick leave in one write.

Owns the queue, reconnecting, time limits and the reload of forgotten scripts; knows no key and no
meaning. What was written is never sent again: whoever asked decides that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from durum import errors
from durum.clock import Clock
from durum.ids import Entropy
from durum.store import redis_errors, redis_line
from durum.store.redis_line import Command, Entry, Finish, Line
from durum.store.redis_scripts import Script

_SHORTEST_S: Final = 0.1
_LONGEST_S: Final = 1.0
_SWEEPS: Final = 4


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server is and how to introduce oneself.

    Args:
        url: for messages, without the password.
        host: its name; "" with a socket's path.
        port: its port.
        path: its socket, or "".
        login: AUTH and SELECT, as far as the URL asks for them.
    """

    url: str
    host: str = ""
    port: int = 0
    path: str = ""
    login: tuple[Command, ...] = ()


class Pipe:
    """Sends commands and settles a future for each.

    Args:
        endpoint: where to connect.
        scripts: loaded at each connection.
        clock: measures time limits, and pauses between attempts to connect.
        entropy: jitter of those pauses.
        store_timeout_s: a command without an answer for this long ends in StoreUnavailable.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        scripts: Iterable[Script],
        *,
        clock: Clock,
        entropy: Entropy,
        store_timeout_s: float,
    ) -> None:
        self._endpoint = endpoint
        self._scripts = {script.sha: script.text for script in scripts}
        self._clock = clock
        self._entropy = entropy
        self._timeout_s = store_timeout_s
        self._loop = asyncio.get_running_loop()
        self._line: Line | None = None
        self._closing = False
        self._keeper: asyncio.Task[None] | None = None
        self._down = asyncio.Event()
        self._trouble: object = "not connected yet"
        # This tick's commands, and whole ticks that wait for a connection.
        self._entries: list[Entry] = []
        self._packed: list[bytes] = []
        self._unsent: deque[tuple[float, list[Entry], list[bytes]]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self.run_id = ""
        self.peer_host = ""

    def __repr__(self) -> str:
        return f"<Pipe {self._endpoint.url} line={self._line!r} unsent={len(self._unsent)}>"

    async def open(self) -> None:
        """Connect, and stay connected from then on.

        Raises:
            ConfigError: the server does not accept the user, the password or the database.
            StoreUnavailable: it cannot be reached.
        """
        await self._connect()
        # A store has no task group that would outlive its callers, so this one task is owned by
        # hand: close() ends it and waits for it.
        self._keeper = self._loop.create_task(self._keep(), name=f"pipe {self._endpoint.url}")

    async def close(self) -> None:
        """End all that waits, and the connection."""
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._line is not None:
            self._line.hang_up("the store was closed")
        self._flush()
        self._trouble = "the store is closed"
        self._refuse(None)
        if self._sweeper is not None:
            self._sweeper.cancel()

    def send(self, command: Command, finish: Finish) -> asyncio.Future[Any]:
        """Send a command with the others of this tick.

        Args:
            command: its parts.
            finish: settles the future with the answer, which is never an error.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closing:
            future.set_exception(
                redis_errors.unreachable(self._endpoint.url, "the store is closed")
            )
            return future
        self._packed.append(redis_line.pack(command))
        entries = self._entries
        if not entries:
            self._loop.call_soon(self._flush)
        entries.append((future, finish, command))
        return future

    # -- sending

    def _flush(self) -> None:
        if not self._entries:
            return
        self._unsent.append((self._clock.boottime(), self._entries, self._packed))
        self._entries, self._packed = [], []
        self._pump()
        if self._sweeper is None and not self._closing:
            self._sweeper = self._loop.call_later(self._timeout_s / _SWEEPS, self._sweep)

    def _pump(self) -> None:
        line = self._line
        while self._unsent and line is not None and line.open:
            line.write(*self._unsent.popleft())

    def _again(self, entry: Entry) -> None:
        # It did not run. Sent with its text it runs and is known again, and no flush comes between.
        future, finish, command = entry
        command = ("EVAL", self._scripts[str(command[1])], *command[2:])
        self._packed.append(redis_line.pack(command))
        if not self._entries:
            self._loop.call_soon(self._flush)
        self._entries.append((future, finish, command))

    # -- time limits

    def _sweep(self) -> None:
        """Tell those who have waited too long. One timer for all: an answer is rarely late."""
        self._sweeper = None
        latest = self._clock.boottime() - self._timeout_s
        self._refuse(latest)
        line = self._line
        if line is not None and line.is_late(latest):
            # All others stand behind the late one, and a new connection may fare better.
            line.hang_up(f"no answer within {self._timeout_s:g} s")
        if self._unsent or (line is not None and line.waiting):
            self._sweeper = self._loop.call_later(self._timeout_s / _SWEEPS, self._sweep)

    def _refuse(self, latest: float | None) -> None:
        while self._unsent and (latest is None or self._unsent[0][0] <= latest):
            for future, _, _ in self._unsent.popleft()[1]:
                if not future.done():
                    future.set_exception(
                        redis_errors.unreachable(self._endpoint.url, self._trouble)
                    )

    # -- connecting

    async def _keep(self) -> None:
        attempt, last = 0, self._clock.boottime()
        while True:
            await self._down.wait()
            pause = min(_LONGEST_S, _SHORTEST_S * 2**attempt) * (1 + self._entropy.fraction() / 2)
            # Counted from the last attempt: a server that accepts and then drops is asked no more
            # often than one that is away, ten times a second at most.
            await self._clock.sleep(max(0.0, last + pause - self._clock.boottime()))
            last = self._clock.boottime()
            try:
                await self._connect()
            except errors.DurumError as exc:
                self._trouble = exc
                attempt = min(attempt + 1, 8)
            else:
                attempt = 0

    async def _connect(self) -> None:
        url = self._endpoint.url
        line = Line(url, again=self._again, lost=self._lost)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._dial(line)
                await self._introduce(line)
            if not line.open:
                # It ended right behind its last answer, when nobody was listening for its end yet.
                raise redis_errors.broken(url, line.reason)
        except TimeoutError:
            raise redis_errors.unreachable(url, f"none within {self._timeout_s:g} s") from None
        except (OSError, errors.StoreUnavailable) as exc:
            raise redis_errors.unreachable(url, exc) from exc
        except redis_line.Refusal as exc:
            raise redis_errors.refused_introduction(str(exc), url) from exc
        else:
            self._line = line
            self._down.clear()
            self.peer_host = line.peer_host
            self._pump()
        finally:
            if self._line is not line:
                line.hang_up("the introduction failed")

    async def _dial(self, line: Line) -> None:
        place = self._endpoint
        if place.path:
            await self._loop.create_unix_connection(lambda: line, place.path)
        else:
            await self._loop.create_connection(lambda: line, place.host, place.port)

    async def _introduce(self, line: Line) -> None:
        commands: list[Command] = [*self._endpoint.login]
        commands += [("SCRIPT", "LOAD", text) for text in self._scripts.values()]
        commands.append(("INFO", "server"))
        entries: list[Entry] = [
            (self._loop.create_future(), redis_line.introduced, command) for command in commands
        ]
        line.write(self._clock.boottime(), entries, [redis_line.pack(one) for one in commands])
        answers = await asyncio.gather(*(future for future, _, _ in entries))
        for field in answers[-1].decode().splitlines():
            if field.startswith("run_id:"):
                self.run_id = field.removeprefix("run_id:")

    def _lost(self, line: Line) -> None:
        if line is self._line:
            self._line = None
            self._trouble = line.reason
            self._down.set()
