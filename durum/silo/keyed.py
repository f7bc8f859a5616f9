"""Calls with an idempotency key at one activation. Owns which of them run now; what was remembered of earlier
ones, its RememberedReplies know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from durum import errors
from durum.grains.kind import GrainKind
from durum.ids import GrainId
from durum.silo import replies
from durum.silo.durable import Durable
from durum.silo.turn import Turn
from durum.wire.messages import Failure, Hop, Reply


class KeyedCalls:
    """Of one activation. Of one key one call runs at a time: the mailbox sees to that, or this does.

    Args:
        grain: which.
        kind: its kind.
        durable: its durable side.
        store_time: the store's clock, seconds.
    """

    __slots__ = ("_durable", "_grain", "_kind", "_running", "_store_time")

    def __init__(
        self, grain: GrainId, kind: GrainKind, durable: Durable, store_time: Callable[[], float]
    ) -> None:
        self._grain = grain
        self._kind = kind
        self._durable = durable
        self._store_time = store_time
        self._running: dict[str, tuple[Turn, asyncio.Event]] | None = None

    async def answer(self, turn: Turn) -> Reply | Failure | None:
        """The answer that was remembered, or None: the call is new, and may run now.

        Raises:
            CallError: it may not run.
            StoreError, Superseded: what is remembered cannot be read.
        """
        if turn.read_only:
            raise errors.ArgumentError(
                f"idempotency_key: {self._kind.name}.{turn.method.name} is @read_only and records"
                " nothing; the call did not run. Call it without a key."
            )
        self._refuse_own(turn)
        if self._kind.options.reentrant:
            await self._wait_turn(turn)
        if self._durable.replies is None:
            await self._durable.load_replies()
        known = self._durable.replies
        if known is None:
            raise errors.DurumBug(f"{turn!r}: replies were not loaded")
        return known.recall(replies.digest_key(turn.key), turn.digest(), self._store_time())

    def ended(self, turn: Turn) -> None:
        """A call has been answered, whether it ran or not."""
        running = None if self._running is None else self._running.get(turn.key)
        if self._running is not None and running is not None and running[0] is turn:
            del self._running[turn.key]
            running[1].set()

    async def _wait_turn(self, turn: Turn) -> None:
        """Wait until no other call of the key runs."""
        if self._running is None:
            self._running = {}
        while (running := self._running.get(turn.key)) is not None:
            await running[1].wait()
        self._running[turn.key] = (turn, asyncio.Event())

    def _refuse_own(self, turn: Turn) -> None:
        """Refuse what a call of the same key waits for: neither could end before the other."""
        outer = turn.outer
        while outer is not None and outer.key != turn.key:
            outer = outer.outer
        if outer is None and self._running is not None and turn.key in self._running:
            running = self._running[turn.key][0]
            outer = running if Hop(self._grain, running.number) in turn.chain else None
        if outer is not None:
            raise errors.Deadlock(
                f"{self._grain}: this call has the idempotency key {turn.key!r}, and so has the running call"
                " that waits for it; this one did not run. Use one key for one call."
            )

    def __repr__(self) -> str:
        return f"<KeyedCalls {self._grain} running={len(self._running or ())}>"
