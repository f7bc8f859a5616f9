"""What one grain remembers of its keyed calls. Owns their form, window and limits; knows no I/O.

A key is kept for the whole window, whatever else happens: forgetting it early would run a repeated call
twice. Only the replies themselves, beyond the newest few, may go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from durum import errors
from durum.config import Limits
from durum.grains.kind import KindOptions
from durum.ids import GrainId
from durum.store.damage import Damaged
from durum.wire.messages import Failure, Reply

_EXPIRED_PER_COMMIT = (
    32  # bounds what one commit drops, so that no turn pays for a whole day's keys
)


class _Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """As stored: when (store time, seconds), a digest of method and arguments, the outcome."""

    at: float
    call: bytes
    outcome: bytes  # an encoded Reply or Failure; empty where only the key is kept
    partial: bool = False  # the turn had saved, and had not ended


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit has to write so that a keyed call is remembered."""

    replies: Mapping[bytes, bytes]
    forget: tuple[bytes, ...]
    entries: Mapping[bytes, _Entry]


def limits_of(options: KindOptions, limits: Limits) -> Limits:
    """The limits with what a kind says of its own replies."""
    return msgspec.structs.replace(
        limits,
        replies_kept=options.replies_kept or limits.replies_kept,
        reply_window_s=options.reply_window_s or limits.reply_window_s,
    )


_PASSING = (
    *(errors.CallTimeout, errors.CommitFailed, errors.NotServing, errors.Overloaded),
    *(errors.ShuttingDown, errors.SiloLost, errors.StreamMoved),
    *(errors.ClusterError, errors.StoreUnavailable, errors.Superseded),
)

_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(_Entry).decode
_outcomes: msgspec.msgpack.Decoder[Reply | Failure] = msgspec.msgpack.Decoder(Reply | Failure)


def digest_key(key: str) -> bytes:
    """The 16 bytes under which an idempotency key is stored."""
    return blake2b(key.encode(), digest_size=16, person=b"durum.key").digest()


def digest_call(method: str, args: bytes) -> bytes:
    """Eight bytes that tell one call from another under the same key."""
    digest = blake2b(method.encode() + b"\0", digest_size=8, person=b"durum.call")
    digest.update(args)
    return digest.digest()


def passes(exc: BaseException) -> bool:
    """Whether what a method raised says only that something could not be reached in time.

    Remembered, it would be the answer for a whole day, though a repeat a second later would do. Nothing of
    the turn was kept, so a repeat runs as after a crash.
    """
    if isinstance(exc, BaseExceptionGroup):
        return all(passes(each) for each in exc.exceptions)
    if isinstance(exc, errors.CommitFailed) and exc.did_run is errors.DidRun.YES:
        return False
    return isinstance(exc, _PASSING)


class RememberedReplies:
    """One activation's copy of its grain's remembered replies; the store has the durable one.

    Args:
        grain: whose they are, for messages.
        stored: as loaded, by key.
        limits: how many, how long, how many bodies.

    Raises:
        Damaged: one of them is nothing that was ever stored.
    """

    __slots__ = ("_bodies", "_entries", "_grain", "_limits")

    def __init__(self, grain: GrainId, stored: Mapping[bytes, bytes], limits: Limits) -> None:
        self._grain = grain
        self._limits = limits
        try:
            entries = [(key, _decode_entry(value)) for key, value in stored.items()]
        except (msgspec.MsgspecError, TypeError) as exc:
            raise Damaged(f"an entry of {len(stored)} is damaged ({exc}).") from exc
        entries.sort(key=lambda item: (item[1].at, item[0]))
        self._entries: dict[bytes, _Entry] = dict(entries)  # oldest first
        self._bodies: dict[bytes, None] = {k: None for k, entry in entries if entry.outcome}

    def recall(self, key: bytes, call: bytes, now: float) -> Reply | Failure | None:
        """The answer to give again, or None where the call is new.

        Args:
            key: from digest_key.
            call: from digest_call.
            now: store time, seconds.

        Raises:
            ArgumentError: the key was used for another method or other arguments.
            ReplyForgotten: it ran, and its reply is not kept any more.
            CommitFailed: it saved a part of its work and never came to its end (did run: yes).
            Overloaded: it is new, and there is no room to remember it. It did not run.
        """
        entry = self._entries.get(key)
        if entry is None or now - entry.at > self._limits.reply_window_s:
            self._need_room(now)
            return None
        if entry.call != call:
            raise errors.ArgumentError(
                f"idempotency_key: it was used on {self._grain} for another method or other arguments;"
                " the call did not run. Use one key for one call."
            )
        if entry.partial:
            raise errors.CommitFailed(
                f"{self._grain}: a call under this idempotency key saved a part of its work and did not"
                " come to its end; it is not run again. Look at the grain's state, then use a new key.",
                errors.DidRun.YES,
            )
        if not entry.outcome:
            raise errors.ReplyForgotten(
                f"{self._grain}: the call ran under this idempotency key, and only that is remembered;"
                f" replies are kept for the newest {self._limits.reply_bodies_kept} keys of a grain."
            )
        return _outcomes.decode(entry.outcome)

    def remember(
        self, key: bytes, call: bytes, outcome: Reply | Failure | None, now: float
    ) -> Change:
        """What to commit so that the call is remembered. Changes nothing here until `applied`.

        Args:
            key: from digest_key.
            call: from digest_call.
            outcome: how it ended, or None while it has only saved.
            now: store time, seconds.
        """
        body = b"" if outcome is None else _encode(outcome)
        entries = {key: _Entry(now, call, body, outcome is None)}
        surplus = len(self._bodies) + 1 - self._limits.reply_bodies_kept
        for old in list(self._bodies)[: max(0, surplus)]:
            if old != key:
                entries[old] = _Entry(self._entries[old].at, self._entries[old].call, b"")
        forget: list[bytes] = []
        for old, entry in self._entries.items():
            if now - entry.at <= self._limits.reply_window_s or len(forget) == _EXPIRED_PER_COMMIT:
                break
            if old not in entries:
                forget.append(old)
        replies = {k: _encode(entry) for k, entry in entries.items()}
        return Change(replies, tuple(forget), entries)

    def applied(self, change: Change) -> None:
        """The commit with this change has succeeded."""
        for key in change.forget:
            self._entries.pop(key, None)
            self._bodies.pop(key, None)
        for key, entry in change.entries.items():
            if key not in self._entries or entry.at != self._entries[key].at:
                self._entries.pop(key, None)  # newest last
            self._entries[key] = entry
            if entry.outcome:
                self._bodies[key] = None
            else:
                self._bodies.pop(key, None)

    def _need_room(self, now: float) -> None:
        if len(self._entries) < self._limits.replies_kept:
            return
        oldest = next(iter(self._entries.values()))
        if now - oldest.at > self._limits.reply_window_s:
            return
        raise errors.Overloaded(
            f"{self._grain} remembers {len(self._entries)} keyed calls (limit"
            f" {self._limits.replies_kept} in {self._limits.reply_window_s:g} s); the call did not run."
            " Spread such calls over more grains, raise replies_kept, or call without a key."
        )

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<RememberedReplies {self._grain} keys={len(self)} bodies={len(self._bodies)}>"
