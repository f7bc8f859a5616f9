"""Ownership: holdings take turns, and the store's log proves it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durum.ids import Address, GrainId, Token, hosted_token, silo_id
from durum.store.host_table import Host
from durum.store.protocol import Commit, Committed, Owner, Take
from durum.testing.spans import Span, check_log, check_spans, spans
from durum.testing.store_log import Applied, StoreLog

SEEDS = st.integers(0, 2**32)

A = silo_id(Address("a:1"), 1)
ONE, TWO = Token(b"1" * 16), Token(b"2" * 16)


def hosted(letter: bytes, grain: str) -> Token:
    return hosted_token(Token(letter * 16), GrainId(grain))


class Book:
    """Writes a store's log as a store would, or would not."""

    def __init__(self) -> None:
        self.log = StoreLog()
        self.ids = 0

    def take(self, token: Token, partition: int = 0) -> Book:
        take = Take(partition=partition, seen=Token(b""), token=token, silo=A)
        owner = Owner(partition=partition, silo=A, epoch=1, token=token, commits=0)
        self.log.taken(0.0, "a", take, owner)
        return self

    def place(self, grain: str, token: Token | None) -> Book:
        record = None if token is None else Host(A, token)
        self.log.placed(0.0, "a", (0, GrainId(grain)), record, record)
        return self

    def commit(
        self, token: Token, version: int, counter: int, grain: str = "K/k", partition: int = 0
    ) -> Book:
        self.ids += 1
        commit = Commit(
            partition=partition,
            token=token,
            grain=GrainId(grain),
            id=b"%016d" % self.ids,
            version=version,
        )
        self.log.committed(
            Applied(
                number=self.log.next_number(),
                at=0.0,
                sent_at=0.0,
                host="a",
                commit=commit,
                result=Committed(version + 1, counter),
            )
        )
        return self


def test_log_of_hosts_beside_their_partition_is_accepted() -> None:
    """A grain with a host of its own commits while the partition's other grains do, and changes hands."""
    first, second = hosted(b"h", "K/k"), hosted(b"i", "K/k")
    book = Book().take(ONE).place("K/k", first).commit(ONE, 0, 1, "K/l").commit(first, 0, 2)
    book.take(TWO).commit(first, 1, 3).commit(TWO, 1, 4, "K/l").commit(first, 2, 5)
    book.place("K/k", second).place("K/k", second).commit(second, 3, 6).place("K/k", None)
    assert check_log(book.log) == []
    assert [one.record and one.record.token for one in book.log.places] == [first, second, None]
    mark = book.log.mark()
    book.place("K/k", hosted(b"j", "K/k"))
    book.log.cut(mark)
    assert len(book.log.places) == 3


def test_log_of_holdings_in_turn_is_accepted() -> None:
    """The usual life of a partition."""
    book = Book().take(ONE).commit(ONE, 0, 1).commit(ONE, 1, 2)
    book.take(TWO).commit(TWO, 2, 3).commit(TWO, 0, 4, grain="K/l")
    book.take(Token(b"3" * 16), partition=1).commit(Token(b"3" * 16), 0, 1, "K/m", partition=1)
    assert check_log(book.log) == []
    assert [span.token for span in spans(book.log.commits)][:2] == [ONE, TWO]


@pytest.mark.parametrize(
    ("book", "says"),
    [
        (
            Book().take(ONE).commit(ONE, 0, 1).take(TWO).commit(TWO, 1, 2).commit(ONE, 2, 3),
            "still at",
        ),
        (Book().take(ONE).take(TWO).commit(ONE, 0, 1), "passed the fence"),
        (Book().commit(ONE, 0, 1), "passed the fence"),
        (Book().take(ONE).commit(ONE, 0, 1).commit(ONE, 0, 2), "no longer the newest"),
        (Book().take(ONE).commit(ONE, 0, 1).commit(ONE, 1, 1), "its counter fell"),
        (Book().take(ONE).take(TWO).take(ONE), "was taken twice"),
        (Book().take(ONE).commit(hosted(b"h", "K/k"), 0, 1), "passed the fence"),
        (Book().place("K/k", hosted(b"h", "K/k")).commit(ONE, 0, 1), "passed the fence"),
        (
            Book()
            .place("K/k", hosted(b"h", "K/k"))
            .place("K/k", None)
            .commit(hosted(b"h", "K/k"), 0, 1),
            "passed the fence",
        ),
        (
            Book()
            .place("K/k", hosted(b"h", "K/k"))
            .commit(hosted(b"h", "K/k"), 0, 1)
            .place("K/k", hosted(b"i", "K/k"))
            .commit(hosted(b"i", "K/k"), 1, 2)
            .commit(hosted(b"h", "K/k"), 2, 3),
            "still at",
        ),
        (
            Book()
            .place("K/k", hosted(b"h", "K/k"))
            .place("K/k", None)
            .place("K/k", hosted(b"h", "K/k")),
            "was taken twice",
        ),
    ],
)
def test_log_of_two_owners_at_once_is_rejected(book: Book, says: str) -> None:
    """Each of these is a broken promise that only the order of commits shows."""
    assert any(says in line for line in check_log(book.log))


def test_spans_inside_one_another_are_rejected() -> None:
    """The later one may end first; it still overlaps with the one around it, and so does a third."""
    found = [Span(0, ONE, 1, 10), Span(0, TWO, 2, 3), Span(0, Token(b"3"), 5, 6)]
    assert len(check_spans(found)) == 2
    assert check_spans([Span(0, ONE, 1, 10), Span(1, TWO, 2, 3)]) == []


@settings(deadline=None)
@given(SEEDS)
def test_spans_in_turn_are_accepted_in_any_order(seed: int) -> None:
    """Whatever takes turns must pass."""
    chance = random.Random(seed)
    at = 0
    found = []
    for number in range(chance.randint(0, 20)):
        first = at + chance.randint(1, 3)
        at = first + chance.randint(0, 3)
        found.append(Span(0, Token(b"%d" % number), first, at))
    chance.shuffle(found)
    assert check_spans(found) == []


def test_log_notes_a_take_only_where_it_succeeded() -> None:
    """A lost race, or a take that was sent again, is no change of hands."""
    log = StoreLog()
    take = Take(partition=0, seen=Token(b""), token=ONE, silo=A)
    won = Owner(partition=0, silo=A, epoch=1, token=ONE, commits=0)
    lost = Owner(partition=0, silo=A, epoch=1, token=TWO, commits=0)
    for owner in (lost, won, won):
        log.taken(0.0, "a", take, owner)
    assert [one.token for one in log.takes] == [ONE]


def test_log_forgets_what_was_rolled_back() -> None:
    """After a failover that lost writes, the checker judges what is left."""
    book = Book().take(ONE).commit(ONE, 0, 1)
    mark = book.log.mark()
    book.commit(ONE, 1, 2).take(TWO)
    book.log.cut(mark)
    assert len(book.log.lost) == 1
    assert [one.token for one in book.log.takes] == [ONE]
    book.commit(ONE, 1, 2)
    assert check_log(book.log) == []
