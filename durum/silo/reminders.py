"""The reminders of one activation. Owns what is known of them and their ticks; when those are due, schedules
tells.

They are read from the record when they are first needed, and kept: nothing else writes them. Each is a part
of the record, and has a wake-up of the same name, set and dropped by the very commit that changes the part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, assert_never

import msgspec

from durum import errors
from durum.grains import reminders, schedules
from durum.grains.actor import Actor
from durum.grains.kind import GrainKind
from durum.grains.schedules import Pass, Plan, Run, Standing, Wait
from durum.ids import GrainId
from durum.silo.durable import Durable
from durum.silo.effects import Staged
from durum.silo.services import Services
from durum.silo.staging import staged_so_far, staging
from durum.silo.stored import StoredEntries
from durum.silo.turn import CURRENT
from durum.store import parts
from durum.telemetry import Log

WAKES: Final = b"r"
"""What the names of their wake-ups begin with."""
_PAGE: Final = 256

_log = Log("durum.reminders")
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Standing).decode


class _Wishes:
    """What one turn wants of reminders. See effects.Companion.

    Args:
        book: whose.

    Attributes:
        asked: what was asked for by name, and as what it would begin; None cancels.
    """

    __slots__ = ("_book", "_true", "asked")

    def __init__(self, book: Book) -> None:
        self._book = book
        self.asked: dict[str, Standing | None] = {}
        self._true: dict[str, Standing | None] = {}

    @property
    def unresolved(self) -> bool:
        return bool(self.asked)

    async def resolve(self, staged: Staged) -> None:
        known = await self._book.load()
        self.settle(staged, known)

    def settle(self, staged: Staged, known: Mapping[str, Standing]) -> None:
        """Stage what was asked for, now that it is known what there is."""
        self._book.check_count(self.seen(known))
        asked, self.asked = self.asked, {}
        for name, standing in asked.items():
            before = self._true[name] if name in self._true else known.get(name)
            if standing is None:
                if before is None:
                    continue
            elif schedules.goes_on(before, standing.plan):
                continue
            self._true[name] = standing
            stage(staged, name, standing)

    def force(self, staged: Staged, name: str, standing: Standing | None) -> None:
        """Stage how a reminder goes on."""
        self.asked.pop(name, None)
        self._true[name] = standing
        stage(staged, name, standing)

    def seen(self, known: Mapping[str, Standing]) -> dict[str, Standing]:
        """All reminders, as the turn has them."""
        merged: dict[str, Standing | None] = {**known, **self._true}
        for name, standing in self.asked.items():
            if standing is None or not schedules.goes_on(merged.get(name), standing.plan):
                merged[name] = standing
        return {name: standing for name, standing in merged.items() if standing is not None}

    def landed(self) -> None:
        self._book.landed(self._true)


def stage(staged: Staged, name: str, standing: Standing | None) -> None:
    """Have a commit set a reminder, or take it away: its part and its wake-up."""
    content = None if standing is None else _encode(standing)
    staged.set_part(parts.REMINDERS + name.encode(), content)
    staged.set_wake(WAKES + name.encode(), None if standing is None else standing.wake_ms)


def read(name: bytes, content: bytes) -> tuple[str, Standing]:
    """A reminder from a part of its grain's record."""
    return name[len(parts.REMINDERS) :].decode(), _decode(content)


def wake_of(name: bytes, content: bytes) -> tuple[bytes, int]:
    """Name and time of the wake-up that a reminder has, from its part."""
    title, standing = read(name, content)
    return WAKES + title.encode(), standing.wake_ms


