"""The class that users derive from. Owns its options and what an actor can do; knows no silo.

    class Account(Actor):
        balance: Decimal = Decimal(0)           # durable: annotated, public, with a default

        async def deposit(self, amount: Decimal) -> Decimal:
            self.balance += amount              # committed with this turn, or not at all
            return self.balance

An actor is never constructed: it is addressed. In a unit test,
durum.testing.actors.unhosted() makes one without a silo.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta, tzinfo
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar, TypeVarTuple

from durum import errors
from durum.grains import building, reminders, rules
from durum.grains.context import Host, TurnContext
from durum.grains.entries import Entries
from durum.grains.kind import ONE_WAY_MARK, READ_ONLY_MARK, classes_of
from durum.grains.messages import message
from durum.grains.placement import Placement, StatelessWorker
from durum.grains.reference import reference
from durum.grains.reminders import Tick
from durum.grains.schedules import Missed
from durum.grains.timers import Timer, specify

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
F = TypeVar("F", bound=Callable[..., object])
W = TypeVar("W", bound=Callable[..., Coroutine[object, object, None]])


def read_only(method: F) -> F:
    """Mark a method that assigns no field. Such turns run together, and never commit.

    Assigning a field in one raises AttributeError. Changing a list or dict in place is not seen at
    once; `durum dev` and the tests compare the whole state after each read-only turn.

    Raises:
        ConfigError: it is no `async def` method.
    """
    function: object = method
    if not inspect.iscoroutinefunction(function):
        raise errors.ConfigError(
            f"@read_only: {getattr(method, '__qualname__', method)!r} is no `async def` method."
        )
    setattr(method, READ_ONLY_MARK, True)
    return method


def one_way(method: W) -> W:
    """Mark a method whose callers do not wait: their await ends once the call was handed to a
    connection.

    Such a call runs once or not at all, and nobody is told which: it is dropped where its actor or silo is
    overloaded or dies, and what it raises is only logged. What has to arrive needs an ordinary call.

    Raises:
        ConfigError: it is no `async def` method.
    """
    function: object = method
    if not inspect.iscoroutinefunction(function):
        raise errors.ConfigError(
            f"@one_way: {getattr(method, '__qualname__', method)!r} is no `async def` method."
        )
    setattr(method, ONE_WAY_MARK, True)
    return method


class Actor:
    """A durable virtual actor: one instance for each key, always addressable, one turn at a time.

    Class keywords:
        kind: its durable name; the bare class name by default. Never change it: data lies under it.
        version: of the class, written into every state. A silo with an older one leaves the
            grain alone.
        idle_after: an activation unused this long is dropped from memory.
        reentrant: turns interleave freely, and commit by `await self.save()` only.
        reentrancy: "chain" lets in a call that this grain's own turn waits for; "never" makes it
            a Deadlock at once.
        strict_reads: read-only turns check ownership in the store instead of trusting clocks.
        mailbox_limit: calls that may wait before one grain.
        replies_kept: how many replies of calls with an idempotency key one grain remembers.
        reply_window: how long it remembers them.
        message_attempts: how often the method of a message may fail before it is parked as a dead letter.
        placement: where its activations live; None: one in the cluster, on the silo that the hash of its
            key says. PreferLocal(), Random(), LeastLoaded() and OnSilos(role="gpu"): one in the cluster, on
            a silo that is chosen when it is first called. StatelessWorker(max_local=4): on every silo.
        aliases: other kind names under which callers may know it, as after a rename. Its data lies where it
            always did: under `kind`.
        pickle: fields, arguments and results of types that have no form of their own (arrays, frames,
            closures), or that hold Any, are pickled; see durum.Opaque. Such methods can be called
            over trusted links only.

    Hooks, all optional: `async def on_activate(self)`, `async def on_deactivate(self, reason)`,
    `async def on_dehydrate(self) -> T` with `async def on_rehydrate(self, value: T)`,
    `async def on_reminder(self, name, tick)`, `def migrate_state(self, old: dict, version: int) -> dict`.
    """

    __slots__ = (
        "__weakref__",
        "_durum_entries",
        "_durum_extra",
        "_durum_host",
        "_durum_key",
        "_durum_view",
    )

    __durum_refusal__: ClassVar[str] = (
        "an actor cannot travel; pass its key, and let the other side call self.actor(Kind, key)"
    )

    _durum_key: str
    _durum_host: Host
    _durum_extra: dict[str, bytes] | None
    _durum_entries: Entries | None
    _durum_view: Actor | None

    def __init__(self) -> None:
        name = type(self).__qualname__
        raise TypeError(
            f"{name} is not constructed but addressed: cluster.actor({name}, key) from outside, "
            f"self.actor({name}, key) inside another actor. In a unit test, write "
            f"durum.testing.actors.unhosted({name}, key, field=value)."
        )

    def __init_subclass__(
        cls,
        *,
        kind: str | None = None,
        version: int = 1,
        idle_after: timedelta | None = None,
        reentrant: bool | None = None,
        reentrancy: Literal["chain", "never"] | None = None,
        strict_reads: bool | None = None,
        mailbox_limit: int | None = None,
        replies_kept: int | None = None,
        reply_window: timedelta | None = None,
        message_attempts: int | None = None,
        pickle: bool | None = None,
        placement: Placement | StatelessWorker | None = None,
        aliases: tuple[str, ...] = (),
    ) -> None:
        super().__init_subclass__()
        if "_durum_view_of" in cls.__dict__:
            return  # the read-only view of a class that was checked already
        title = cls.__qualname__.rpartition("<locals>.")[2]
        name = cls.__name__ if kind is None else kind
        rules.check_kind_name(title, name)
        rules.check_class(title, classes_of(cls, Actor))
        given = {
            "idle_after_s": building.seconds(title, "idle_after", idle_after),
            "reentrant": reentrant,
            "reentrancy": reentrancy,
            "strict_reads": strict_reads,
            "mailbox_calls": building.count(title, "mailbox_limit", mailbox_limit),
            "replies_kept": building.count(title, "replies_kept", replies_kept),
            "reply_window_s": building.seconds(title, "reply_window", reply_window),
            "message_attempts": building.count(title, "message_attempts", message_attempts),
            "pickle": pickle,
            "aliases": building.names(title, aliases),
            **building.placed(title, placement),
        }
        options = building.options(cls, name, building.count(title, "version", version), given)
        building.take_shared_defaults(cls)
        building.build(cls, Actor, options, sys._getframe(1))  # noqa: SLF001 - where the class statement stands

    @property
    def key(self) -> str:
        """Which one of its kind this actor is."""
        return self._durum_key

    @property
    def context(self) -> TurnContext:
        """The call that the running turn serves."""
        return self._durum_host.context

    def actor(self, cls: type[T], key: str) -> T:
        """A typed reference to another actor, or to this one's kind under another key.

        Args:
            cls: the other's class.
            key: which one.
        """
        return reference(self._durum_host, cls, key)

    def tell(
        self, method: Callable[P, Coroutine[Any, Any, object]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Send another actor a durable message: have one of its methods run, exactly once, some time after
        this turn. It goes out with the turn's commit, or not at all where the turn fails.

            self.tell(self.actor(Ledger, "today").book, order.id, order.total)
            self.tell(durum.options(self.actor(Cart, self.key), delay=timedelta(hours=1)).remind)

        Messages to one actor arrive in the order in which this one's commits sent them. The method's result
        goes nowhere; where it raises, it runs again a little later, and after some attempts the message is
        put aside as a dead letter.

        Args:
            method: of a reference, or of this actor itself; options go onto the reference.
            args, kwargs: the method's.

        Raises:
            ArgumentError: it is no method that a message can run, or an argument cannot travel.
            AttributeError: in a @read_only turn, which never commits.
        """
        self._durum_host.tell(message(method, args, kwargs, self))

    async def save(self) -> None:
        """Commit what this turn has so far. A later exception of the turn rolls back to here only.

        Raises:
            AttributeError: in a @read_only turn, which never commits.
        """
        if self._durum_view is self:
            raise AttributeError(
                f"{type(self).__qualname__}: save() in a @read_only turn, which never commits. "
                "Remove @read_only from the method."
            )
        await self._durum_host.save()

    def deactivate(self) -> None:
        """Drop this activation from memory once its running turns have ended. Loses nothing durable."""
        self._durum_host.deactivate()

    def set_timer(
        self,
        callback: Callable[[*Ts], Coroutine[object, object, object]],
        *args: *Ts,
        due: float | timedelta | None = None,
        every: float | timedelta | None = None,
        name: str | None = None,
        keep_alive: bool = False,
    ) -> Timer:
        """Have one of this actor's methods run later, or again and again. Volatile: it ends with the
        activation, and `on_activate` is the place to set it anew.

        Each tick is a turn like that of a call: it waits its turn, ticks of one timer never overlap, what
        it changes is committed, and if it raises, that is taken back and logged.

        Args:
            callback: an `async def` method of this actor, public or not.
            args: for it, as they are.
            due: until the first tick, in seconds; None: after `every`.
            every: from one tick to the next; None: there is only one. Ticks that are missed because the
                one before took longer are left out.
            name: a timer of the same name ends first.
            keep_alive: an activation that nobody calls stays while the timer is active.

        Raises:
            ArgumentError: the callback is none of this actor's, or a time is out of range.
        """
        spec = specify(self, callback, args, due=due, every=every, name=name, keep_alive=keep_alive)
        return self._durum_host.set_timer(spec)

    def remind(
        self,
        name: str,
        *,
        at: datetime | None = None,
        delay: float | timedelta | None = None,
        every: float | timedelta | None = None,
        cron: str | None = None,
        timezone: str | tzinfo | None = None,
        payload: object = None,
        missed: Missed = "once",
        until: datetime | None = None,
        count: int | None = None,
    ) -> None:
        """Have `on_reminder` called later, or again and again. Durable: it outlives activations, silos and
        restarts, and is set, or not, together with what this turn changes.

        A reminder of the same name is replaced. But one that repeats and is asked for with the very same
        arguments goes on as it was, so that `on_activate` may set it each time. `self.context.reminders`
        lists and cancels.

        Args:
            name: which of this actor's reminders; up to 256 bytes.
            at: when it is due, with a time zone, here or as `timezone`. With `every`: a time with which
                ticks keep step, which may be over.
            delay: how long from now it is due, in seconds.
            every: from one tick to the next, in seconds; the first comes after as long, unless `at` or
                `delay` says otherwise.
            cron: five fields, minute hour day month weekday, such as "0 9 * * MON-FRI"; or six that begin
                with seconds.
            timezone: what `cron` and times without a zone are meant in, such as "Europe/Berlin"; None: UTC.
            payload: for each tick: text, numbers, bytes, lists and dicts.
            missed: ticks whose time went by, as while no silo was there: "once": one runs for all of them;
                "all": each runs; "skip": none does that could not begin within a minute of its time.
            until: no tick is due after that.
            count: how many ticks there are, those that are left out included.

        Raises:
            ArgumentError: it makes no sense, or would never tick, or there are too many; nothing was set.
            AttributeError: in a @read_only turn, which never commits.
            CommitFailed: no turn runs whose commit it would be part of; nothing was set.
        """
        reminders.check_name(name)
        plan = reminders.plan(
            at=at,
            delay=delay,
            every=every,
            cron=cron,
            timezone=timezone,
            payload=payload,
            missed=missed,
            until=until,
            count=count,
        )
        self._durum_host.remind(name, plan)

    async def on_reminder(self, name: str, tick: Tick) -> None:
        """Called when a reminder is due, as a turn like any other. Never early, and at least once.

        If it raises, nothing of it is kept, the reminder stands, and the same tick comes again: after a
        second, then less and less often, up to every five minutes.

        Args:
            name: which reminder.
            tick: which of its ticks.
        """

    async def on_activate(self) -> None:
        """Called once before the first turn of an activation; fields have their stored values."""

    async def on_deactivate(self, reason: str) -> None:
        """Called once after the last turn of an activation. Not after a crash: do not rely on it.

        Args:
            reason: why the activation ends, for people.
        """
