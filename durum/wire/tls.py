"""Certificates as SSL contexts. Owns their files, and when to read them again; knows no connection."""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from durum.config import Tls
from durum.errors import ConfigError
from durum.telemetry import Log

_log: Final = Log("durum.tls")
_END: Final = "-----END CERTIFICATE-----"

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """What the next connection is made with.

    Args:
        context: for the `ssl` module.
        digest: SHA-256 of this side's own certificate, or b"" where it has none.
    """

    context: ssl.SSLContext
    digest: bytes


class Certificates:
    """The files of one setting.

    A connection that is open keeps what it began with; new ones see new files. Files that do not fit
    together, as while they are being replaced, leave the last good ones in use.

    Args:
        tls: which files, and what to ask of the other side.
    """

    def __init__(self, tls: Tls) -> None:
        self.tls: Final = tls
        self._files = tuple(path for path in (tls.cert, tls.key, tls.ca) if path is not None)
        self._listening = _Kept(self._load_listening)
        self._dialing = _Kept(self._load_dialing)

    def __repr__(self) -> str:
        return f"<Certificates {self.tls!r}>"

    def listening(self) -> Ready:
        """For a connection that comes in.

        Raises:
            ConfigError: there never were usable files.
        """
        return self._listening.get(self._stamp())

    def dialing(self) -> Ready:
        """For a connection to a silo.

        Raises:
            ConfigError: there never were usable files.
        """
        return self._dialing.get(self._stamp())

    def _stamp(self) -> _Stamp:
        stamps = []
        for path in self._files:
            try:
                status = Path(path).stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(stamps)

    def _load_listening(self) -> Ready:
        if self.tls.cert is None:
            raise ConfigError(
                "a silo that speaks TLS needs a certificate: give Tls(cert=..., key=...), or "
                "--tls-cert and --tls-key."
            )
        context = _context(ssl.PROTOCOL_TLS_SERVER)
        if self.tls.verify_peer and self.tls.ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            _read("CA certificates", self.tls.ca, context.load_verify_locations)
        return Ready(context, self._load_own(context))

    def _load_dialing(self) -> Ready:
        context = _context(ssl.PROTOCOL_TLS_CLIENT)
        context.hostname_checks_common_name = False
        if not self.tls.verify_peer:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.tls.ca is not None:
            _read("CA certificates", self.tls.ca, context.load_verify_locations)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return Ready(context, self._load_own(context))

    def _load_own(self, context: ssl.SSLContext) -> bytes:
        cert, key = self.tls.cert, self.tls.key
        if cert is None:
            return b""
        before = self._stamp()
        _read("certificate and key", cert, lambda path: _load_chain(context, path, key))
        pem = Path(cert).read_text()
        first = pem[pem.index("-----BEGIN CERT") : pem.index(_END) + len(_END)]
        if self._stamp() != before:
            raise ConfigError(f"{os.fspath(cert)} changed while it was read; it is read again.")
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).digest()


class _Kept:
    """What was loaded last, and from which state of the files."""

    def __init__(self, load: Callable[[], Ready]) -> None:
        self._load = load
        self._ready: Ready | None = None
        self._stamp: _Stamp | None = None

    def get(self, stamp: _Stamp) -> Ready:
        ready = self._ready
        if ready is not None and stamp == self._stamp:
            return ready
        try:
            loaded = self._load()
        except ConfigError as exc:
            if ready is None:
                raise
            self._stamp = stamp  # said once for each state of the files
            _log.error("new certificates cannot be used; the old ones stay", reason=str(exc))
            return ready
        if ready is not None:
            _log.info("certificates were read again")
        self._ready, self._stamp = loaded, stamp
        return loaded


@lru_cache(maxsize=64)
def certificates(tls: Tls) -> Certificates:
    """The certificates of a setting; all connections of the process share them."""
    return Certificates(tls)


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    # Both ends are Durum, so there is nobody old to please. A resumed session would skip the look at
    # the certificate, and with it a renewed CA.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


def _load_chain(
    context: ssl.SSLContext, cert: str | os.PathLike[str], key: str | os.PathLike[str] | None
) -> None:
    def refuse() -> str:
        # Without this, OpenSSL would ask whoever sits at the terminal.
        raise ConfigError(f"the key of {os.fspath(cert)} is encrypted; give it without a password.")

    context.load_cert_chain(cert, key, password=refuse)


def _read(
    what: str,
    path: str | os.PathLike[str],
    load: Callable[[str | os.PathLike[str]], object],
) -> None:
    try:
        load(path)
    except ConfigError:
        raise
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "reason", None) or getattr(exc, "strerror", None) or exc
        raise ConfigError(
            f"the {what} in {os.fspath(path)} cannot be used: {reason}. TLS needs PEM files that this "
            "process may read, and a key that belongs to its certificate."
        ) from exc
