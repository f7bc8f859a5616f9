"""How far one call has come on its way to a grain. Owns its numbers and its last words; sends nothing."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from durum import errors
from durum.errors import DidRun
from durum.ids import GrainId
from durum.wire.connection import LinkBroken
from durum.wire.messages import AnyMessage, Call, Carried, Failure, Hop, Moved, Notice, Open


class Origin(msgspec.Struct, frozen=True, gc=False):
    """The turn that makes a call.

    Args:
        chain: it and the turns that wait for it, outermost first.
        request: the id that stays the same along the chain, for logs.
        deadline: its own, by boottime; a call cannot outlast it. Infinite outside of turns.
    """

    chain: tuple[Hop, ...]
    request: str = ""
    deadline: float = math.inf


_AGAIN: Final = frozenset({"NotServing", "ShuttingDown"})
_OUTSIDE: Final = Origin(())
NO_TURN: Final = -1
"""Stands for a turn that does not wait for the call whose chain it is in."""
_RAN: Final = {
    DidRun.NO: "it did not run",
    DidRun.MAYBE: "it may have run",
    DidRun.ROLLED_BACK: "it ran and kept nothing",
    DidRun.YES: "it ran",
}


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One call, from its first attempt to its end.

    Args:
        grain: whom.
        hash: the grain's; modulo P it is the partition.
        method: which.
        args: encoded.
        key: idempotency key, or "".
        origin: the turn that makes the call, if one does.
        timeout_s: how long it may take.
        deadline: when that is over, by boottime.
        hops: how often it was told to go elsewhere.
        attempts: how often it failed in a way that may be tried again.
        ran: what is known of it.
        last: why the last attempt failed.
        pickled: it may travel over trusted links only.
        near: the kind, where any silo that hosts it will do; or "".
        carried: baggage and trace that go along.
    """

    grain: GrainId
    hash: int
    method: str
    args: bytes
    key: str
    origin: Origin | None
    timeout_s: float
    deadline: float
    hops: int = 0
    attempts: int = 0
    ran: DidRun = DidRun.NO
    last: str = ""
    pickled: bool = False
    near: str = ""
    carried: Carried | None = None

    @classmethod
    def of(cls, call: Call | Open, now: float) -> Self:
        """The delivery of another process's call, which goes on as it came.

        Args:
            call: the message.
            now: by boottime.
        """
        timeout_s = call.timeout_ms / 1000
        return cls(
            grain=call.grain,
            hash=zlib.crc32(call.grain.encode()),
            method=call.method,
            args=call.args,
            key=call.key if isinstance(call, Call) else "",
            origin=Origin(call.chain, call.request),
            timeout_s=timeout_s,
            deadline=now + timeout_s,
            hops=call.hops + 1,
            carried=call.carried,
        )

    def call(self, number: int, left_s: float) -> Call:
        """The message of one attempt.

        Args:
            number: its id on its connection.
            left_s: how long its sender still waits.
        """
        origin = self.origin or _OUTSIDE
        return Call(
            number,
            self.grain,
            self.method,
            self.args,
            max(1, int(left_s * 1000)),
            self.key,
            origin.chain,
            self.hops,
            origin.request,
            self.carried,
        )

    @classmethod
    def of_notice(cls, notice: Notice, now: float) -> Self:
        """The delivery of another process's one-way call, which goes on as it came.

        Args:
            notice: the message.
            now: by boottime.
        """
        timeout_s = notice.timeout_ms / 1000
        return cls(
            grain=notice.grain,
            hash=zlib.crc32(notice.grain.encode()),
            method=notice.method,
            args=notice.args,
            key="",
            origin=Origin(notice.chain, notice.request),
            timeout_s=timeout_s,
            deadline=now + timeout_s,
            hops=notice.hops + 1,
            carried=notice.carried,
        )

    def open(self, number: int, window: int) -> Open:
        """The message that asks for a stream.

        Args:
            number: its id on its connection.
            window: so many items may be on their way.
        """
        origin = self.origin or _OUTSIDE
        return Open(
            number,
            self.grain,
            self.method,
            self.args,
            max(1, int(self.timeout_s * 1000)),
            window,
            origin.chain,
            self.hops,
            origin.request,
            self.carried,
        )

    def chain_ends(self) -> None:
        """The caller does not wait: of the chain only its name is left."""
        origin = self.origin
        if origin is not None and origin.chain:
            chain = (Hop(origin.chain[-1].grain, NO_TURN),)
            self.origin = Origin(chain, origin.request, origin.deadline)

    def notice(self, left_s: float) -> Notice:
        """The message of a one-way call.

        Args:
            left_s: how long it may wait before it begins.
        """
        origin = self.origin or _OUTSIDE
        return Notice(
            self.grain,
            self.method,
            self.args,
            max(1, int(left_s * 1000)),
            origin.chain,
            self.hops,
            origin.request,
            self.carried,
        )

    def judge(self, outcome: AnyMessage | Exception) -> Failure | None:
        """Note what an attempt that gave no value has shown. The failure, where that is the end.

        Raises:
            SiloLost: the connection broke, and the call may not be sent again.
        """
        match outcome:
            case Moved():
                self.hops += 1
                self.last = f"it was sent on to {outcome.owner or 'nobody'}"
            case LinkBroken():
                lost = self.broke(sent=outcome.sent)
                if lost is not None:
                    raise lost from outcome
            case TimeoutError():
                self.ran = DidRun.MAYBE
                self.deadline = 0.0
            case Failure(error=error, did_run=DidRun.NO) if error in _AGAIN:
                self.last = outcome.text
                self.attempts += 1
            case Failure(error="CommitFailed", did_run=ran) if self.key and ran is not DidRun.YES:
                self.last = outcome.text
                if self.ran is not DidRun.MAYBE:  # an earlier attempt may still be running
                    self.ran = ran
                self.attempts += 1
            case Failure():
                return outcome
            case _:
                raise errors.DurumBug(f"{self.grain}: answered by {outcome!r}")
        return None

    def broke(self, *, sent: bool) -> errors.SiloLost | None:
        """Note that a connection broke. The error to end in, or None where it may be sent again."""
        if sent:
            self.ran = DidRun.MAYBE
            if not self.key:
                return errors.SiloLost(
                    f"{self.grain}: the connection to its silo broke while the call was"
                    " under way; it may have run. Look before you repeat it, or call with"
                    " durum.options(ref, idempotency_key=...), which makes repeating safe.",
                    DidRun.MAYBE,
                )
        self.last = "the connection to its silo broke"
        self.attempts += 1
        return None

    def exposed(self) -> errors.NotAuthorized:
        """The error of a call with pickled values whose link is not safe for them."""
        return errors.NotAuthorized(
            f"{self.grain}: {self.method} takes or returns pickled values, and the link to its silo is not"
            f" safe for them; nothing was sent, {_RAN[self.ran]}. Both sides need the cluster secret or"
            " mutual TLS, and TLS beyond this host.",
            self.ran,
        )

    def ending(self, *, closed: bool) -> errors.CallError:
        """The error of a call whose time is up, or whose client was closed."""
        ran = _RAN[self.ran]
        if closed:
            return errors.ShuttingDown(f"{self.grain}: the client was closed; {ran}.", self.ran)
        why = f" ({self.last})" if self.last else ""
        return errors.CallTimeout(
            f"{self.grain}: no answer within {self.timeout_s:g} s{why}; {ran}."
            " Raise durum.options(ref, timeout=...) if the method needs longer.",
            self.ran,
        )
