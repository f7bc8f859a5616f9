"""An asyncio loop on virtual time, where the same seed gives the same run.

Owns the order of callbacks, the clock they see, and which hosts may run. Unmodified coroutines run on
it, many simulated processes in one loop; it knows neither network nor store. There is no real I/O, no
thread and no waiting: time jumps to the next timer as soon as nothing is ready.
"""

# It stands in for the inside of asyncio's loop, whose parts have no public names.
# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
import heapq
import itertools
import random  # noqa: TID251 - seeds every other source of it
import struct
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Never, TypeVar

from durum.testing import hosts
from durum.testing.tasks import SimFuture, SimTask, SimTimer, where

T = TypeVar("T")


class SimulationError(Exception):
    """The simulation cannot go on, or was used in a way that reality would not allow."""


class Stuck(SimulationError):
    """Nothing is ready and nothing is scheduled: whatever is awaited never comes."""


class RanTooLong(SimulationError):
    """A limit of virtual time or of steps was passed."""


class Order(StrEnum):
    """In which order callbacks that are ready at one instant run."""

    FIFO = "fifo"
    """As asyncio does it."""
    HOSTS = "hosts"
    """Each host's in its own order, as asyncio promises; the hosts in an order the seed decides."""
    ALL = "all"
    """Any order at all. It breaks asyncio's promise that call_soon keeps order; for code that claims
    not to need it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run is given up.

    Args:
        virtual_s: at this time.
        steps: after this many callbacks.
    """

    virtual_s: float = 1e6
    steps: int = 20_000_000


