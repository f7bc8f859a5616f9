"""A lasting way to a Redis server: all commands of a loop tick leave in one write.

Owns the queue, reconnecting, time limits and the reload of forgotten scripts; knows no key and no
meaning. What was written is never sent again: whoever asked decides that.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Protocol

import msgspec

from durum import errors
from durum.clock import Clock
from durum.ids import Entropy
from durum.store import redis_errors, redis_info, redis_line, redis_wait
from durum.store.batches import Batches
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
        tls: how to check the server, or None without TLS.
        replicas: how many replicas must have a write before it counts.
    """

    url: str
    host: str = ""
    port: int = 0
    path: str = ""
    login: tuple[Command, ...] = ()
    tls: ssl.SSLContext | None = None
    replicas: int = 0

    def __repr__(self) -> str:
        return f"<Endpoint {self.url}>"  # a login is nobody's business


class Guide:
    """Who knows more servers than one, for pipes that have several to choose from. This one knows none."""

    async def open(self) -> None:
        """Begin to look around, before the first pipe connects."""

    async def close(self) -> None:
        """Stop looking around, after the last pipe has closed."""

    async def locate(self, pipe: Pipe) -> tuple[str, int]:
        """Where to connect now."""
        return pipe.endpoint.host, pipe.endpoint.port

    def welcome(self, role: str) -> str:  # noqa: ARG002 - others look at it
        """Why a server of this role is the wrong one, or ""."""
        return ""

    def refused(self, pipe: Pipe, entry: Entry, text: str) -> bool:  # noqa: ARG002
        """Take care of an entry that was answered with an error, and not run.

        Returns:
            False where the error is the caller's to see.
        """
        return False

    def opened(self, pipe: Pipe) -> None:
        """The pipe has a new connection."""

    def lost(self, pipe: Pipe) -> None:
        """The pipe's connection has ended, or could not be made."""


class Way(Protocol):
    """Where a store's commands go: one pipe, or several behind one face."""

    def send(self, command: Command, finish: Finish) -> asyncio.Future[Any]:
        """Send a command with the others of this tick. See Pipe.send."""
        ...

    async def identity(self) -> str:
        """Which processes answer, in which roles, with which lines of history."""
        ...

    def pipes(self) -> tuple[Pipe, ...]:
        """One to each primary."""
        ...

    async def close(self) -> None:
        """End all that waits, and the connections."""
        ...


