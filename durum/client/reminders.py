"""Reminders, as operators see them. Owns the questions; the reminders' own grains and their owners answer.

async with durum.connect(...) as cluster:
    await cluster.admin.reminders.set("Till", "berlin", "close", cron="0 22 * * *")
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Final

import msgspec

from durum import errors, ids
from durum.grains import reminders
from durum.grains.actor import Actor
from durum.grains.kind import kind_of
from durum.grains.reminders import Reminder
from durum.grains.schedules import Missed, Standing
from durum.ids import GrainId, SiloId
from durum.wire import reminders as wire

_NAMES: Final = b"r"
_PAGE: Final = 1000

Ask = Callable[[GrainId, str, msgspec.Struct | None], Awaitable[bytes]]
"""Ask a grain, or its owner, and get the encoded answer."""
AskAll = Callable[[str], Awaitable[Mapping[SiloId, bytes]]]
"""Ask every silo by itself; those that do not answer are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One reminder in a listing.

    Args:
        key: of its actor.
        name: which of its reminders.
        due: when somebody looks at it next: when its next tick is due, or is tried again.
    """

    key: str
    name: str
    due: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReminderPage:
    """Some reminders of one kind.

    Args:
        found: in no order that means anything. A page may be empty, and not the last.
        after: hand it back for the next page; "" after the last.
    """

    found: tuple[Found, ...]
    after: str


class ReminderAdmin:
    """`cluster.admin.reminders`.

    Args:
        ask, ask_all: see Ask and AskAll.
    """

    def __init__(self, ask: Ask, ask_all: AskAll) -> None:
        self._ask = ask
        self._ask_all = ask_all

    async def list(self, kind: str | type[Actor], key: str) -> list[Reminder]:
        """All reminders of one actor, by their names. It is not activated by that."""
        answer = await self._ask(_grain(kind, key), wire.REMINDERS, None)
        found = msgspec.msgpack.decode(answer, type=dict[str, Standing])
        return [reminders.describe(name, found[name]) for name in sorted(found)]

    async def get(self, kind: str | type[Actor], key: str, name: str) -> Reminder | None:
        """One reminder of one actor; None where it has none of that name."""
        return next((each for each in await self.list(kind, key) if each.name == name), None)

    async def set(
        self,
        kind: str | type[Actor],
        key: str,
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
    ) -> Reminder:
        """Set a reminder, as the actor itself would by `self.remind`; the arguments are the same.

        Returns:
            The reminder as it stands.

        Raises:
            ArgumentError: it makes no sense, or the actor has no `on_reminder`; nothing was set.
        """
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
        reminders.check_name(name)
        asked = wire.Remind(name, wire.encode(plan))
        answer = await self._ask(_grain(kind, key), wire.REMIND, asked)
        return reminders.describe(name, msgspec.msgpack.decode(answer, type=Standing))

    async def cancel(self, kind: str | type[Actor], key: str, name: str) -> bool:
        """Take a reminder away. A tick that runs goes on to its end, and none begins after it.

        Returns:
            Whether there was one.
        """
        reminders.check_name(name)
        answer = await self._ask(_grain(kind, key), wire.REMIND, wire.Remind(name, None))
        return msgspec.msgpack.decode(answer, type=bool)

    async def find(
        self, kind: str | type[Actor], *, prefix: str = "", after: str = "", limit: int = 100
    ) -> ReminderPage:
        """Reminders of all actors of a kind. For all of them, see `every`.

        Args:
            kind: which.
            prefix: what the actors' keys begin with.
            after: the page's before this one; "" for the first.
            limit: at most so many, up to 1000.

        Raises:
            ArgumentError: `after` is none that a page gave.
        """
        partition, place = _cursor(after)
        asked = wire.WakeUps(f"{_name(kind)}/{prefix}", _NAMES, partition, place, limit)
        answer = await self._ask(GrainId("Durum/anywhere"), wire.WAKE_UPS, asked)
        page = msgspec.msgpack.decode(answer, type=wire.WakeUpPage)
        return ReminderPage(
            found=tuple(
                Found(
                    key=ids.split_grain_id(grain)[1],
                    name=name[len(_NAMES) :].decode(),
                    due=reminders.moment(due_ms, ""),
                )
                for due_ms, grain, name in page.found
            ),
            after=_text(page.partition, page.after) if page.partition >= 0 else "",
        )

    async def every(self, kind: str | type[Actor], *, prefix: str = "") -> AsyncIterator[Found]:
        """Walk through all reminders of a kind. Those that move meanwhile may come twice or not at all.

        Args:
            kind: which.
            prefix: what the actors' keys begin with.
        """
        after = ""
        while True:
            page = await self.find(kind, prefix=prefix, after=after, limit=_PAGE)
            for found in page.found:
                yield found
            after = page.after
            if not after:
                return

    async def trust_clock(self) -> Mapping[SiloId, float]:
        """Say that the store's clock, which was set forward, is right.

        Silos go by the time from before for ten minutes, so that a mistake does not make all reminders of
        a day due at once; told so, they follow at once.

        Returns:
            By how many seconds each silo will move; 0 where it has noticed no jump.
        """
        answers = await self._ask_all(wire.TRUST_CLOCK)
        return {silo: msgspec.msgpack.decode(each, type=float) for silo, each in answers.items()}


def _name(kind: str | type[Actor]) -> str:
    if not isinstance(kind, str):
        return kind_of(kind).name
    if not ids.KIND.fullmatch(kind):
        raise errors.ArgumentError(f"{kind[:100]!r} is not the name of a kind; nothing was asked.")
    return kind


def _grain(kind: str | type[Actor], key: str) -> GrainId:
    return ids.grain_id(_name(kind), key)


_Place = tuple[int, GrainId, bytes] | None


def _text(partition: int, place: _Place) -> str:
    """A cursor for people to hand back."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode((partition, place))).decode()


def _cursor(text: str) -> tuple[int, _Place]:
    if not text:
        return 0, None
    try:
        return msgspec.msgpack.decode(
            base64.urlsafe_b64decode(text.encode()), type=tuple[int, _Place]
        )
    except (ValueError, msgspec.MsgspecError):
        raise errors.ArgumentError(f"after: {text[:100]!r} is not what a page gave.") from None
