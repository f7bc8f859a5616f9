"""Secrets and certificates are replaced while calls go on, by the procedure of docs/security.md."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

import durum
from durum import Actor, Lease, Limits, Probing, SiloConfig, errors
from tests.support.certificates import Authority

OLD, NEW = "the secret of last year", "the secret of this year"
QUICK = SiloConfig(
    partitions=32,
    lease=Lease(lease_s=3.0, renew_s=0.5, store_timeout_s=1.0),
    probing=Probing(poll_s=0.1, probe_s=0.25, misses=5, vote_life_s=10.0),
    limits=Limits(drain_timeout_s=5.0),
)


class Tally(Actor):
    """Counts."""

    count: int = 0

    async def add(self) -> int:
        self.count += 1
        return self.count


class Fleet:
    """Three silos of one store that are restarted one by one, and a client that calls all the time."""

    def __init__(self, store: str) -> None:
        self._store = store
        self.silos: list[durum.Silo] = []
        self.answered = 0
        self.failed: list[Exception] = []

    async def start(self, secret: str | Sequence[str], tls: durum.Tls | None = None) -> None:
        silo = durum.Silo(
            [Tally], self._store, secret=secret, tls=tls, config=QUICK, create=not self.silos
        )
        await silo.start()
        self.silos.append(silo)

    async def restart_all(self, secret: str | Sequence[str], tls: durum.Tls | None = None) -> None:
        """As a rolling update does: a new one comes, an old one drains and leaves."""
        for silo in list(self.silos):
            await self.start(secret, tls)
            await silo.close()
            self.silos.remove(silo)

    async def close(self) -> None:
        for silo in self.silos:
            await silo.close()

    def client(self, secret: str | Sequence[str], tls: durum.Tls | None = None) -> durum.Cluster:
        return durum.connect(
            [silo.address for silo in self.silos], secret=secret, tls=tls, connect_timeout_s=5
        )

    @contextlib.asynccontextmanager
    async def called(
        self, secret: str | Sequence[str], tls: durum.Tls | None = None
    ) -> AsyncIterator[None]:
        """Calls from several tasks until the block ends."""
        async with self.client(secret, tls) as cluster:

            async def call(key: str) -> None:
                while True:
                    try:
                        await cluster.actor(Tally, key).add()
                        self.answered += 1
                    except errors.CallError as exc:
                        self.failed.append(exc)
                    await asyncio.sleep(0.005)

            tasks = [asyncio.create_task(call(f"k{n}")) for n in range(16)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)


@pytest.mark.timeout(120)
async def test_secret_is_rotated_under_calls(tmp_path: Path) -> None:
    """Twice through the fleet: first it accepts both, then the new one only. No call fails, and in the
    end the old secret opens nothing."""
    fleet = Fleet(f"sqlite:///{tmp_path}/rotated.db")
    for _ in range(3):
        await fleet.start(OLD)
    try:
        async with fleet.called(OLD):
            await fleet.restart_all([NEW, OLD])
        async with fleet.called([NEW, OLD]):
            await fleet.restart_all(NEW)
        async with fleet.called(NEW):
            await asyncio.sleep(0.1)
        assert fleet.failed == []
        assert fleet.answered > 100
        with pytest.raises(errors.IncompatibleSilo, match="different cluster secrets"):
            await fleet.client(OLD)
        async with fleet.client(NEW) as cluster:
            counts = [await cluster.actor(Tally, f"k{n}").add() - 1 for n in range(16)]
        assert fleet.answered <= sum(counts) <= fleet.answered + 3 * 16  # cut off with their tasks
    finally:
        await fleet.close()


@pytest.mark.timeout(120)
async def test_ca_is_rotated_under_calls(tmp_path: Path) -> None:
    """Certificates are files that are read again: no silo restarts, and no call fails."""
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted, cert, key = (tmp_path / name for name in ("trusted.pem", "tls.pem", "tls.key"))

    def install(authority: Authority) -> None:
        made, made_key = authority.issue("silo", "127.0.0.1")
        key.write_bytes(made_key.read_bytes())
        cert.write_bytes(made.read_bytes())

    trusted.write_bytes(old.file.read_bytes())
    install(old)
    tls = durum.Tls(cert=cert, key=key, ca=trusted)
    fleet = Fleet(f"sqlite:///{tmp_path}/rotated.db")
    for _ in range(3):
        await fleet.start("", tls)
    try:
        async with fleet.called("", tls):
            trusted.write_bytes(old.file.read_bytes() + new.file.read_bytes())
            async with fleet.called("", tls):  # a new client, under both CAs
                install(new)
                async with fleet.called("", tls):
                    trusted.write_bytes(new.file.read_bytes())
                    async with fleet.called("", tls):
                        await asyncio.sleep(0.1)
        assert fleet.failed == []
        assert fleet.answered > 20
        with pytest.raises(errors.ClusterError):
            await fleet.client("", old.client())
    finally:
        await fleet.close()
