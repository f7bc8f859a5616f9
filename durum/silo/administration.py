"""Answers what operators ask. Owns the requests' meaning at a silo; decides nothing about placement.

Deleting is done by the grain's owner, after its turns and before the next: nobody reads a state that is
being deleted, and nobody builds on one that was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from durum import errors
from durum.errors import DidRun
from durum.ids import GrainId, SiloId
from durum.silo import refusals
from durum.silo.catalog import Catalog
from durum.silo.copies import Copies
from durum.silo.holdings import Tenure
from durum.silo.letter_desk import LetterDesk
from durum.silo.meters import OK
from durum.silo.reason import Reason
from durum.silo.reminder_desk import ReminderDesk
from durum.silo.services import Services
from durum.silo.statistics import SiloStatistics
from durum.silo.turn import Sink, refuse
from durum.store.damage import Damaged
from durum.store.protocol import Store
from durum.telemetry import Log
from durum.views import View
from durum.wire import administration as wire
from durum.wire import copies as copies_wire
from durum.wire import letters as letter_wire
from durum.wire import reminders as reminder_wire
from durum.wire.hints import HINT
from durum.wire.messages import Call, Reply

_log = Log("durum.administration")
_AT_ONCE: Final = 64
_WIDEST: Final = 128
"""Partitions that are read together, at most."""
_ATTEMPTS: Final = 4
_PAUSE_S: Final = 0.05


class Administration:
    """One silo's answers.

    Args:
        silo: this silo.
        partitions: P.
        services: the silo's.
        store: its queries.
        catalog: its activations.
        members: the newest view, and how many partitions each silo should own by it.
        look: the silo's counters now.
        desk: answers about reminders.
        hint: see Hints.hint.
        letters: answers about messages.
    """

    def __init__(
        self,
        *,
        silo: SiloId,
        partitions: int,
        services: Services,
        store: Store,
        catalog: Catalog,
        members: Callable[[], tuple[View, Mapping[SiloId | None, int]]],
        look: Callable[[], SiloStatistics],
        desk: ReminderDesk,
        hint: Callable[[Call, Tenure], Awaitable[object]],
        letters: LetterDesk,
    ) -> None:
        self._silo = silo
        self._partitions = partitions
        self._services = services
        self._store = store
        self._catalog = catalog
        self._members = members
        self._look = look
        self._busy = 0
        copies = Copies(services, catalog)
        self._anywhere: dict[str, Callable[[Call], Awaitable[object]]] = {
            wire.SCAN: self._scan,
            wire.COUNT: self._count,
            wire.SILOS: self._silos,
            wire.NOW: self._now,
            reminder_wire.WAKE_UPS: desk.wake_ups,
            reminder_wire.TRUST_CLOCK: desk.trust_clock,
            letter_wire.LETTERS: letters.letters,
            letter_wire.WAITING: letters.waiting,
        }
        self._owned: dict[str, Callable[[Call, Tenure], Awaitable[object]]] = {
            wire.INSPECT: self._inspect,
            wire.DEACTIVATE: self._deactivate,
            wire.DELETE: self._delete,
            copies_wire.COPY: copies.copy,
            copies_wire.PASTE: copies.paste,
            reminder_wire.REMINDERS: desk.reminders,
            HINT: hint,
            letter_wire.LETTER: letters.letter,
        }

    def take(self, sink: Sink, call: Call, holding: Tenure | None) -> None:
        """Take in a request; it is answered once, later.

        Args:
            sink: where the answer goes.
            call: the request.
            holding: of the grain's partition; None for requests that any silo answers.
        """
        if self._busy >= _AT_ONCE:
            text = f"{self._silo} has {self._busy} administrative requests on its hands; this did not run."
            return refuse(sink, call.id, errors.Overloaded(text))
        work: Awaitable[object]
        if holding is None and call.method in self._anywhere:
            work = self._anywhere[call.method](call)
        elif holding is not None and call.method in self._owned:
            work = self._owned[call.method](call, holding)
        else:
            text = f"{self._silo} knows no administrative request {call.method[:100]!r}; it did not run."
            return refuse(sink, call.id, errors.NoSuchMethod(text))
        self._busy += 1
        self._services.tasks.start(
            self._answer(sink, call, work), call.method, self._services.base.copy()
        )
        return None

    async def _answer(self, sink: Sink, call: Call, work: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                answer = await work
            sink.send(Reply(call.id, wire.encode(answer)))
        except errors.CallError as exc:
            refuse(sink, call.id, exc)
        except TimeoutError:
            text = f"{call.method} of {call.grain}: not done in time. Look before you repeat it."
            refuse(sink, call.id, errors.CallTimeout(text, DidRun.MAYBE))
        except Damaged as exc:
            text = f"{call.grain}: {exc} The request did not run."
            refuse(sink, call.id, errors.Quarantined(text))
        except (
            errors.DurumError
        ) as exc:  # the store, or a holding that is gone: asked again, it may do
            refuse(sink, call.id, refusals.not_serving(call.grain, exc))
        except msgspec.MsgspecError as exc:
            text = f"{call.method}: its arguments are not what it takes: {exc}; it did not run."
            refuse(sink, call.id, errors.ArgumentError(text))
        except Exception as exc:  # noqa: BLE001 - an operator's question must not end the silo
            _log.error("an administrative request failed", exc, method=call.method)
            text = f"{call.method} failed at {self._silo}: {exc!r}. Its log has more."
            refuse(sink, call.id, errors.CallError(text, DidRun.MAYBE))
        finally:
            self._busy -= 1

    # Of one grain, at its owner -------------------------------------------------------------------------

    async def _inspect(self, call: Call, holding: Tenure) -> wire.Inspected:
        services, grain = self._services, call.grain
        record = await services.store.load(holding.partition, holding.token, grain)
        replies = await services.store.replies(holding.partition, holding.token, grain)
        activation = self._catalog.activations.get(grain)
        running, waiting = (0, 0) if activation is None else activation.queue
        return wire.Inspected(
            silo=self._silo,
            partition=holding.partition,
            epoch=holding.epoch,
            version=record.version,
            state=record.state,
            replies=len(replies),
            active="" if activation is None else activation.state.name.lower(),
            running=running,
            waiting=waiting,
        )

    async def _deactivate(self, call: Call, holding: Tenure) -> bool:
        del holding  # whoever serves the grain has its activation
        return await self._catalog.dismiss(call.grain)

    async def _delete(self, call: Call, holding: Tenure) -> bool:
        existed = False

        async def erase() -> None:
            nonlocal existed
            existed = await self._erase(call.grain, holding)

        await self._catalog.between_turns(
            call.grain, holding.partition, holding.token, erase, Reason.DELETED
        )
        return existed

    async def _erase(self, grain: GrainId, holding: Tenure) -> bool:
        """Erase it, whatever of its own commits may still be on their way."""
        store, partition, token = self._services.store, holding.partition, holding.token
        kind = self._catalog.kind_of(grain)
        window_s = None if kind is None else kind.options.reply_window_s
        keep_s = window_s or self._services.config.limits.reply_window_s
        existed = unknown = False
        last: errors.DurumError | None = None
        for _ in range(_ATTEMPTS):
            try:
                record = await store.load(partition, token, grain)
                existed = existed or record.state is not None
                if record.version:
                    await store.erase(partition, token, grain, record.version, keep_s=keep_s)
            except errors.Superseded as exc:
                await store.verify(partition, token)  # else a late commit of our own was faster
                last = exc
            except errors.StoreUnavailable as exc:
                unknown = unknown or exc.applied is None
                last = exc
                await self._services.clock.sleep(_PAUSE_S)
            else:
                return existed
        if unknown:
            text = (
                f"{grain}: the store did not say whether it was deleted ({last}). Delete it again."
            )
            raise errors.CommitFailed(text, DidRun.MAYBE)
        raise errors.StoreUnavailable(f"{grain} was not deleted: {last}", applied=False)

    # Of all grains and silos, anywhere ------------------------------------------------------------------

    async def _scan(self, call: Call) -> wire.Page:
        ask = msgspec.msgpack.decode(call.args, type=wire.Scan)
        limit = max(1, min(ask.limit, wire.PAGE_LIMIT))
        found: list[GrainId] = []
        partition, after, width = max(0, ask.partition), ask.after, 1
        while partition < self._partitions:
            these = range(partition, min(partition + width, self._partitions))
            several = await asyncio.gather(
                *(
                    self._store.scan(each, ask.prefix, after if each == partition else "", limit)
                    for each in these
                )
            )
            for each, grains in zip(these, several, strict=True):
                found += grains[: limit - len(found)]
                if len(found) == limit:
                    return wire.Page(tuple(found), each, self._partitions)
            # Few grains in many partitions: read more of them at once.
            partition, after, width = these.stop, "", min(width * 2, _WIDEST)
        return wire.Page(tuple(found), self._partitions, self._partitions)

    async def _count(self, call: Call) -> int:
        ask = msgspec.msgpack.decode(call.args, type=wire.Count)
        total = 0
        for start in range(0, self._partitions, _WIDEST):
            these = range(start, min(start + _WIDEST, self._partitions))
            total += sum(
                await asyncio.gather(*(self._store.count(each, ask.prefix) for each in these))
            )
        return total

    async def _silos(self, call: Call) -> wire.Members:
        del call
        view, wanted = self._members()
        now = self._services.store_time()
        return wire.Members(
            version=view.version,
            partitions=self._partitions,
            silos=tuple(
                wire.Member(
                    silo=row.silo,
                    status=row.status,
                    since_s=max(0.0, now - row.since),
                    wanted=wanted.get(row.silo, 0),
                    kinds=row.kinds,
                    roles=row.roles,
                    weight=row.weight,
                    web=row.web,
                    pid=row.pid,
                    suspected_by=tuple(vote.by for vote in row.suspicions),
                    reason=row.reason,
                )
                for row in sorted(view.rows, key=lambda row: row.silo)
            ),
        )

    async def _now(self, call: Call) -> wire.Now:
        del call
        found = self._look()
        outcomes = [each.outcomes for each in found.methods]
        good = sum(each.get(OK, 0) for each in outcomes)
        answered = sum(sum(each.values()) for each in outcomes)
        return wire.Now(
            silo=self._silo,
            lease_left_s=found.lease_left_s,
            ready=found.ready,
            durability=found.store.durability.level.name,
            trouble=found.store.trouble,
            held=found.ownership.held,
            serving=found.ownership.ready,
            activations={kind.kind: kind.active for kind in found.kinds if kind.active},
            calls=found.calls,
            waiting=found.waiting,
            answered=answered,
            failed=answered - good,
            committed=found.committed,
            rolled_back=found.rolled_back,
            fenced=found.fenced,
            clients=found.clients,
        )

    def __repr__(self) -> str:
        return f"<Administration {self._silo} busy={self._busy}>"
