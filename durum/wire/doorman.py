"""How many may stand at the door who have proved nothing yet. Owns their counts; closes nothing itself.

What a stranger costs is bounded elsewhere: his time, his memory. Here his number is, so that one host can
neither fill the silo's slots nor spend its processor on handshakes.
"""

from __future__ import annotations

import ipaddress
from typing import Final, Generic, TypeVar

from durum.config import Limits

C = TypeVar("C")

BURST_S: Final = 2.0
"""A host that was quiet may spend so many seconds' worth of arrivals at once."""
HOSTS_LIMIT: Final = 4096
"""Hosts whose arrivals are remembered. Beyond it the one that came longest ago is forgotten."""


class Doorman(Generic[C]):
    """Counts strangers.

    Args:
        limits: has the bounds.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._burst = limits.arrivals_per_s * BURST_S
        self._strangers: dict[C, str] = {}
        self._by_host: dict[str, int] = {}
        self._arrivals: dict[str, tuple[float, float]] = {}
        """How many more a host may open, and when that was so; the one that came last is last."""

    def __repr__(self) -> str:
        return f"<Doorman strangers={len(self._strangers)} hosts={len(self._arrivals)}>"

    def admit(self, stranger: C, host: str, now: float) -> str:
        """Count a stranger in, or say why not.

        Args:
            stranger: the connection.
            host: where it comes from.
            now: in seconds, of a clock that does not jump.
        """
        host = network_of(host)
        if not self._may_arrive(host, now):
            return (
                f"{self._limits.arrivals_per_s:g} connections a second from one host are accepted; "
                "come more slowly, or raise Limits.arrivals_per_s"
            )
        if self._by_host.get(host, 0) >= self._limits.strangers_per_host:
            return (
                f"{self._limits.strangers_per_host} connections from this host have not introduced "
                "themselves yet; raise Limits.strangers_per_host if they are all meant"
            )
        self._strangers[stranger] = host
        self._by_host[host] = self._by_host.get(host, 0) + 1
        return ""

    def crowded(self) -> C | None:
        """Who has to give way: the oldest stranger, where there are too many.

        A friend is known within milliseconds, so it is hardly ever him.
        """
        if len(self._strangers) <= self._limits.strangers:
            return None
        return next(iter(self._strangers))

    def know(self, friend: C) -> None:
        """A stranger has proved himself."""
        self.forget(friend)

    def forget(self, stranger: C) -> None:
        """A stranger is gone, or none any more. Nothing happens where he was counted out before."""
        host = self._strangers.pop(stranger, None)
        if host is None:
            return
        left = self._by_host[host] - 1
        if left:
            self._by_host[host] = left
        else:
            del self._by_host[host]

    def _may_arrive(self, host: str, now: float) -> bool:
        tokens, since = self._arrivals.pop(host, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._limits.arrivals_per_s)
        may = tokens >= 1
        self._arrivals[host] = (tokens - 1 if may else tokens, now)
        if len(self._arrivals) > HOSTS_LIMIT:
            del self._arrivals[next(iter(self._arrivals))]
        return may


def network_of(host: str) -> str:
    """What counts as one host: an address, or in IPv6 the /64 that one is usually given."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return host
