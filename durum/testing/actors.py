"""Actors without a silo, for unit tests of their methods. Owns a stand-in host; commits nothing."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar, cast

from durum import errors
from durum.clock import SystemClock
from durum.config import Limits
from durum.grains.actor import Actor
from durum.grains.collection import Collection
from durum.grains.context import TurnContext
from durum.grains.kind import kind_of
from durum.grains.messages import Message
from durum.grains.method import Method
from durum.grains.reference import CallOptions, Target
from durum.grains.reminders import Reminders, refused
from durum.grains.schedules import Plan, Standing, begin
from durum.grains.streams import Source
from durum.grains.timers import Timer, TimerSpec
from durum.store.parts import Part

A = TypeVar("A", bound=Actor)


def unhosted(cls: type[A], key: str = "test", /, **fields: object) -> A:
    """A plain instance of an actor: call its methods, look at its fields.

        account = unhosted(Account, "alice", balance=Decimal(5))
        await account.deposit(Decimal(10))
        assert account.balance == 15

    Nothing commits or rolls back, no hook runs, and one turn does not wait for another. `save()` and
    `deactivate()` do nothing, nobody sees what it publishes, and neither timers nor reminders tick: call
    their method, or `on_reminder`, yourself; `context.reminders` tells which were set. Messages go nowhere;
    `told(instance)` lists them. Calls to other actors are refused; give the instance a stand-in:
    `account.actor = lambda cls, key: fake`.

    Args:
        cls: the actor's class.
        key: what `self.key` shall be.
        fields: values of durable fields that shall not have their defaults; a dict for a Map, a list for a
            List.

    Raises:
        TypeError: the class has no such field.
    """
    kind = kind_of(cls)
    unknown = [name for name in fields if name not in kind.fields.names]
    if unknown:
        raise TypeError(
            f"{cls.__qualname__} has no field {', '.join(unknown)}; it has: "
            f"{', '.join(kind.fields.names) or 'none'}."
        )
    instance = cast("A", kind.create(key, _Nowhere()))  # the kind makes instances of its own class
    for name, value in fields.items():
        there = getattr(instance, name)
        if isinstance(there, Collection):
            there._fill(value)  # noqa: SLF001 - ours
        else:
            setattr(instance, name, value)
    return instance


def told(actor: Actor) -> list[tuple[str, str, str, dict[str, object]]]:
    """What an actor made by `unhosted` has told others so far: kind, key, method and arguments.

        await customer.buy("apple")
        assert told(customer) == [("Ledger", "today", "book", {"what": "apple"})]

    Raises:
        TypeError: it was not made by `unhosted`.
    """
    host: object = actor._durum_host  # noqa: SLF001 - ours
    if not isinstance(host, _Nowhere):
        raise TypeError(f"told(): {actor!r} was not made by unhosted().")
    return [
        (each.target.kind.name, each.target.key, each.method.name, each.method.unpack(each.args))
        for each in host.told
    ]


class _NoEntries:
    """Where the entries of an actor without a silo are: nowhere but in the actor."""

    limits = Limits(turn_entries=sys.maxsize, turn_entry_bytes=sys.maxsize)

    async def load(
        self,
        names: Sequence[bytes],  # noqa: ARG002 - the EntryStore's signature
        *,
        contents: bool = True,  # noqa: ARG002
    ) -> Mapping[bytes, bytes]:
        return {}

    async def scan(
        self,
        prefix: bytes,  # noqa: ARG002
        after: bytes,  # noqa: ARG002
        limit: int,  # noqa: ARG002
    ) -> Sequence[Part]:
        return ()


class _Nowhere:
    """The host of an actor that has none."""

    entries = _NoEntries()

    def __init__(self) -> None:
        self.told: list[Message] = []
        self._standing: dict[str, Standing] = {}
        self.context = TurnContext(reminders=Reminders(self))

    def call(
        self,
        target: Target,
        method: Method,
        args: bytes,  # noqa: ARG002 - the Caller's signature
        options: CallOptions,  # noqa: ARG002
    ) -> Awaitable[bytes]:
        raise errors.NoSuchKind(
            f"{target.grain}: this actor has no silo, so {method.name} did not run. Give it a "
            "stand-in, `instance.actor = ...`, or test it in a TestCluster."
        )

    def stream(
        self,
        target: Target,
        method: Method,
        args: bytes,
        options: CallOptions,
    ) -> Source:
        self.call(target, method, args, options)
        raise errors.DurumBug("a call without a silo was not refused")

    def tell(self, message: Message) -> None:
        """Kept, and sent nowhere."""
        self.told.append(message)

    async def save(self) -> None:
        """Nothing to commit to."""

    def deactivate(self) -> None:
        """Nothing to end."""

    def set_timer(self, spec: TimerSpec) -> Timer:
        """A timer that waits for ever."""
        return Timer(spec.name, lambda: None)

    def publish(self, event: object) -> None:
        """Nobody watches."""

    def remind(self, name: str, plan: Plan) -> None:
        """Only kept, for the test to look at."""
        try:
            self._standing[name] = begin(plan, int(SystemClock().wall() * 1000))
        except ValueError as exc:
            raise refused(exc) from exc

    def cancel_reminder(self, name: str) -> None:
        self._standing.pop(name, None)

    async def reminders(self) -> Mapping[str, Standing]:
        return self._standing