class SimLoop(asyncio.BaseEventLoop):
    """The loop. Use `durum.testing.run.run`, which also closes it and looks for what was left over.

    Args:
        seed: decides everything that is left open.
        order: see Order.
        limits: when the run is given up.
    """

    # What asyncio's own loop keeps; typeshed leaves it out.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(
        self,
        seed: int,
        order: Order = Order.HOSTS,
        limits: Limits = Limits(),
    ) -> None:
        super().__init__()
        self.seed: Final = seed
        self.order: Final = order
        self.steps = 0
        self.digest = 0
        """Changes with every instant and the number of callbacks at it: two runs with equal digests
        went the same way."""
        self.failures: list[BaseException] = []
        """What no code caught. The first one ends the run."""
        self.limits: Final = limits
        self._now = 0.0
        self._random: Final = self.randomness("loop")
        self._numbers: Final = itertools.count(1)
        self._tasks: dict[int, SimTask] = {}
        self._tasks_worth_sweeping = 1024
        self._cancelled_timers = 0
        self._frozen: dict[str, list[asyncio.Handle]] = {}
        self._dead: dict[str, list[object]] = {}
        self._on_kill: list[Callable[[str], None]] = []
        self._generators: dict[int, str] = {}

    def randomness(self, purpose: str) -> random.Random:
        """A source of randomness of its own for one purpose, so that what one part draws does not
        change what another gets."""
        return random.Random(f"{self.seed} {purpose}")  # noqa: S311 - repeatable on purpose

    # --- hosts -------------------------------------------------------------------------------

    def start(
        self, host: str, coro: Coroutine[Any, Any, T], *, name: str | None = None
    ) -> asyncio.Task[T]:
        """Run a coroutine as a process of that name; whatever it starts belongs to it too.

        Raises:
            SimulationError: that process was killed. A machine's next process has another name.
        """
        if host in self._dead:
            coro.close()
            raise SimulationError(
                f"{host} was killed and never runs again. Start its next life, as in {host}#2."
            )
        return self.create_task(coro, name=name, context=hosts.context(host))

    def freeze(self, host: str) -> None:
        """Stop a process as SIGSTOP does: its callbacks are parked from the next one on.

        Time does not stop for it, and what its kernel would do for it goes on.
        """
        if host == hosts.WORLD:
            raise SimulationError("the world itself cannot be frozen; name a host")
        if host not in self._dead:
            self._frozen.setdefault(host, [])

    def thaw(self, host: str) -> None:
        """Let a frozen process go on, as SIGCONT does. Timers that came due meanwhile fire after what
        arrived, in any order."""
        parked = self._frozen.pop(host, [])
        timers = [handle for handle in parked if isinstance(handle, asyncio.TimerHandle)]
        self._random.shuffle(timers)
        self._ready.extend(h for h in parked if not isinstance(h, asyncio.TimerHandle))
        self._ready.extend(timers)

    def kill(self, host: str) -> None:
        """End a process as SIGKILL does: nothing of it runs again, not even a `finally`.

        Called by the process itself, it runs on to its next await, as a signal is late too.
        """
        if host == hosts.WORLD:
            raise SimulationError("the world itself cannot be killed; name a host")
        if host in self._dead:
            return
        # Python closes a coroutine that nobody refers to, and that runs its `finally`. So whatever
        # refers to them stays until the run is over.
        grave: list[object] = [*self._frozen.pop(host, []), *self._of(host, self._ready)]
        grave.extend(self._of(host, self._scheduled))
        grave.extend(task for task in self._tasks.values() if task.host == host)
        self._dead[host] = grave
        self._ready = deque(h for h in self._ready if _host(h) != host)
        self._scheduled = [h for h in self._scheduled if _host(h) != host]
        heapq.heapify(self._scheduled)
        for tell in tuple(self._on_kill):
            tell(host)

    def is_frozen(self, host: str) -> bool:
        return host in self._frozen

    def is_dead(self, host: str) -> bool:
        return host in self._dead

    def on_kill(self, tell: Callable[[str], None]) -> None:
        """Have a function called, in the world, whenever a process was killed."""
        self._on_kill.append(tell)

    def call_in_world(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Run something later, whatever becomes of the host that asks: a wire, a kernel, a server."""
        self.call_in_world_at(self._now + delay_s, callback, *args)

    def call_in_world_at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """The same for a time, which keeps two things of one time in their order."""
        self.call_at(when, callback, *args, context=hosts.context(hosts.WORLD))

    def pending(self) -> list[SimTask]:
        """Tasks that have not ended, without those of killed hosts, oldest first."""
        return [t for t in self._tasks.values() if not t.done() and t.host not in self._dead]

    # --- what asyncio asks of a loop ---------------------------------------------------------

    def time(self) -> float:
        return self._now

    def create_task(  # type: ignore[override]  # typeshed's differs from release to release
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **_: object,
    ) -> asyncio.Task[T]:
        self._check_closed()  # type: ignore[attr-defined]
        host = hosts.current() if context is None else hosts.of(context)
        number = next(self._numbers)
        # The default names count for the whole process; these repeat.
        name = name or f"task {number}"
        task = SimTask(number, host, coro, loop=self, name=name, context=context)
        self._tasks[number] = task
        if host in self._dead:
            self._dead[host].append(task)
        if len(self._tasks) > self._tasks_worth_sweeping:
            self._tasks = {key: task for key, task in self._tasks.items() if not task.done()}
            self._tasks_worth_sweeping = max(1024, 2 * len(self._tasks))
        return task

    def call_at(  # type: ignore[override]  # mypy wants the types of args repeated
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self._check_closed()  # type: ignore[attr-defined]
        timer = SimTimer(next(self._numbers), when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(next(self._numbers), hosts.current(), self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody caught, unless it is a dead host's: that one has no log any more."""
        source = context.get("task", context.get("future", context.get("handle")))
        host = _host(source) if isinstance(source, asyncio.Handle) else getattr(source, "host", "")
        if host not in self._dead:
            error = context.get("exception")
            failure = SimulationError(f"{host or 'world'}: {context['message']}")
            failure.__cause__ = error if isinstance(error, BaseException) else None
            self.failures.append(failure)

    def _run_once(self) -> None:
        """One round of the loop: what is ready now, in the seed's order."""
        self._drop_cancelled_timers()
        if not self._ready and not self._stopping:
            self._advance()
        while self._scheduled and self._scheduled[0].when() <= self._now:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            self._ready.append(timer)
        count = self._arrange()
        self.digest = zlib.crc32(struct.pack("<dII", self._now, count, self.steps), self.digest)
        while count and self._ready:
            # A kill within the round shortens the queue, so count what is left of it.
            count = min(count, len(self._ready)) - 1
            self._run_one(self._ready.popleft())
        if self.steps > self.limits.steps:
            raise RanTooLong(
                f"{self.steps} steps at {self._now:.3f} s: something spins, or the limit is too low."
                f" {self._report()}"
            )

    def _run_one(self, handle: asyncio.Handle) -> None:
        if handle._cancelled:
            return
        if self._frozen or self._dead:
            host = _host(handle)
            if host in self._dead:
                self._dead[host].append(handle)
                return
            if host in self._frozen:
                self._frozen[host].append(handle)
                return
        self.steps += 1
        handle._run()
        if self.failures:
            raise self.failures[0]

    def _advance(self) -> None:
        if not self._scheduled:
            raise Stuck(f"deadlock at {self._now:.3f} s: nothing will happen. {self._report()}")
        self._now = max(self._now, self._scheduled[0].when())
        if self._now > self.limits.virtual_s:
            raise RanTooLong(
                f"the run passed its limit of {self.limits.virtual_s:g} virtual seconds. {self._report()}"
            )

    def _arrange(self) -> int:
        """Put what is ready in the seed's order. How many there are."""
        count = len(self._ready)
        if count < 2 or self.order is Order.FIFO:
            return count
        handles = list(self._ready)
        self._ready.clear()
        if self.order is Order.ALL:
            self._random.shuffle(handles)
            self._ready.extend(handles)
            return count
        by_host: dict[str, deque[asyncio.Handle]] = {}
        for handle in handles:
            by_host.setdefault(_host(handle), deque()).append(handle)
        turns = [host for host, own in by_host.items() for _ in own]
        if len(by_host) > 1:
            self._random.shuffle(turns)
        self._ready.extend(by_host[host].popleft() for host in turns)
        return count

    def _timer_handle_cancelled(self, _: asyncio.TimerHandle) -> None:
        self._cancelled_timers += 1

    def _drop_cancelled_timers(self) -> None:
        if self._cancelled_timers > 100 and self._cancelled_timers * 2 > len(self._scheduled):
            self._scheduled = [timer for timer in self._scheduled if not timer._cancelled]
            heapq.heapify(self._scheduled)
            self._cancelled_timers = 0
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)
            self._cancelled_timers -= 1

    def _of(self, host: str, handles: Iterable[asyncio.Handle]) -> list[asyncio.Handle]:
        return [handle for handle in handles if _host(handle) == host]

    def _report(self) -> str:
        """Who waits where, for people."""
        lines = [f"{len(self._frozen)} hosts are frozen: {', '.join(self._frozen) or 'none'}."]
        lines.extend(where(task) for task in self.pending()[:20])
        return "\n  ".join(lines)

    def _asyncgen_firstiter_hook(self, generator: Any) -> None:
        self._generators[id(generator)] = hosts.current()

    def _asyncgen_finalizer_hook(self, generator: Any) -> None:
        """Close a generator that nobody refers to, in the host that made it and no other."""
        host = self._generators.pop(id(generator), hosts.WORLD)
        if host in self._dead:
            self._dead[host].append(generator)
        elif not self.is_closed():
            hosts.context(host).run(self.create_task, generator.aclose())

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody waits in a selector."""

    def _refuse(self, *_: object, **__: object) -> Never:
        raise SimulationError(
            "real I/O, threads and signals do not exist in a simulation."
            " Take the network, store and clock that were injected."
        )

    run_in_executor = _refuse
    getaddrinfo = _refuse
    getnameinfo = _refuse
    create_connection = _refuse
    create_server = _refuse
    create_unix_connection = _refuse
    create_unix_server = _refuse
    create_datagram_endpoint = _refuse
    connect_read_pipe = _refuse
    connect_write_pipe = _refuse
    subprocess_exec = _refuse
    subprocess_shell = _refuse
    add_reader = _refuse
    add_writer = _refuse
    add_signal_handler = _refuse


def current() -> SimLoop:
    """The simulated loop that is running.

    Raises:
        SimulationError: the running loop is a real one.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, SimLoop):
        raise SimulationError("this runs in simulations only: start it with durum.testing.run.run")
    return loop


def _host(handle: asyncio.Handle) -> str:
    context: Context = handle._context  # type: ignore[attr-defined]
    return hosts.of(context)
