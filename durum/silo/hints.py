"""Tells owners of partitions what silos that host single grains of theirs have committed: messages to
deliver, wake-ups to wait for. Owns the telling; what follows is the offices'.

A host is no owner, so nobody at the owner's hears of its commits. It tells until somebody has listened; and
where it dies before that, every owner looks for itself.
"""

from __future__ import annotations

from typing import Final

import msgspec

from durum import errors
from durum.client.router import Router
from durum.ids import GrainId, Token, hosted_grain
from durum.silo.effects import Staged
from durum.silo.holdings import Tenure
from durum.silo.post import PostOffice
from durum.silo.services import Services
from durum.silo.wakeups import Holdings, WakeUps
from durum.telemetry import Log
from durum.wire import hints as wire
from durum.wire.messages import Call, Failure

_FIRST_PAUSE_S: Final = 0.05
_LAST_PAUSE_S: Final = 2.0
_log: Final = Log("durum.hints")


class _News:
    """What one partition's owner has not been told yet."""

    __slots__ = ("doubtful", "due_ms", "grain", "posted")

    def __init__(self, grain: GrainId) -> None:
        self.grain = grain
        self.due_ms: int | None = None
        self.posted = self.doubtful = False

    def add(self, due_ms: int | None, *, posted: bool, doubtful: bool) -> None:
        """There is more."""
        if due_ms is not None:
            self.due_ms = due_ms if self.due_ms is None else min(self.due_ms, due_ms)
        self.posted = self.posted or posted
        self.doubtful = self.doubtful or doubtful


class Hints:
    """Of one silo. An Office.

    Args:
        services: the silo's.
        router: to the owners.
        holdings: which partitions it serves itself.
        wake_ups, post: who act on what this silo is told, as an owner.
    """

    def __init__(
        self,
        services: Services,
        router: Router,
        holdings: Holdings,
        wake_ups: WakeUps,
        post: PostOffice,
    ) -> None:
        self._services = services
        self._router = router
        self._holdings = holdings
        self._wake_ups = wake_ups
        self._post = post
        self._news: dict[int, _News] = {}

    # As a host ----------------------------------------------------------------------------------------

    def landed(
        self,
        partition: int,
        token: Token,
        grain: GrainId,
        staged: Staged,
        first: int,  # noqa: ARG002 - an Office's
    ) -> None:
        """A grain that is hosted here has committed."""
        self._note(partition, token, grain, staged, doubtful=False)

    def doubted(self, partition: int, token: Token, grain: GrainId, staged: Staged) -> None:
        """It may have."""
        self._note(partition, token, grain, staged, doubtful=True)

    def _note(
        self, partition: int, token: Token, grain: GrainId, staged: Staged, *, doubtful: bool
    ) -> None:
        if hosted_grain(token) is None or self._holdings.holding(partition) is not None:
            return  # the offices know
        due = [due_ms for due_ms in staged.wake.values() if due_ms is not None]
        if not due and not staged.send:
            return
        news, telling = self._news.get(partition), True
        if news is None:
            news, telling = _News(grain), False
            self._news[partition] = news
        news.add(min(due, default=None), posted=bool(staged.send), doubtful=doubtful)
        if not telling:
            services = self._services
            services.tasks.start(
                self._tell(partition), f"tell the owner of {partition}", services.base.copy()
            )

    async def _tell(self, partition: int) -> None:
        pause_s = _FIRST_PAUSE_S
        while (news := self._news.get(partition)) is not None:
            fresh = self._news[partition] = _News(news.grain)
            args = wire.encode(wire.Hint(news.due_ms, news.posted, news.doubtful))
            timeout_ms = int(self._services.config.limits.call_timeout_s * 1000)
            try:
                answer = await self._router.relay(Call(0, news.grain, wire.HINT, args, timeout_ms))
            except errors.CallError as exc:
                answer = Failure(0, type(exc).__name__, exc.did_run, str(exc))
            if not isinstance(answer, Failure):
                pause_s = _FIRST_PAUSE_S
                if fresh.due_ms is None and not fresh.posted:
                    del self._news[partition]
                continue
            _log.debug("owner not told yet", partition=partition, error=answer.text)
            fresh.add(news.due_ms, posted=news.posted, doubtful=news.doubtful)
            await self._services.clock.sleep(pause_s)
            pause_s = min(_LAST_PAUSE_S, 2 * pause_s)

    # As an owner --------------------------------------------------------------------------------------

    async def hint(self, call: Call, holding: Tenure) -> bool:
        """Answer HINT."""
        told = msgspec.msgpack.decode(call.args, type=wire.Hint)
        if told.due_ms is not None:
            self._wake_ups.suspect(holding.partition, told.due_ms)
        if told.posted:
            self._post.look(holding.partition, doubtful=told.doubtful)
        return True

    def __repr__(self) -> str:
        return f"<Hints of {len(self._news)} partitions>"
