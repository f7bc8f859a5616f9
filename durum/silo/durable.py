"""The durable side of one activation: what the store has, and the way there. Runs no user code.

Holds the bytes that were committed last, so that it can tell whether a turn changed anything and take a
failed turn back. At most one commit of a grain is under way; the next ones wait in line, each with the
fields as they were when it was asked for. If one fails, so do those behind it, which built on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial

from durum import errors
from durum.errors import DidRun
from durum.grains.actor import Actor
from durum.grains.entries import Entries
from durum.grains.kind import GrainKind
from durum.ids import GrainId, Token
from durum.silo import refusals
from durum.silo.effects import Staged
from durum.silo.replies import Change, RememberedReplies, limits_of
from durum.silo.sending import FIRST_PAUSE_S, LAST_PAUSE_S, REFUSALS_S, Sending, Then, Unstorable
from durum.silo.services import Services
from durum.store.damage import Damaged
from durum.store.effects import Overfull
from durum.store.parts import Part
from durum.store.protocol import Commit, Committed, Record


class Durable:
    """What is durable of one grain, as one activation sees it.

    Args:
        grain: which.
        kind: its kind.
        partition: its partition.
        token: the holding that this activation lives under; every commit carries it.
        services: the silo's.
    """

    __slots__ = (
        "_erased",
        "_kind",
        "_newest",
        "_partition",
        "_queue",
        "_sending",
        "_services",
        "_token",
        "committed",
        "doubtful",
        "grain",
        "instance",
        "lost",
        "replies",
        "version",
    )

    def __init__(
        self, grain: GrainId, kind: GrainKind, partition: int, token: Token, services: Services
    ) -> None:
        self.grain = grain
        self._kind = kind
        self._partition = partition
        self._token = token
        self._services = services
        self._sending: Sending | None = None
        self._queue: deque[Sending] | None = None  # those behind it; few grains ever have any
        self._newest: bytes = b""  # what is committed once all commits under way have succeeded
        self._erased = False  # and not committed since
        self.instance: Actor
        self.committed: bytes = b""
        self.version: int | None = None
        self.replies: RememberedReplies | None = None
        self.lost = False
        """Another owner or version is in the store: this activation must go."""
        self.doubtful = False
        """A commit's fate is unknown: the next load must raise the version."""

    async def load(self, *, raise_version: bool) -> None:
        """Read the record and set the instance's fields by it.

        Args:
            raise_version: an earlier commit of this grain may still land; keep it from that.

        Raises:
            StoreError: the store did not answer, or lost the record.
            Superseded: the holding is not ours any more.
        """
        services = self._services
        began = services.clock.boottime()
        record = await services.store.load(
            self._partition, self._token, self.grain, raise_version=raise_version
        )
        services.meters.loads.add(services.clock.boottime() - began)
        if self.version is not None:
            return  # two turns of a reentrant kind may have asked, and the first has committed since
        if self._kind.durable:
            self._kind.restore(self.instance, record.state)
            self._newest = self.committed = self._kind.encode_state(self.instance)
        self.version = record.version
        self._erased = record.version > 0 and record.state is None

    async def load_replies(self) -> None:
        """Read the remembered replies, and the version where no load has. Raises as `load` does."""
        if self.version is None:
            await self.load(raise_version=False)
        stored = await self._services.store.replies(self._partition, self._token, self.grain)
        if self.replies is None:  # two turns of a reentrant kind may have asked
            limits = limits_of(self._kind.options, self._services.config.limits)
            self.replies = RememberedReplies(self.grain, stored, limits)

    def verify(self) -> asyncio.Future[None]:
        """Ask the store whether the holding is still ours. Raises as `load` does."""
        return self._services.store.verify(self._partition, self._token)

    @property
    def unsettled(self) -> bool:
        """Whether a commit may still land whose outcome is not known now."""
        return self.doubtful or self._sending is not None

    def load_parts(
        self, names: Sequence[bytes], *, contents: bool
    ) -> asyncio.Future[Mapping[bytes, bytes]]:
        """Read parts of the record by name. Raises as `load` does."""
        return self._services.store.load_parts(
            self._partition, self._token, self.grain, names, contents=contents
        )

    def scan_parts(self, prefix: bytes, after: bytes, limit: int) -> asyncio.Future[Sequence[Part]]:
        """Read a page of parts. Raises as `load` does."""
        return self._services.store.scan_parts(
            self._partition, self._token, self.grain, prefix, after, limit
        )

    @property
    def entries(self) -> Entries | None:
        """The entries of the instance's collections, where its kind has any."""
        return self.instance._durum_entries  # noqa: SLF001 - ours

    @property
    def unresolved(self) -> bool:
        """Whether the store has to be asked before the fields can be written; see Entries.resolve."""
        entries = self.entries
        return entries is not None and entries.unresolved

    async def resolve(self) -> None:
        """Ask the store where that is needed.

        Raises:
            CommitFailed: it does not answer, or the grain is not ours any more.
        """
        while self.unresolved and self.entries is not None:
            await self.entries.resolve()

    def changed(self) -> bool:
        """Whether durable fields differ from what was committed last."""
        if not self._kind.durable:
            return False
        if self.entries is not None and self.entries.changed:
            return True
        try:
            return self._kind.encode_state(self.instance) != self.committed
        except Exception:  # noqa: BLE001 - the author's values; whatever cannot be stored was not
            return True

    def roll_back(self) -> None:
        """Set durable fields to what was committed last, or is on its way."""
        if self._kind.durable:
            if self.entries is not None:
                self.entries.roll_back()
            self._kind.restore(self.instance, self._newest)

    def _take_back(self) -> None:
        """Set durable fields to what is committed: what was on its way is not, or nobody knows."""
        if self.entries is not None:
            self.entries.forget()
        self._newest = self.committed
        self.roll_back()

    def commit(
        self,
        *,
        change: Change | None,
        with_state: bool,
        deadline: float,
        then: Then,
        staged: Staged | None = None,
    ) -> None:
        """Commit the instance's fields as they are, a remembered reply, and effects, in one step.

        Nothing may be unresolved, and the version known. If it fails, the fields are back at what was
        committed last before `then` is called; but for a commit without fields, which leaves them alone
        unless the grain is lost.

        Args:
            change: the remembered reply, or None.
            with_state: whether fields go along; False for a failed turn, whose fields are taken back.
            deadline: boottime until which an attempt without a clear answer is repeated.
            then: called with the outcome, after those of all earlier commits; from inside this method
                only where nothing is to be done, or nothing can be.
            staged: effects; not to be changed any more.

        Raises:
            Unstorable: the fields cannot be stored; they are as they were, and `then` is not called.
        """
        entries = self.entries if with_state else None
        purge = () if entries is None else entries.sweep()
        state = self._encoded() if with_state and self._kind.durable else None
        sending = Sending(state, change, deadline, then, alone=not with_state)
        if staged:
            sending.staged = staged
        if entries is not None:
            sending.parts, sending.purge = entries.take(), purge
        if self._sending is not None or self._queue:
            if self._queue is None:
                self._queue = deque()
            self._queue.append(sending)
        else:
            self._begin(sending)

    def _encoded(self) -> bytes | None:
        """The fields' bytes, or None where they are what is committed or on its way already."""
        try:
            state = self._kind.encode_state(self.instance)
        except Exception as exc:
            raise Unstorable(exc) from exc
        if state == self._newest:
            return None
        limit = self._services.config.limits.state_bytes
        if len(state) > limit:
            raise Unstorable(refusals.too_large(self.grain, len(state), limit))
        self._newest = state
        return state

    def _begin(self, sending: Sending) -> None:
        if self.lost:
            self._take_back()
            return sending.then(refusals.gone_meanwhile(self.grain))
        if sending.state is None and sending.change is None and sending.idle:
            if self._kind.options.strict_reads:
                return self._verify(sending)
            # No commit will tell whether the grain is still ours, so the lease has to.
            held = self._services.lease.held(self._services.clock.boottime())
            return sending.then(None if held else refusals.lapsed_meanwhile(self.grain))
        if self.version is None:
            raise errors.DurumBug(f"{self.grain}: a commit before its first load")
        change = sending.change
        sending.commit = Commit(
            partition=self._partition,
            token=self._token,
            grain=self.grain,
            id=self._services.next_commit_id(),
            version=self.version,
            state=sending.state,
            replies=None if change is None else change.replies,
            forget=() if change is None else change.forget,
            parts=sending.parts,
            purge=sending.purge,
        )
        if sending.staged is not None:
            sending.take_effects(self._services.config.limits.outbox_rows)
        self._sending = sending
        self._send()
        return None

    def _verify(self, sending: Sending) -> None:
        """For kinds that do not trust clocks: ask the store whether what the turn has seen is the newest."""
        self._sending = sending
        self.verify().add_done_callback(self._verified, context=self._services.base)

    def _verified(self, future: asyncio.Future[None]) -> None:
        sending = self._sending
        if sending is None:
            raise errors.DurumBug(f"{self.grain}: an answer to no question")
        error = None if future.cancelled() else future.exception()
        if error is None and not future.cancelled():
            self._finish(sending, None)
            return
        if isinstance(error, errors.Superseded | errors.DataLoss):
            self.lost = True
        if isinstance(error, errors.DataLoss):
            self._services.halt(error)
        self._finish(sending, refusals.unconfirmed(self.grain, error))

    def _send(self) -> None:
        sending = self._sending
        if sending is None:
            return
        sending.attempts += 1
        if sending.attempts == 1:
            sending.sent_at = self._services.clock.boottime()
        future = self._services.store.commit(sending.commit)
        future.add_done_callback(self._settled, context=self._services.base)

    def _settled(self, future: asyncio.Future[Committed]) -> None:
        sending = self._sending
        if sending is None:
            raise errors.DurumBug(f"{self.grain}: an answer to no commit")
        error: BaseException | None
        if future.cancelled():
            error = errors.StoreUnavailable("the store was closed meanwhile", None)
        else:
            error = future.exception()
        if error is None:
            self._succeeded(sending, future.result())
        elif isinstance(error, errors.StoreUnavailable):
            self._unanswered(sending, error)
        elif isinstance(error, Overfull) and not sending.unknown:
            self._finish(sending, refusals.outbox_full(self.grain, error))
        elif isinstance(error, errors.Superseded) and self._erased:
            self._look_again(error)
        else:
            self._refused(sending, error)

    def _succeeded(self, sending: Sending, committed: Committed) -> None:
        self.version, self._erased = committed.version, False
        if sending.state is not None:
            self.committed = sending.state
        if sending.parts is not None and self.entries is not None:
            self.entries.landed()
        if sending.change is not None and self.replies is not None:
            self.replies.applied(sending.change)
        services = self._services
        services.load.committed += 1
        services.meters.commits.add(services.clock.boottime() - sending.sent_at)
        repeated = sending.attempts > 1
        services.committed(self._partition, self._token, committed.commits, repeated)
        if (staged := sending.staged) is not None:
            at = self._partition, self._token, self.grain
            staged.landed(services.offices, at, committed.first)
        self._finish(sending, None)

    def _unanswered(self, sending: Sending, error: errors.StoreUnavailable) -> None:
        """Send the very same commit again: the store knows one that it has applied by its id."""
        sending.unknown = sending.unknown or error.applied is None
        # The caller is told why before it gives up by itself. And where nothing can have been applied,
        # it need not wait for a store that is full or read-only: it can decide by itself.
        until = sending.deadline - self._services.config.lease.store_timeout_s
        if not sending.unknown:
            until = min(until, sending.sent_at + REFUSALS_S)
        if self._services.clock.boottime() < until:
            pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(sending.attempts, 6))
            asyncio.get_running_loop().call_later(pause_s, self._send, context=self._services.base)
            return
        if sending.unknown:
            self.lost = self.doubtful = True
            self._tell_of_doubt(sending)
        self._finish(sending, refusals.uncommitted(self.grain, error, unknown=sending.unknown))

    def _refused(self, sending: Sending, error: BaseException) -> None:
        self.lost = True
        self._services.load.fenced += 1
        if isinstance(error, errors.DataLoss) and not isinstance(error, Damaged):
            self._services.halt(error)  # which a single record is no reason for
        # An earlier attempt may have been applied before another owner came: only then is it unknown.
        ran = DidRun.MAYBE if sending.unknown else DidRun.ROLLED_BACK
        if sending.unknown:
            self._tell_of_doubt(sending)
        self._finish(sending, refusals.refused_commit(self.grain, error, ran))

    def _look_again(self, refusal: errors.Superseded) -> None:
        """What was kept of the deleted grain may have gone since, its time being over."""
        self._erased = False
        loading = self._services.store.load(self._partition, self._token, self.grain)
        loading.add_done_callback(partial(self._looked, refusal), context=self._services.base)

    def _looked(self, refusal: errors.Superseded, future: asyncio.Future[Record]) -> None:
        if self._sending is None:
            raise errors.DurumBug(f"{self.grain}: a second look without a commit")
        found = None if future.cancelled() or future.exception() else future.result()
        if found is None or found.version or found.state is not None:
            return self._refused(self._sending, refusal)
        self._sending.build_on(0)
        return self._send()

    def _tell_of_doubt(self, sending: Sending) -> None:
        if sending.staged is not None:
            at = self._partition, self._token, self.grain
            sending.staged.doubted(self._services.offices, at)

    def _finish(self, sending: Sending, error: errors.CallError | None) -> None:
        self._sending = None
        if error is None or (sending.alone and not self.lost):
            sending.then(error)
            while self._queue and self._sending is None:
                self._begin(self._queue.popleft())
            if not self._queue:
                self._queue = None
            return
        behind, self._queue = self._queue or (), None
        self._take_back()
        sending.then(error)
        for each in behind:
            each.then(refusals.taken_back(self.grain, error))

    def __repr__(self) -> str:
        return f"<Durable {self.grain} version={self.version} sending={self._sending is not None}>"
