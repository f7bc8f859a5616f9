"""What the tests of commands share: a small app in a directory of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

HELLO = """
import asyncio
from decimal import Decimal
from pathlib import Path

from durum import Actor, read_only


class Broke(ValueError):
    pass


class Greeter(Actor):
    greeted: int = 0

    async def hello(self, name: str) -> str:
        self.greeted += 1
        return f"Hello {name}, you are number {self.greeted}"

    @read_only
    async def count(self) -> int:
        return self.greeted

    async def refuse(self) -> None:
        self.greeted = -1
        raise ValueError("not today")

    async def refuse_oddly(self) -> None:
        raise Broke("no money")

    async def linger(self, seconds: float) -> None:
        Path(f"lingering-{self.key}").touch()
        await asyncio.sleep(seconds)


class Account(Actor):
    balance: Decimal = Decimal(0)

    async def deposit(self, amount: Decimal) -> Decimal:
        self.balance += amount
        return self.balance
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with hello.py in it."""
    (tmp_path / "hello.py").write_text(HELLO)
    return tmp_path
