"""What a turn wants its commit to make true besides fields: parts, messages, wake-ups, dead letters. Owns the
list; knows neither what they mean nor how they are stored.

Staging from a grain's code (its host does that):

    staging(self._grain, "remind()").set_part(name, definition)

gives the list of the running turn, or of the running hook, and refuses where there is none. The list is taken
along by the turn's commit, also by that of `save()`, in one atomic step with its fields; it is dropped with
the turn where the method raises or the commit fails. It belongs to the turn alone: a call inside the turn
has its own. Kinds without durable fields commit like others once something is staged.

A turn that is no call (a reminder's tick, a message) begins with what its commit has to have, by
`Turn.staged = Staged()`, filled. What must become true although the method raised is committed by itself:
`durable.commit(change=None, with_state=False, staged=…, deadline=…, then=…)` touches no field, and may be
called at any time, also beside a running turn.

Once a commit is through, every office in `services.offices` is told (Office.landed), where it concerns
one: a list without messages and wake-ups concerns nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from durum.ids import GrainId, Token

Where = tuple[int, Token, GrainId]
"""Partition, holding and grain."""


class Companion(Protocol):
    """Who stages effects that depend on what is stored, and wants to know when they are true."""

    @property
    def unresolved(self) -> bool:
        """Whether the store has to be asked before the effects can be committed."""
        ...

    async def resolve(self, staged: Staged) -> None:
        """Ask it, and stage what follows.

        Raises:
            CommitFailed: it does not answer, or the grain is not ours any more.
            ArgumentError: what was asked for cannot be; the turn fails by it.
        """
        ...

    def landed(self) -> None:
        """The effects are true."""
        ...


class Staged:
    """Effects of one turn that are not committed yet. All of them become true with its commit, or none.

    Attributes:
        parts: of the grain's record, to set or, for None, to drop, by name; see store.parts for the prefixes.
        send: messages, in order: the receiver and the row to append to the partition's outbox.
        wake: wake-ups of the grain by name: store time in milliseconds, or None to drop it.
        park: dead letters of the grain's partition by name, to set or, for None, to drop.
        limited: the commit is refused where the outbox is full.
        companions: see Companion.
        closing: parts that tell how far the turn got, by name: what they are once it has come to its end, and
            what they are from a `save()` on until then.
    """

    __slots__ = ("closing", "companions", "limited", "park", "parts", "send", "wake")

    def __init__(self) -> None:
        self.parts: dict[bytes, bytes | None] = {}
        self.send: list[tuple[GrainId, bytes]] = []
        self.wake: dict[bytes, int | None] = {}
        self.park: dict[bytes, bytes | None] = {}
        self.limited = False
        self.companions: Sequence[Companion] = ()
        self.closing: dict[bytes, tuple[bytes, bytes]] = {}

    def set_part(self, name: bytes, content: bytes | None) -> None:
        """Set a part of the record, or drop it. The last word on a name counts; so for the others."""
        self.parts[name] = content

    def set_wake(self, name: bytes, due_ms: int | None) -> None:
        """Have the grain woken at a time, or not at all.

        Args:
            name: which of its wake-ups.
            due_ms: store time in milliseconds; None drops it.
        """
        self.wake[name] = due_ms

    def set_letter(self, name: bytes, letter: bytes | None) -> None:
        """Park a dead letter, or drop one."""
        self.park[name] = letter

    def post(self, receiver: GrainId, row: bytes) -> None:
        """Send a message that may be refused: where the outbox is full, the whole commit is."""
        self.send.append((receiver, row))
        self.limited = True

    def close(self) -> None:
        """The turn has come to its end."""
        self.parts.update((name, end) for name, (end, _) in self.closing.items())

    def part(self, changed: Callable[[], bool]) -> tuple[Staged | None, Staged | None]:
        """Part it for a save, which comes before the turn's end.

        Args:
            changed: whether fields have changed, which would be saved.

        Returns:
            What is committed now, and what is left for the rest of the turn.
        """
        if not self.closing:
            return self, None
        rest = Staged()
        rest.closing, self.closing = self.closing, {}
        if not self and not changed():
            self.closing = rest.closing
            return None, self
        self.parts.update((name, halfway) for name, (_, halfway) in rest.closing.items())
        return self, rest

    @property
    def unresolved(self) -> bool:
        """Whether the store has to be asked first."""
        return any(each.unresolved for each in self.companions)

    async def resolve(self) -> None:
        """Ask it. Raises as Companion.resolve does."""
        for each in self.companions:
            if each.unresolved:
                await each.resolve(self)

    def landed(self, offices: Iterable[Office], at: Where, first: int) -> None:
        """They are true: tell whom it concerns. Args as those of Office.landed."""
        for each in self.companions:
            each.landed()
        if self.send or self.wake:
            for office in offices:
                office.landed(*at, self, first)

    def doubted(self, offices: Iterable[Office], at: Where) -> None:
        """Nobody knows whether they are, or will be."""
        if self.send or self.wake:
            for office in offices:
                office.doubted(*at, self)

    def __bool__(self) -> bool:
        there = self.parts or self.send or self.wake or self.park or self.closing
        return bool(there) or self.unresolved

    def __repr__(self) -> str:
        counts = (("parts", self.parts), ("send", self.send), ("wake", self.wake))
        listed = "".join(f" {name}={len(each)}" for name, each in (*counts, ("park", self.park)))
        return f"<Staged{listed}>"


class Office(Protocol):
    """Who sees to effects once they are true: messages go out, wake-ups are waited for."""

    def landed(
        self, partition: int, token: Token, grain: GrainId, staged: Staged, first: int
    ) -> None:
        """A commit with these effects has succeeded.

        Args:
            partition: the grain's.
            token: the holding that the commit was made under.
            grain: whose they are.
            staged: the effects; not to be changed.
            first: the number of the first message in the outbox; the others follow it.
        """
        ...

    def doubted(self, partition: int, token: Token, grain: GrainId, staged: Staged) -> None:
        """Nobody knows whether a commit with these effects has succeeded, and it may do so later: look in
        the store."""
        ...
