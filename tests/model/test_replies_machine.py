"""Remembered replies against the simplest model: a table of keys, their times and their outcomes."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from durum import errors
from durum.config import Limits
from durum.ids import GrainId
from durum.silo.replies import RememberedReplies, digest_call, digest_key
from durum.wire.messages import Failure, Reply

GRAIN = GrainId("account/ann")
LIMITS = Limits(replies_kept=4, reply_bodies_kept=2, reply_window_s=10.0)
KEYS = st.sampled_from([f"k{n}" for n in range(8)])
CALLS = st.sampled_from([b"\x90", b"\x91\x01"])


class RepliesMachine(RuleBasedStateMachine):
    """One grain with its store; time only goes forward."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.stored: dict[bytes, bytes] = {}
        self.known = RememberedReplies(GRAIN, {}, LIMITS)
        self.runs: dict[str, tuple[float, bytes, Reply]] = {}
        self.count = 0

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=KEYS, args=CALLS, lands=st.booleans())
    def call(self, key: str, args: bytes, lands: bool) -> None:
        digest = digest_call("m", args)
        before = self.runs.get(key)
        young = before is not None and self.now - before[0] <= LIMITS.reply_window_s
        try:
            answer = self.known.recall(digest_key(key), digest, self.now)
        except errors.ArgumentError:
            assert young
            assert before is not None
            assert before[1] != args
            return
        except errors.ReplyForgotten:
            assert young
            newer = [
                run for run in self.runs.values() if before is not None and run[0] >= before[0]
            ]
            assert len(newer) > LIMITS.reply_bodies_kept, "only bodies beyond the newest may go"
            return
        except errors.Overloaded:
            assert not young
            held = [at for at, _, _ in self.runs.values() if self.now - at <= LIMITS.reply_window_s]
            assert len(held) >= LIMITS.replies_kept
            return
        if answer is not None:
            assert young
            assert before is not None
            assert (answer, args) == (before[2], before[1]), "a repeat gets the first answer"
            return
        assert not young, "what ran within the window never runs again"
        self._run(key, args, digest, lands=lands)

    def _run(self, key: str, args: bytes, digest: bytes, *, lands: bool) -> None:
        self.count += 1
        reply = Reply(self.count, bytes([self.count % 256]))
        outcome: Reply | Failure = reply
        change = self.known.remember(digest_key(key), digest, outcome, self.now)
        if not lands:
            return  # refused by the store: as if the call had never been
        self.stored.update(change.replies)
        for old in change.forget:
            del self.stored[old]
        self.known.applied(change)
        self.runs[key] = (self.now, args, reply)

    @rule()
    def move(self) -> None:
        """Another silo loads what the store has."""
        self.known = RememberedReplies(GRAIN, self.stored, LIMITS)

    @invariant()
    def memory_and_store_hold_the_same_keys(self) -> None:
        assert len(self.known) == len(self.stored)

    @invariant()
    def the_limit_holds(self) -> None:
        assert len(self.known) <= LIMITS.replies_kept + 1


RepliesMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, derandomize=True
)
TestReplies = RepliesMachine.TestCase
