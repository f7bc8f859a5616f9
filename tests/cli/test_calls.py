"""durum dev, call, ps and init as somebody uses them in an afternoon."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from durum.cli import exits
from tests.support import commands


@pytest.fixture
def dev(home: Path) -> Iterator[commands.Running]:
    """A silo for development on the store that all commands take by default."""
    with commands.serving(home, "dev", "hello.py") as silo:
        yield silo


def test_first_call_is_answered_within_two_seconds_of_dev(home: Path) -> None:
    """The bar for hello world: command, store, service, silo, client, actor, reply."""
    best = 60.0
    for attempt in range(4):
        place = home / str(attempt)
        place.mkdir()
        (place / "hello.py").write_text((home / "hello.py").read_text())
        began = time.perf_counter()
        with commands.serving(place, "dev", "hello.py"):
            done = commands.durum(place, "call", "Greeter", "bob", "hello", "Ann")
            best = min(best, time.perf_counter() - began)
        assert done.out == '"Hello Ann, you are number 1"\n', done.err
        if best < 2.0:
            return
    pytest.fail(f"the first call took {best:.2f} s")


def test_results_are_json(home: Path, dev: commands.Running) -> None:
    """Arguments and results go through a shell: exact, and readable by other programs."""
    assert commands.durum(home, "call", "Greeter", "bob", "hello", "Ann").code == exits.CLEAN
    assert commands.durum(home, "call", "Greeter", "bob", "count").json == 1
    assert commands.durum(home, "call", "Greeter", "bob", "count", "--json").json == {"result": 1}
    assert commands.durum(home, "call", "Account", "ann", "deposit", "10.10").json == "10.10"
    assert commands.durum(home, "call", "Account", "ann", "deposit", "-0.05").json == "10.05"


def test_what_the_method_raises_is_shown_and_is_1(home: Path, dev: commands.Running) -> None:
    """The method's own exception is an answer; Durum's traceback around it would bury it."""
    done = commands.durum(home, "call", "Greeter", "bob", "refuse")
    assert (done.code, done.out, done.err) == (exits.FAILED, "", "ValueError: not today\n")
    odd = commands.durum(home, "call", "Greeter", "bob", "refuse_oddly", "--json")
    assert odd.code == exits.FAILED
    assert odd.json["error"]["type"].endswith("Broke")
    assert commands.durum(home, "call", "Greeter", "bob", "count").json == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("Nobody", "x", "hello"), "NoSuchKind"),
        (("Greeter", "x", "nothing"), "NoSuchMethod"),
        (("Greeter", "x", "hello"), "ArgumentError"),
        (("Account", "x", "deposit", "lots"), "ArgumentError"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_what_did_not_run_says_so(
    home: Path, dev: commands.Running, words: tuple[str, ...], error: str
) -> None:
    """A person decides by it whether to type the command again."""
    done = commands.durum(home, "call", *words, "--json")
    assert done.code == exits.FAILED
    assert done.json["error"]["type"] == error
    assert done.json["error"]["did_run"] == "no"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("Greeter", "x", "__init__"), "not the name of a public method"),
        (("Gree/ter", "x", "hello"), "not the name of a kind"),
        (("Greeter", "x", "hello", '{"a":'), "argument 1 is not JSON"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_a_call_is_78(home: Path, words: tuple[str, ...], says: str) -> None:
    """Refused before anything is sent."""
    done = commands.durum(home, "call", *words)
    assert (done.code, says in done.err) == (exits.CONFIG, True), done.err


def test_an_idempotency_key_makes_a_call_take_effect_once(
    home: Path, dev: commands.Running
) -> None:
    """Scripts are run again after a failure; the money must not be."""
    words = ("call", "Account", "ann", "deposit", "10", "--idempotency-key", "invoice 7")
    assert [commands.durum(home, *words).json for _ in range(2)] == ["10", "10"]


def test_state_is_there_after_kill_9(home: Path) -> None:
    """The whole point, in one afternoon's work."""
    with commands.serving(home, "dev", "hello.py") as first:
        commands.durum(home, "call", "Account", "ann", "deposit", "10")
        first.process.kill()
        first.wait()
    with commands.serving(home, "dev", "hello.py"):
        assert commands.durum(home, "call", "Account", "ann", "deposit", "1").json == "11"


def test_nobody_there_is_69(home: Path) -> None:
    """A script can wait for the cluster to come up, and tells it from a wrong call."""
    assert commands.durum(home, "init").code == exits.CLEAN
    words = ("call", "Greeter", "bob", "hello", "Ann", "--to", "127.0.0.1:1", "--timeout", "1")
    done = commands.durum(home, *words)
    assert done.code == exits.UNREACHABLE, done.err
    assert "127.0.0.1:1" in done.err


def test_two_silos_share_the_work_and_ps_shows_it(home: Path, dev: commands.Running) -> None:
    """What an operator looks at first."""
    with commands.serving(home, "dev", "hello.py") as second:

        def shared() -> bool:
            silos = commands.durum(home, "ps", "--json").json["silos"]
            return [400 < line["partitions"] < 624 for line in silos] == [True, True]

        commands.until(shared)
        found = commands.durum(home, "ps", "--json").json
        assert {line["silo"] for line in found["silos"]} == {
            dev.first_line["silo"],
            second.first_line["silo"],
        }
        assert {line["status"] for line in found["silos"]} == {"active"}
        shown = commands.durum(home, "ps").out
        assert second.first_line["silo"] in shown
        assert "Account, Greeter" in shown


def test_ps_without_a_store_creates_none(home: Path) -> None:
    """Looking in the wrong directory must not leave a database behind."""
    done = commands.durum(home, "ps")
    assert done.code == exits.CONFIG
    assert "no store" in done.err
    assert not (home / ".durum").exists()


def test_init_twice_changes_nothing(home: Path) -> None:
    """Deployments run it every time."""
    first = commands.durum(home, "init", "--json").json
    second = commands.durum(home, "init", "--json", "--partitions", "7").json
    assert (first["new"], second["new"]) == (True, False)
    assert (first["mark"], first["partitions"]) == (second["mark"], second["partitions"])


def test_a_cluster_with_a_secret_refuses_who_does_not_know_it(home: Path) -> None:
    """And the secret travels by file or environment: arguments are seen by every user of a host."""
    (home / "secret").write_text("correct horse battery staple\n".replace(" ", "-"))
    commands.durum(home, "init")
    words = ("call", "Greeter", "bob", "hello", "Ann")
    with commands.serving(home, "silo", "hello.py", "--secret-file", "secret"):
        stranger = commands.durum(home, *words)
        assert (stranger.code, "secret" in stranger.err) == (exits.CONFIG, True), stranger.err
        by_file = commands.durum(home, *words, "--secret-file", "secret")
        assert by_file.code == exits.CLEAN, by_file.err
        secret = "correct-horse-battery-staple"
        by_variable = commands.durum(home, *words, env={"DURUM_SECRET": secret})
        assert json.loads(by_variable.out) == "Hello Ann, you are number 2"
