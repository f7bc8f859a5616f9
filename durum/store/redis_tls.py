"""TLS towards Redis: which files, and the context made of them. Knows no connection."""

from __future__ import annotations

import ssl
from typing import Any

import msgspec

from durum import errors


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """Where certificates lie. An empty path stands for none.

    Args:
        ca: the authorities to trust; those of the system where it is empty.
        cert: our own certificate, for servers that ask for one.
        key: its private key; where it is empty, it is in the same file.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """What a connection needs. The server's certificate and host name are always checked.

        Raises:
            ConfigError: a file cannot be read, or is not what it should be.
        """
        name, path = "ca", self.ca
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            name, path = "cert", self.cert
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
        except (OSError, ssl.SSLError) as exc:
            also = f", key={self.key}" if name == "cert" and self.key else ""
            raise errors.ConfigError(
                f"{name}={path}{also} cannot be used ({exc}). Name PEM files that this process may read."
            ) from exc
        return context

    def for_redis_py(self) -> dict[str, Any]:
        """The same as arguments of redis-py's SSLConnection."""
        return {
            "ssl_ca_certs": self.ca or None,
            "ssl_certfile": self.cert or None,
            "ssl_keyfile": (self.key or self.cert) or None,
            "ssl_check_hostname": True,
        }
