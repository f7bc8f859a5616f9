"""The nemesis' choices: whom, what, and never more than it was told."""

from __future__ import annotations

import random
from collections import Counter

from durum.testing.nemesis import _HIT, USUAL, Fault, Plan, decide

PLAN = Plan(faults=USUAL)


def chosen(plan: Plan, silos: list[str], writers: list[str], times: int = 2000) -> Counter[str]:
    chance = random.Random(1)
    found: Counter[str] = Counter()
    for _ in range(times):
        blow = decide(plan, chance, silos, writers)
        if blow is not None:
            found[blow.victim] += 1
            found[blow.fault] += 1
            assert (blow.other == "") or blow.other in silos
            assert blow.other != blow.victim
            assert plan.lasts_s[0] <= blow.lasts_s <= plan.lasts_s[1]
    return found


def test_nemesis_uses_every_fault() -> None:
    """A fault that never strikes tests nothing."""
    found = chosen(PLAN, ["a", "b", "c"], [])
    assert all(found[fault] > 0 for fault in Fault)
    assert set(_HIT) == set(Fault) - {Fault.AMBUSH_KILL, Fault.AMBUSH_PAUSE}


def test_nemesis_prefers_silos_that_wait_for_a_commit() -> None:
    """The dangerous moment is a write in flight."""
    found = chosen(PLAN, ["a", "b", "c"], ["b", "gone"])
    assert found["b"] > 2 * (found["a"] + found["c"])
    assert found["gone"] == 0


def test_nemesis_leaves_as_many_alive_as_it_was_told() -> None:
    """Killing the last silo measures a restart, not a failover."""
    found = chosen(Plan(faults=USUAL, keep=2), ["a", "b"], [])
    assert found[Fault.KILL] == found[Fault.AMBUSH_KILL] == 0
    alone = chosen(PLAN, ["a"], [])
    assert not {Fault.CUT, Fault.CUT_ONE_WAY, Fault.REJECT, Fault.SLOW, Fault.KILL} & set(alone)


def test_nemesis_has_nothing_to_do_in_an_empty_world() -> None:
    """All silos may be restarting just now."""
    assert decide(PLAN, random.Random(1), [], []) is None
    assert decide(Plan(faults={Fault.CUT: 1}), random.Random(1), ["a"], []) is None


def test_blow_says_what_it_does() -> None:
    """The log of a failing seed is read by people."""
    blow = decide(Plan(faults={Fault.CUT: 1}, lasts_s=(1, 1)), random.Random(1), ["a", "b"], ["a"])
    assert str(blow) in {
        "cut between two: a and b for 1.000 s",
        "cut between two: b and a for 1.000 s",
    }
