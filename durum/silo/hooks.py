"""Runs a grain's hook, and commits what it has changed, as if it were a turn. Knows no activation."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from durum.silo.durable import Durable
from durum.silo.performer import Performer
from durum.silo.turn import HOOK, Hook


async def run_hook(
    code: Coroutine[Any, Any, Any], durable: Durable, performer: Performer, limit_s: float
) -> Any:
    """Run it to its end. Returns what it returns.

    Args:
        code: the hook, not begun.
        durable: its grain's durable side.
        performer: commits.
        limit_s: how long a commit without a clear answer is repeated.

    Raises:
        CommitFailed: the store did not take what it has changed.
        Exception: whatever it raises.
    """
    hook = Hook()
    before = HOOK.set(hook)
    try:
        value = await code
        if hook.staged or durable.changed():
            await performer.commit_now(limit_s, hook=hook)
        return value
    finally:
        hook.over = True
        HOOK.reset(before)
