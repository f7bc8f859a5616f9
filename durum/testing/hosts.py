"""Which simulated process a piece of code runs in. Owns the name that travels in its context; knows
neither loop nor network.
"""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import Final

WORLD: Final = ""
"""The host of whatever is no simulated process: the test's driver, the network, the store's server."""

_HOST: Final[ContextVar[str]] = ContextVar("durum.testing.host", default=WORLD)


def current() -> str:
    """The host whose code is running; WORLD outside of any."""
    return _HOST.get()


def of(context: Context) -> str:
    """The host a context belongs to."""
    return context.get(_HOST, WORLD)


def context(host: str) -> Context:
    """A fresh context of a host. Processes share no context variables, so it has no other ones."""
    made = Context()
    made.run(_HOST.set, host)
    return made


def adopt(host: str) -> Context:
    """A copy of the running context that belongs to a host, for what it starts or is called back by."""
    made = copy_context()
    made.run(_HOST.set, host)
    return made


def machine(host: str) -> str:
    """The machine a host runs on: its name up to `#`.

    A process that was killed never runs again; the next one on its machine has another name, as in
    `a`, `a#2`, `a#3`. Links are between machines.
    """
    return host.partition("#")[0]
