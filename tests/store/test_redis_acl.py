"""The user with the least rights that the documentation describes: enough, and not more."""

from __future__ import annotations

import pathlib
import re
import socket
from collections.abc import Callable
from typing import Any, Final

import pytest

from durum import errors
from durum.clock import SystemClock
from durum.ids import SystemEntropy, hosted_token
from durum.store import redis_scripts
from durum.store.effects import Outgoing
from durum.store.host_table import Host
from durum.store.urls import open_store
from tests.support.servers import PRODUCTS, Server
from tests.support.services import ALICE, BOB, SILO, Service, commit, first_hint, row

PAGE: Final = pathlib.Path(__file__).parents[2] / "docs" / "operations.md"
# Without these it still works: scripts are there, nobody hears hints, the level is a guess.
OPTIONAL: Final = {"+eval", "+publish", "+subscribe", "+config|get", "+wait"}


def documented() -> list[str]:
    """The words of ACL SETUSER, as the page has them."""
    (block,) = re.findall(
        r"^```redis\nACL SETUSER durum (.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return [str(word) for word in block.split()]


async def do_everything(url: str) -> tuple[str, ...]:
    """Every operation of a store once; return the warnings about its settings."""
    store = await open_store(
        url, cluster="shop", clock=SystemClock(), entropy=SystemEntropy(), store_timeout_s=1.0
    )
    try:
        service = await Service.create(store, partitions=4)
        token = await service.hold()
        await first_hint(store)
        version = (await store.load(0, token, ALICE, raise_version=True)).version
        turn = commit(token, version=version, replies={b"k" * 16: b"r"})
        assert await store.commit(turn) == await store.commit(turn)
        await store.commit(commit(token, version=version + 1, forget=[b"k" * 16]))
        await store.replies(0, token, ALICE)
        await store.verify(0, token)
        seen = await store.read_table(service.mark)
        await store.write_row(service.mark, row(), seen=None, version=seen.view.version)
        await store.beat(service.mark, SILO)
        await store.owners(service.mark)
        assert list(await store.scan(0, "", "", 9)) == [ALICE]
        assert await store.count(0, "") == 1
        await store.commit(commit(token, version=version + 2, parts={b"a": b"1", b"b": None}))
        assert await store.load_parts(0, token, ALICE, [b"a"]) == {b"a": b"1"}
        assert await store.scan_parts(0, token, ALICE, b"", b"", 9) == [(b"a", b"1")]
        await store.erase(0, token, ALICE, version + 3, keep_s=9)
        await store.commit(commit(token, version=version + 4))
        host = Host(SILO, hosted_token(token, ALICE))
        assert await store.place(0, token, ALICE, seen=None, host=host) == host
        assert await store.find_host(0, ALICE) == host
        await store.load(0, host.token, ALICE)
        effects: dict[str, Any] = {"send": [Outgoing(BOB, b"1")]}
        effects |= {"wake": {b"w": 1, b"v": None}, "park": {b"l": b"1", b"m": None}}
        await store.commit(commit(host.token, version=version + 5, **effects))
        assert len(await store.posted(0, token, 0, 9)) == 1
        await store.acknowledge(0, token, [1])
        assert len(await store.due(0, token, 1, 9, (0, ALICE, b""))) == 1
        assert len(await store.letters(0, b"", 9)) == await store.count_letters(0) == 1
        await store.place(0, host.token, ALICE, seen=host.token, host=None)
        return (await store.durability()).warnings
    finally:
        await store.close()


def test_page_names_every_command_that_scripts_use() -> None:
    """A new command in a script would stop everybody who followed the page."""
    used = {
        command
        for script in redis_scripts.read_scripts().values()
        for command in re.findall(r"redis\.p?call\('(\w+)'", script.text)
    }
    assert {f"+{command.lower()}" for command in used} <= set(documented())


@pytest.mark.parametrize("product", PRODUCTS)
async def test_documented_user_can_do_everything(
    product: str, fresh_server: Callable[..., Server]
) -> None:
    """Whoever follows the page must not find out in production what it forgot."""
    server = fresh_server(product, tcp=True)
    words = [">hunter2" if word == ">PASSWORD" else word for word in documented()]
    assert server.ask("ACL", "SETUSER", "durum", *words) == b"+OK\r\n"
    assert await do_everything(server.url.replace("//", "//durum:hunter2@")) == ()
    for foreign in (
        ("SET", "x", "1"),
        ("HGET", "x", "y"),
        ("FLUSHALL",),
        ("CONFIG", "SET", "x", "y"),
    ):
        assert b"NOPERM" in ask_as_durum(server, *foreign)


async def test_documented_user_has_no_right_too_many(fresh_server: Callable[..., Server]) -> None:
    """Each of them is missed when it is taken away."""
    server = fresh_server("valkey", tcp=True)
    url = server.url.replace("//", "//durum:hunter2@")
    words = [">hunter2" if word == ">PASSWORD" else word for word in documented()]
    for right in [word for word in words if word.startswith("+")]:
        server.ask("FLUSHALL")
        server.ask("ACL", "SETUSER", "durum", *(word for word in words if word != right))
        try:
            warnings = await do_everything(url)
        except errors.DurumError:
            assert right not in OPTIONAL, right
        else:
            assert right in OPTIONAL, right
            assert (warnings != ()) == (right == "+config|get")


async def test_missing_right_is_named(fresh_server: Callable[..., Server]) -> None:
    """At the start, as a wrong setting."""
    server = fresh_server("redis", tcp=True)
    server.ask("ACL", "SETUSER", "durum", "on", ">hunter2", "~durum:*", "+info")
    with pytest.raises(errors.ConfigError, match=r"script\|load"):
        await do_everything(server.url.replace("//", "//durum:hunter2@"))


def ask_as_durum(server: Server, *words: str) -> bytes:
    """One command as that user; its answer."""

    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as line:
        line.sendall(b"AUTH durum hunter2\r\n" + " ".join(words).encode() + b"\r\n")
        line.settimeout(5)
        got = b""
        while got.count(b"\r\n") < 2:
            got += line.recv(4096)
        return got
