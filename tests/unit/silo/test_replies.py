"""What a grain remembers of its keyed calls. Pure: times are numbers, commits are applied by hand."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from durum import errors
from durum.config import Limits
from durum.errors import DidRun
from durum.ids import GrainId
from durum.silo.replies import Change, RememberedReplies, digest_call, digest_key
from durum.wire.messages import Failure, Reply

GRAIN = GrainId("account/ann")
KEY, OTHER = digest_key("k"), digest_key("other")
CALL = digest_call("deposit", b"\x91\x01")


def remembered(
    stored: Mapping[bytes, bytes] | None = None,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> RememberedReplies:
    return RememberedReplies(GRAIN, stored or {}, limits)


class Record:
    """A grain's replies with the store beside them: what was committed, as bytes."""

    def __init__(self, **limits: float) -> None:
        self.limits = msgspec.structs.replace(Limits(), **limits)
        self.stored: dict[bytes, bytes] = {}
        self.known = remembered(limits=self.limits)

    def keep(self, key: str, at: float, outcome: Reply | Failure | None) -> Change:
        change = self.known.remember(digest_key(key), CALL, outcome, at)
        self.stored.update(change.replies)
        for old in change.forget:
            del self.stored[old]
        self.known.applied(change)
        return change

    def reload(self) -> RememberedReplies:
        """As another silo finds it."""
        self.known = remembered(self.stored, self.limits)
        return self.known

    def recall(self, key: str, at: float) -> Reply | Failure | None:
        return self.known.recall(digest_key(key), CALL, at)


def test_digests_are_short_and_tell_calls_apart() -> None:
    """Thousands are kept a grain, so they are short; two calls that share one would be one call."""
    assert len(KEY) == 16
    assert len(CALL) == 8
    calls = {digest_call(m, a) for m in ("a", "b", "m" * 70) for a in (b"", b"\x90", b"\x91\x01")}
    assert len(calls) == 9
    assert digest_call("m" * 64 + "x", b"") != digest_call("m" * 64 + "y", b"")


def test_replies_know_nothing_of_a_new_key() -> None:
    """A call that never ran must run."""
    assert remembered().recall(KEY, CALL, 0.0) is None


@pytest.mark.parametrize("outcome", [Reply(1, b"\x05"), Failure(1, "", DidRun.ROLLED_BACK, "no")])
def test_replies_give_the_same_answer_again(outcome: Reply | Failure) -> None:
    """A repeat must not run again, be it that the first run returned or raised; on any silo."""
    record = Record()
    record.keep("k", 10.0, outcome)
    assert record.recall("k", 20.0) == outcome
    assert record.reload().recall(KEY, CALL, 20.0) == outcome
    assert len(record.known) == 1


def test_replies_change_nothing_before_the_commit_has_succeeded() -> None:
    """What was only to be written may never be: the next call has to run then."""
    known = remembered()
    known.remember(KEY, CALL, Reply(1, b"\x05"), 10.0)
    assert known.recall(KEY, CALL, 11.0) is None
    assert repr(known) == "<RememberedReplies account/ann keys=0 bodies=0>"


def test_replies_refuse_a_key_of_another_call() -> None:
    """Giving the other call's answer would be wrong, running it would break the key's promise."""
    record = Record()
    record.keep("k", 10.0, Reply(1, b""))
    with pytest.raises(errors.ArgumentError, match="other arguments") as caught:
        record.known.recall(KEY, digest_call("deposit", b"\x91\x02"), 11.0)
    assert caught.value.did_run is DidRun.NO


def test_replies_refuse_to_run_again_what_saved_a_part_and_never_ended() -> None:
    """Half of it is done: nobody but a person can tell what a second run would double."""
    record = Record()
    record.keep("k", 10.0, None)
    with pytest.raises(errors.CommitFailed, match="saved a part of its work") as caught:
        record.recall("k", 11.0)
    assert caught.value.did_run is DidRun.YES
    record.keep("k", 12.0, Reply(1, b"\x01"))
    assert record.recall("k", 13.0) == Reply(1, b"\x01")
    assert record.reload().recall(KEY, CALL, 13.0) == Reply(1, b"\x01")


def test_replies_forget_bodies_beyond_the_newest_and_never_the_keys() -> None:
    """Bodies may be large, so they are few; a forgotten key would let a call run twice."""
    record = Record(reply_bodies_kept=2)
    for number in range(4):
        record.keep(f"k{number}", 10.0 + number, Reply(number, bytes([number])))
    assert repr(record.known) == "<RememberedReplies account/ann keys=4 bodies=2>"
    for known in (record.known, record.reload()):
        for number in (0, 1):
            with pytest.raises(errors.ReplyForgotten, match="newest 2 keys") as caught:
                known.recall(digest_key(f"k{number}"), CALL, 20.0)
            assert caught.value.did_run is DidRun.YES
        for number in (2, 3):
            assert record.recall(f"k{number}", 20.0) == Reply(number, bytes([number]))


