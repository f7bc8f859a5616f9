"""Certificates for tests: a CA, what it signs, and the files that settings name."""

from __future__ import annotations

from pathlib import Path

import trustme

from durum.config import Tls


class Authority:
    """A CA whose files lie in a directory.

    Args:
        directory: where to write.
        name: begins the names of its files.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._name = name
        self._ca = trustme.CA()
        self.file = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Sign a certificate; return its file and its key's. Writing over an earlier one renews it.

        Args:
            name: the files'.
            hosts: what it is for.
        """
        made = self._ca.issue_cert(*hosts)
        cert = self._directory / f"{self._name}-{name}.pem"
        key = self._directory / f"{self._name}-{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(key)
        return cert, key

    def silo(self, *hosts: str, name: str = "silo", server_name: str | None = None) -> Tls:
        """What a silo uses; it believes this CA and nobody else."""
        cert, key = self.issue(name, *(hosts or ("127.0.0.1",)))
        return Tls(cert=cert, key=key, ca=self.file, server_name=server_name)

    def client(self, name: str = "client", server_name: str | None = None) -> Tls:
        """What a client uses: a certificate that is for no silo."""
        cert, key = self.issue(name, f"{name}.clients.example")
        return Tls(cert=cert, key=key, ca=self.file, server_name=server_name)
