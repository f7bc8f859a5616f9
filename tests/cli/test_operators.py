"""What operators do at a shell: list, look, evict, delete, watch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from durum.cli import exits
from tests.support import commands

STORE = ("--store", "sqlite:///.durum/dev.db")


@pytest.fixture
def shop(home: Path) -> Iterator[Path]:
    """A directory whose silo serves three accounts."""
    with commands.serving(home, "dev", "hello.py"):
        for key in ("ann", "bob", "bea"):
            assert commands.durum(home, "call", "Account", key, "deposit", "1.5").code == 0
        yield home


def test_an_operator_s_hour(shop: Path) -> None:
    """One silo for all of it: list, count, show, evict, delete, and what errors look like."""
    run = commands.durum
    assert run(shop, "grains", "Account").out.split() == ["ann", "bea", "bob"]
    assert run(shop, "grains", "Account", "--prefix", "b", "--count").out == "2\n"
    assert run(shop, "grains", "Account", "--count", "--json").json == {"count": 3}

    first = run(shop, "grains", "Account", "--limit", "2")
    assert len(first.out.split()) == 2
    assert "There are more: --after" in first.err
    page = run(shop, "grains", "Account", "--limit", "2", "--json").json
    rest = run(shop, "grains", "Account", "--after", page["after"], "--json").json
    assert sorted(page["keys"] + rest["keys"]) == ["ann", "bea", "bob"]
    assert rest["after"] == ""

    shown = run(shop, "state", "Account", "ann")
    assert "Account/ann  version 1, by class version 1, 0 remembered replies" in shown.out
    assert json.loads(shown.out.partition("{")[1] + shown.out.partition("{")[2]) == {
        "balance": "1.5"
    }
    as_json = run(shop, "state", "Account", "ann", "--json").json
    assert (as_json["state"], as_json["version"], as_json["active"]) == (
        {"balance": "1.5"},
        1,
        "valid",
    )
    assert "nothing is kept" in run(shop, "state", "Account", "zoe").out

    assert run(shop, "evict", "Account", "ann").out == "Account/ann is out of memory now\n"
    assert run(shop, "evict", "Account", "ann", "--json").json == {"was_active": False}
    assert run(shop, "call", "Account", "ann", "deposit", "1").out == '"2.5"\n'

    unsure = run(shop, "delete", "Account", "bob")
    assert (unsure.code, unsure.out) == (exits.INTERRUPTED, "")
    assert run(shop, "delete", "Account", "bob", "--yes", "--json").json == {"existed": True}
    assert run(shop, "delete", "Account", "bob", "--yes").out == "Account/bob had kept nothing\n"
    assert run(shop, "grains", "Account", "--count").out == "2\n"

    exported = run(shop, "export", "accounts.durum", "--kind", "Account")
    assert exported.out.startswith("2 grains are in accounts.durum (")
    twice = run(shop, "export", "accounts.durum")
    assert twice.code == exits.CONFIG
    assert "accounts.durum exists" in twice.err
    assert run(shop, "delete", "Account", "bea", "--yes").code == 0
    found = run(shop, "import", "accounts.durum")
    assert found.out == "2 grains: 1 written, 1 were there already\n"
    assert run(shop, "call", "Account", "ann", "deposit", "1").out == '"3.5"\n'
    refused = run(shop, "import", "accounts.durum", "--json")
    assert refused.json["error"]["type"] == "Rejected"
    skipped = run(shop, "import", "accounts.durum", "--on-existing", "skip", "--json").json
    assert skipped == {"grains": 2, "written": 0, "same": 1, "skipped": ["Account/ann"]}
    assert run(shop, "export", "f", "--prefix", "a").code == 2

    wrong = run(shop, "state", "no/kind", "x", "--json")
    assert wrong.code == exits.FAILED
    assert wrong.json["error"]["type"] == "ArgumentError"
    assert wrong.json["error"]["did_run"] == "no"

    looks = run(shop, "ps", "--watch", "--times", "2", "--every", "0.1", "--json").out.splitlines()
    (silo,) = json.loads(looks[1])["silos"]
    assert silo["status"] == "active"
    assert silo["now"]["activations"]["Account"] == 1
    table = run(shop, "ps", "--times", "1").out
    assert "calls/s" in table
    assert "active" in table


def test_nobody_to_ask_is_69_in_json_too(home: Path) -> None:
    """A script must tell an empty list from a cluster that is away."""
    created = commands.durum(home, "init", *STORE)
    assert created.code == exits.CLEAN
    done = commands.durum(
        home, "grains", "Account", "--to", "127.0.0.1:1", "--timeout", "0.2", "--json"
    )
    assert done.code == exits.UNREACHABLE
    assert done.json["error"]["type"] == "NoSilo"


@pytest.mark.parametrize("words", [("state", "A", "x"), ("grains", "A"), ("evict", "A", "x")])
def test_a_store_that_is_not_there_is_not_created_by_looking(
    home: Path, words: tuple[str, ...]
) -> None:
    """As for durum ps."""
    done = commands.durum(home, *words, "--store", "sqlite:///none.db")
    assert done.code == exits.CONFIG
    assert not (home / "none.db").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(home: Path, shell: str) -> None:
    """And nothing but the script: it goes straight into eval."""
    done = commands.durum(home, "completion", shell)
    assert (done.code, done.err) == (exits.CLEAN, "")
    assert f"_DURUM_COMPLETE={shell}_complete" in done.out


def test_completion_knows_the_commands(home: Path) -> None:
    """What the script asks for at each tab."""
    env = commands.environment(
        _DURUM_COMPLETE="bash_complete", COMP_WORDS="durum gr", COMP_CWORD="1"
    )
    done = subprocess.run(
        [sys.executable, "-m", "durum"],
        cwd=home,
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split() == ["plain,grains"]


def test_logs_bind_what_varies_to_fields(home: Path) -> None:
    """An event whose text varies can be neither counted nor searched for."""
    with commands.serving(home, "dev", "hello.py", "--log-format", "json") as silo:
        lines = [json.loads(line) for line in silo.log.read_text().splitlines() if line[0] == "{"]
        (started,) = [line for line in lines if line["event"] == "silo started"]
        assert started["silo"] == silo.first_line["silo"]
        assert started["logger"] == "durum.silo"
