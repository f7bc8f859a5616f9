"""Actors that tell each other numbers and keep what they got, and the arithmetic of it. Owns what is right in
the end; knows no processes and no faults.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from durum import Actor, read_only


class Books(msgspec.Struct, frozen=True):
    """What one teller has done, as it is in its state.

    Args:
        sent: the number sent last to each receiver; they begin with 1.
        got: from each sender the numbers, in the order of their coming.
        done: the calls that ran, in their order.
    """

    sent: dict[str, int] = {}
    got: dict[str, list[int]] = {}
    done: list[int] = []


class Teller(Actor):
    """Tells others when it is called, and sometimes when it is told."""

    sent: dict[str, int] = {}
    got: dict[str, list[int]] = {}
    done: list[int] = []

    async def spread(self, call: int, receivers: list[str], further: str) -> int:
        """Tell some others; the first of them tells one more. The answer is this call's place."""
        self.done.append(call)
        for number, receiver in enumerate(receivers):
            self._tell(receiver, "" if number else further)
        return len(self.done)

    async def take(self, sender: str, number: int, further: str) -> None:
        """Keep a number, and perhaps pass one on."""
        self.got.setdefault(sender, []).append(number)
        if further:
            self._tell(further, "")

    @read_only
    async def books(self) -> Books:
        return Books(self.sent, self.got, self.done)

    def _tell(self, receiver: str, further: str) -> None:
        number = self.sent[receiver] = self.sent.get(receiver, 0) + 1
        self.tell(self.actor(Teller, receiver).take, self.key, number, further)


def told(books: Mapping[str, Books]) -> int:
    """How many messages have arrived."""
    return sum(len(numbers) for one in books.values() for numbers in one.got.values())


def wrong(
    books: Mapping[str, Books],
    clients: Mapping[str, Mapping[str, int]],
    calls: Mapping[str, Sequence[int]],
    answers: Mapping[int, int],
) -> Iterator[str]:
    """All that is not as it has to be.

    Args:
        books: of every teller.
        clients: the number that each client sent last to each receiver.
        calls: the calls made of each teller.
        answers: what was answered to each, as far as it was.
    """
    sent = {**{key: one.sent for key, one in books.items()}, **clients}
    for receiver, one in books.items():
        for sender in sent.keys() | one.got.keys():
            last = sent.get(sender, {}).get(receiver, 0)
            yield from _pair(f"{sender} to {receiver}", last, one.got.get(sender, ()))
        yield from _once(receiver, calls.get(receiver, ()), one.done)
        for place, call in enumerate(one.done, 1):
            if answers.get(call, place) != place:
                yield f"{receiver}: call {call} was answered {answers[call]}, it was number {place}"


def _pair(pair: str, last: int, got: Sequence[int]) -> Iterator[str]:
    if list(got) != list(range(1, last + 1)):
        lost = sorted(set(range(1, last + 1)) - set(got))
        yield f"{pair}: sent up to {last}, got {list(got)}; lost {lost}, doubled {_doubled(got)}"


def _once(key: str, made: Iterable[int], done: Sequence[int]) -> Iterator[str]:
    if sorted(made) != sorted(done):
        lost, doubled = sorted(set(made) - set(done)), _doubled(done)
        yield f"{key}: of its calls, {lost} did not run, {doubled} ran more than once"


def _doubled(numbers: Iterable[int]) -> list[int]:
    return sorted(number for number, count in Tally(numbers).items() if count > 1)
