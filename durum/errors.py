"""Every error Durum raises, cut by what its reader does next. Knows nothing else of Durum.

DurumError
├── ConfigError                 change a setting, then start again
├── CallError                   a call ended without a value; did_run says whether it ran
│   ├── Rejected                it did not run
│   │   ├── Overloaded          slow down
│   │   ├── NoSuchKind          no active silo hosts the kind
│   │   ├── NoSuchMethod        the kind has no such public method
│   │   ├── ArgumentError       an argument has the wrong type, or is too large
│   │   ├── ShuttingDown        the client or silo it was given to is closing
│   │   ├── Deadlock            it waits, through its callers, for itself
│   │   ├── Quarantined         the actor's stored state cannot be read; a person must look
│   │   ├── NotServing          nobody serves the grain now; the router tries again by itself
│   │   └── NotAuthorized       the caller may not do this
│   ├── CallTimeout             its deadline passed
│   ├── SiloLost                the connection broke while it was under way
│   ├── CommitFailed            it ran, its commit was refused or its outcome is unknown
│   ├── StreamMoved             its actor moved in the middle of a stream of results
│   ├── ReplyForgotten          it ran before, under this key, and only that is remembered
│   └── RemoteError             the method raised something the caller cannot name
├── StoreError
│   ├── StoreUnavailable        the store does not answer, or cannot write; try again later
│   └── DataLoss                the store lacks what it had acknowledged; a person must look
├── Superseded                  another owner has taken over; what was sent changed nothing
├── ClusterError
│   ├── NoSilo                  no silo can be reached
│   ├── IncompatibleSilo        the other side speaks another version, cluster or secret
│   └── DeclaredDead            the others have declared this silo dead; it must stop
└── DurumBug                    our own mistake; please report it
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class DidRun(StrEnum):
    """Whether the method of a failed call ran."""

    NO = "no"
    """No user code began. Sending it again is safe."""
    ROLLED_BACK = "rolled_back"
    """It began, and its grain kept nothing. What it called on other grains may have stayed."""
    MAYBE = "maybe"
    """Nobody can tell. Send it again only with the same idempotency key."""
    YES = "yes"
    """It ran to its end, and its effects are durable."""


class DurumError(Exception):
    """The root of every error that Durum raises on purpose."""


class ConfigError(DurumError):
    """A setting, class or argument given at start-up is wrong or unsafe. Change it as the message says,
    then start again."""


class CallError(DurumError):
    """A call ended without a value. Read `did_run`, and repeat the call only where that is safe.

    Args:
        message: what happened, whether it ran, and what to do.
        did_run: whether the method ran; each subclass has the one that is usual for it.
    """

    usual: ClassVar[DidRun] = DidRun.MAYBE

    def __init__(self, message: str = "", did_run: DidRun | None = None) -> None:
        super().__init__(message)
        self.did_run: DidRun = self.usual if did_run is None else DidRun(did_run)


class Rejected(CallError):
    """The call did not run. Repeating it is safe, and useful once what the message says has changed."""

    usual = DidRun.NO


class Overloaded(Rejected):
    """A queue is at its limit. Wait and repeat, send less at once, spread the work over more keys, or raise
    the limit that the message names."""


class NoSuchKind(Rejected):
    """No active silo hosts the kind. Start a silo with it, or correct the name."""


class NoSuchMethod(Rejected):
    """The kind has no public method of that name. Correct it, or upgrade the silos: in a rolling upgrade,
    clients that need a new method come last."""


class ArgumentError(Rejected):
    """An argument, key or option has the wrong type or size. Correct the parameter that the message names;
    repeating the same call ends in the same way."""


class ShuttingDown(Rejected):
    """The client or silo that was given the call is closing. Call through another client, or after the
    restart."""


class Deadlock(Rejected):
    """The call would wait for itself through its chain of callers, which the message shows.

    Call `await self.save()` before the call that comes back, or let the actors call in one direction only."""


class Quarantined(Rejected):
    """The actor's stored state cannot be read by its class. Its bytes are untouched, and other actors are
    not concerned. Give the class a migrate_state, or mend or delete the record."""


class NotServing(Rejected):
    """The silo does not serve the grain now: its lease lapsed, its store is away, or it waits out a
    hold-off. Routers try again until the deadline, so a caller sees this only inside CallTimeout."""


class NotAuthorized(Rejected):
    """The caller may not make this call: it would send pickled values over a link that is not trusted, or a
    filter of the application's refuses it. The message says why."""


