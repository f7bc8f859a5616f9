"""The activations of stateless workers on this silo. Owns how many there are of one key, and which of them a
call goes to; knows no partitions: such activations are nobody else's concern.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from durum import errors
from durum.errors import DidRun
from durum.grains import failure
from durum.grains.kind import GrainKind
from durum.ids import GrainId, Token, split_grain_id
from durum.silo.activation import Activation
from durum.silo.placing import Placing
from durum.silo.reason import Reason
from durum.silo.services import Services
from durum.silo.stages import State
from durum.silo.turn import Sink, Turn, refuse
from durum.telemetry import Log
from durum.wire.messages import Call

_log: Final = Log("durum.workers")
NOWHERE: Final = -1
"""The partition of an activation that belongs to none."""
_NO_TOKEN: Final = Token(bytes(16))


class Workers:
    """All of one silo.

    Args:
        services: the silo's.
        placing: see Placing.
    """

    def __init__(self, services: Services, placing: Placing) -> None:
        self._services = services
        self._placing = placing
        self._pools: dict[GrainId, list[Activation]] = {}

    @property
    def activations(self) -> Sequence[Activation]:
        """Every one that is not gone."""
        return [one for pool in self._pools.values() for one in pool]

    def offer(self, kind: GrainKind, call: Call, sink: Sink, now: float) -> None:
        """Take in a call; it is answered once, now or later.

        Args:
            kind: the grain's.
            call: the message.
            sink: where its answer goes.
            now: boottime.
        """
        if call.key:
            text = (
                f"idempotency_key: {call.grain} is a stateless worker and records nothing; the call did"
                " not run. Call it without a key."
            )
            return refuse(sink, call.id, errors.ArgumentError(text))
        return self._choose(kind, call.grain).offer(call, sink, now)

    def _choose(self, kind: GrainKind, grain: GrainId) -> Activation:
        """One with nothing to do; else a new one, if there may be more; else the least busy one."""
        pool = self._pools.setdefault(grain, [])
        free = next((one for one in pool if one.idle), None)
        if free is not None:
            return free
        usable = [one for one in pool if one.state in {State.VALID, State.ACTIVATING}]
        if usable and len(pool) >= kind.options.workers:
            return min(usable, key=lambda one: one.load)
        return self._create(kind, grain)

    def _create(self, kind: GrainKind, grain: GrainId) -> Activation:
        activation = Activation(
            kind=kind,
            key=split_grain_id(grain)[1],
            grain=grain,
            partition=NOWHERE,
            token=_NO_TOKEN,
            services=self._services,
            home=self,
        )
        self._pools.setdefault(grain, []).append(activation)
        self._services.meters.appeared(kind.name)
        if not activation.activate_at_once():
            self._services.tasks.start(
                self._activate(activation), f"activate {grain}", self._services.base.copy()
            )
        return activation

    async def _activate(self, activation: Activation) -> None:
        try:
            await activation.activate(raise_version=False)
        except asyncio.CancelledError:
            activation.drop()
            raise
        except Exception as exc:  # noqa: BLE001 - the author's on_activate
            _log.error("activation failed", exc, grain=activation.grain)
            refusal = failure.refused_activation(exc, activation.grain)
            refusal.did_run = DidRun.NO
            activation.fail(refusal)

    def cancel(self, turn: Turn) -> bool:
        """A turn's caller no longer waits. False where it is none of these."""
        for activation in self._pools.get(turn.call.grain, ()):
            if activation.has(turn):
                activation.cancel(turn)
                return True
        return False

    async def drain(self, within_s: float) -> None:
        """Finish all turns, and go.

        Args:
            within_s: turns that take longer are cancelled.
        """
        async with asyncio.TaskGroup() as group:
            for one in self.activations:
                group.create_task(one.deactivate(Reason.STOPPING, within_s), name="drain worker")

    def drop_all(self) -> None:
        """Forget everything at once."""
        for one in self.activations:
            one.drop()

    # Home of activations ----------------------------------------------------------------------------

    def elsewhere(self, turn: Turn) -> None:
        """Place a call that did not run in its activation."""
        self._placing.elsewhere(turn)

    def administer(self, sink: Sink, call: Call) -> None:
        """Take in an operator's request."""
        self._placing.administer(sink, call)

    def track(self, turn: Turn) -> None:
        """Remember a turn that waits or takes its time."""
        self._placing.track(turn)

    def untrack(self, turn: Turn) -> None:
        """A tracked turn has ended."""
        self._placing.untrack(turn)

    def removed(self, activation: Activation, *, doubtful: bool, lost: bool) -> None:  # noqa: ARG002
        """An activation is gone."""
        self._services.meters.vanished(activation.kind.name)
        pool = self._pools.get(activation.grain, [])
        if activation in pool:
            pool.remove(activation)
        if not pool:
            self._pools.pop(activation.grain, None)

    def retire(self, activation: Activation, reason: Reason) -> None:
        """Deactivate one, once its turns have ended."""
        if activation.state is State.VALID:
            self._services.tasks.start(
                activation.deactivate(reason, self._services.config.limits.drain_timeout_s),
                f"deactivate {activation.grain}",
                self._services.base.copy(),
            )

    def __repr__(self) -> str:
        return f"<Workers activations={len(self.activations)} keys={len(self._pools)}>"
