"""Commands about the parts of a record, and what their answers mean. Sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from durum.store import redis_answers
from durum.store.parts import PAGE_BYTES, PURGED_PER_COMMIT, above
from durum.store.protocol import Commit
from durum.store.redis_line import Argument


def commit(commit: Commit, effects: tuple[Argument, ...] = ()) -> tuple[Argument, ...]:
    """What the script takes after its keys and the token.

    Args:
        commit: the turn's.
        effects: what stands before the ranges to purge; see redis_effects.
    """
    parts = commit.parts or {}
    dropped = [name for name, content in parts.items() if content is None]
    kept = [(name, content) for name, content in parts.items() if content is not None]
    replies = commit.replies or {}
    return (
        commit.id,
        commit.version,
        commit.version + 1,
        0 if commit.state is None else 1,
        commit.state or b"",
        len(commit.forget),
        len(replies),
        len(dropped),
        len(kept),
        len(commit.purge),
        PURGED_PER_COMMIT,
        *commit.forget,
        *(piece for pair in replies.items() for piece in pair),
        *dropped,
        *(piece for pair in kept for piece in pair),
        *effects,
        *(bound for bounds in commit.purge for bound in bounds),
    )


def page(prefix: bytes, after: bytes, limit: int) -> tuple[Argument, ...]:
    """What the script of a page takes after the token."""
    first, beyond = bounds(prefix)
    least = b"(" + after if after and after >= prefix else first
    return least, beyond, limit, PAGE_BYTES


def bounds(prefix: bytes) -> tuple[bytes, bytes]:
    """The range of names that begin so."""
    end = above(prefix)
    return b"[" + prefix, b"+" if end is None else b"(" + end


class FinishLoad:
    """Settles a read of parts.

    Args:
        names: what was asked for.
        contents: whether contents were asked for, or only which are there.
    """

    __slots__ = ("_contents", "_names")

    def __init__(self, names: Sequence[bytes], *, contents: bool) -> None:
        self._names = names
        self._contents = contents

    def __call__(self, future: asyncio.Future[Any], reply: Any) -> None:
        if type(reply) is not list:
            future.set_exception(redis_answers.refusal(reply))
            return
        found = zip(self._names, reply, strict=True)
        if self._contents:
            future.set_result({name: content for name, content in found if content is not None})
        else:
            future.set_result({name: b"" for name, there in found if there})


def finish_page(future: asyncio.Future[Any], reply: Any) -> None:
    """Settle a page of parts."""
    if type(reply) is list:
        future.set_result(list(zip(reply[::2], reply[1::2], strict=True)))
    else:
        future.set_exception(redis_answers.refusal(reply))
