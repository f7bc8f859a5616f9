"""How votes count."""

from __future__ import annotations

import msgspec
import pytest

from durum.config import Probing
from durum.ids import SiloId
from durum.silo import votes
from durum.views import SiloRow, Status, Suspicion, View

A, B, C, D = (SiloId(f"{name}:1@1") for name in "abcd")
USUAL = Probing()
NOW = 1000.0


def view(*rows: SiloRow) -> View:
    return View(version=3, rows=rows)


def row(silo: SiloId, *against: Suspicion, status: Status = Status.ACTIVE) -> SiloRow:
    return SiloRow(silo=silo, status=status, suspicions=against)


def by(silo: SiloId, at: float = NOW, *, refused: bool = False) -> Suspicion:
    return Suspicion(by=silo, at=at, refused=refused)


def new_row(change: tuple[SiloRow, SiloRow] | None) -> SiloRow:
    assert change is not None
    return change[0]


def test_two_votes_declare_dead_where_three_are_left() -> None:
    """One voter may itself be the one that is cut off."""
    first = new_row(votes.voted(view(row(A), row(B), row(C)), C, by(A), USUAL))
    assert first.status is Status.ACTIVE
    assert first.suspicions == (by(A),)
    second = new_row(votes.voted(view(row(A), row(B), first), C, by(B), USUAL))
    assert second.status is Status.DEAD
    assert second.since == NOW
    assert not second.gone
    assert second.reason == "it does not answer probes"


def test_one_vote_declares_dead_where_two_are_left() -> None:
    """There is nobody else to ask."""
    dead = row(D, status=Status.DEAD)
    assert new_row(votes.voted(view(row(A), row(C), dead), C, by(A), USUAL)).status is Status.DEAD


def test_votes_of_the_dead_do_not_count() -> None:
    """Of two sides that condemn each other only one may win."""
    views = view(row(A), row(B), row(C, by(D)), row(D, status=Status.DEAD))
    assert new_row(votes.voted(views, C, by(A), USUAL)).status is Status.ACTIVE
    assert votes.counted(views, views.by_id[C], NOW, 60.0) == ()


@pytest.mark.parametrize(
    "voter", [row(A, status=Status.DEAD), row(A, status=Status.JOINING), row(D)]
)
def test_who_is_no_living_member_has_no_vote(voter: SiloRow) -> None:
    """A silo that has not heard of its own death yet must not take others with it."""
    assert votes.voted(view(voter, row(B), row(C)), C, by(A), USUAL) is None


@pytest.mark.parametrize("suspect", [C, D])
def test_there_is_no_vote_against_the_dead_or_the_unlisted(suspect: SiloId) -> None:
    """Dead is final; a row written again would bring it back."""
    views = view(row(A), row(B), row(C, status=Status.DEAD))
    assert votes.voted(views, suspect, by(A), USUAL) is None


def test_votes_expire() -> None:
    """Two doubts an hour apart are two hiccups, not one death."""
    views = view(row(A), row(B), row(C, by(B, NOW - 61)))
    after = new_row(votes.voted(views, C, by(A), USUAL))
    assert after.status is Status.ACTIVE
    assert after.suspicions == (by(A),)


def test_votes_from_the_future_count_and_expire_as_well() -> None:
    """The store's clock may be set back; a vote must then neither be lost nor live for ever."""
    views = view(row(A), row(B), row(C, by(B, NOW + 59)))
    assert new_row(votes.voted(views, C, by(A), USUAL)).status is Status.DEAD
    views = view(row(A), row(B), row(C, by(B, NOW + 3600)))
    assert new_row(votes.voted(views, C, by(A), USUAL)).status is Status.ACTIVE


def test_the_same_vote_is_not_written_again() -> None:
    """Every write moves the version, and all others read the table for it."""
    views = view(row(A), row(B), row(C, by(A, NOW - 5)))
    assert votes.voted(views, C, by(A), USUAL) is None


def test_a_vote_that_was_refused_replaces_one_that_was_silent_but_not_the_reverse() -> None:
    """To be refused is proof, to be ignored is not."""
    views = view(row(A), row(B), row(C, by(A, NOW - 5)))
    after = new_row(votes.voted(views, C, by(A, refused=True), USUAL))
    assert after.suspicions == (by(A, refused=True),)
    views = view(row(A), row(B), row(C, by(A, NOW - 5, refused=True)))
    assert votes.voted(views, C, by(A), USUAL) is None


def test_a_standing_vote_suffices_once_fewer_are_needed() -> None:
    """The second voter may have left since."""
    views = view(row(A), row(B, status=Status.DEAD), row(C, by(A, NOW - 5)))
    assert new_row(votes.voted(views, C, by(A), USUAL)).status is Status.DEAD


@pytest.mark.parametrize(("first", "gone"), [(True, True), (False, False)])
def test_the_dead_are_gone_only_if_enough_voters_were_refused(*, first: bool, gone: bool) -> None:
    """Nobody waits out the lease of one that is gone; a single liar must not be able to say so."""
    views = view(row(A), row(B), row(C, by(B, refused=first)))
    after = new_row(votes.voted(views, C, by(A, refused=True), USUAL))
    assert after.status is Status.DEAD
    assert after.gone is gone


def test_a_vote_can_be_withdrawn() -> None:
    """The suspect answers again; the next doubt has to start from nothing."""
    views = view(row(A), row(B), row(C, by(A), by(B)))
    after = new_row(votes.withdrawn(views, C, A))
    assert after.suspicions == (by(B),)


@pytest.mark.parametrize("suspect", [B, C, D])
def test_there_is_nothing_to_withdraw_from_the_unsuspected_dead_or_unlisted(
    suspect: SiloId,
) -> None:
    """Nothing to write means no write."""
    dead = msgspec.structs.replace(row(C, by(A)), status=Status.DEAD)
    assert votes.withdrawn(view(row(A), row(B), dead), suspect, A) is None
