"""TLS from the command line: options, variables, and what is refused."""

from __future__ import annotations

from pathlib import Path

from durum.cli import exits
from tests.support import commands
from tests.support.certificates import Authority

HELLO = """
from durum import Actor

class Greeter(Actor):
    async def hello(self, name: str) -> str:
        return f"Hello, {name}!"
"""


def test_silo_and_call_speak_tls(tmp_path: Path) -> None:
    """By options on one side and variables on the other; without a certificate nobody comes in."""
    (tmp_path / "hello.py").write_text(HELLO)
    authority = Authority(tmp_path)
    cert, key = authority.issue("silo", "127.0.0.1")
    mine, mine_key = authority.issue("client", "someone.example")
    options = ("--tls-cert", str(cert), "--tls-key", str(key), "--tls-ca", str(authority.file))
    env = {
        "DURUM_TLS_CERT": str(mine),
        "DURUM_TLS_KEY": str(mine_key),
        "DURUM_TLS_CA": str(authority.file),
    }
    words = ("silo", "hello.py", "--store", "memory:")
    with commands.serving(tmp_path, *words, "--listen", "127.0.0.1:0", *options) as silo:
        to = ("call", "Greeter", "bob", "hello", "Ann", "--to", silo.first_line["address"])
        assert commands.durum(tmp_path, *to, env=env).json == "Hello, Ann!"
        stranger = commands.durum(tmp_path, *to)
        assert stranger.code != exits.CLEAN
        assert "this side speaks TLS" in stranger.err


def test_unusable_certificates_are_78(tmp_path: Path) -> None:
    """Named by file; and mutual TLS is what lets a silo listen to other hosts without a secret."""
    (tmp_path / "hello.py").write_text(HELLO)
    authority = Authority(tmp_path)
    cert, key = authority.issue("silo", "127.0.0.1")
    words = ("silo", "hello.py", "--store", "memory:", "--listen", "0.0.0.0:0")
    own = ("--tls-cert", str(cert), "--tls-key", str(key))
    for options, says in (
        (("--tls-cert", "none.pem"), "none.pem cannot be used"),
        (("--tls-key", str(key)), "without a certificate"),
        (own, "nor a TLS CA"),
    ):
        done = commands.durum(tmp_path, *words, *options)
        assert (done.code, says in done.err) == (exits.CONFIG, True), done.err
        assert "Traceback" not in done.err
    with commands.serving(tmp_path, *words, *own, "--tls-ca", str(authority.file)) as silo:
        assert silo.first_line["unsafe"] == [] or "secret" not in str(silo.first_line["unsafe"])
