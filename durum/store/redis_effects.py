"""How messages, wake-ups and dead letters are written down for Redis, and what answers about them mean. Sends
nothing.

A message is one member of a sorted set, its number the score: number and epoch in 8 bytes each, lineage in
16, the receiver's length in 2, receiver, row. A wake-up is one too, its due time the score: the grain with
each NUL followed by 0xff, then NUL and 1, then the name. So grains sort as their own bytes do, and none is
mistaken for another.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from durum.ids import GrainId
from durum.store import redis_answers, redis_parts
from durum.store.effects import Outgoing, Overfull, Posted, WakeUp
from durum.store.parts import PAGE_BYTES
from durum.store.protocol import Commit, Committed
from durum.store.redis_line import Argument

_NO_ROOM: Final = -4
_END: Final = b"\0\x01"
_LINEAGE: Final = 16
_RECEIVER: Final = 34


def commit(commit: Commit) -> tuple[Argument, ...]:
    """What the script takes after its keys and the token."""
    wake, park = commit.wake, commit.park
    dropped = [name for name, due in wake.items() if due is None]
    put_away = [name for name, letter in park.items() if letter is None]
    set_anew = [(name, due) for name, due in wake.items() if due is not None]
    parked = [(name, letter) for name, letter in park.items() if letter is not None]
    effects = (
        commit.send_limit,
        stem(commit.grain),
        len(commit.send),
        len(set_anew),
        len(dropped),
        len(parked),
        len(put_away),
        *(_message(one) for one in commit.send),
        *(piece for pair in set_anew for piece in pair),
        *dropped,
        *(piece for pair in parked for piece in pair),
        *put_away,
    )
    return redis_parts.commit(commit, effects)


def stem(grain: GrainId) -> bytes:
    """What a grain's members of the wake-ups begin with, and no other's."""
    return grain.encode().replace(b"\0", b"\0\xff") + _END


def after(place: tuple[int, GrainId, bytes] | None) -> tuple[Argument, ...]:
    """Where a page of wake-ups begins."""
    return () if place is None else (place[0], stem(place[1]) + place[2])


def letters(after: bytes, limit: int) -> tuple[Argument, ...]:
    """What the script of a page of letters takes after its keys."""
    return b"(" + after if after else b"-", limit, PAGE_BYTES


def finish_commit(partition: int, future: asyncio.Future[Any], reply: Any) -> None:
    """Settle a commit with effects."""
    if type(reply) is list:
        future.set_result(Committed(*reply))
    elif reply == _NO_ROOM:
        future.set_exception(Overfull(partition))
    else:
        future.set_exception(redis_answers.refusal(reply))


def finish_posted(future: asyncio.Future[Any], reply: Any) -> None:
    """Settle a page of an outbox."""
    if type(reply) is list:
        future.set_result([_posted(member) for member in reply])
    else:
        future.set_exception(redis_answers.refusal(reply))


def finish_due(future: asyncio.Future[Any], reply: Any) -> None:
    """Settle a page of wake-ups."""
    if type(reply) is list:
        future.set_result([_wake_up(*pair) for pair in zip(reply[::2], reply[1::2], strict=True)])
    else:
        future.set_exception(redis_answers.refusal(reply))


def _message(one: Outgoing) -> bytes:
    receiver = one.receiver.encode()
    return len(receiver).to_bytes(2, "big") + receiver + one.row


def _posted(member: bytes) -> Posted:
    end = _RECEIVER + int.from_bytes(member[_RECEIVER - 2 : _RECEIVER], "big")
    return Posted(
        int.from_bytes(member[:8], "big"),
        int.from_bytes(member[8:16], "big"),
        member[16 : 16 + _LINEAGE],
        GrainId(member[_RECEIVER:end].decode()),
        member[end:],
    )


def _wake_up(member: bytes, due_ms: bytes) -> WakeUp:
    grain, _, name = member.partition(_END)
    return WakeUp(int(due_ms), GrainId(grain.replace(b"\0\xff", b"\0").decode()), name)
