"""What a person may write as a store's URL, and what is answered to the rest."""

from __future__ import annotations

import pathlib

import pytest

from durum import errors
from durum.clock import SystemClock
from durum.ids import SystemEntropy
from durum.store import redis_url, urls
from durum.store.protocol import Store
from durum.store.redis_pipe import Endpoint
from durum.store.urls import DEFAULT, open_store


async def open_url(url: str) -> Store:
    """Open with a short limit."""
    return await open_store(
        url, cluster="shop", clock=SystemClock(), entropy=SystemEntropy(), store_timeout_s=0.3
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.db",
        "sqlite:shop.db",
        "sqlite://shop.db",
        "sqlite:///",
        "sqlite:///shop.db?mode=ro",
        "memory://x",
        "postgres://localhost/db",
        "redis://host:port",
        "redis://host/db",
        "unix://",
        "http://x",
    ],
)
async def test_wrong_url_is_answered_with_the_right_ones(url: str) -> None:
    """The message shows what to write instead."""
    with pytest.raises(errors.ConfigError, match=r"(?i)write"):
        await open_url(url)


@pytest.mark.parametrize(
    "url", ["redis://user:hunter2@127.0.0.1:1/0", "redis://:hunter2@127.0.0.1:1"]
)
async def test_password_is_never_shown(url: str) -> None:
    """Messages and logs get around."""
    with pytest.raises(errors.StoreUnavailable) as caught:
        await open_url(url)
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    assert caught.value.applied is False


async def test_relative_path_is_beside_the_working_directory(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default is in the project's own folder, which is made."""
    monkeypatch.chdir(tmp_path)
    store = await open_url(DEFAULT)
    assert (tmp_path / ".durum" / "dev.db").exists()
    await store.close()


@pytest.mark.parametrize(
    ("url", "nodes", "path", "login"),
    [
        ("redis://localhost", (("localhost", 6379),), "", ()),
        ("redis://h:7/3", (("h", 7),), "", (("SELECT", 3),)),
        ("redis://:p%40s@h", (("h", 6379),), "", (("AUTH", "p@s"),)),
        ("redis://u:p@[::1]:7", (("::1", 7),), "", (("AUTH", "u", "p"),)),
        ("unix:///run/r.sock?db=2", (), "/run/r.sock", (("SELECT", 2),)),
        ("redis+sentinel://a,b:7/main", (("a", 26379), ("b", 7)), "", ()),
        ("redis+sentinel://:p@a/main/2", (("a", 26379),), "", (("AUTH", "p"), ("SELECT", 2))),
        ("redis+cluster://a,[::1]:7,a", (("a", 6379), ("::1", 7)), "", ()),
    ],
)
def test_redis_url_is_read(url: str, nodes: object, path: str, login: object) -> None:
    """One form for each topology."""
    place = redis_url.parse(url)
    assert (place.nodes, place.path, place.login) == (nodes, path, login)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2/x@host/db",
        "redis://:hunter2#@host/db",
        "redis://u:hunter2@host:port",
        "redis://u:pass?hunter2@host/db",
        "redis+sentinel://h/main?sentinel_password=hunter2&x=1",
        "redis+cluster://:hunter2@h/3",
        "rediss://:hunter2@h?key=x",
        "redis://:hunter2@h?wait=many",
    ],
)
def test_password_is_not_shown_by_a_url_that_cannot_be_read(url: str) -> None:
    """Where the password ends, nobody knows then."""
    with pytest.raises(errors.ConfigError) as caught:
        redis_url.parse(url)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis://u:hunter2@h:1/0", "redis://h:1/0"),
        ("redis://u:hunter2@h/0?wait=1", "redis://h/0"),
        ("redis+sentinel://h/main?sentinel_password=hunter2", "redis+sentinel://h/main"),
        ("redis+sentinel://h/main?sentinel_password=x@hunter2", "redis+sentinel://..."),
        ("redis://u:?hunter2@h", "redis://..."),
        ("postgres://u:hunter2@h/db?password=hunter2", "postgres://h/db"),
        ("memory:x", "memory:x"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_any_url_can_be_shown(url: str, what: str) -> None:
    """Also one that is of no store of ours, or cannot be read."""
    assert urls.shown(url) == what


def test_place_and_endpoint_do_not_show_a_password() -> None:
    """They stand in tracebacks and logs."""
    place = redis_url.parse("redis+sentinel://u:hunter2@h/main?sentinel_password=hunter3&wait=1")
    assert "hunter" not in repr(place) + place.url
    assert place.url == "redis+sentinel://h/main?wait=1"
    assert place.sentinel_account.password == "hunter3"
    endpoint = Endpoint(url=place.url, login=place.login)
    assert "hunter" not in repr(endpoint)
