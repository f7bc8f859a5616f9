"""Tests of the tests: with a check switched off, the sentence about it must fail.

Each mutant is one function or one line of a script; the product has no such switches.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from durum import errors
from durum.clock import SystemClock
from durum.ids import SystemEntropy
from durum.store import redis_scripts, sqlite_fence, sqlite_tables
from durum.store.urls import open_store
from tests.store import test_tables, test_turns
from tests.support.servers import Server
from tests.support.services import Service

_numbers = itertools.count()
Sentence = Callable[[Service], Awaitable[None]]

check_token, check_mark = sqlite_fence.check_token, sqlite_tables.check_mark


def missing_is_never_owned(held: bytes | None, token: bytes, partition: int) -> None:
    """A missing owner record passes for one that nobody has taken yet."""
    if held is not None:
        check_token(held, token, partition)  # type: ignore[arg-type]


def any_token(held: bytes | None, token: bytes, partition: int) -> None:
    """No fence."""
    if held is None:
        raise errors.DataLoss


def any_mark(db: Any, mark: str) -> tuple[int, int]:
    """No genesis check."""
    found: tuple[int, int] = db.execute("SELECT partitions, version FROM service").fetchone()
    return found


SQLITE = [
    ("check_token", missing_is_never_owned, test_turns.test_missing_owner_record_is_data_loss),
    (
        "check_token",
        any_token,
        test_turns.test_commit_under_an_earlier_token_is_superseded,
    ),
    (
        "check_version",
        lambda *_: None,
        test_turns.test_commit_from_another_version_is_superseded,
    ),
    (
        "check_version",
        lambda *_: None,
        test_turns.test_raise_version_kills_a_commit_that_lands_later,
    ),
    (
        "is_same_commit",
        lambda *_: False,
        test_turns.test_commit_sent_again_changes_nothing_and_gets_the_first_answer,
    ),
    ("check_mark", any_mark, test_tables.test_every_operation_refuses_another_genesis),
]

SCRIPTS = [
    (
        "if not held then return -1 end",
        "if not held then held = ARGV[1] end",
        test_turns.test_missing_owner_record_is_data_loss,
    ),
    (
        "held ~= ARGV[1] or ",
        "",
        test_turns.test_commit_under_an_earlier_token_is_superseded,
    ),
    (
        "(grain[1] or '0') ~= ARGV[3]",
        "false",
        test_turns.test_commit_from_another_version_is_superseded,
    ),
    (
        "HINCRBY', KEYS[2], 'v', 1",
        "HINCRBY', KEYS[2], 'v', 0",
        test_turns.test_raise_version_kills_a_commit_that_lands_later,
    ),
    (
        "repeated = last and",
        "repeated = false and",
        test_turns.test_commit_sent_again_changes_nothing_and_gets_the_first_answer,
    ),
    (
        "if redis.call('HGET', KEYS[1], 'm') ~= ARGV[1] then return -1 end",
        "",
        test_tables.test_every_operation_refuses_another_genesis,
    ),
    (
        "if letter ~= 'D' then",
        "if true then",
        test_tables.test_beat_of_the_dead_renews_nothing,
    ),
    (
        "token == ARGV[2] and token ~= ARGV[3]",
        "true",
        test_tables.test_take_needs_the_token_seen,
    ),
]


async def fails(url: str, sentence: Sentence) -> bool:
    """Whether a sentence is false of a store."""
    store = await open_store(
        url,
        cluster=f"mutant{next(_numbers)}",
        clock=SystemClock(),
        entropy=SystemEntropy(),
        threads=False,
    )
    try:
        await sentence(await Service.create(store))
    except (AssertionError, pytest.fail.Exception, errors.DurumError):
        return True
    else:
        return False
    finally:
        await store.close()


@pytest.mark.parametrize(("name", "mutant", "sentence"), SQLITE)
async def test_sentence_fails_on_sqlite_without_its_check(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: Any, sentence: Sentence
) -> None:
    """A test that passes without what it tests proves nothing."""
    assert not await fails("memory:", sentence)
    module = sqlite_fence if hasattr(sqlite_fence, name) else sqlite_tables
    monkeypatch.setattr(module, name, mutant)
    assert await fails("memory:", sentence)


@pytest.mark.parametrize(("old", "new", "sentence"), SCRIPTS)
async def test_sentence_fails_on_valkey_without_its_check(
    monkeypatch: pytest.MonkeyPatch,
    servers: Callable[[str], Server],
    old: str,
    new: str,
    sentence: Sentence,
) -> None:
    """A test that passes without what it tests proves nothing."""
    url = servers("valkey").url
    assert not await fails(url, sentence)
    read, changed = redis_scripts.read_script, []

    def altered(name: str) -> str:
        text = read(name)
        changed.append(text.replace(old, new) != text)
        return text.replace(old, new)

    monkeypatch.setattr(redis_scripts, "read_script", altered)
    assert await fails(url, sentence)
    assert any(changed)
