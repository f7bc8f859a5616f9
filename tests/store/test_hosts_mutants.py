"""Tests of the tests of hosts: with a check switched off, the sentence about it must fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from durum.store import redis_scripts, sqlite_fence, sqlite_hosts
from tests.store import test_hosts
from tests.store.test_mutants import Sentence, fails
from tests.support.servers import Server

REPLACED = test_hosts.test_host_that_was_replaced_is_fenced
LET_GO = test_hosts.test_host_that_let_go_is_fenced
ITS_GRAIN = test_hosts.test_hosted_token_is_good_for_its_grain_only
OWN_ONLY = test_hosts.test_host_lets_go_of_its_own_grain_only
EARLIER = test_hosts.test_placing_under_an_earlier_token_is_superseded
SEEN = test_hosts.test_placing_needs_the_record_seen
AGAIN = test_hosts.test_placing_sent_again_finds_itself_done
UNHOSTED = test_hosts.test_owner_cannot_load_what_somebody_hosts
RECORD = test_hosts.test_placing_without_an_owner_record_is_data_loss


def nothing(*_: Any) -> None:
    """No check."""


SQLITE: list[tuple[Any, str, Callable[..., Any], Sentence]] = [
    (sqlite_fence, "check_host", nothing, REPLACED),
    (sqlite_fence, "check_host", nothing, LET_GO),
    (sqlite_fence, "check_host", nothing, ITS_GRAIN),
    (sqlite_fence, "check_host", nothing, OWN_ONLY),
    (sqlite_fence, "check_token", nothing, EARLIER),
    (sqlite_fence, "check_record", nothing, RECORD),
    (sqlite_fence, "check_unhosted", nothing, UNHOSTED),
    (sqlite_hosts, "is_seen", lambda *_: True, SEEN),
    (sqlite_hosts, "is_done", lambda *_: False, AGAIN),
]
SCRIPTS = [
    ("string.sub(host, 1, 16) ~= string.sub(ARGV[1], 1, 16)", "false", REPLACED),
    ("if not host or", "if host and", LET_GO),
    (
        "if KEYS[2] and string.sub(KEYS[2], #partition + 3) ~= hosted then return -2 end",
        "",
        ITS_GRAIN,
    ),
    ("if ARGV[1] ~= token .. ARGV[2] then return -2 end", "", OWN_ONLY),
    ("elseif held ~= ARGV[1] or held == '' then return -2 end", "end", EARLIER),
    ("if not held then return -1 end", "if not held then held = 'x' end", RECORD),
    ("if host then return host end", "", UNHOSTED),
    ("if token ~= ARGV[3] then return found end", "", SEEN),
    ("local done = token == ARGV[4]", "local done = false", AGAIN),
]


@pytest.mark.parametrize(("module", "name", "mutant", "sentence"), SQLITE)
async def test_sentence_fails_on_sqlite_without_its_check(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, mutant: Any, sentence: Sentence
) -> None:
    """A test that passes without what it tests proves nothing."""
    assert not await fails("memory:", sentence)
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
    """The same for the scripts."""
    url = servers("valkey").url
    assert not await fails(url, sentence)
    original = redis_scripts.read_script
    assert any(old in original(name) for name in ("fence_hosted", "unhosted", "place"))
    monkeypatch.setattr(redis_scripts, "read_script", lambda name: original(name).replace(old, new))
    assert await fails(url, sentence)
