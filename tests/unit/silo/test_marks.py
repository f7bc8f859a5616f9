"""Which messages a grain has had: marks and a message in, a verdict out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from durum.ids import GrainId
from durum.silo.marks import Mark, Marks, Verdict, mark_name, written

CART = GrainId("Cart/a")
NAME = mark_name(3, CART, CART)
OLD, PRESENT, OTHER = b"old" * 5, b"present" * 2, b"other" * 3


def marks(mark: Mark | None = None) -> Marks:
    """Marks as an activation reads them."""
    return Marks({} if mark is None else {NAME: written(mark)})


def test_message_is_new_where_there_is_no_mark() -> None:
    """The first one that an outbox has for the grain."""
    assert marks().judge(NAME, 5, PRESENT, 1) is Verdict.NEW


@pytest.mark.parametrize(
    ("number", "verdict"), [(6, Verdict.DONE), (7, Verdict.DONE), (8, Verdict.NEW)]
)
def test_message_is_done_up_to_the_mark(number: int, verdict: Verdict) -> None:
    """They come in order, so one number tells of all before it."""
    assert marks(Mark(5, PRESENT, 7)).judge(NAME, 5, PRESENT, number) is verdict


@pytest.mark.parametrize("number", [6, 7, 8, 500])
def test_message_of_an_older_lineage_is_done_whatever_its_number(number: int) -> None:
    """An owner of old sends it again, or nobody had acknowledged it: all of that lineage came before."""
    assert marks(Mark(5, PRESENT, 7)).judge(NAME, 4, OLD, number) is Verdict.OLDER


@pytest.mark.parametrize("number", [1, 7, 8])
def test_message_of_a_newer_lineage_is_new_whatever_its_number(number: int) -> None:
    """A store that went back in time gives numbers again, to other messages."""
    assert marks(Mark(5, PRESENT, 7)).judge(NAME, 6, OTHER, number) is Verdict.NEW
    assert marks(Mark(5, PRESENT, 7)).judge(NAME, 5, OTHER, number) is Verdict.NEW


def test_message_that_saved_is_half_done() -> None:
    """Only that one: those before it are done, and those behind it are new."""
    known = marks(Mark(5, PRESENT, 7, half=True))
    verdicts = [known.judge(NAME, 5, PRESENT, number) for number in (6, 7, 8)]
    assert verdicts == [Verdict.DONE, Verdict.HALF, Verdict.NEW]


def test_outboxes_and_names_have_marks_of_their_own() -> None:
    """By an alias of its kind a grain is another receiver in the outbox, with another order."""
    alias = mark_name(3, GrainId("Basket/a"), CART)
    known = marks(Mark(5, PRESENT, 7))
    assert known.judge(alias, 5, PRESENT, 1) is Verdict.NEW
    assert known.judge(mark_name(4, CART, CART), 5, PRESENT, 1) is Verdict.NEW
    known.took(alias, Mark(5, PRESENT, 1))
    assert known.judge(alias, 5, PRESENT, 1) is Verdict.DONE
    assert known.judge(NAME, 5, PRESENT, 8) is Verdict.NEW
    assert len(known) == 2


_judge = Marks.judge


def _by_number(self: Marks, name: bytes, epoch: int, lineage: bytes, number: int) -> Verdict:
    mark = self._marks.get(name)
    return Verdict.NEW if mark is None or number > mark.number else Verdict.DONE


def _floors_ignored(self: Marks, name: bytes, epoch: int, lineage: bytes, number: int) -> Verdict:
    verdict = _judge(self, name, epoch, lineage, number)
    return Verdict.NEW if verdict is Verdict.OLDER else verdict


def _halves_ignored(self: Marks, name: bytes, epoch: int, lineage: bytes, number: int) -> Verdict:
    verdict = _judge(self, name, epoch, lineage, number)
    return Verdict.DONE if verdict is Verdict.HALF else verdict


@pytest.mark.parametrize(
    ("instead", "check"),
    [
        (_by_number, lambda: test_message_of_a_newer_lineage_is_new_whatever_its_number(1)),
        (_floors_ignored, lambda: test_message_of_an_older_lineage_is_done_whatever_its_number(8)),
        (_halves_ignored, test_message_that_saved_is_half_done),
    ],
    ids=["numbers alone", "floors ignored", "halves ignored"],
)
def test_mutant_is_found(
    instead: Callable[..., Verdict], check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that also passes without the rule proves nothing."""
    check()
    monkeypatch.setattr(Marks, "judge", instead)
    with pytest.raises(AssertionError):
        check()
