"""Failures that the wire itself answers with. Pure; knows messages and errors, no connections."""

from __future__ import annotations

from durum.errors import CallError, DidRun, DurumBug
from durum.wire.messages import AnyMessage, Failure, Reply
from durum.wire.requests import Request


def for_unhandled(message: AnyMessage, exc: Exception) -> Failure | None:
    """Answer a request whose handling failed by our own mistake; None where nobody waits."""
    if not isinstance(message, Request):
        return None
    text = (
        f"handling a {type(message).__name__} failed by a mistake of Durum's: {exc!r}. It may have "
        "run. The silo's log has the details; please report them."
    )
    return Failure(message.id, DurumBug.__name__, DidRun.MAYBE, text)


def for_unsendable(message: AnyMessage, error: Exception) -> Failure | None:
    """Answer instead of an answer that fits into no frame; None where nobody waits."""
    if not isinstance(message, Reply | Failure):
        return None
    did_run = message.did_run if isinstance(message, Failure) else DidRun.YES
    return Failure(message.id, CallError.__name__, did_run, f"its reply could not be sent: {error}")
