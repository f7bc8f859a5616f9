"""The lease: when a silo may answer."""

from __future__ import annotations

import math

from durum.silo.lease import Lease, counted_from


def test_lease_counts_from_the_moment_its_renewal_was_sent() -> None:
    """Others count from seeing the heartbeat, which is after sending; counted from the answer, two would
    serve at once."""
    lease = Lease(6.0)
    lease.renewed(100.0, answered_at=105.0)
    assert lease.held(105.9)
    assert not lease.held(106.0)
    assert counted_from(100.0, 105.0) == 100.0


def test_lease_is_not_held_before_the_first_renewal() -> None:
    """A silo that has just started may not answer for anything."""
    lease = Lease(6.0)
    assert not lease.held(0.0)
    assert repr(lease) == "<Lease of 6.0 s, until -inf>"


def test_lease_ignores_a_renewal_that_was_sent_before_the_last_one() -> None:
    """Answers may overtake each other; an older one must not shorten the lease."""
    lease = Lease(6.0)
    lease.renewed(10.0, answered_at=10.1)
    lease.renewed(8.0, answered_at=10.2)
    assert lease.until == 16.0


def test_lease_ends_at_once_and_begins_anew_with_a_later_renewal() -> None:
    """A silo in doubt about its store stops, and goes on once the doubt is over."""
    lease = Lease(6.0)
    lease.renewed(10.0, answered_at=10.1)
    lease.end()
    assert not lease.held(10.2)
    assert lease.until == -math.inf
    lease.renewed(10.1, answered_at=10.3)
    assert not lease.held(10.3)  # it was sent before the end
    lease.renewed(11.0, answered_at=11.1, generation=lease.generation)
    assert lease.held(11.1)


def test_lease_is_fresh_only_for_a_while_after_its_renewal() -> None:
    """Who cannot write to the store itself must not judge others by their heartbeats."""
    lease = Lease(6.0)
    assert not lease.fresh(0.0, 3.5)
    lease.renewed(10.0, answered_at=10.1)
    assert lease.fresh(13.5, 3.5)
    assert not lease.fresh(13.6, 3.5)
