"""`durum dead-letters`, as an operator would use it."""

from __future__ import annotations

from pathlib import Path

from tests.support import commands

_APP = """
from durum import Actor


class Box(Actor, message_attempts=1):
    open: bool = False
    words: list[str] = []

    async def unlock(self) -> None:
        self.open = True

    async def put(self, word: str) -> None:
        if not self.open:
            raise ValueError("it is locked")
        self.words.append(word)

    async def count(self) -> int:
        return len(self.words)


class Sender(Actor):
    async def send(self, key: str, word: str) -> None:
        self.tell(self.actor(Box, key).put, word)
"""


def test_messages_that_nobody_took_are_seen_to(home: Path) -> None:
    """Listed, shown, sent again once the fault is mended, dropped; with exit codes that mean something."""
    (home / "boxes.py").write_text(_APP)
    run = commands.durum
    with commands.serving(home, "dev", "boxes.py"):
        assert "no message waits" in run(home, "dead-letters", "waiting").out
        for word in ('"one"', '"two"'):
            assert run(home, "call", "Sender", "s", "send", '"x"', word).code == 0
        commands.until(lambda: len(run(home, "dead-letters", "ls", "--json").json["letters"]) == 2)
        listed = run(home, "dead-letters", "ls", "Box").out
        assert "Box/x  put  ValueError: it is locked" in listed
        first, second = run(home, "dead-letters", "ls", "--json").json["letters"]
        shown = run(home, "dead-letters", "show", "Box", "x", first["id"]).out
        assert "from Sender/s" in shown
        assert '["one"]' in shown
        assert run(home, "dead-letters", "show", "Box", "y", first["id"]).code == 1

        assert run(home, "call", "Box", "x", "unlock").code == 0
        again = run(home, "dead-letters", "retry", "Box", "x", first["id"])
        assert again.out == "1 dead letter sent again\n"
        commands.until(lambda: run(home, "call", "Box", "x", "count").out == "1\n")
        assert run(home, "dead-letters", "retry", "Box", "x", first["id"]).code == 1
        dropped = run(home, "dead-letters", "drop", "Box", "--all", "--yes", "--json")
        assert dropped.json == {"done": 1}
        assert run(home, "dead-letters", "show", "Box", "x", second["id"]).code == 1
        assert run(home, "dead-letters", "retry", "Box").code == 2
