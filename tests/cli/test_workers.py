"""Several silos under one parent, and one that is started anew when its source changes."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

from durum.cli import exits
from tests.support import commands

STORE = "sqlite:///shop.db"


def lines_of(running: commands.Running, count: int) -> list[dict[str, Any]]:
    """So many first lines, the one that was read already among them."""
    stdout = running.process.stdout
    assert stdout is not None
    return [running.first_line, *(json.loads(stdout.readline()) for _ in range(count - 1))]


def test_workers_are_silos_of_their_own_and_started_anew(home: Path) -> None:
    """One silo uses one core. A parent that let the dead lie would be worth little."""
    assert commands.durum(home, "init", "--store", STORE).code == exits.CLEAN
    words = ("silo", "hello.py", "--store", STORE, "--workers", "2", "--metrics-port", "0")
    with commands.serving(home, *words) as parent:
        first, second = lines_of(parent, 2)
        assert first["pid"] != second["pid"]
        assert parent.process.pid not in (first["pid"], second["pid"])
        assert first["address"] != second["address"]
        assert first["pages"] != second["pages"]
        with urllib.request.urlopen(f"http://{second['pages']}/healthz", timeout=5) as page:
            assert json.load(page)["silo"] == second["silo"]
        os.kill(first["pid"], signal.SIGKILL)
        assert parent.process.stdout is not None
        third = json.loads(parent.process.stdout.readline())
        assert third["pid"] not in (first["pid"], second["pid"])
        parent.process.send_signal(signal.SIGTERM)
        assert parent.wait() == exits.CLEAN
        assert "a worker has ended and is started anew" in parent.log.read_text()
    assert commands.durum(home, "ps", "--store", STORE, "--json").json["silos"] == []


def test_workers_that_only_a_person_can_mend_are_not_started_anew(home: Path) -> None:
    """Else the mistake scrolls by for ever."""
    done = commands.durum(home, "silo", "nothing.py", "--store", "memory:", "--workers", "2")
    assert done.code == exits.CONFIG
    assert "no file nothing.py" in done.err


def test_workers_ports_follow_one_another(home: Path) -> None:
    """So that a firewall, and Prometheus, can know them before."""
    words = ("silo", "hello.py", "--store", "memory:", "--listen", "127.0.0.1:65535")
    done = commands.durum(home, *words, "--workers", "2")
    assert done.code == exits.CONFIG  # 65536 is no port
    assert "65536" in done.err


def test_reload_starts_anew_at_the_same_address(home: Path) -> None:
    """Whoever writes actors saves a file a hundred times a day."""
    with commands.serving(home, "dev", "hello.py", "--reload") as dev:
        address = dev.first_line["address"]
        said = commands.durum(home, "call", "Greeter", "bob", "hello", "Ann").json
        assert said == "Hello Ann, you are number 1"
        source = home / "hello.py"
        source.write_text(source.read_text().replace("Hello", "Good day"))
        assert dev.process.stdout is not None
        again = json.loads(dev.process.stdout.readline())
        assert again["address"] == address
        assert again["pid"] != dev.first_line["pid"]
        said = commands.durum(home, "call", "Greeter", "bob", "hello", "Ann").json
        assert said == "Good day Ann, you are number 2"

        source.write_text("def f(:\n")
        commands.until(lambda: "waiting for a change" in dev.log.read_text())
        assert "is not valid Python" in dev.log.read_text()
        dev.process.send_signal(signal.SIGTERM)
        assert dev.wait() == exits.CONFIG
