"""Tests of the tests: with a mechanism switched off, the test that proves it has to fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from durum.silo.durable import Durable
from durum.silo.lease import Lease
from durum.silo.mailbox import Mailbox
from durum.silo.replies import RememberedReplies
from durum.silo.turn import Turn
from tests.unit.silo import (
    test_bounds,
    test_keys,
    test_mailbox,
    test_nesting,
    test_outcomes,
    test_turns,
)

_load = Durable.load


async def _load_without_raising(self: Durable, *, raise_version: bool) -> None:
    del raise_version
    await _load(self, raise_version=False)


MUTANTS: list[tuple[str, type, str, Callable[..., object], list[Callable[..., None]]]] = [
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
    owner: type,
    name: str,
    instead: Callable[..., object],
    check: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A test that also passes without the mechanism proves nothing."""
    check()
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check()
