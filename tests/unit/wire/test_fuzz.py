"""Bytes that others may send: whatever they are, each way in gives a value or a named refusal.

Hypothesis makes 4,000 inputs here at every run and shrinks what fails; the same targets take millions by
`python -m tests.fuzz`, whose last long run stands in docs/security.md.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.changes import TELLING, changed
from tests.fuzz.targets import TARGETS
from tests.support import bombs

ROUNDS = settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Change = tuple[int, int, bytes]


def changes() -> st.SearchStrategy[list[Change]]:
    """Where an input is cut, how much is left out there, and what is put in."""
    pieces = st.one_of(st.sampled_from(TELLING), st.binary(max_size=8))
    return st.lists(st.tuples(st.integers(0, 400), st.integers(0, 20), pieces), max_size=6)


def made(corpus: list[bytes], which: int, steps: list[Change]) -> bytes:
    data = corpus[which % len(corpus)]
    for cut, left_out, piece in steps:
        place = cut % (len(data) + 1)
        data = data[:place] + piece + data[place + left_out :]
    return data


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", list(TARGETS))
def test_any_bytes_are_a_value_or_a_refusal(name: str) -> None:
    """1,000 inputs for each of the four targets: nothing unforeseen is raised, nobody comes in, no pickle
    is opened, and memory stays within bounds."""
    target = TARGETS[name]
    corpus = list(target.corpus)
    bombs.disarm()

    @ROUNDS
    @given(which=st.integers(0, 100), steps=changes())
    @example(which=0, steps=[])
    def take(which: int, steps: list[Change]) -> None:
        target.take(made(corpus, which, steps))

    async def main() -> None:
        take()

    asyncio.run(main())


def test_changes_repeat_under_their_seed() -> None:
    """A failure that a run has found must be found again by its number."""
    corpus = TARGETS["frames"].corpus
    once, again = random.Random("frames 1"), random.Random("frames 1")
    assert [changed(once, corpus) for _ in range(200)] == [
        changed(again, corpus) for _ in range(200)
    ]