class Book:
    """Of one activation; see grains.reminders.Keeper.

    Args:
        grain: whose.
        kind: its kind.
        durable: its durable side.
        services: the silo's.
        entries: its record, patiently read.
    """

    __slots__ = ("_durable", "_entries", "_grain", "_kind", "_known", "_landings", "_services")

    def __init__(
        self,
        grain: GrainId,
        kind: GrainKind,
        durable: Durable,
        services: Services,
        entries: Callable[[], StoredEntries],
    ) -> None:
        self._grain = grain
        self._kind = kind
        self._durable = durable
        self._services = services
        self._entries = entries
        self._known: dict[str, Standing] | None = None
        self._landings = 0

    # What is known ------------------------------------------------------------------------------------

    async def load(self) -> Mapping[str, Standing]:
        """All that are committed.

        Raises:
            CommitFailed: they cannot be read now.
        """
        while self._known is None:
            landings = self._landings
            found = await self._read()
            if self._landings == landings and self._known is None:
                self._known = found
        return self._known

    async def _read(self) -> dict[str, Standing]:
        entries, after = self._entries(), b""
        found: dict[str, Standing] = {}
        while True:
            page = await entries.scan(parts.REMINDERS, after, _PAGE)
            found.update(read(*part) for part in page)
            if parts.is_last(page, _PAGE):
                return found
            after = page[-1][0]

    def landed(self, changed: Mapping[str, Standing | None]) -> None:
        """A commit has changed some."""
        self._landings += 1
        if self._known is None:
            return
        for name, standing in changed.items():
            if standing is None:
                self._known.pop(name, None)
            else:
                self._known[name] = standing

    def check_count(self, seen: Mapping[str, Standing]) -> None:
        """Refuse too many.

        Raises:
            ArgumentError: there would be too many.
        """
        limit = self._services.config.limits.reminders
        if len(seen) > limit:
            raise errors.ArgumentError(
                f"{self._grain} would have {len(seen)} reminders (limit {limit}); nothing was set. Give"
                " several tasks one reminder, or raise reminders."
            )

    # What a turn wants --------------------------------------------------------------------------------

    def remind(self, name: str, plan: Plan) -> None:
        self._refuse_unheard()
        staged = staging(self._grain, "remind()")
        now_ms = int(self._services.store_time() * 1000)
        try:
            self._check_payload(plan)
            standing = schedules.begin(plan, now_ms)
        except ValueError as exc:
            raise reminders.refused(exc) from exc
        self._wish(staged, name, standing)

    def cancel(self, name: str) -> None:
        self._wish(staging(self._grain, "reminders.cancel()"), name, None)

    async def standing(self) -> Mapping[str, Standing]:
        known = await self.load()
        staged = staged_so_far(self._grain)
        wishes = None if staged is None else _wishes_in(staged)
        return known if wishes is None else wishes.seen(known)

    def _check_payload(self, plan: Plan) -> None:
        limit = self._services.config.limits.reminder_bytes
        if len(plan.payload) > limit:
            raise ValueError(
                f"payload: it has {len(plan.payload)} bytes (limit {limit}). Keep it in a field, and only"
                " say here where; or raise reminder_bytes"
            )

    def _refuse_unheard(self) -> None:
        if "on_reminder" not in self._kind.hooks:
            title = self._kind.cls.__qualname__
            raise errors.ArgumentError(
                f"remind(): {title} has no `async def on_reminder(self, name, tick)`, so nobody would hear of"
                " it; nothing was set. Write one."
            )

    def _wish(self, staged: Staged, name: str, standing: Standing | None) -> None:
        wishes, known = self._wishes(staged), self._known
        if known is not None and standing is not None:
            self.check_count({**wishes.seen(known), name: standing})  # before anything is staged
        wishes.asked[name] = standing
        if known is not None:
            wishes.settle(staged, known)

    def _wishes(self, staged: Staged) -> _Wishes:
        wishes = _wishes_in(staged)
        if wishes is None:
            wishes = _Wishes(self)
            staged.companions = (*staged.companions, wishes)
        return wishes

    # Ticks --------------------------------------------------------------------------------------------

    async def wake(self, instance: Actor, name: str) -> int | None:
        """Run what is due of one reminder, as part of the running turn.

        Returns:
            When to look again, in the store's milliseconds; None where it stands no more.

        Raises:
            Exception: whatever on_reminder raises; the tick stays, and is tried again later.
        """
        before = (await self.load()).get(name)
        if before is None:
            return None
        # Never early: not by the store's own time, however its clock and ours differ in rate.
        now_ms = int(self._services.reckoned() * 1000)
        step = schedules.decide(before, now_ms)
        match step:
            case Wait():
                return step.until_ms
            case Pass():
                _log.info("ticks left out", grain=self._grain, reminder=name, of=before.due_ms)
                return self._go_on(name, step.then)
            case Run():
                await self._run(instance, name, before, step.tick)
                now = (await self.standing()).get(name)
                if now == before:
                    return self._go_on(name, step.then)
                return None if now is None else now.wake_ms  # on_reminder has set it anew
            case _:
                assert_never(step)

    def _go_on(self, name: str, then: Standing | None) -> int | None:
        staged = staging(self._grain, "a tick")
        self._wishes(staged).force(staged, name, then)
        return None if then is None else then.wake_ms

    async def _run(self, instance: Actor, name: str, before: Standing, tick: Standing) -> None:
        services, turn = self._services, CURRENT.get()
        services.meters.lateness.add(max(0.0, services.reckoned() - tick.due_ms / 1000))
        try:
            self._refuse_unheard()
            await instance.on_reminder(name, reminders.tick_of(tick))
        except Exception as exc:
            _log.error(
                "on_reminder failed, it is tried again later",
                exc,
                grain=self._grain,
                reminder=name,
                tick=tick.number,
                attempt=tick.attempts + 1,
            )
            await self._note_failure(name, before, tick, f"{type(exc).__qualname__}: {exc}")
            raise
        except asyncio.CancelledError:
            if turn is not None and services.clock.boottime() >= turn.deadline:
                _log.error("on_reminder took too long", grain=self._grain, reminder=name)
                limit_s = services.config.limits.call_timeout_s
                await self._note_failure(name, before, tick, f"it took longer than {limit_s:g} s")
            raise

    async def _note_failure(self, name: str, before: Standing, tick: Standing, error: str) -> None:
        """Commit that a tick has failed, and when it is tried again; nothing of its turn goes along.

        Where that cannot be committed, the tick is due as before, and is tried again at once.
        """
        services, staged = self._services, Staged()
        if (await self.load()).get(name) != before:
            return  # what the turn has saved before it failed stands
        now_ms = int(services.reckoned() * 1000)
        self._wishes(staged).force(staged, name, schedules.failed(tick, now_ms, error))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def then(_: errors.CallError | None) -> None:
            if not done.done():
                done.set_result(None)

        self._durable.commit(
            change=None,
            with_state=False,
            staged=staged,
            deadline=services.clock.boottime() + services.config.limits.call_timeout_s,
            then=then,
        )
        await done

    def __repr__(self) -> str:
        known = "unread" if self._known is None else f"{len(self._known)} reminders"
        return f"<Book {self._grain} {known}>"


def _wishes_in(staged: Staged) -> _Wishes | None:
    return next((each for each in staged.companions if isinstance(each, _Wishes)), None)
