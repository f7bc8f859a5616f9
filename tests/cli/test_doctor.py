"""`durum doctor` as people and scripts run it: what it says, and what its exit code says."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import durum, serving
from tests.support.servers import PRODUCTS, Server, binary_of

SYNCED = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server whose settings are fine."""
    product = PRODUCTS[binary_of("valkey") is None]
    if binary_of(product) is None:
        pytest.skip("no Redis or Valkey here")
    one = Server(product, SYNCED, tcp=True).start()
    yield one
    one.remove()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with an app."""
    (tmp_path / "hello.py").write_text(
        "import durum\n\n\nclass Greeter(durum.Actor):\n    async def greet(self) -> str:\n"
        "        return 'hello'\n"
    )
    return tmp_path


def test_doctor_finds_a_sound_service_fine(home: Path, server: Server) -> None:
    """No warning where nothing is to be done, or nobody will read the next one."""
    assert durum(home, "init", "--store", server.url, "--partitions", "64").code == 0
    with serving(home, "silo", "hello.py", "--store", server.url) as silo:
        found = durum(home, "doctor", "--store", server.url, "--json")
    assert found.code == 0, found.out
    told = found.json
    assert (told["verdict"], told["level"]) == ("fine", "D2")
    assert {one["verdict"] for one in told["findings"]} == {"fine"}
    topics = {one["topic"] for one in told["findings"]}
    assert topics >= {"durability", "clock", "latency", "partitions", "silos", "reach"}
    (reached,) = [one["text"] for one in told["findings"] if one["topic"] == "reach"]
    assert str(silo.first_line["silo"]) in reached
    assert set(told["facts"]) == {"server", "persistence", "eviction", "memory", "replicas"}
    for latency in told["latencies"]:
        assert 0 < latency["median_s"] <= latency["p99_s"] < 5


def test_doctor_names_a_silo_that_does_not_answer(home: Path, server: Server) -> None:
    """A stopped process accepts connections: only its answer proves that it lives."""
    durum(home, "init", "--store", server.url, "--partitions", "64")
    with serving(home, "silo", "hello.py", "--store", server.url) as silo:
        os.kill(silo.process.pid, signal.SIGSTOP)
        found = durum(home, "doctor", "--store", server.url)
    assert found.code == 1
    told = " ".join(found.out.split())
    assert f"{silo.first_line['silo']} is active and has not renewed its lease" in told
    assert f"{silo.first_line['silo']} does not answer" in told
    for words in ("appendfsync always", "noeviction", "0 connected", "p99", "0 unsafe"):
        assert words in told


def test_doctor_says_what_is_unsafe_and_what_is_lost(home: Path, server: Server) -> None:
    """Exit codes are for scripts: 78 change something, 75 it is away or has lost data."""
    durum(home, "init", "--store", server.url, "--partitions", "4")
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server.ask("CONFIG", "SET", "appendonly", "no")
    found = durum(home, "doctor", "--store", server.url)
    assert found.code == 78
    assert "set it to noeviction" in found.out
    assert "Set appendonly yes" in found.out
    server.ask("DEL", "durum:{default:2}:own")
    found = durum(home, "doctor", "--store", server.url, "--json")
    assert found.code == 75
    assert found.json["verdict"] == "lost"
    assert found.json["findings"][0]["topic"] == "data"
    server.kill()
    found = durum(home, "doctor", "--store", server.url.replace("//", "//:hunter2@"))
    assert found.code == 75
    assert "hunter2" not in found.out + found.err


def test_doctor_looks_at_files_too(home: Path) -> None:
    """And makes none by looking."""
    missing = durum(home, "doctor", "--store", "sqlite:///x.db")
    assert missing.code == 78
    assert not (home / "x.db").exists()
    durum(home, "init", "--store", "sqlite:///x.db")
    found = durum(home, "doctor", "--store", "sqlite:///x.db")
    assert found.code == 0
    assert "synchronous FULL" in found.out
