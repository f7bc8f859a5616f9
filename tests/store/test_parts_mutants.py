"""Tests of the tests of parts: with a check switched off, the sentence about it must fail."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from durum.store import redis_scripts, sqlite_parts, sqlite_tables
from durum.store.protocol import Commit, Committed
from tests.store import test_parts
from tests.store.test_mutants import Sentence, fails
from tests.support.servers import Server
from tests.support.services import Service


async def reads_are_fenced(service: Service) -> None:
    """The sentence about reading under another token."""
    await test_parts.test_reading_parts_checks_the_token(service, b"x" * 16)


def write_always(db: sqlite3.Connection, turn: Commit) -> Committed:
    """Writes the parts of a commit that was applied before once more."""
    committed = sqlite_tables.commit(db, turn)
    sqlite_parts._write(db, turn)
    return committed


AGAIN = test_parts.test_commit_of_parts_sent_again_changes_nothing
ERASED = test_parts.test_erased_grain_has_no_parts_when_it_comes_again
SQLITE: list[tuple[str, Callable[..., Any], Sentence]] = [
    ("verify", lambda *_: None, reads_are_fenced),
    ("cut_off", lambda *_: None, ERASED),
    ("commit", write_always, AGAIN),
]
SCRIPTS: list[tuple[str, str, Sentence]] = [
    ("held ~= ARGV[1] or ", "", reads_are_fenced),
    ("repeated = last and", "repeated = false and", AGAIN),
    (", KEYS[5], KEYS[6])", ")", ERASED),
    (
        "redis.call('ZADD', KEYS[5], 0, ARGV[at])",
        "",
        test_parts.test_parts_come_in_the_order_of_their_bytes,
    ),
    (
        "redis.call('ZREM', KEYS[5], name)",
        "",
        test_parts.test_purge_drops_a_bounded_number_of_the_least,
    ),
]


@pytest.mark.parametrize(("name", "mutant", "sentence"), SQLITE, ids=[each[0] for each in SQLITE])
async def test_sentence_fails_on_sqlite_without_its_check(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: Any, sentence: Sentence
) -> None:
    """A test that passes without what it tests proves nothing."""
    assert not await fails("memory:", sentence)
    monkeypatch.setattr(sqlite_parts, name, mutant)
    assert await fails("memory:", sentence)


@pytest.mark.parametrize(("old", "new", "sentence"), SCRIPTS, ids=[each[0] for each in SCRIPTS])
async def test_sentence_fails_on_valkey_without_its_check(
    monkeypatch: pytest.MonkeyPatch,
    servers: Callable[[str], Server],
    old: str,
    new: str,
    sentence: Sentence,
) -> None:
    """The same for the scripts."""
    url = servers("valkey").url
    assert not await fails(url, sentence)
    original = redis_scripts.read_script
    assert any(old in original(name) for name in ("commit_parts", "erase"))
    monkeypatch.setattr(redis_scripts, "read_script", lambda name: original(name).replace(old, new))
    assert await fails(url, sentence)
