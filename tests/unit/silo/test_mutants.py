"""Tests of the tests: with a mechanism switched off, the test that proves it has to fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from durum.errors import CallTimeout
from durum.ids import SiloId
from durum.silo.directory import Directory
from durum.silo.durable import Durable
from durum.silo.guests import Guests
from durum.silo.holdings import Holding
from durum.silo.hosting import Hosting
from durum.silo.lease import Lease
from durum.silo.mailbox import Mailbox
from durum.silo.replies import RememberedReplies
from durum.silo.turn import Sink, Turn
from durum.store import sqlite_fence
from durum.wire.messages import Call
from tests.unit.silo import (
    test_bounds,
    test_keys,
    test_mailbox,
    test_nesting,
    test_outcomes,
    test_placed,
    test_turns,
)

_load = Durable.load


async def _load_without_raising(self: Durable, *, raise_version: bool) -> None:
    del raise_version
    await _load(self, raise_version=False)


_take = Hosting.take


async def _at_once(self: Directory, silo: SiloId) -> None:
    del self, silo


def _take_by_memory(self: Hosting, sink: Sink, call: Call, holding: Holding) -> bool:
    call.hops = 0
    return _take(self, sink, call, holding)


MUTANTS: list[tuple[str, object, str, Callable[..., object], list[Callable[..., None]]]] = [
    (
        "no rollback",
        Durable,
        "roll_back",
        lambda self: None,
        [
            lambda: test_turns.test_turn_takes_back_what_it_changed_when_the_method_raises("fail"),
            lambda: test_turns.test_turn_takes_back_what_it_changed_when_the_method_raises(
                "fail_slowly"
            ),
            test_turns.test_turn_rolls_back_when_its_result_is_not_what_it_declares,
            test_bounds.test_cancelling_a_running_call_cancels_its_code_and_rolls_back,
            test_nesting.test_inner_turn_that_fails_leaves_the_outer_one_as_it_was,
        ],
    ),
    (
        "no deduplication",
        RememberedReplies,
        "recall",
        lambda self, key, call, now: None,
        [
            test_keys.test_repeat_gets_the_same_reply_and_does_not_run,
            test_keys.test_repeat_gets_the_same_reply_across_a_crash,
            test_keys.test_repeat_while_the_first_still_runs_waits_for_its_reply,
            test_keys.test_keyed_call_survives_the_death_of_its_silo,
        ],
    ),
    (
        "no version bump after an unknown outcome",
        Durable,
        "load",
        _load_without_raising,
        [test_outcomes.test_ghost_of_a_commit_cannot_land_after_the_next_load],
    ),
    (
        "no lease",
        Lease,
        "held",
        lambda self, now: True,
        [
            test_bounds.test_lease_that_lapsed_refuses_turns_and_old_answers,
            test_bounds.test_turn_that_only_looked_does_not_answer_once_the_lease_has_lapsed,
            test_outcomes.test_silo_that_was_stopped_answers_nothing_stale_when_it_wakes,
        ],
    ),
    (
        "nested turns enter whatever is uncommitted",
        Turn,
        "uncommitted",
        lambda self: False,
        [test_nesting.test_turn_with_uncommitted_changes_lets_nothing_in_and_says_why],
    ),
    (
        "readers join whatever waits inside readers",
        Mailbox,
        "_only_reads",
        lambda self: not self._writers,
        [test_mailbox.test_mailbox_lets_no_reader_in_while_a_writer_waits_inside_another],
    ),
    (
        "dead hosts are not waited out",
        Directory,
        "_wait_out",
        _at_once,
        [test_placed.test_a_host_that_may_still_answer_is_waited_out],
    ),
    (
        "hosts let go of nothing",
        Guests,
        "last",
        lambda self, activation, work=None: work,
        [
            test_placed.test_one_that_is_put_away_leaves_no_record,
            test_placed.test_operators_reach_it_where_it_is,
        ],
    ),
    (
        "hosted tokens are not compared",
        sqlite_fence,
        "check_host",
        lambda found, token, grain: None,
        [test_placed.test_a_lost_record_drops_the_one_activation],
    ),
    (
        "what the owner remembers is believed whoever asks",
        Hosting,
        "take",
        _take_by_memory,
        [test_placed.test_one_that_is_put_away_leaves_no_record],
    ),
]


@pytest.mark.parametrize(
    ("owner", "name", "instead", "check"),
    [
        pytest.param(owner, name, instead, check, id=f"{what}-{number}")
        for what, owner, name, instead, checks in MUTANTS
        for number, check in enumerate(checks)
    ],
)
def test_mutant_is_found(
    owner: object,
    name: str,
    instead: Callable[..., object],
    check: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A test that also passes without the mechanism proves nothing."""
    check()
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises((AssertionError, CallTimeout, pytest.fail.Exception)):
        check()