def test_replies_keep_the_body_of_a_key_that_is_used_anew() -> None:
    """An expired key runs again; dropping its old body must not drop the new one."""
    record = Record(reply_bodies_kept=1, reply_window_s=100.0)
    record.keep("k", 0.0, Reply(1, b"old"))
    assert record.recall("k", 101.0) is None
    record.keep("k", 101.0, Reply(2, b"new"))
    assert record.recall("k", 102.0) == Reply(2, b"new")


def test_replies_rewrite_a_body_once_only() -> None:
    """A turn must not pay for bodies that earlier turns have dropped already."""
    record = Record(reply_bodies_kept=1)
    sizes = [len(record.keep(f"k{n}", float(n), Reply(n, b"x")).replies) for n in range(5)]
    assert sizes == [1, 2, 2, 2, 2]


def test_replies_keep_a_key_for_the_whole_window_and_no_longer() -> None:
    """Within the window a repeat never runs; after it the key is new, or grains would grow for ever."""
    record = Record(reply_window_s=100.0)
    record.keep("k", 10.0, Reply(1, b""))
    assert record.recall("k", 110.0) == Reply(1, b"")
    assert record.recall("k", 110.1) is None


def test_replies_drop_what_expired_with_the_next_commits_a_few_at_a_time() -> None:
    """Dropping a day's keys at once would make one unlucky turn slow."""
    record = Record(reply_window_s=100.0, reply_bodies_kept=10)
    for number in range(40):
        record.keep(f"k{number}", 1.0, Reply(1, b""))
    assert len(record.keep("a", 200.0, Reply(1, b"")).forget) == 32
    assert len(record.stored) == len(record.known) == 9
    assert len(record.keep("b", 200.0, Reply(1, b"")).forget) > 0
    record.keep("c", 200.0, Reply(1, b""))
    assert set(record.stored) == {digest_key(key) for key in "abc"}


def test_replies_stop_dropping_at_the_first_key_that_is_young_enough() -> None:
    """They are in the order of their age, so that nobody has to look at all of them."""
    record = Record(reply_window_s=100.0)
    record.keep("old", 1.0, Reply(1, b""))
    record.keep("young", 90.0, Reply(1, b""))
    assert record.keep("new", 120.0, Reply(1, b"")).forget == (digest_key("old"),)


def test_replies_refuse_new_keys_at_the_limit_and_forget_nothing() -> None:
    """Making room by forgetting would break the promise given for the key that went."""
    record = Record(replies_kept=2, reply_window_s=100.0)
    record.keep("a", 1.0, Reply(1, b"a"))
    record.keep("b", 50.0, Reply(1, b"b"))
    with pytest.raises(
        errors.Overloaded, match=r"remembers 2 keyed calls \(limit 2 in 100 s\)"
    ) as caught:
        record.recall("c", 60.0)
    assert caught.value.did_run is DidRun.NO
    assert record.recall("a", 60.0) == Reply(1, b"a")
    assert record.recall("c", 101.5) is None, "the oldest has expired and makes room"


def test_replies_are_in_order_of_age_after_loading() -> None:
    """A store returns them in any order; the oldest bodies are the ones to go."""
    record = Record(reply_bodies_kept=3)
    for number in range(3):
        record.keep(f"k{number}", float(number), Reply(1, b""))
    record.stored = dict(reversed(record.stored.items()))
    record.reload()
    change = record.keep("new", 9.0, Reply(1, b""))
    assert set(change.replies) == {digest_key("k0"), digest_key("new")}


def test_replies_of_commits_in_line_do_not_bring_back_what_an_earlier_one_dropped() -> None:
    """Turns of a reentrant kind prepare several commits before the first has succeeded."""
    record = Record(reply_bodies_kept=1, reply_window_s=100.0)
    record.keep("a", 1.0, Reply(1, b"a"))
    first = record.known.remember(digest_key("b"), CALL, Reply(1, b"b"), 2.0)
    second = record.known.remember(digest_key("c"), CALL, Reply(1, b"c"), 2.0)
    record.known.applied(first)
    record.known.applied(second)
    with pytest.raises(errors.ReplyForgotten):
        record.recall("a", 3.0)
    assert record.recall("c", 3.0) == Reply(1, b"c")


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_replies_treat_each_key_alone(key: bytes) -> None:
    """One key's outcome says nothing of another's."""
    record = Record()
    record.keep("k", 1.0, Reply(1, b"k"))
    assert record.known.recall(key, CALL, 2.0) == (Reply(1, b"k") if key == KEY else None)
