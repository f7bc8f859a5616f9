"""Takes in messages of clients for one activation's grain. Owns what makes them durable and known by their
keys; they are delivered as all others.

A client has no outbox, so its message goes into that of the receiver's own partition, by a commit of the
receiver's record. That is no turn: it need not wait until the receiver has time.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from durum import errors
from durum.errors import DidRun
from durum.grains.kind import GrainKind, Method
from durum.grains.messages import PAST_S
from durum.ids import GrainId
from durum.silo import refusals, replies
from durum.silo.durable import Durable
from durum.silo.effects import Staged
from durum.silo.inbox import Place
from durum.silo.services import Services
from durum.silo.stored import StoredEntries
from durum.silo.telling import stage_message
from durum.silo.turn import Sink, refuse
from durum.wire import post as wire
from durum.wire.messages import Call, Failure, Reply

_NIL: Final = b"\xc0"
_KEYS: Final = "tell\0"
"""Keys of messages are none of calls."""


class Acceptance:
    """One activation's.

    Args:
        grain: which.
        kind: its kind.
        durable: its durable side.
        services: the silo's.
        place: see Place.
        entries: its record, patiently read.
    """

    __slots__ = ("_durable", "_entries", "_grain", "_keys", "_kind", "_place", "_services")

    def __init__(
        self,
        grain: GrainId,
        kind: GrainKind,
        durable: Durable,
        services: Services,
        place: Place,
        entries: StoredEntries,
    ) -> None:
        self._grain = grain
        self._kind = kind
        self._durable = durable
        self._services = services
        self._place = place
        self._entries = entries
        self._keys: dict[str, asyncio.Event] = {}

    def take(self, call: Call, sink: Sink) -> None:
        """Take in a message; it is answered once."""
        load = self._services.load
        load.calls += 1
        load.bytes += len(call.args)
        self._services.tasks.start(
            self._answer(call, sink), f"tell {self._grain}", self._services.base.copy()
        )

    async def _answer(self, call: Call, sink: Sink) -> None:
        services = self._services
        deadline = services.clock.boottime() + call.timeout_ms / 1000
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                outcome = await self._outcome(call, deadline, trusted=sink.trusted)
            outcome.id = call.id
            sink.send(outcome)
        except errors.CallError as exc:
            refuse(sink, call.id, exc)
        except TimeoutError:
            text = f"{self._grain}: the message was not taken in in time, as far as is known."
            refuse(sink, call.id, errors.CallTimeout(text, DidRun.MAYBE))
        finally:
            services.load.calls -= 1
            services.load.bytes -= len(call.args)

    async def _outcome(self, call: Call, deadline: float, *, trusted: bool) -> Reply | Failure:
        try:
            asked = wire.decode_tell(call.args)
        except msgspec.MsgspecError as exc:
            text = f"{self._grain}: the message is malformed ({exc}); nothing was taken in."
            raise errors.ArgumentError(text) from exc
        method = self._check(asked, trusted=trusted)
        if not await self._place.wait_valid():
            raise refusals.not_serving(self._grain, "it moves")
        if not self._services.lease.held(self._services.clock.boottime()):
            raise refusals.lapsed(self._grain)
        if not call.key:
            await self._know_version()
            staged = self._staged(call, asked, trusted=trusted)
            return await self._end(self._begin(staged, None, deadline))
        # The same arguments may be written in more ways than one, as sets are by each process.
        canonical = msgspec.structs.replace(asked, args=method.canonical(asked.args))
        digest = replies.digest_call(wire.TELL, wire.encode(canonical))
        return await self._once(call, asked, digest, deadline, trusted=trusted)

    def _check(self, asked: wire.Tell, *, trusted: bool) -> Method:
        """Refuse now what could only end as a dead letter."""
        known = self._services.methods(self._kind).get(asked.method)
        if known is None or known[0].streams or known[0].read_only:
            raise refusals.no_such_method(self._kind, asked.method)
        method = known[0]
        if method.opaque and not trusted:
            raise refusals.untrusted(self._grain, asked.method)
        method.unpack(asked.args)
        return method

    async def _once(
        self, call: Call, asked: wire.Tell, digest: bytes, deadline: float, *, trusted: bool
    ) -> Reply | Failure:
        """Take in a message with a key: a repeat finds that it was."""
        while (earlier := self._keys.get(call.key)) is not None:
            await earlier.wait()
        self._keys[call.key] = over = asyncio.Event()
        try:
            known = await self._remembered()
            key = replies.digest_key(_KEYS + call.key)
            now = self._services.store_time()
            before = known.recall(key, digest, now)
            if before is not None:
                self._free(call.key, over)
                return before
            change = known.remember(key, digest, Reply(0, _NIL), now)
            staged = self._staged(call, asked, trusted=trusted)
            await self._know_version()
            done = self._begin(staged, change, deadline)
        except BaseException:
            self._free(call.key, over)
            raise
        # Whoever gives up on it does not stop the commit, and a repeat must not overtake that.
        done.add_done_callback(lambda _: self._free(call.key, over))
        return await self._end(done)

    async def _remembered(self) -> replies.RememberedReplies:
        if self._durable.replies is None:
            await self._entries.know_replies()
        if self._durable.replies is None:
            raise errors.DurumBug(f"{self._grain}: replies were not loaded")
        return self._durable.replies

    def _free(self, key: str, over: asyncio.Event) -> None:
        del self._keys[key]
        over.set()

    def _staged(self, call: Call, asked: wire.Tell, *, trusted: bool) -> Staged:
        services, staged = self._services, Staged()
        now_ms = int(services.store_time() * 1000)
        row = wire.Row(
            asked.method,
            asked.args,
            request=call.request,
            carried=call.carried,
            trusted=trusted,
            sent_ms=now_ms,
        )
        due_ms = asked.at_ms if asked.delay_ms is None else now_ms + asked.delay_ms
        if due_ms is not None and due_ms < now_ms - PAST_S * 1000:
            raise errors.ArgumentError(
                f"{self._grain}: at lies {(now_ms - due_ms) / 1000:.0f} s in the past; nothing was sent."
                " Leave it out to send at once."
            )
        at_once = due_ms is None or due_ms <= now_ms
        stage_message(staged, services, self._grain, row, None if at_once else due_ms)
        return staged

    async def _know_version(self) -> None:
        if self._durable.version is None:
            await self._entries.know_version()

    def _begin(
        self, staged: Staged, change: replies.Change | None, deadline: float
    ) -> asyncio.Future[errors.CallError | None]:
        done: asyncio.Future[errors.CallError | None] = asyncio.get_running_loop().create_future()
        self._durable.commit(
            change=change, with_state=False, deadline=deadline, then=done.set_result, staged=staged
        )
        return done

    async def _end(self, done: asyncio.Future[errors.CallError | None]) -> Reply:
        error = await asyncio.shield(done)
        if self._durable.lost:
            self._place.drop()
        if error is None:
            return Reply(0, _NIL)
        if isinstance(error, errors.Overloaded):
            raise error
        text = f"{self._grain}: the message was not taken in, as far as is known ({error})"
        raise errors.CommitFailed(text, error.did_run)

    def __repr__(self) -> str:
        return f"<Acceptance {self._grain} keys={len(self._keys)}>"