class CallTimeout(CallError):
    """The deadline passed first. did_run says what is known of the call itself.

    On "no", repeat it; on "maybe", repeat it with the same idempotency key. If that happens often, look for
    an actor that is slow or has too many callers, or allow more by `durum.options(ref, timeout=...)`."""


class SiloLost(CallError):
    """The connection to the silo broke after the call was sent, so that it may have run.

    Repeat it with the same idempotency key, or look first what has become of it. Calls with such a key are
    sent again without you."""


class CommitFailed(CallError):
    """The method ran, but its effects were refused by the store, or their fate is unknown.

    did_run is "rolled_back" where the store refused them, and "maybe" where its answer was lost. Repeat the
    call in the first case; in the second with an idempotency key, or look first.
    """


class StreamMoved(CallError):
    """The actor moved to another silo, or was put away, in the middle of a stream of results. What came
    before is right; call the method again for the rest."""

    usual = DidRun.ROLLED_BACK


class ReplyForgotten(CallError):
    """The call ran before under this idempotency key; its reply was large or old and is not kept.

    Do not repeat it: it is done. Ask the actor for what the reply would have said."""

    usual = DidRun.YES


class RemoteError(CallError):
    """The method raised an exception whose type the caller cannot name.

    Look at `type_name`. To catch it by type, define the exception in a module that the caller has loaded
    together with the actor's class.

    Args:
        message: the exception's own text.
        type_name: the qualified name of its type, as on the silo.
        traceback: the silo's traceback, as text.
        did_run: "rolled_back" unless the turn had saved before.
    """

    usual = DidRun.ROLLED_BACK

    def __init__(
        self,
        message: str = "",
        type_name: str = "Exception",
        traceback: str = "",
        did_run: DidRun | None = None,
    ) -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name, did_run)
        self.type_name = type_name
        self.traceback = traceback


class StoreError(DurumError):
    """The store did not do what it was asked."""


class StoreUnavailable(StoreError):
    """The store does not answer, or refuses to write. For a write, its outcome may be unknown.

    Silos wait and try again by themselves; look at the store, its disk and its memory.

    Args:
        message: what happened and what to do.
        applied: False where the store surely did not apply the operation, None where nobody knows.
    """

    def __init__(self, message: str = "", applied: bool | None = None) -> None:
        super().__init__(message)
        self.applied = applied


class DataLoss(StoreError):
    """The store is older than what a silo has seen, or lacks what must be there.

    Nothing is built upon it. Restore the store, or accept the loss in so many words.
    """


class Superseded(DurumError):
    """Another owner has taken over the partition or grain; the operation changed nothing.

    Silos handle it. Callers see CommitFailed, and only where they cannot be sent to the new owner."""


class ClusterError(DurumError):
    """The cluster cannot be reached or will not have this process."""


class NoSilo(ClusterError):
    """None of the addresses answers. The message lists what was tried and why it failed: start a silo, or
    correct the address, the cluster's name or the secret."""


class IncompatibleSilo(ClusterError):
    """The other side has another protocol version, cluster name, service or secret. Give both the same."""


class DeclaredDead(ClusterError):
    """The other silos have declared this one dead. It serves nothing any more and must stop.

    Start it again: it joins as a new one. If it happens often, look for pauses, a loop that is blocked, and
    the network."""


class DurumBug(DurumError):
    """Something that cannot happen did. Please report it with the message and the logs."""
