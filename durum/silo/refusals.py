"""The refusals that more than one place of a silo gives. Words only."""

from __future__ import annotations

from collections.abc import Sequence

from durum import errors
from durum.errors import DidRun
from durum.grains.kind import GrainKind
from durum.ids import GrainId, SiloId
from durum.wire.messages import Hop


def no_such_method(kind: GrainKind, method: str) -> errors.NoSuchMethod:
    """The refusal of a method that the kind does not have."""
    names = ", ".join(sorted(kind.methods)) or "none"
    return errors.NoSuchMethod(
        f"{kind.name} has no public method {method[:100]!r}; the call did not run. It has: {names}."
    )


def no_call(grain: GrainId, method: str) -> errors.ArgumentError:
    """The refusal of a plain call of a method that gives a stream."""
    return errors.ArgumentError(
        f"{grain}: {method} gives a stream of results and did not run. Iterate over it: async for item in"
        f" ref.{method}(...)."
    )


def untrusted(grain: GrainId, method: str) -> errors.NotAuthorized:
    """The refusal of a pickle from somebody who may not bring one: opening it would run his code."""
    return errors.NotAuthorized(
        f"{grain}: {method} takes or returns pickled values, and the link that the call came on is not"
        " safe for them; the call did not run. Both sides need the cluster secret or mutual TLS, and TLS"
        " beyond this host."
    )


def not_serving(grain: GrainId, why: object) -> errors.NotServing:
    """The refusal that routers answer by trying again."""
    return errors.NotServing(f"{grain} is not served here now ({why}); the call did not run.")


def hook_waits(chain: Sequence[Hop], grain: GrainId) -> errors.Deadlock:
    """The refusal of a call that a hook waits for, by the grain whose hook it is."""
    path = " -> ".join(hop.grain for hop in chain)
    return errors.Deadlock(
        f"{path} -> {grain}: a hook of the last waits for itself; the call did not run. Call other"
        " grains from methods, not from hooks."
    )


def full_line(grain: GrainId, state: str, waiting: int) -> errors.Overloaded:
    """The refusal of a call to a grain that comes or goes, where too many wait already."""
    return errors.Overloaded(
        f"{grain} is {state} and has {waiting} calls waiting; the call did not run. Slow down, or raise"
        " mailbox_calls."
    )


def lapsed(grain: GrainId) -> errors.NotServing:
    """The refusal of a silo whose lease has ended."""
    return not_serving(grain, "the silo's lease has lapsed")


def lapsed_meanwhile(grain: GrainId) -> errors.CommitFailed:
    """The refusal of an answer that another silo's turns may have overtaken."""
    return errors.CommitFailed(
        f"{grain}: the method ran, and the silo's lease lapsed before its end; its answer may be out of"
        " date, and nothing was kept. It can be repeated if what it called may be.",
        errors.DidRun.ROLLED_BACK,
    )


def no_host(grain: GrainId, silo: SiloId, *, returning: bool = False) -> errors.Rejected:
    """The refusal of a grain whose kind no active silo hosts.

    Args:
        grain: which.
        silo: who says so.
        returning: one that hosts it has just gone, or comes; it is worth while to try again.
    """
    if returning:
        return not_serving(grain, "no active silo hosts its kind")
    return errors.NoSuchKind(
        f"no active silo hosts the kind of {grain[:200]!r} (asked {silo}); the call did not run. Start a"
        " silo with that kind, or correct the name."
    )


def replies_damaged(grain: GrainId, why: object) -> errors.Quarantined:
    """The end of a keyed call where nobody can tell whether it ran before."""
    return errors.Quarantined(
        f"{grain}: what it remembers of calls with idempotency keys cannot be read: {why} The call did not"
        " run; calls without a key do."
    )


def no_role(grain: GrainId, role: str, roles: Sequence[str]) -> errors.NotServing:
    """The refusal of a grain that is to be on silos with a role, while there are none."""
    there = f"the roles there are: {', '.join(roles)}" if roles else "none has any role"
    why = f"no active silo hosts its kind in the role {role!r}; {there}"
    return not_serving(grain, why)


def not_placed(why: object) -> errors.NotServing:
    """The refusal of a call whose host the store does not tell now."""
    return errors.NotServing(
        f"which silo hosts its grain cannot be told now ({why}); the call did not run."
    )


def gone_meanwhile(grain: GrainId) -> errors.CommitFailed:
    """The end of a turn whose grain the silo had lost before it could commit."""
    return errors.CommitFailed(
        f"{grain}: the method ran, and its silo had lost the grain meanwhile; nothing was kept. It can be"
        " repeated if what it called may be.",
        DidRun.ROLLED_BACK,
    )


def unconfirmed(grain: GrainId, why: object) -> errors.CommitFailed:
    """The end of a turn that changed nothing, of a kind that does not trust clocks."""
    return errors.CommitFailed(
        f"{grain}: the method ran and changed nothing, and the store did not confirm that what it saw was"
        f" the newest ({why}).",
        DidRun.ROLLED_BACK,
    )


def uncommitted(grain: GrainId, why: object, *, unknown: bool) -> errors.CommitFailed:
    """The end of a turn whose commit the store did not take."""
    text = f"{grain}: the method ran, and the store did not take its commit ({why});"
    if unknown:
        what = "its outcome is unknown. Look before you repeat it, or call with an idempotency key."
        return errors.CommitFailed(f"{text} {what}", DidRun.MAYBE)
    what = "nothing was kept, and it can be repeated if what it called may be."
    return errors.CommitFailed(f"{text} {what}", DidRun.ROLLED_BACK)


def too_large(grain: GrainId, size: int, limit: int) -> errors.CommitFailed:
    """The end of a turn that has made too much of its fields."""
    text = (
        f"{grain}: its state would be {size} bytes (limit {limit}); the turn was rolled back. Keep less in"
        " one grain, or raise state_bytes."
    )
    return errors.CommitFailed(text, DidRun.ROLLED_BACK)


def refused_commit(grain: GrainId, why: object, did_run: DidRun) -> errors.CommitFailed:
    """The end of a turn whose grain has another owner or version in the store."""
    kept = "nothing was kept" if did_run is DidRun.ROLLED_BACK else "its outcome is unknown"
    text = f"{grain}: the method ran, and the store refused its commit ({why}); {kept}."
    return errors.CommitFailed(text, did_run)


def taken_back(grain: GrainId, earlier: errors.CallError) -> errors.CommitFailed:
    """The end of a turn that built on one whose commit failed."""
    text = f"{grain}: a commit before this one failed, and its fields were taken back ({earlier})"
    return errors.CommitFailed(text, earlier.did_run)


def counted_twice(partition: int, commits: int) -> errors.DataLoss:
    """The end of a silo whose store gave one number to two commits."""
    return errors.DataLoss(
        f"partition {partition}: the store gave two commits the number {commits}, so it has lost what it had"
        " acknowledged. Nothing more is built upon it. Restore the store, or accept the loss and start all"
        " silos again."
    )


def outbox_full(grain: GrainId, why: object) -> errors.Overloaded:
    """The end of a turn that sent a message where too many wait."""
    return errors.Overloaded(
        f"{grain}: its message could not be sent ({why}); nothing was kept. Slow down, see `durum outbox`"
        " for who does not take his messages, or raise outbox_rows.",
        DidRun.ROLLED_BACK,
    )
