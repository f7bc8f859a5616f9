"""What travels along a chain of calls besides arguments: baggage and a trace. Owns its bounds and where the
running code finds it; sends nothing.

It is kept in a context variable. A call takes along what the code that makes it has there, and the turn that
serves the call begins with that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import msgspec

from durum import errors
from durum.wire.messages import Carried

CARRIED: Final[ContextVar[Carried | None]] = ContextVar("durum_carried", default=None)
"""What the running code's calls take along; None, as nearly always, for nothing."""

ENTRIES: Final = 64
BYTES: Final = 4096
"""Of all keys and values of one call's baggage together; likewise of its trace."""
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Trace(msgspec.Struct, frozen=True):
    """Where in a distributed trace a call stands, in the words of W3C Trace Context.

    Args:
        traceparent: version, trace id, span id and flags.
        tracestate: what tracing systems add, or "".
    """

    traceparent: str
    tracestate: str = ""


class Baggage(MutableMapping[str, str]):
    """Entries that calls take along, and the calls that those make, and so on: `durum.baggage`.

    Changes are seen by the running code and by what it starts or calls from then on; never by its callers.
    """

    __slots__ = ()

    def __getitem__(self, key: str) -> str:
        return _entries()[key]

    def __setitem__(self, key: str, value: str) -> None:
        self._put({**_entries(), key: value})

    def __delitem__(self, key: str) -> None:
        rest = dict(_entries())
        del rest[key]
        self._put(rest)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(_entries()))

    def __len__(self) -> int:
        return len(_entries())

    @contextmanager
    def scope(self, **entries: str) -> Iterator[None]:
        """Have more entries within a `with` block.

        Raises:
            ArgumentError: it is too much to carry.
        """
        before = CARRIED.set(_with(baggage={**_entries(), **entries}))
        try:
            yield
        finally:
            CARRIED.reset(before)

    def _put(self, entries: dict[str, str]) -> None:
        CARRIED.set(_with(baggage=entries))

    def __repr__(self) -> str:
        return f"<Baggage {dict(_entries())}>"


baggage: Final = Baggage()


@contextmanager
def tracing(traceparent: str, tracestate: str = "") -> Iterator[None]:
    """Have calls within a `with` block say where in a trace they stand.

    Args:
        traceparent: as in W3C Trace Context: `00-<32 hex>-<16 hex>-<2 hex>`.
        tracestate: likewise, or "".

    Raises:
        ArgumentError: the first is malformed, or the second too long.
    """
    if not _TRACEPARENT.fullmatch(traceparent):
        raise errors.ArgumentError(
            f"traceparent: {traceparent!r:.100} is none: write 00-<32 hex>-<16 hex>-<2 hex>."
        )
    before = CARRIED.set(_with(traceparent=traceparent, tracestate=tracestate))
    try:
        yield
    finally:
        CARRIED.reset(before)


def trace_of(carried: Carried | None) -> Trace | None:
    """The trace that a call brought."""
    if carried is None or not carried.traceparent:
        return None
    return Trace(carried.traceparent, carried.tracestate)


def excess(carried: Carried) -> str:
    """Why it is too much to carry, or ""."""
    entries = carried.baggage
    if len(entries) > ENTRIES:
        return f"{len(entries)} entries of baggage, {ENTRIES} may travel"
    size = sum(len(key.encode()) + len(value.encode()) for key, value in entries.items())
    if size > BYTES:
        return f"{size} bytes of baggage, {BYTES} may travel"
    size = len(carried.traceparent) + len(carried.tracestate)
    return f"a trace of {size} characters, {BYTES} may travel" if size > BYTES else ""


def _entries() -> Mapping[str, str]:
    carried = CARRIED.get()
    return {} if carried is None else carried.baggage


def _with(**changed: object) -> Carried:
    made = msgspec.structs.replace(CARRIED.get() or Carried(), **changed)
    for key, value in made.baggage.items():
        if type(key) is not str or type(value) is not str or not key:
            raise errors.ArgumentError(f"baggage: {key!r:.50}: {value!r:.50} is not text to text.")
    reason = excess(made)
    if reason:
        raise errors.ArgumentError(f"{reason} with a call; nothing was changed.")
    return made
