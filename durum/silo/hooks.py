"""Runs a grain's hook, and commits what it has changed, as if it were a turn. Knows no activation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from durum.ids import GrainId
from durum.silo.durable import Durable
from durum.silo.performer import Performer
from durum.silo.turn import HOOK, Hook
from durum.telemetry import Log

_log = Log("durum.activation")


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


async def say_goodbye(code: Coroutine[Any, Any, None], grain: GrainId, within_s: float) -> None:
    """Run the last hook, whatever becomes of it.

    Args:
        code: as `run_hook` makes it.
        grain: whose, for the log.
        within_s: how long it may take.
    """
    try:
        async with asyncio.timeout(within_s):
            await code
    except Exception as exc:  # noqa: BLE001 - the author's code must not keep a grain from going
        _log.error("on_deactivate failed", exc, grain=grain)
