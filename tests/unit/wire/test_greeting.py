"""Whose links count as local: there, and only there, frames travel without seals."""

from __future__ import annotations

import asyncio

import pytest

from durum.config import Limits
from durum.testing.run import run
from durum.wire.greeting import Greeting, is_local
from durum.wire.handshake import Side
from tests.support.wire import silo


class Known(asyncio.Transport):
    """A transport that knows who is at its other end."""

    def __init__(self, peername: object) -> None:
        super().__init__({"peername": peername})

    def write(self, data: object) -> None:
        """Say it to nobody."""


@pytest.mark.parametrize(
    ("peername", "expected"),
    [
        (("127.0.0.1", 5), True),
        (("127.3.2.1", 5), True),
        (("::1", 5, 0, 0), True),
        (("10.0.0.1", 5), False),
        (("fe80::1%lo", 5, 0, 3), False),
        (("::ffff:10.0.0.1", 5, 0, 0), False),
        (("silo-a", 5), False),
        ("", True),
        ("/run/durum.sock", True),
        (None, True),
    ],
)
def test_link_is_local(peername: object, expected: bool) -> None:
    """Whatever cannot be shown to stay on this host is sealed."""
    assert is_local(Known(peername)) == expected


def test_greeting_shows_where_it_stands() -> None:
    """What is alive can be looked at."""

    async def main() -> None:
        greeting = Greeting(
            silo(), Side.LISTENER, Known(None), Limits(), done=lambda _: None, failed=lambda _: None
        )
        assert repr(greeting) == "<Greeting 'before TLS'>"
        greeting.begin()
        shown = repr(greeting)
        assert shown == "<Greeting <Handshake listener cluster='tests' waits_for=hello>>"
        greeting.stop()

    run(main(), 1)