class Pipe:
    """Sends commands to one server and settles a future for each.

    Args:
        endpoint: where to connect.
        scripts: loaded at each connection.
        clock: measures time limits, and pauses between attempts to connect.
        entropy: jitter of those pauses.
        store_timeout_s: a command without an answer for this long ends in StoreUnavailable.
        guide: knows where the server is now.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        scripts: Iterable[Script],
        *,
        clock: Clock,
        entropy: Entropy,
        store_timeout_s: float,
        guide: Guide | None = None,
    ) -> None:
        self.endpoint = endpoint
        scripts = tuple(scripts)
        self._scripts = {script.sha: script.text for script in scripts}
        self._writes = {name for one in scripts if one.writes for name in (one.sha, one.text)}
        self._clock = clock
        self._entropy = entropy
        self._timeout_s = store_timeout_s
        self._guide = guide or Guide()
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
        self.batches = Batches()
        self.run_id = ""
        self.known_as = ""
        """The identity found last."""
        self.target = "", 0
        """Host and port, as connected to last; the host may be a name."""
        self.peer_host = ""
        """The server's address; "" for a socket."""

    def __repr__(self) -> str:
        return f"<Pipe {self.endpoint.url} line={self._line!r} unsent={len(self._unsent)}>"

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._line is not None and self._line.open

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent or answered."""
        return not (self._entries or self._unsent or (self._line and self._line.waiting))

    async def open(self) -> None:
        """Connect, and stay connected from then on.

        Raises:
            ConfigError: the server does not accept the user, the password or the database.
            StoreUnavailable: it cannot be reached.
        """
        await self._connect()
        self.start()

    def start(self) -> None:
        """Connect soon, and stay connected. Commands wait until then."""
        if self._line is None:
            self._down.set()
        # A store has no task group that would outlive its callers, so this one task is owned by
        # hand: close() ends it and waits for it.
        self._keeper = self._loop.create_task(self._keep(), name=f"pipe {self.endpoint.url}")

    async def close(self) -> None:
        """End all that waits, and the connection."""
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self.hang_up("the store was closed")
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
            future.set_exception(redis_errors.unreachable(self.endpoint.url, "the store is closed"))
            return future
        self._packed.append(redis_line.pack(command))
        entries = self._entries
        if not entries:
            self._loop.call_soon(self._flush)
        entries.append((future, finish, command))
        return future

    def resend(self, entry: Entry) -> None:
        """Send what surely did not run, here or elsewhere, with the others of this tick."""
        if self._closing:
            redis_errors.refuse(entry[0], self.endpoint.url, "the store is closed")
            return
        self._packed.append(redis_line.pack(entry[2]))
        if not self._entries:
            self._loop.call_soon(self._flush)
        self._entries.append(entry)

    def withdraw(self) -> list[Entry]:
        """Take back all that was not sent, for another server."""
        self._flush()
        found = [entry for _, entries, _ in self._unsent for entry in entries]
        self._unsent.clear()
        return [entry for entry in found if not entry[0].done()]

    def hang_up(self, reason: object) -> None:
        """End the present connection; another one is made at once."""
        if self._line is not None:
            self._line.hang_up(reason)

    async def identity(self) -> str:
        """Which process answers, in which role, with which line of history.

        Raises:
            StoreUnavailable: it does not answer.
        """
        raw = await self.send(("INFO", "replication"), redis_line.plain)
        self.known_as = redis_info.identity(self.run_id, redis_info.fields(raw))
        return self.known_as

    def pipes(self) -> tuple[Pipe, ...]:
        return (self,)

    # -- sending

    def _flush(self) -> None:
        if not self._entries:
            return
        self.batches.add(len(self._entries))
        self._unsent.append((self._clock.boottime(), self._entries, self._packed))
        self._entries, self._packed = [], []
        self._pump()
        if self._sweeper is None and not self._closing:
            self._sweeper = self._loop.call_later(self._timeout_s / _SWEEPS, self._sweep)

    def _pump(self) -> None:
        line = self._line
        while self._unsent and line is not None and line.open:
            tick = self._unsent.popleft()
            line.write(*(self._awaiting_replicas(*tick) if self.endpoint.replicas else tick))

    def _awaiting_replicas(
        self, at: float, entries: list[Entry], packed: list[bytes]
    ) -> tuple[float, list[Entry], list[bytes]]:
        writes = self._writes
        if not any(len(command) > 1 and command[1] in writes for _, _, command in entries):
            return at, entries, packed
        batch = redis_wait.Batch(self.endpoint.replicas, self._timeout_s, self.endpoint.url)
        held = [
            batch.covers(entry) if len(entry[2]) > 1 and entry[2][1] in writes else entry
            for entry in entries
        ]
        return at, [*held, batch.last(self._loop)], [*packed, redis_line.pack(batch.command)]

    def _refused(self, entry: Entry, text: str) -> None:
        future, finish, command = entry
        if isinstance(finish, redis_wait.Held):
            finish = finish.finish  # its batch has no use for it any more
            entry = (future, finish, command)
        if command[0] == "EVALSHA" and redis_errors.code_of(text) == "NOSCRIPT":
            # It did not run. Sent with its text it runs and is known again, and no flush comes between.
            self.resend((future, finish, ("EVAL", self._scripts[str(command[1])], *command[2:])))
        elif not self._guide.refused(self, entry, text):
            future.set_exception(redis_errors.translate(text, self.endpoint.url))

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
                redis_errors.refuse(future, self.endpoint.url, self._trouble)

    # -- connecting

    async def _keep(self) -> None:
        attempt, last = 0, self._clock.boottime() - (0 if self.connected else 2 * _LONGEST_S)
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
                self._guide.lost(self)
            else:
                attempt = 0

    async def _connect(self) -> None:
        url = self.endpoint.url
        line = Line(url, refused=self._refused, lost=self._lost)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._dial(line)
                await self._introduce(line)
            if not line.open:
                # It ended right behind its last answer, when nobody was listening for its end yet.
                raise redis_errors.broken(url, line.reason)
        except TimeoutError:
            raise redis_errors.unreachable(url, f"none within {self._timeout_s:g} s") from None
        except ssl.SSLCertVerificationError as exc:
            raise redis_errors.distrusted(url, exc) from exc
        except (OSError, errors.StoreUnavailable) as exc:
            raise redis_errors.unreachable(url, exc) from exc
        except redis_line.Refusal as exc:
            raise redis_errors.refused_introduction(str(exc), url) from exc
        else:
            self._line = line
            self._down.clear()
            self._guide.opened(self)
            self._pump()
        finally:
            if self._line is not line:
                line.hang_up("the introduction failed")

    async def _dial(self, line: Line) -> None:
        place = self.endpoint
        if place.path:
            await self._loop.create_unix_connection(lambda: line, place.path)
            return
        host, port = self.target = await self._guide.locate(self)
        await self._loop.create_connection(lambda: line, host, port, ssl=place.tls)
        self.peer_host = line.peer_host

    async def _introduce(self, line: Line) -> None:
        commands: list[Command] = [*self.endpoint.login]
        commands += [("SCRIPT", "LOAD", text) for text in self._scripts.values()]
        commands += [("INFO", "server"), ("INFO", "replication")]
        entries: list[Entry] = [
            (self._loop.create_future(), redis_line.introduced, command) for command in commands
        ]
        line.write(self._clock.boottime(), entries, [redis_line.pack(one) for one in commands])
        answers = await asyncio.gather(*(future for future, _, _ in entries))
        self.run_id = redis_info.fields(answers[-2]).get("run_id", "")
        replication = redis_info.fields(answers[-1])
        wrong = self._guide.welcome(replication.get("role", ""))
        if wrong:
            raise redis_errors.unreachable(self.endpoint.url, wrong)
        self.known_as = redis_info.identity(self.run_id, replication)

    def _lost(self, line: Line) -> None:
        if line is self._line:
            self._line = None
            self._trouble = line.reason
            self._down.set()
            self._guide.lost(self)
