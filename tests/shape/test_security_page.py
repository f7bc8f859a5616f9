"""The commands of docs/security.md make certificates that silos and clients accept."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import durum
from durum import Actor, errors

PAGE = Path(__file__).parents[2] / "docs" / "security.md"


class Echo(Actor):
    async def say(self, word: str) -> str:
        return word


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")
def test_certificates_of_the_page_work(tmp_path: Path) -> None:
    """A how-to with one wrong flag costs an evening, and ends in --insecure."""
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    subprocess.run(
        ["sh", "-e", "-c", commands], cwd=tmp_path, check=True, capture_output=True, timeout=60
    )

    def tls(name: str) -> durum.Tls:
        return durum.Tls(
            cert=tmp_path / f"{name}.pem",
            key=tmp_path / f"{name}.key",
            ca=tmp_path / "ca.pem",
            server_name="silo.durum.internal",
        )

    async def main() -> None:
        async with durum.Silo(kinds=[Echo], tls=tls("silo")) as silo:
            async with durum.connect(silo.address, tls=tls("client")) as cluster:
                assert await cluster.actor(Echo, "one").say("hello") == "hello"
            with pytest.raises(errors.ClusterError):
                await durum.connect(silo.address, connect_timeout_s=2)

    asyncio.run(main())


def test_tests_that_the_page_names_exist() -> None:
    """Each control is held by tests; a name that leads nowhere hides that none does."""
    root = PAGE.parents[1]
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE.read_text())
    assert len(named) > 20
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (root / file).is_file() or f"def {test}(" not in (root / file).read_text()
    ]
    assert not missing
