"""Names of things: grains, silos, tokens. Owns their form and limits; knows nothing of what they name."""

from __future__ import annotations

import os
import random
import re
from typing import Final, NewType, Protocol

from durum import errors

GrainId = NewType("GrainId", str)
"""`kind/key`. The kind holds no slash, so the first slash parts the two."""

SiloId = NewType("SiloId", str)
"""`host:port@generation`: one life of one silo process. Never used again once it is dead."""

Token = NewType("Token", bytes)
"""16 random bytes: one holding of one partition. Equal or not, never greater. A hosted one has the id of the
one grain behind them that it is good for."""

TOKEN_BYTES: Final = 16
"""The length of an owner's token; hosted ones are longer."""

Address = NewType("Address", str)
"""`host:port`, or `[v6]:port`."""

KEY_LIMIT_BYTES: Final = 1024
KIND: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
ROLE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What a silo's role may be called; it stands in rows and in messages."""


class Entropy(Protocol):
    """Where randomness comes from: the system's in production, a seed's in tests."""

    def token(self) -> Token:
        """Sixteen bytes that nobody else ever got."""
        ...

    def fraction(self) -> float:
        """A number in [0, 1), for jitter and choices."""
        ...


class SystemEntropy:
    """The operating system's randomness."""

    def token(self) -> Token:
        return Token(os.urandom(16))

    def fraction(self) -> float:
        return random.random()  # noqa: S311 - jitter, not a secret


class SeededEntropy:
    """Randomness that a seed repeats. For tests and the simulator only.

    Args:
        seed: any integer; the same one gives the same sequence.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def token(self) -> Token:
        return Token(self._random.randbytes(16))

    def fraction(self) -> float:
        return self._random.random()


def grain_id(kind: str, key: str) -> GrainId:
    """Name the grain of a kind under a key.

    Args:
        kind: the kind's durable name; letters, digits, `_`, `.`, `-`.
        key: any text of 1 to 1024 bytes in UTF-8. Compared byte for byte, never normalized.

    Raises:
        ArgumentError: the key is empty, too long, not text, or not encodable.
    """
    if type(key) is not str:
        raise errors.ArgumentError(
            f"key: expected str, got {type(key).__name__}; the call did not run. Pass str(key)."
        )
    try:
        size = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError as exc:
        raise errors.ArgumentError(
            f"key: not encodable as UTF-8 ({exc.reason}); the call did not run."
        ) from exc
    if not 0 < size <= KEY_LIMIT_BYTES:
        raise errors.ArgumentError(
            f"key: {size} bytes long, 1 to {KEY_LIMIT_BYTES} are allowed; the call did not run."
        )
    return GrainId(f"{kind}/{key}")


def split_grain_id(grain: GrainId) -> tuple[str, str]:
    """Part a grain id into kind and key."""
    kind, _, key = grain.partition("/")
    return kind, key


def hosted_token(token: Token, grain: GrainId) -> Token:
    """Make the token under which a silo hosts one grain, out of 16 bytes that nobody else ever got."""
    return Token(token[:TOKEN_BYTES] + grain.encode())


def hosted_grain(token: Token) -> GrainId | None:
    """The grain that a hosted token is good for, or None where it is an owner's."""
    return GrainId(token[TOKEN_BYTES:].decode()) if len(token) > TOKEN_BYTES else None


def silo_id(address: Address, generation: int) -> SiloId:
    """Name one life of the silo at an address.

    Args:
        address: where the others reach it.
        generation: milliseconds of store time at its start; later lives have larger ones.
    """
    return SiloId(f"{address}@{generation}")


def address_of(silo: SiloId) -> Address:
    """Where a silo listens."""
    return Address(silo.rpartition("@")[0])


def generation_of(silo: SiloId) -> int:
    """Which life of its address a silo is; larger is later."""
    return int(silo.rpartition("@")[2])


def split_address(address: Address) -> tuple[str, int]:
    """Part `host:port` or `[v6]:port` into host and port.

    Raises:
        ConfigError: it is neither.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise errors.ConfigError(
            f"{address!r} is not an address. Write HOST:PORT, or [HOST]:PORT for IPv6."
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> Address:
    """Make an address of host and port; an IPv6 host gets its brackets."""
    return Address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
