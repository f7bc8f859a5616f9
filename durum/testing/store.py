"""A store that fails on demand, around one that does not. Owns the faults on the way to it and back, and
what becomes of an operation; what operations do is the store's inside.

    store = await FaultyStore.open(loop.current(), make)
    silo = Silo(..., store=store.host("a"))
    store.next("a", "commit", Fate(replies=False))
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

import msgspec

from durum import errors
from durum.store.host_table import Host
from durum.store.protocol import Beat, Store, TableRead
from durum.testing import hosts
from durum.testing.links import Cut, resend_after
from durum.testing.loop import SimLoop, SimulationError
from durum.testing.store_client import HostStore, Operation
from durum.testing.store_log import Applied, StoreLog

_WRITES: Final = frozenset(
    {"create", "write_row", "beat", "take", "place", "commit", "acknowledge", "erase"}
)
"""What a replay has to run again; a load too, where it raises a version."""


class Stage(StrEnum):
    """A point on an operation's way, at which a test may kill, stop or cut."""

    SENT = "sent"
    """It has left its host."""
    APPLIED = "applied"
    """The store has done it; the answer has not left yet."""
    ANSWERED = "answered"
    """The answer has reached its host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one operation.

    Args:
        lands: False: it never reaches the store.
        late_s: it lands this much later, whoever still waits for it or lives: a ghost.
        replies: False: its answer is lost.
        refused: the store does nothing and says so, with this text.
    """

    lands: bool = True
    late_s: float = 0.0
    replies: bool = True
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chances:
    """How likely an operation goes wrong by itself.

    Args:
        lost: it never lands.
        ghost: it lands up to `ghost_s` later.
        unanswered: its answer is lost.
        refused: the store refuses it.
        ghost_s: see ghost.
    """

    lost: float = 0.0
    ghost: float = 0.0
    unanswered: float = 0.0
    refused: float = 0.0
    ghost_s: float = 20.0

    def draw(self, chance: Callable[[], float]) -> Fate:
        """One operation's fate."""
        if chance() < self.refused:
            return Fate(refused="READONLY or MISCONF: the store cannot write now")
        return Fate(
            lands=chance() >= self.lost,
            late_s=chance() * self.ghost_s if chance() < self.ghost else 0.0,
            replies=chance() >= self.unanswered,
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state to roll back to. Args: how far the journal and the record were."""

    journal: int
    log: tuple[int, int, int]


@dataclass(slots=True)
class _Way:
    """One machine's way to the store."""

    cut: Cut | None = None
    blocked_until: float = 0.0
    chances: Chances = Chances()
    lands_at: float = 0.0


class FaultyStore:
    """One store that all hosts share, each through its own `host`. It runs one operation at a time.

    Args:
        loop: whose time and seed it follows.
        make: opens an empty store, which runs its operations at once (`memory:` without threads).
        inside: the one in use now.
        latency_s: the shortest way there, and the shortest way back.
        jitter_s: up to this much longer, each way.
    """

    def __init__(
        self,
        loop: SimLoop,
        make: Callable[[], Awaitable[Store]],
        inside: Store,
        *,
        latency_s: float = 150e-6,
        jitter_s: float = 600e-6,
    ) -> None:
        self.loop: Final = loop
        self.log: Final = StoreLog()
        self.inside = inside
        self._make: Final = make
        self._latency_s: Final = latency_s
        self._jitter_s: Final = jitter_s
        self._random: Final = loop.randomness("store")
        self._ways: Final[dict[str, _Way]] = {}
        self._fates: Final[dict[tuple[str, str], deque[Fate]]] = {}
        self._under_way: Final[dict[Operation, None]] = {}
        self._stalled: Final[list[tuple[Operation, Callable[[Operation], None]]]] = []
        self._queue: Final[deque[Operation]] = deque()
        self._serving = False
        self._stopped = False
        self._serve_one: Final = asyncio.Lock()
        self._journal: list[tuple[str, Sequence[Any], Mapping[str, Any]]] = []
        self._identity = 0
        self._watchers: Final[list[Callable[[Operation, Stage], None]]] = []
        self._clients: Final[list[HostStore]] = []

    @classmethod
    async def open(cls, loop: SimLoop, make: Callable[[], Awaitable[Store]]) -> FaultyStore:
        """Open it, empty."""
        return cls(loop, make, await make())

    async def close(self) -> None:
        """Close the store inside. Hosts' operations under way stay without an answer."""
        self._stopped = True
        async with self._serve_one:
            await self.inside.close()

    def host(self, host: str, *, timeout_s: float = 1.5) -> HostStore:
        """The Store of one process.

        Args:
            host: whose.
            timeout_s: how long an operation may take before it ends in StoreUnavailable.
        """
        client = HostStore(self, self.loop, host, timeout_s)
        self._clients.append(client)
        return client

    # --- faults ------------------------------------------------------------------------------

    def next(self, host: str, name: str, *fates: Fate) -> None:
        """Decide the fate of a process's next operations of one name, in that order."""
        self._fates.setdefault((host, name), deque()).extend(fates)

    def chances(self, host: str, chances: Chances) -> None:
        """Let a machine's operations go wrong by themselves."""
        self._way(host).chances = chances

    def cut(self, host: str, how: Cut = Cut.DROP) -> None:
        """Cut a machine off. Dropped: silence, and some of it lands after the heal. Rejected: errors."""
        self._way(host).cut = how

    def heal(self, host: str) -> None:
        """Undo `cut`. What was held up goes on; what nobody waits for any more may have vanished."""
        self._way(host).cut = None
        held = [one for one in self._stalled if hosts.machine(one[0].host) == hosts.machine(host)]
        self._stalled[:] = [one for one in self._stalled if one not in held]
        for operation, then in held:
            unwanted = operation.done or self.loop.is_dead(operation.host)
            if unwanted and self._random.random() < 0.5:
                continue
            wait = resend_after(self.loop.time() - operation.sent_at)
            self.loop.call_in_world(wait, then, operation)

    def block(self, host: str, seconds: float) -> None:
        """Let nothing of a machine land for so long. It lands then: what timed out, as ghosts."""
        self._way(host).blocked_until = self.loop.time() + seconds

    def stop(self) -> None:
        """Stop the store itself, as SIGSTOP does: what lands waits and is done after `go_on`."""
        self._stopped = True

    def go_on(self) -> None:
        """Undo `stop`."""
        self._stopped = False
        self._serve()

    def heal_all(self) -> None:
        """Undo every fault that lasts."""
        self._fates.clear()
        for machine, way in self._ways.items():
            way.chances = Chances()
            way.blocked_until = 0.0
            self.heal(machine)
        self.go_on()

    def change_identity(self) -> None:
        """Answer as another process from now on, as after a restart or failover."""
        self._identity += 1

    def snapshot(self) -> Snapshot:
        """Remember the present state."""
        return Snapshot(len(self._journal), self.log.mark())

    async def roll_back(self, snapshot: Snapshot) -> None:
        """Lose everything since a snapshot, as a failover to a lagging replica does."""
        if snapshot.journal > len(self._journal):
            raise SimulationError("that snapshot was itself rolled back; take a new one")
        async with self._serve_one:
            await self.inside.close()
            self.inside = await self._make()
            del self._journal[snapshot.journal :]
            self.log.cut(snapshot.log)
            for name, args, options in self._journal:
                await getattr(self.inside, name)(*args, **options)
            self.change_identity()

    async def wipe(self) -> None:
        """Lose everything: another, empty store answers."""
        await self.roll_back(Snapshot(0, (0, 0, 0)))

    # --- looking -----------------------------------------------------------------------------

    def watch(self, watcher: Callable[[Operation, Stage], None]) -> None:
        """Call a function, in the world, at each stage of each operation: a place for crash points."""
        self._watchers.append(watcher)

    def writers(self) -> list[str]:
        """Processes that wait for the answer to a commit, oldest first, each once."""
        waiting = (one.host for one in self._under_way if one.name == "commit")
        return list(dict.fromkeys(host for host in waiting if not self.loop.is_dead(host)))

    def __repr__(self) -> str:
        return (
            f"<FaultyStore {self.inside!r} under_way={len(self._under_way)}"
            f" stalled={len(self._stalled)} queued={len(self._queue)}>"
        )

    # --- the way there and back --------------------------------------------------------------

    def send(self, operation: Operation) -> None:
        """Take an operation from a host. Called by HostStore."""
        self._under_way[operation] = None
        way = self._way(operation.host)
        fates = self._fates.get((operation.host, operation.name))
        fate = fates.popleft() if fates else way.chances.draw(self._random.random)
        operation.replies = fate.replies
        operation.refused = fate.refused
        self._tell(operation, Stage.SENT)
        if way.cut is Cut.REJECT:
            self.loop.call_in_world(self._delay(), self._break, operation, False)
        elif fate.lands:
            # What one process sends arrives in that order, but for ghosts, whose connection is another.
            arrival = self.loop.time() + self._delay()
            if fate.late_s:
                arrival += fate.late_s
            else:
                arrival = way.lands_at = max(way.lands_at, arrival)
            self.loop.call_in_world_at(arrival, self._land, operation)

    def forget(self, operation: Operation) -> None:
        """Its caller does not wait any more. Called by HostStore."""
        self._under_way.pop(operation, None)

    def _land(self, operation: Operation) -> None:
        way = self._way(operation.host)
        if way.cut is Cut.DROP:
            self._stalled.append((operation, self._land))
        elif way.cut is Cut.REJECT:
            self._break(operation, None)
        elif self.loop.time() < way.blocked_until:
            self.loop.call_in_world_at(way.blocked_until, self._land, operation)
        else:
            self._queue.append(operation)
            self._serve()

    def _serve(self) -> None:
        if not self._serving and self._queue and not self._stopped:
            self._serving = True
            # In the world: a host's death must not end what the store does for it.
            self.loop.start(hosts.WORLD, self._serve_all(), name="simulated store")

    async def _serve_all(self) -> None:
        try:
            while self._queue and not self._stopped:
                operation = self._queue.popleft()
                async with self._serve_one:
                    await self._apply(operation)
        except Exception as exc:  # noqa: BLE001 - a bug in the store inside ends the run at once
            self.loop.call_exception_handler({"message": f"{operation!r}", "exception": exc})
        finally:
            self._serving = False

    async def _apply(self, operation: Operation) -> None:
        if operation.refused:
            operation.error = errors.StoreUnavailable(operation.refused, applied=False)
        else:
            try:
                function = getattr(self.inside, operation.name)
                operation.result = await function(*operation.args, **operation.options)
            except errors.DurumError as exc:
                operation.error = exc
            else:
                self._note(operation)
        self._tell(operation, Stage.APPLIED)
        if operation.replies:
            self.loop.call_in_world(self._delay(), self._answer, operation)

    def _note(self, operation: Operation) -> None:
        now, result = self.loop.time(), operation.result
        if operation.name in _WRITES or operation.options.get("raise_version"):
            self._journal.append((operation.name, operation.args, operation.options))
        if operation.name == "commit":
            self.log.committed(
                Applied(
                    number=self.log.next_number(),
                    at=now,
                    sent_at=operation.sent_at,
                    host=operation.host,
                    commit=operation.args[0],
                    result=result,
                )
            )
        elif operation.name == "take":
            for take, owner in zip(operation.args[1], result, strict=True):
                self.log.taken(now, operation.host, take, owner)
        elif operation.name == "place":
            partition, _, grain = operation.args
            asked: Host | None = operation.options["host"]
            self.log.placed(now, operation.host, (partition, grain), asked, result)
        elif operation.name == "write_row" and result is not None:
            for client in self._clients:
                if self._way(client.host).cut is None and self._random.random() < 0.9:
                    self.loop.call_in_world(self._delay(), client.hint)
        elif isinstance(result, TableRead | Beat):
            identity = f"{result.identity}#{self._identity}"
            operation.result = msgspec.structs.replace(result, identity=identity)

    def _answer(self, operation: Operation) -> None:
        cut = self._way(operation.host).cut
        if cut is Cut.DROP:
            self._stalled.append((operation, self._answer))
        elif cut is Cut.REJECT:
            self._break(operation, None)
        else:
            operation.settle()
            self._tell(operation, Stage.ANSWERED)

    def _break(self, operation: Operation, applied: Literal[False] | None) -> None:
        text = "the connection to the store was reset; try again"
        operation.error = errors.StoreUnavailable(text, applied=applied)
        operation.settle()

    def _delay(self) -> float:
        return self._latency_s + self._random.uniform(0, self._jitter_s)

    def _way(self, host: str) -> _Way:
        return self._ways.setdefault(hosts.machine(host), _Way())

    def _tell(self, operation: Operation, stage: Stage) -> None:
        for watcher in tuple(self._watchers):
            watcher(operation, stage)
