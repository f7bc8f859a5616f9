"""How a silo's process begins and ends: its first line, its signals, its exit codes."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

import msgspec
import pytest

from durum.cli import exits
from durum.clock import SystemClock
from durum.ids import SiloId, SystemEntropy
from durum.store.urls import open_store
from durum.views import Status
from tests.support import commands, servers

STORE = "sqlite:///shop.db"


def create(home: Path) -> None:
    assert commands.durum(home, "init", "--store", STORE).code == exits.CLEAN


def test_first_line_tells_who_where_and_how_safe(home: Path) -> None:
    """Scripts that start silos read it, and nothing else of the output."""
    create(home)
    with commands.serving(home, "silo", "hello.py", "--store", STORE) as silo:
        first = silo.first_line
        assert first["pid"] == silo.process.pid
        assert first["silo"].startswith(first["address"] + "@")
        assert first["address"].startswith("127.0.0.1:")
        assert first["durability"] == "D2"
        assert first["unsafe"] == []
        assert first["kinds"] == ["Account", "Greeter"]


def test_sigterm_hands_over_and_ends_clean(home: Path) -> None:
    """What a supervisor sends at every deployment."""
    create(home)
    with commands.serving(home, "silo", "hello.py", "--store", STORE) as silo:
        silo.process.send_signal(signal.SIGTERM)
        assert silo.wait() == exits.CLEAN
    found = commands.durum(home, "ps", "--store", STORE, "--json").json
    assert found["silos"] == []
    assert found["unheld"] == found["partitions"]


def test_second_sigterm_stops_at_once(home: Path) -> None:
    """A turn that does not end must not keep an operator waiting."""
    create(home)
    with commands.serving(home, "silo", "hello.py", "--store", STORE) as silo:
        words = ("call", "Greeter", "bob", "linger", "300", "--store", STORE)
        with commands.talking(home, *words):
            commands.until((home / "lingering-bob").exists)
            silo.process.send_signal(signal.SIGTERM)
            commands.until(lambda: _status(home) == "leaving")
            silo.process.send_signal(signal.SIGTERM)
            assert silo.wait() == -signal.SIGTERM


def _status(home: Path) -> str:
    (line,) = commands.durum(home, "ps", "--store", STORE, "--json").json["silos"]
    return str(line["status"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("silo", "nothing.py"), "no file nothing.py"),
        (("silo", "broken.py"), "is not valid Python"),
        (("silo", "hello.py", "--store", "mysql://x"), "names no store"),
        (("silo", "hello.py", "--store", STORE, "--listen", "nowhere"), "is not an address"),
        (("silo", "hello.py", "--store", STORE, "--listen", "0.0.0.0:0"), "secret"),
        (("silo", "hello.py", "--store", STORE, "--secret-file", "none"), "cannot be read"),
        (("silo", "hello.py", "--store", "sqlite:///none.db"), "durum init"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_or_unsafe_configuration_is_78(home: Path, words: tuple[str, ...], says: str) -> None:
    """A supervisor must not restart what only a person can mend; the person gets no traceback."""
    create(home)
    (home / "broken.py").write_text("def f(:\n")
    done = commands.durum(home, *words)
    assert done.code == exits.CONFIG, done.err
    assert says in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_unknown_loop_is_78(home: Path) -> None:
    """A typing error in a variable is configuration too."""
    done = commands.durum(home, "ps", env={"DURUM_LOOP": "twisted"})
    assert (done.code, "DURUM_LOOP" in done.err) == (exits.CONFIG, True)


def test_volatile_redis_is_78_unless_accepted(home: Path) -> None:
    """A cache that somebody had at hand would lose everything at its first restart."""
    with contextlib.ExitStack() as stack:
        server = servers.Server("valkey", ("--appendonly", "no"))
        stack.callback(server.remove)
        server.start()
        assert commands.durum(home, "init", "--store", server.url).code == exits.CLEAN
        words = ("silo", "hello.py", "--store", server.url)
        done = commands.durum(home, *words)
        assert done.code == exits.CONFIG, done.err
        assert "--accept-volatile-store" in done.err
        with commands.serving(home, *words, "--accept-volatile-store") as silo:
            assert silo.first_line["durability"] == "D0"
            assert any("volatile" in setting for setting in silo.first_line["unsafe"])


def test_store_that_vanishes_is_75(home: Path) -> None:
    """A silo whose database file was deleted serves a ghost; the next start would begin from nothing."""
    create(home)
    with commands.serving(home, "silo", "hello.py", "--store", STORE) as silo:
        for file in home.glob("shop.db*"):
            file.unlink()
        assert silo.wait() == exits.STORE
        assert "Traceback" not in silo.log.read_text()


async def test_declared_dead_is_70(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have given its partitions away: it must stop, and may be started again at once."""
    create(home)
    with commands.serving(home, "silo", "hello.py", "--store", STORE) as silo:
        monkeypatch.chdir(home)
        await _declare_dead(SiloId(silo.first_line["silo"]))
        assert silo.wait() == exits.DECLARED_DEAD


async def _declare_dead(silo: SiloId) -> None:
    store = await open_store(STORE, cluster="default", clock=SystemClock(), entropy=SystemEntropy())
    try:
        genesis = await store.genesis()
        assert genesis is not None
        while True:
            view = (await store.read_table(genesis.mark)).view
            row = view.by_id[silo]
            dead = msgspec.structs.replace(row, status=Status.DEAD)
            if await store.write_row(genesis.mark, dead, seen=row, version=view.version):
                return
    finally:
        await store.close()


def test_log_lines_are_json_if_asked_for(home: Path) -> None:
    """Log collectors parse every line; one that is not JSON is lost or breaks them."""
    create(home)
    words = ("silo", "hello.py", "--store", STORE, "--log-format", "json")
    with commands.serving(home, *words) as silo:
        silo.process.send_signal(signal.SIGTERM)
        assert silo.wait() == exits.CLEAN
        lines = silo.log.read_text().splitlines()
    assert lines
    assert all({"at", "level", "event"} <= set(json.loads(line)) for line in lines)


def test_a_store_in_memory_is_named_as_volatile(home: Path) -> None:
    """Whoever runs on less than the promises should find it in the first line."""
    with commands.serving(home, "silo", "hello.py", "--store", "memory:") as silo:
        assert silo.first_line["durability"] == "D0"
        assert any("volatile" in setting for setting in silo.first_line["unsafe"])


def test_insecure_listening_is_named(home: Path) -> None:
    """The same for who may connect."""
    create(home)
    words = ("silo", "hello.py", "--store", STORE, "--listen", "0.0.0.0:0", "--insecure")
    with commands.serving(home, *words, "--advertise", "127.0.0.1:1") as silo:
        assert any("secret" in setting for setting in silo.first_line["unsafe"])
