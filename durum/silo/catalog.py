"""Which grains are alive on this silo. Owns activations from birth to removal; knows no messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from durum import errors
from durum.errors import DidRun
from durum.grains import failure
from durum.grains.kind import GrainKind
from durum.grains.registry import aliases_of
from durum.ids import GrainId, Token, hosted_grain, split_grain_id
from durum.silo import refusals
from durum.silo.activation import Activation
from durum.silo.guests import Guests
from durum.silo.luggage import Carriage, Packed, Trunk
from durum.silo.placing import Placing
from durum.silo.quarantine import Quarantine, narrowed
from durum.silo.reason import Reason
from durum.silo.services import Services
from durum.silo.stages import State
from durum.silo.turn import Sink, Turn
from durum.silo.workers import NOWHERE, Workers
from durum.store.host_table import Hosted
from durum.telemetry import Log
from durum.wire.messages import Call

_log = Log("durum.catalog")


class Catalog:
    """All activations of one silo.

    Args:
        kinds: those that the silo hosts, by name.
        services: the silo's.
        placing: see Placing.
        superseded: told of a partition whose store record no longer fits what we hold.
    """

    def __init__(
        self,
        kinds: Mapping[str, GrainKind],
        services: Services,
        placing: Placing,
        superseded: Callable[[int], None],
    ) -> None:
        self.kinds = kinds
        self._services = services
        self._placing = placing
        self.superseded = superseded
        self._by_partition: dict[int, dict[GrainId, Activation]] = {}
        self._doubtful: dict[
            GrainId, int
        ] = {}  # a commit may still land; with their partitions, or NOWHERE
        self._reason = Reason.MOVED
        self.activations: dict[GrainId, Activation] = {}
        """Every one that is not gone, but for workers. The dispatcher reads it for each call."""
        self.workers = Workers(services, placing)
        self.quarantine = Quarantine()
        self.luggage = Carriage(services.config.limits, services.base)
        self.guests = Guests(services)
        self.aliases = aliases_of(kinds)
        """Names under which callers may know a kind: to the kind's own."""
        self.crowded = asyncio.Event()
        """Set while there are more activations than there should be."""

    def all(self) -> list[Activation]:
        """Every activation that is not gone."""
        return [*self.activations.values(), *self.workers.activations]

    def kind_of(self, grain: GrainId) -> GrainKind | None:
        """The grain's kind, where this silo hosts it."""
        return self.kinds.get(split_grain_id(grain)[0])

    def create(
        self,
        kind: GrainKind,
        grain: GrainId,
        partition: int,
        token: Token,
        packed: Packed | None = None,
    ) -> Activation:
        """Begin to activate a grain under a holding, with what it has packed. It takes calls from here on."""
        activation = self._put(kind, grain, partition, token)
        if packed or grain in self._doubtful or not activation.activate_at_once():
            self._services.tasks.start(
                self._activate(activation, token, packed),
                f"activate {grain}",
                self._services.base.copy(),
            )
        return activation

    def taken(self, partition: int, token: Token, seen: Token) -> None:
        """A partition is held from here on: activate those of its grains that have sent something ahead."""
        for grain, packed in self.luggage.claim(partition, seen).items():
            kind = self.kind_of(grain)
            if kind is None or grain in self.activations:
                self.luggage.drop(grain, "it is not hosted here, or active already")
            else:
                self.create(kind, grain, partition, token, packed)

    def _put(self, kind: GrainKind, grain: GrainId, partition: int, token: Token) -> Activation:
        """An activation that takes calls, and lets them wait."""
        activation = Activation(
            kind=kind,
            key=split_grain_id(grain)[1],
            grain=grain,
            partition=partition,
            token=token,
            services=self._services,
            home=self,
        )
        self.activations[grain] = activation
        if len(self.activations) > self._services.config.limits.activations:
            self.crowded.set()
        if hosted_grain(token) is None:
            self._by_partition.setdefault(partition, {})[grain] = activation
        else:
            self.guests.put(activation, token)
        self._services.meters.appeared(kind.name)
        return activation

    async def _activate(self, activation: Activation, token: Token, packed: Packed | None) -> None:
        grain = activation.grain
        first = None if packed is None else partial(self.luggage.unpack, activation, packed)
        try:
            async with narrowed(self._services, activation.partition, token):
                await activation.activate(raise_version=grain in self._doubtful, first=first)
        except asyncio.CancelledError:
            activation.fail(refusals.not_serving(grain, "its activation was cancelled"))
            raise
        except Exception as exc:  # noqa: BLE001 - the author's on_activate, or a state it cannot read
            await self._failed(activation, exc)
        else:
            if activation.state is State.VALID:  # a hook may have hidden that it was lost meanwhile
                self._doubtful.pop(grain, None)

    async def _failed(self, activation: Activation, exc: Exception) -> None:
        """An activation has not come about: answer its calls, or place them anew."""
        grain, records, hosted = (
            activation.grain,
            self.guests.records,
            self.guests.token(activation),
        )
        if isinstance(exc, Hosted):
            records.hosted(grain, activation.partition, exc.host)
            return activation.drop()
        if isinstance(exc, errors.Superseded):
            if hosted is not None:
                records.forget(grain)
                return activation.drop()
            self.superseded(activation.partition)
        refusal = self._refusal(grain, exc)
        if hosted is not None and not isinstance(exc, errors.StoreUnavailable):
            # Another may do better.
            await records.let_go(grain, activation.partition, hosted)
        elif isinstance(exc, errors.NotServing):
            records.stray(grain)
        return activation.fail(refusal)

    def _refusal(self, grain: GrainId, exc: Exception) -> errors.CallError:
        """What callers are told of a grain that could not be activated."""
        # A commit is what on_activate has changed; the calls did not run.
        if isinstance(exc, errors.StoreUnavailable | errors.Superseded | errors.CommitFailed):
            return refusals.not_serving(grain, exc)
        if isinstance(exc, errors.DataLoss):
            self._services.halt(exc)
            return refusals.not_serving(grain, exc)
        if isinstance(exc, errors.StoreError):
            # Its class cannot read what is stored, or nobody can.
            _log.error("quarantined, its state cannot be read", exc, grain=grain)
            return self.quarantine.take(grain, exc, self._services.clock.boottime())
        _log.error("activation failed", exc, grain=grain)
        refusal = failure.refused_activation(exc, grain)
        refusal.did_run = DidRun.NO  # whatever became of a call that the hook made
        return refusal

    async def dismiss(self, grain: GrainId) -> bool:
        """Deactivate a grain, and return once it is gone. False where it was not active."""
        activation = self.activations.get(grain)
        if activation is None:
            return False
        within_s = self._services.config.limits.drain_timeout_s
        await self._retire(activation, Reason.REQUESTED, within_s)
        return True

    async def between_turns(
        self,
        grain: GrainId,
        partition: int,
        token: Token,
        work: Callable[[], Awaitable[None]],
        reason: Reason,
    ) -> None:
        """Do something after a grain's turns have ended and before any begins; then it is not active.

        Args:
            grain: which.
            partition: its partition.
            token: the holding.
            work: must check for itself that the holding is still ours. What it raises is raised here.
            reason: what its hook is told.
        """
        done = False

        async def last() -> None:
            nonlocal done
            await work()
            done = True

        within_s = self._services.config.limits.drain_timeout_s
        while not done and (activation := self.activations.get(grain)) is not None:
            if activation.state is State.VALID:
                await activation.deactivate(reason, within_s, self.guests.last(activation, last))
            else:
                await activation.wait_gone()
        kind = self.kind_of(grain)
        if done:
            return
        # Its calls wait meanwhile; where the kind is not hosted, nobody can call it here.
        waiting = None if kind is None else self._put(kind, grain, partition, token)
        try:
            await work()
            if waiting is not None and (and_then := self.guests.last(waiting)) is not None:
                await and_then()
        finally:
            if waiting is not None:
                waiting.drop()

    def stopping(self) -> None:
        """From here on grains are told that the silo stops, not that they move."""
        self._reason = Reason.STOPPING
        self.guests.leaving = True

    def doubtful(self, grain: GrainId) -> bool:
        """Whether a commit under the token of the grain's partition may still land."""
        return self._doubtful.get(grain, NOWHERE) != NOWHERE

    async def vacate(self, within_s: float) -> None:
        """Deactivate all grains that are hosted here by themselves, and let go of them: they do not go with
        their partitions.

        Args:
            within_s: turns that take longer are cancelled and rolled back.
        """
        await self.guests.vacate(lambda one: self._retire(one, self._reason, within_s))

    async def drain(self, partition: int, within_s: float, free: Token) -> None:
        """Deactivate all grains of a partition, side by side, and send ahead what they take along.

        Args:
            partition: which.
            within_s: turns that take longer are cancelled and rolled back.
            free: the token under which it will be free.
        """
        with self.luggage.trunk(partition, free) as trunk:
            while activations := list(self._by_partition.get(partition, {}).values()):
                async with asyncio.TaskGroup() as group:
                    for activation in activations:
                        group.create_task(
                            self._retire(activation, self._reason, within_s, trunk),
                            name=f"drain {activation.grain}",
                        )
            self._services.observers.end(partition)
            await trunk.ship()

    def drop(self, partition: int) -> None:
        """Forget a partition at once: it is not ours any more."""
        for activation in list(self._by_partition.get(partition, {}).values()):
            activation.drop()
        self._services.observers.end(partition)
        # Whatever was on its way is fenced by the next holding's token.
        if partition in self._doubtful.values():
            self._doubtful = {g: p for g, p in self._doubtful.items() if p != partition}

    def drop_all(self) -> None:
        """Forget everything at once."""
        for activation in list(self.activations.values()):
            activation.drop()
        self._services.observers.end_all()
        self._doubtful.clear()
        self.luggage.close()
        self.workers.drop_all()

    async def _retire(
        self, activation: Activation, reason: Reason, within_s: float, trunk: Trunk | None = None
    ) -> None:
        if activation.state is State.VALID:
            last = None if trunk is None or not trunk.open else partial(trunk.pack, activation)
            return await activation.deactivate(reason, within_s, self.guests.last(activation, last))
        try:
            async with asyncio.timeout(within_s):
                return await activation.wait_gone()
        except TimeoutError:
            _log.warning("dropped, its hook takes too long to drain", grain=activation.grain)
            return activation.drop()

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

    def removed(self, activation: Activation, *, doubtful: bool, lost: bool) -> None:
        """An activation is gone."""
        grain = activation.grain
        self._services.meters.vanished(activation.kind.name)
        if self.activations.get(grain) is activation:
            del self.activations[grain]
        siblings = self._by_partition.get(activation.partition)
        if siblings is not None and siblings.get(grain) is activation:
            del siblings[grain]
            if not siblings:
                del self._by_partition[activation.partition]
        if self.guests.removed(activation, lost=lost and not doubtful):
            if doubtful:
                self._doubtful[grain] = NOWHERE
        elif doubtful:
            self._doubtful[grain] = activation.partition
        elif lost:
            self.superseded(activation.partition)

    def retire(self, activation: Activation, reason: Reason) -> None:
        """Deactivate one grain, once its turns have ended."""
        if activation.state is State.VALID:
            self._services.tasks.start(
                activation.deactivate(
                    reason,
                    self._services.config.limits.drain_timeout_s,
                    self.guests.last(activation),
                ),
                f"deactivate {activation.grain}",
                self._services.base.copy(),
            )

    def rest(self, grain: GrainId) -> None:
        """A grain was only woken: let it go again, unless something keeps it."""
        activation = self.activations.get(grain)
        if activation is None or not activation.spare:
            return
        if activation.kind.has_on_deactivate:
            self.retire(activation, Reason.IDLE)
        else:
            activation.drop()

    def __len__(self) -> int:
        return len(self.activations)

    def __repr__(self) -> str:
        return f"<Catalog activations={len(self)} partitions={len(self._by_partition)}>"
