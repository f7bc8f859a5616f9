"""Where the running code stages effects: at its turn, or at its hook. Owns the refusals; commits nothing."""

from __future__ import annotations

from durum import errors
from durum.errors import DidRun
from durum.ids import GrainId
from durum.silo.effects import Staged
from durum.silo.turn import CURRENT, HOOK


def staging(grain: GrainId, what: str) -> Staged:
    """The effects that the running turn's commit will have, or the running hook's.

    Args:
        grain: whose code is running.
        what: what is to be staged, for messages.

    Raises:
        AttributeError: a @read_only turn, which never commits.
        CommitFailed: no turn of this grain runs; nothing was done.
    """
    turn = CURRENT.get()
    if turn is not None and not turn.over and turn.call.grain == grain:
        if turn.read_only:
            raise AttributeError(
                f"{grain}: {what} in a @read_only turn, which never commits. Remove @read_only from"
                f" {turn.method.name}."
            )
        if turn.staged is None:
            turn.staged = Staged()
        return turn.staged
    hook = HOOK.get()
    if hook is not None and not hook.over:
        if hook.staged is None:
            hook.staged = Staged()
        return hook.staged
    raise errors.CommitFailed(
        f"{grain}: {what} outside of a turn: there is no commit that it could go along with; nothing was"
        " done. Do it in a method, before it ends.",
        DidRun.ROLLED_BACK,
    )


def staged_so_far(grain: GrainId) -> Staged | None:
    """What the running turn of a grain has staged, or its hook, if anything."""
    turn = CURRENT.get()
    if turn is not None and not turn.over and turn.call.grain == grain:
        return turn.staged
    hook = HOOK.get()
    return None if hook is None or hook.over else hook.staged
