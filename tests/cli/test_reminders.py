"""`durum reminders`: set, listed, shown and cancelled at a shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from durum.cli import exits
from tests.support import commands

APP = """
import durum


class Till(durum.Actor):
    closed: int = 0

    async def on_reminder(self, name: str, tick: durum.Tick) -> None:
        if tick.payload == "fail":
            raise ValueError("the drawer is stuck")
        self.closed += 1


class Deaf(durum.Actor):
    async def ping(self) -> None: ...
"""


@pytest.fixture
def shop(home: Path) -> Iterator[Path]:
    """A directory whose silo serves tills."""
    (home / "till.py").write_text(APP)
    with commands.serving(home, "dev", "till.py"):
        yield home


def test_reminders_at_a_shell(shop: Path) -> None:
    """One silo for all of it, and what mistakes look like."""
    run = commands.durum
    cron = ("--cron", "0 22 * * MON-SAT", "--timezone", "Europe/Berlin")
    done = run(shop, "reminders", "set", "Till", "berlin", "close", *cron, "--payload", '{"a": 1}')
    assert done.code == 0
    assert "cron 0 22 * * MON-SAT Europe/Berlin" in done.out
    assert 'payload {"a":1}' in done.out
    run(shop, "reminders", "set", "Till", "berlin", "count", "--every", "1h30m", "--count", "3")
    run(shop, "reminders", "set", "Till", "oslo", "once", "--at", "2099-01-01T00:00+00:00")

    listed = run(shop, "reminders", "ls", "Till").out.splitlines()
    assert [line.split()[1:] for line in listed][-1] == ["oslo", "once"]
    assert len(listed) == 3
    page = run(shop, "reminders", "ls", "Till", "--prefix", "b", "--json").json
    assert sorted(each["name"] for each in page["reminders"]) == ["close", "count"]
    assert page["after"] == ""

    shown = run(shop, "reminders", "show", "Till", "berlin", "--json").json
    assert [(each["name"], each["every_s"], each["cron"]) for each in shown] == [
        ("close", None, "0 22 * * MON-SAT"),
        ("count", 5400.0, ""),
    ]
    assert run(shop, "reminders", "cancel", "Till", "berlin", "close").out.endswith(
        "is cancelled\n"
    )
    assert run(shop, "reminders", "cancel", "Till", "berlin", "close", "--json").json == {
        "existed": False
    }
    gone = run(shop, "reminders", "show", "Till", "berlin", "close")
    assert (gone.code, gone.out) == (1, "Till/berlin has no such reminder\n")

    clock = run(shop, "reminders", "trust-clock")
    assert clock.out.strip().endswith("has noticed no jump")


def test_failing_reminder_shows_why(shop: Path) -> None:
    """Nobody should have to search logs of all silos for it."""
    run = commands.durum
    run(shop, "reminders", "set", "Till", "x", "close", "--delay", "10ms", "--payload", '"fail"')
    for _ in range(50):
        shown = run(shop, "reminders", "show", "Till", "x").out
        if "failed" in shown:
            break
    assert "ValueError: the drawer is stuck" in shown


@pytest.mark.parametrize(
    ("given", "code", "text"),
    [
        (("Till", "x", "y"), exits.FAILED, "say at="),
        (("Till", "x", "y", "--every", "soon"), 2, "no length of time"),
        (("Till", "x", "y", "--at", "tomorrow"), 2, "no time"),
        (("Till", "x", "y", "--cron", "daily"), exits.FAILED, "Write five fields"),
        (("Till", "x", "y", "--delay", "1s", "--payload", "{"), 2, "not JSON"),
        (("Deaf", "x", "y", "--delay", "1s"), exits.FAILED, "on_reminder"),
    ],
)
def test_mistakes_are_said(shop: Path, given: tuple[str, ...], code: int, text: str) -> None:
    """Nothing is set by them."""
    done = commands.durum(shop, "reminders", "set", *given)
    assert text in done.err
    assert done.code == code
