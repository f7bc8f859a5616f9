"""Who is at either end of a link: what each says of itself, and what has been shown. Pure values."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from durum.config import Tls
from durum.errors import ConfigError
from durum.ids import Address, Entropy, SiloId, SystemEntropy, address_of, split_address
from durum.wire.messages import WIRE_VERSION

SECRET_BYTES: Final = 16
"""Shorter secrets can be guessed."""

Role = Literal["silo", "client"]


class Side(StrEnum):
    """Which end of the connection this is."""

    DIALER = "dialer"
    LISTENER = "listener"


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """What a process says of itself, and what it demands of others.

    Args:
        role: "silo", or "client", which serves nothing.
        cluster: the cluster's name; both sides must say the same.
        mark: the service's genesis mark in hex, or "" where it is not known (clients). Two that are
            known must be equal.
        silo: this silo's id; "" for clients.
        secrets: the cluster secrets accepted, best first; two during a rotation. None: a plain hello
            is enough, and then the other side must have none either.
        tls: certificates, where links are TLS.
        wire: lowest and highest protocol version spoken.
        insecure: listening beyond loopback without a secret or mutual TLS is meant.
        entropy: where nonces come from.
        through: this client cannot reach every silo, and asks to have its calls passed on.
    """

    role: Role
    cluster: str
    mark: str = ""
    silo: SiloId | None = None
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    tls: Tls | None = None
    wire: tuple[int, int] = (1, WIRE_VERSION)
    insecure: bool = False
    entropy: Entropy = field(default_factory=SystemEntropy, repr=False)
    through: bool = False

    def __post_init__(self) -> None:
        """Refuse secrets that protect nothing.

        Raises:
            ConfigError: there are more than two, or one is short.
        """
        if len(self.secrets) > 2:
            raise ConfigError(
                f"{len(self.secrets)} cluster secrets were given. Two are accepted at once, "
                "the new one and the one it replaces; drop the others."
            )
        if any(len(secret) < SECRET_BYTES for secret in self.secrets):
            raise ConfigError(
                f"a cluster secret is shorter than {SECRET_BYTES} bytes and can be guessed. "
                "Make one with `openssl rand -hex 32`."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsChannel:
    """What TLS has shown of a link before anything is said on it.

    Args:
        binding: SHA-256 of the listener's certificate, as this side saw or showed it.
        vouched: a CA that this side believes vouches for the other side.
        names: what the other side's certificate is for: DNS names and IP addresses.
        server_name: the name that all silos' certificates have, or "".
    """

    binding: bytes
    vouched: bool
    names: tuple[str, ...] = ()
    server_name: str = ""

    def may_be_silo(self, silo: str) -> bool:
        """Whether the other side's certificate is a silo's. Dialers have looked before, by TLS's rule."""
        host, _ = split_address(address_of(SiloId(silo)))
        wanted = _plain(self.server_name or host)
        names = {_plain(name) for name in self.names}
        return wanted in names or f"*.{wanted.partition('.')[2]}" in names


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end.

    Args:
        role: see Introduction.
        silo: its id, or None for a client.
        address: where the silo is reached by others, or "".
        version: the protocol version both speak.
        authenticated: whether it has proved to know the cluster secret, or to be whom a believed CA
            vouches for.
    """

    role: Role
    silo: SiloId | None
    address: Address | Literal[""]
    version: int
    authenticated: bool
    through: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a finished handshake has agreed.

    Args:
        peer: who is at the other end.
        send_key: seals what this side sends; b"" where frames go unsealed.
        receive_key: seals what the other side sends.
    """

    peer: Peer
    send_key: bytes = field(default=b"", repr=False)
    receive_key: bytes = field(default=b"", repr=False)


def _plain(name: str) -> str:
    """A name or address in the one form that can be compared."""
    try:
        return str(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        return name.casefold().removesuffix(".")
