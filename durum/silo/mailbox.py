"""Who may run next in one activation. Owns order and interleaving; knows no I/O, time or tasks.

The whole rule, in the order in which it is asked:

    the kind is reentrant                                -> it runs
    a running turn waits for this call (its chain)       -> it runs inside that turn, one at a time,
                                                            unless that turn has something uncommitted
    nothing runs and nothing waits                       -> it runs
    it only reads, all that run only read, none wait     -> it runs beside them
    else                                                 -> it waits, in order of arrival, up to a limit
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, Self, TypeVar

from durum import errors
from durum.ids import GrainId
from durum.wire.messages import Hop


class Turn(Protocol):
    """What the mailbox has to know of a turn."""

    number: int
    read_only: bool
    chain: tuple[Hop, ...]
    outer: Self | None
    over: bool  # its code has ended, though its commit may be on its way: it waits for no call

    def uncommitted(self) -> bool:
        """Whether the turn has changed durable fields since its last commit."""
        ...


T = TypeVar("T", bound=Turn)


class Mailbox(Generic[T]):
    """The queue before one activation, and the turns that run in it.

    Args:
        grain: whose it is, for messages and chains.
        limit: how many calls may wait.
        reentrant: turns interleave freely.
        chain_enters: a call whose chain holds a running turn of this grain runs inside it.
    """

    __slots__ = (
        "_chain_enters",
        "_grain",
        "_limit",
        "_nested",
        "_reentrant",
        "_running",
        "_waiting",
        "_writers",
    )

    def __init__(
        self, grain: GrainId, *, limit: int, reentrant: bool = False, chain_enters: bool = True
    ) -> None:
        self._grain = grain
        self._limit = limit
        self._reentrant = reentrant
        self._chain_enters = chain_enters
        self._running: dict[int, T] = {}
        self._writers = 0  # running turns that may change fields
        self._waiting: deque[T] | None = None  # most have no line: an empty one takes 700 bytes
        self._nested: dict[int, deque[T]] = {}  # by the outer turn: those inside it, first runs

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self._running and not self._waiting

    @property
    def waiting(self) -> bool:
        """Something may be waiting."""
        return bool(self._waiting or self._nested)

    @property
    def queued(self) -> int:
        """How many calls wait."""
        inside = sum(len(queue) - 1 for queue in self._nested.values())
        return inside + (len(self._waiting) if self._waiting else 0)

    @property
    def running(self) -> Sequence[T]:
        return tuple(self._running.values())

    def admit(self, turn: T) -> bool:
        """Take in a call.

        Returns:
            True where its turn may start now and counts as running; False where it waits.

        Raises:
            Deadlock: it would wait for itself. It did not run.
            Overloaded: too many wait already. It did not run.
        """
        if self._reentrant or (not self._running and not self._waiting):
            self._start(turn)
            return True
        if turn.chain and (outer := self._outer_of(turn)) is not None:
            return self._admit_nested(turn, outer)
        if turn.read_only and not self._waiting and self._only_reads():
            self._start(turn)
            return True
        line = self._line()
        if len(line) >= self._limit:
            raise self._full(len(line))
        line.append(turn)
        return False

    def done(self, turn: T) -> None:
        """A running turn has ended."""
        del self._running[turn.number]
        if not turn.read_only:
            self._writers -= 1
        if turn.outer is not None:
            queue = self._nested[turn.outer.number]
            queue.popleft()
            if not queue:
                del self._nested[turn.outer.number]
        if turn.number in self._nested:
            self._release_nested(self._nested.pop(turn.number))

    def next(self) -> T | None:
        """Take the waiting call that may start now, or None. It counts as running from here on."""
        for queue in self._nested.values():
            if queue[0].number not in self._running:
                self._start(queue[0])
                return queue[0]
        if not self._waiting:
            return None
        # Only the first in line is looked at: letting later read_only calls pass a waiting writer
        # would starve it under steady reads.
        head = self._waiting[0]
        if self._running and not (head.read_only and self._only_reads()):
            return None
        self._waiting.popleft()
        if not self._waiting:
            self._waiting = None
        self._start(head)
        return head

    def has_inside(self, turn: T) -> bool:
        """Whether calls that run, or wait to run, inside this turn have not ended yet."""
        return turn.number in self._nested

    def runs(self, turn: T) -> bool:
        """Whether the turn has started here and not ended."""
        return self._running.get(turn.number) is turn

    def withdraw(self, turn: T) -> bool:
        """Drop a waiting call. False where it does not wait here."""
        if self.runs(turn):
            return False
        line = self._waiting
        if turn.outer is not None:
            line = self._nested.get(turn.outer.number, line)  # never its last one: the first runs
        if not line or turn not in line:
            return False
        line.remove(turn)
        return True

    def take_waiting(self) -> Iterator[T]:
        """Take out all calls that wait in line, in order; none of them ran."""
        while self._waiting:
            yield self._waiting.popleft()

    def take_nested(self) -> Iterator[T]:
        """Take out all calls that wait to run inside others; none of them ran."""
        for queue in self._nested.values():
            first, *rest = queue  # the first runs
            queue.clear()
            queue.append(first)
            for turn in rest:
                turn.outer = None
                yield turn

    def enters(self, turn: T) -> bool:
        """Whether a running turn of this grain waits for the call."""
        return bool(turn.chain) and self._outer_of(turn) is not None

    def _line(self) -> deque[T]:
        if self._waiting is None:
            self._waiting = deque()
        return self._waiting

    def _start(self, turn: T) -> None:
        self._running[turn.number] = turn
        if not turn.read_only:
            self._writers += 1

    def _release_nested(self, queue: deque[T]) -> None:
        """The outer turn ended before those inside it: they go on as turns of their own."""
        for turn in queue:
            turn.outer = None
        waiting = [turn for turn in queue if turn.number not in self._running]
        if waiting:
            self._line().extendleft(reversed(waiting))

    def _only_reads(self) -> bool:
        """Whether all that runs only reads, and so does all that waits to run inside it."""
        return not self._writers and all(
            turn.read_only for queue in self._nested.values() for turn in queue
        )

    def _full(self, waiting: int) -> errors.Overloaded:
        return errors.Overloaded(
            f"{self._grain} has {waiting} calls waiting (limit {self._limit}); the call did not run."
            " Slow down, mark the method @read_only, or raise mailbox_limit or mailbox_calls."
        )

    def _outer_of(self, turn: T) -> T | None:
        """The innermost turn of this grain in the call's chain whose code still runs."""
        for hop in reversed(turn.chain):
            if hop.grain == self._grain:
                outer = self._running.get(hop.turn)
                if outer is not None and not outer.over:
                    return outer
        return None

    def _admit_nested(self, turn: T, outer: T) -> bool:
        if not self._chain_enters:
            raise errors.Deadlock(
                f"{self._path(turn)}: the first waits for the last, which is itself; the call did not"
                ' run. Allow it with reentrancy="chain", or call from outside the chain.'
            )
        queue = self._nested.get(outer.number)
        # What is uncommitted while another turn runs inside is that one's, as a rule.
        if queue is None and outer.uncommitted():
            raise self._uncommitted(turn)
        if not turn.read_only and not self._only_chain_runs(turn):
            raise errors.Deadlock(
                f"{self._path(turn)}: other @read_only turns run beside the one that waits, and this"
                " call may change what they read; it did not run. Do not call back from a @read_only"
                " method."
            )
        if queue is None:
            queue = self._nested[outer.number] = deque()
        elif len(queue) > self._limit:
            raise self._full(len(queue) - 1)
        turn.outer = outer
        queue.append(turn)
        if len(queue) > 1:
            return False
        self._start(turn)
        return True

    def refusal(self, turn: T) -> errors.Deadlock | None:
        """Why a call that waited inside another turn may not run now after all, or None."""
        if turn.outer is not None and turn.outer.uncommitted():
            return self._uncommitted(turn)
        return None

    def _uncommitted(self, turn: T) -> errors.Deadlock:
        return errors.Deadlock(
            f"{self._path(turn)}: the turn that waits has uncommitted changes: save first"
            " (await self.save()), or make the call before changing fields; the call did not run."
        )

    def _path(self, turn: T) -> str:
        return " -> ".join([*(hop.grain for hop in turn.chain), self._grain])

    def _only_chain_runs(self, turn: T) -> bool:
        chain = {hop.turn for hop in turn.chain if hop.grain == self._grain}
        return all(number in chain or t.outer is not None for number, t in self._running.items())

    def __len__(self) -> int:
        return self.queued

    def __repr__(self) -> str:
        return f"<Mailbox {self._grain} running={len(self._running)} waiting={len(self)}>"
